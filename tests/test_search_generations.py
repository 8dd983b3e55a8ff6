"""Laws of all algorithms with a population, checked on whole recorded searches."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from flax import serialization
from pareto_oracles import better

from jaxnas.search import (
    AgingEvolution,
    Categorical,
    Integer,
    Lemonade,
    Nsga2,
    Nsga3,
    Real,
    UniformSearch,
    das_dennis,
    front_ranks,
    thin,
)

SIZE, ACCEPTED, GENERATIONS, SEEDS = 12, 10, 12, 2
SOLUTION = {"mix": jnp.zeros(2), "order": jnp.zeros(3, jnp.int32)}
VARIABLES = {"mix": Real(0.0, 1.0), "order": Integer(0, 4)}
OPTIONS = dict(
    variables=VARIABLES,
    num_objectives=2,
    num_constraints=2,
    accepted=ACCEPTED,
    memory=40,
)
KINDS = {
    Nsga2: {},
    Nsga3: dict(directions=das_dennis(2, 11)),
    AgingEvolution: dict(tournament=4, archive_size=6),
    UniformSearch: {},
    Lemonade: dict(cheap=lambda g: 1.0 + g["order"], proposals=48),
}


def build(kind, **changes):
    return kind(SIZE, SOLUTION, **OPTIONS | KINDS[kind] | changes)


@jax.vmap
def evaluate(genome):
    """Two objectives and two constraints; one genome in thirteen fails."""
    total = jnp.sum(genome["order"]).astype(jnp.float32)
    mix = genome["mix"]
    fitness = jnp.stack([total + mix[0], 12 - total + mix[1] ** 2])
    constraints = jnp.stack([total - 10, 0.1 - mix[0]])
    failed = jnp.sum(genome["order"] * jnp.arange(1, 4)) % 13 == 7
    return jnp.where(failed, jnp.nan, jnp.concatenate([fitness, constraints]))


def start(algorithm, key):
    params = algorithm.default_params
    sampler = UniformSearch(SIZE, SOLUTION, **OPTIONS | dict(accepted=SIZE))
    population = sampler._children(key, None, None, params)
    population = jax.tree.map(lambda leaf: leaf[:SIZE], population)
    state = algorithm.init(key, population, evaluate(population), params)
    return population, state


def generation(algorithm, key, state, params):
    key_ask, key_tell = jax.random.split(key)
    children, asked = algorithm.ask(key_ask, state, params)
    fitness = evaluate(children)
    after, metrics = algorithm.tell(key_tell, children, fitness, asked, params)
    return dict(
        before=state,
        children=children,
        fitness=fitness,
        asked=asked,
        after=after,
        metrics=metrics,
    )


def searched(algorithm):
    """Whole searches from several keys: init, ask and tell under scan under vmap."""
    params = algorithm.default_params

    def one(key):
        population, state = start(algorithm, key)

        def step(state, number):
            record = generation(
                algorithm, jax.random.fold_in(key, number), state, params
            )
            return record["after"], record

        records = jax.lax.scan(step, state, jnp.arange(GENERATIONS))[1]
        return population, state, records

    return jax.jit(jax.vmap(one))(KEYS)


KEYS = jax.random.split(jax.random.key(0), SEEDS)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def search(request):
    """The algorithm, and per seed its first population, state and all records."""
    algorithm = build(request.param)
    tree = jax.tree.map(np.asarray, searched(algorithm))

    def seed(number):
        population, state, records = jax.tree.map(lambda leaf: leaf[number], tree)
        at = lambda g: jax.tree.map(lambda leaf: leaf[g], records)  # noqa: E731
        return population, state, [at(g) for g in range(GENERATIONS)]

    return algorithm, [seed(number) for number in range(SEEDS)]


def genomes(population, mask=slice(None)):
    rows = zip(
        population["mix"][mask].tolist(),
        population["order"][mask].tolist(),
        strict=True,
    )
    return [(*mix, *order) for mix, order in rows]


def gather(old, new, rows):
    return jax.tree.map(lambda a, b: np.concatenate([a, b])[rows], old, new)


def test_rows_gathered_by_survivors_are_the_population(search):
    for population, state, records in search[1]:
        store = jax.tree.map(lambda leaf, s=state: leaf[s.survivors], population)
        for record in records:
            used = record["before"].mask
            assert genomes(store, used) == genomes(record["before"].population, used)
            store = gather(store, record["children"], record["after"].survivors)


def test_rows_gathered_by_its_survivors_are_the_archive(search):
    size = search[0].archive_size
    for population, state, records in search[1]:
        store = jax.tree.map(
            lambda leaf: np.zeros((size, *leaf.shape[1:]), leaf.dtype), population
        )
        told = [(population, state.archive)]
        told += [(one["children"], one["after"].archive) for one in records]
        for genes, archive in told:
            store = gather(store, genes, archive.survivors)
            expected = genomes(archive.population, archive.mask)
            assert genomes(store, archive.mask) == expected
        assert archive.mask.any() == (size > 0)


def test_children_are_new_and_every_evaluation_is_counted(search):
    for population, state, records in search[1]:
        known = genomes(population)
        assert state.evaluated == len(known) == SIZE
        for record in records:
            asked, mask = record["asked"], record["asked"].children_mask
            children = genomes(record["children"], mask)
            recent = known[-40:] + genomes(asked.population, asked.mask)
            assert not set(children) & set(recent)
            assert len(set(children)) == len(children) > 0
            known += children
            assert record["after"].evaluated == len(known)
            assert record["metrics"]["evaluated"] == len(known)


def test_parents_are_rows_in_use(search):
    algorithm, seeds = search
    for _, _, records in seeds:
        for record in records:
            mask = record["asked"].children_mask
            parents, mates = record["asked"].parents[mask], record["asked"].mates[mask]
            if isinstance(algorithm, UniformSearch):
                assert (parents == -1).all() and (mates == -1).all()
                continue
            assert record["before"].mask[parents].all() and (parents >= 0).all()
            if isinstance(algorithm, AgingEvolution | Lemonade):
                assert (mates == -1).all()
            else:
                assert record["before"].mask[mates].all() and (mates >= 0).all()


def test_types_shapes_and_bounds_are_kept(search):
    for _, _, records in search[1]:
        for record in records:
            children = record["children"]
            assert children["mix"].dtype == np.float32
            assert children["order"].dtype == np.int32
            assert children["order"].shape == (ACCEPTED, 3)
            assert children["mix"].min() >= 0 and children["mix"].max() <= 1
            assert children["order"].min() >= 0 and children["order"].max() <= 4
            described = (
                jax.tree.map(lambda x: (x.shape, x.dtype), record[when])
                for when in ("before", "after")
            )
            assert next(described) == next(described)


def test_what_is_stored_of_a_row_is_what_was_measured(search):
    for _, _, records in search[1]:
        for record in records:
            state = record["after"]
            count = state.mask.sum()
            assert state.mask.tolist() == [i < count for i in range(SIZE)]
            measured = np.asarray(evaluate(state.population))[state.mask]
            np.testing.assert_allclose(
                state.fitness[state.mask], measured[:, :2], rtol=1e-6
            )
            violation = np.maximum(measured[:, 2:], 0).sum(axis=1)
            np.testing.assert_allclose(
                state.violation[state.mask], violation, rtol=1e-5, atol=1e-6
            )
            assert np.isinf(state.fitness[~state.mask]).all()


def test_the_ideal_and_the_archive_are_of_all_feasible_genomes(search):
    for population, _, records in search[1]:
        told = [(population, np.asarray(evaluate(population)), np.ones(SIZE, bool))]
        for record in records:
            children, mask = record["children"], record["asked"].children_mask
            told.append((children, record["fitness"], mask))
        fitness = np.concatenate([f[mask] for _, f, mask in told])
        good = np.isfinite(fitness).all(axis=1) & (fitness[:, 2:] <= 0).all(axis=1)
        fitness = fitness[good, :2]
        last = records[-1]["after"]
        np.testing.assert_array_equal(last.best_fitness, fitness.min(axis=0))
        champions = np.asarray(evaluate(last.best_solution))[:, :2]
        np.testing.assert_allclose(np.diag(champions), last.best_fitness, rtol=1e-6)
        kept = last.archive.fitness[last.archive.mask]
        assert (0 < len(kept) <= 6) == (search[0].archive_size == 6)
        assert not any(better(f, k) for f in kept for k in kept)
        assert {tuple(k) for k in kept} <= {tuple(f) for f in fitness}


def test_survivors_obey_the_rule_of_their_algorithm(search):
    algorithm, seeds = search
    rank_all, thinned = jax.jit(front_ranks), jax.jit(thin, static_argnums=1)
    for _, _, records in seeds:
        for record in records:
            new, old = record["fitness"], record["before"]
            broken = np.maximum(new[:, 2:], 0).sum(axis=1)
            mask = np.append(
                old.mask, record["asked"].children_mask & np.isfinite(new).all(axis=1)
            )
            fitness = np.where(
                mask[:, None], np.concatenate([old.fitness, new[:, :2]]), np.inf
            )
            violation = np.append(old.violation, np.where(np.isnan(broken), 0, broken))
            after = record["after"]
            rows = after.survivors[after.mask]
            assert len(set(rows)) == len(rows)
            if isinstance(algorithm, Lemonade):
                ranks = np.asarray(rank_all(fitness, mask, violation))
                first = np.flatnonzero(ranks == 0)
                kept = thinned(fitness, SIZE, ranks == 0)
                assert rows.tolist() == np.flatnonzero(kept).tolist()
                assert (after.rank[after.mask] == 0).all() and set(rows) <= set(first)
                continue
            assert len(rows) == min(mask.sum(), SIZE)
            if isinstance(algorithm, AgingEvolution):
                assert rows.tolist() == np.flatnonzero(mask)[-SIZE:].tolist()
                continue
            ranks = np.asarray(rank_all(fitness, mask, violation))
            np.testing.assert_array_equal(after.rank[after.mask], ranks[rows])
            lost = np.setdiff1d(np.flatnonzero(mask), rows)
            assert max(ranks[rows]) <= min(ranks[lost], default=len(ranks))


def test_a_loop_resumed_from_bytes_repeats_the_scan(search):
    algorithm, seeds = search
    if type(algorithm) is not Nsga2:
        pytest.skip("one algorithm is enough: what differs holds no state of its own")
    state, params = seeds[0][1], algorithm.default_params
    step = jax.jit(lambda key, state: generation(algorithm, key, state, params))
    for number in range(3):
        key = jax.random.fold_in(KEYS[0], number)
        state = serialization.from_bytes(state, serialization.to_bytes(state))
        state = step(key, state)["after"]
    expected = seeds[0][2][2]["after"]
    for found, wanted in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("method", ["init", "ask", "tell"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_interface_is_that_of_evosax(kind, method):
    parameters = [
        list(inspect.signature(getattr(cls, method)).parameters)
        for cls in (kind, PopulationBasedAlgorithm)
    ]
    assert parameters[0] == parameters[1]


def test_equal_instances_share_one_program_whatever_their_bounds():
    traces = []

    def repair(genome):
        traces.append(genome)
        return genome

    def ask(**changes):
        algorithm = build(Nsga2, repair=repair, **changes)
        params = algorithm.default_params
        state = algorithm._init(jax.random.key(0), params)
        jax.eval_shape(algorithm.ask, jax.random.key(1), state, params)

    ask()
    ask(variables={"mix": Real(-5.0, 7.0), "order": Integer(2, 9)})
    assert len(traces) == 1
    ask(memory=0)
    assert len(traces) == 2
    assert build(Nsga2) == build(Nsga2) != build(AgingEvolution)
    assert build(AgingEvolution) != build(AgingEvolution, tournament=5)
    other = {"mix": Real(0.0, 1.0), "order": Categorical(5)}
    assert build(Nsga2) != build(Nsga2, variables=other)


def test_nothing_is_bred_from_failures_alone():
    algorithm = build(Nsga2)
    params = algorithm.default_params
    population = jax.tree.map(
        lambda leaf: jnp.ones((5, *leaf.shape), leaf.dtype), SOLUTION
    )
    state = algorithm.init(
        jax.random.key(0), population, jnp.full((5, 4), jnp.nan), params
    )
    _, state = algorithm.ask(jax.random.key(1), state, params)
    assert not state.mask.any() and not state.children_mask.any()


def rows(count):
    return jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), SOLUTION)


@pytest.mark.parametrize(
    ("population", "fitness", "message"),
    [
        (rows(5), (5,), r"fitness has shape \(5,\), expected \(5, 4\)"),
        (rows(5), (5, 2), r"expected \(5, 4\).* 2 objectives and then 2 constraints"),
        (rows(13), (13, 4), r"with 1 to 12 rows: one genome like"),
        (rows(5)["mix"], (5, 4), r"population is float32\[5, 2\], expected"),
        (rows(5) | {"order": jnp.zeros((5, 3))}, (5, 4), r"'order': 'float32\[5, 3\]'"),
    ],
)
def test_wrong_shapes_and_types_are_refused(population, fitness, message):
    algorithm = build(Nsga2)
    with pytest.raises(ValueError, match=message):
        algorithm.init(
            jax.random.key(0), population, jnp.zeros(fitness), algorithm.default_params
        )


def test_tell_and_variation_are_checked_too():
    algorithm = build(Nsga2, variation=lambda key, first, second, params: first["mix"])
    params = algorithm.default_params
    state = algorithm._init(jax.random.key(0), params)
    with pytest.raises(ValueError, match=r"children are float32\[12, 2\], expected"):
        algorithm.ask(jax.random.key(1), state, params)
    with pytest.raises(ValueError, match="with 10 rows"):
        algorithm.tell(jax.random.key(1), rows(9), jnp.zeros((9, 4)), state, params)


def test_both_children_of_a_pair_come_together():
    rows = UniformSearch(4, jnp.int32(0), variables=Integer(0, 9), num_objectives=2)
    assert rows.proposals == 6
    state = rows._init(jax.random.key(0), rows.default_params)
    for mask, expected in (
        ([True] * 6, [0, 3, 1, 4]),
        ([False, True, True, True, True, True], [3, 1, 4, 2]),
        ([False, True, False, True, False, False], [3, 1]),
    ):
        chosen, new = rows._chosen(None, state, None, jnp.array(mask))
        assert chosen[new].tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_objectives": 0}, "found num_objectives=0, expected at least 1"),
        ({"accepted": 0}, "found accepted=0, expected at least 1"),
        ({"proposals": 8}, "found proposals=8, expected at least 10"),
        ({"proposals": 11}, "found proposals=11, expected an even number"),
        ({"memory": 5}, "found memory=5, expected 0 or at least population_size=12"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(Nsga2, **changes)
    with pytest.raises(ValueError, match="found tournament=0, expected at least 1"):
        build(AgingEvolution, tournament=0)

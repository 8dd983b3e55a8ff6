"""Laws of the multi-objective algorithms, checked on whole recorded searches."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from flax import serialization
from scipy import stats

from jaxnas.search import Lemonade, RandomSearch, hypervolume, kernel_log_density, thin
from jaxnas.search.algorithms import first_occurrences

GENES, LEVELS, OBJECTIVES = 8, 12, 3
SIZE, ACCEPTED, MEMORY = 12, 6, 64
GENERATIONS, SEEDS = 25, 4


def sample(key):
    return jax.random.randint(key, (GENES,), 0, LEVELS)


def mutate(key, genotype):
    gene, value = jax.random.randint(key, (2,), 0, GENES * LEVELS)
    return genotype.at[gene % GENES].set(value % LEVELS)


def cheap(genotype):
    return jnp.stack([1.0 + genotype[0], 1.0 + jnp.sum(genotype[1:4])])


@jax.jit
@jax.vmap
def evaluate(genotype):
    """Both costs and an error that falls with every gene; one in sixteen fails.

    All values are integers below 2**24 and so exact however they are compiled.
    """
    missing = LEVELS - 1 - genotype
    error = jnp.sum(missing) + missing[0] ** 2
    failed = jnp.sum(genotype * jnp.arange(GENES)) % 16 == 7
    return jnp.append(cheap(genotype), jnp.where(failed, jnp.nan, error))


OPTIONS = dict(
    num_objectives=OBJECTIVES, proposals=48, accepted=ACCEPTED, memory=MEMORY
)
FUNCTIONS = {
    Lemonade: dict(mutate=mutate, cheap=cheap),
    RandomSearch: dict(sample=sample),
}


def build(kind, **changes):
    """An algorithm on the toy problem."""
    return kind(
        SIZE, jnp.zeros(GENES, jnp.int32), **OPTIONS | FUNCTIONS[kind] | changes
    )


class Record(NamedTuple):
    """One generation: what was known, what was asked for and what came of it."""

    before: Any
    children: Any
    fitness: Any
    asked: Any
    after: Any
    metrics: Any


def generation(algorithm, key, state):
    key_ask, key_tell = jax.random.split(key)
    params = algorithm.default_params
    children, asked = algorithm.ask(key_ask, state, params)
    fitness = evaluate(children)
    after, metrics = algorithm.tell(key_tell, children, fitness, asked, params)
    return Record(state, children, fitness, asked, after, metrics)


def start(algorithm, key):
    population = jax.random.randint(key, (SIZE, GENES), 0, LEVELS)
    fitness = evaluate(population)
    return algorithm.init(key, population, fitness, algorithm.default_params)


def search(algorithm, keys):
    """All generations of a search from every key, each in one scan."""

    def generations(key, state):
        def step(state, number):
            record = generation(algorithm, jax.random.fold_in(key, number), state)
            return record.after, record

        return jax.lax.scan(step, state, jnp.arange(GENERATIONS))[1]

    states = [start(algorithm, key) for key in keys]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return jax.jit(lambda *seeds: jax.lax.map(lambda one: generations(*one), seeds))(
        keys, states
    )


KEYS = jax.random.split(jax.random.key(0), SEEDS)


@pytest.fixture(scope="module")
def searches():
    """For each algorithm one list of records per seed."""

    def recorded(kind):
        tree = jax.tree.map(np.asarray, search(build(kind), KEYS))
        at = lambda *where: jax.tree.map(lambda leaf: leaf[where], tree)  # noqa: E731
        return [[at(s, g) for g in range(GENERATIONS)] for s in range(SEEDS)]

    return {kind: recorded(kind) for kind in FUNCTIONS}


@pytest.fixture(params=FUNCTIONS)
def histories(request, searches):
    return searches[request.param]


def tuples(rows):
    return [tuple(row) for row in np.asarray(rows).tolist()]


def better(a, b):
    return all(a <= b) and any(a < b)


def front(fitness, rows):
    """By definition: the rows, all of them finite, that no other dominates."""
    rows = [row for row in rows if np.isfinite(fitness[row]).all()]
    return [i for i in rows if not any(better(fitness[j], fitness[i]) for j in rows)]


def test_children_are_new_and_the_archive_is_a_ring(histories):
    for records in histories:
        evaluated = tuples(records[0].before.population)
        for record in records:
            children = tuples(record.children[record.asked.children_mask])
            known = evaluated[-MEMORY:]
            known += tuples(record.before.population[record.before.mask])
            assert len(set(children)) == len(children) == ACCEPTED
            assert not set(children) & set(known)
            evaluated += children
            remembered = record.after.archive[: record.after.evaluated]
            assert set(tuples(remembered)) == set(evaluated[-MEMORY:])
            assert record.after.evaluated == len(evaluated)
        assert len(evaluated) > 2 * MEMORY


def test_rows_gathered_by_survivors_are_the_population(histories):
    for records in histories:
        store = records[0].before.population
        for record in records:
            np.testing.assert_array_equal(store, record.before.population)
            store = np.concatenate([store, record.children])[record.after.survivors]
            np.testing.assert_array_equal(store, record.after.population)


def test_parents_are_the_rows_that_were_mutated(searches):
    for record in sum(searches[Lemonade], []):
        assert record.before.mask[record.asked.parents].all()
        parents = record.before.population[record.asked.parents]
        assert ((parents != record.children).sum(axis=1) == 1).all()


def test_random_children_have_no_parents(searches):
    for record in sum(searches[RandomSearch], []):
        assert (record.asked.parents == -1).all()


def test_tell_keeps_the_front_of_the_union_in_order(histories):
    sizes = set()
    select = jax.jit(lambda fitness, mask: thin(fitness, SIZE, mask))
    for record in sum(histories, []):
        union = np.concatenate([record.before.fitness, record.fitness])
        mask = np.concatenate([record.before.mask, record.asked.children_mask])
        rows = front(union, np.flatnonzero(mask))
        kept = np.flatnonzero(select(union, np.isin(np.arange(len(union)), rows)))
        sizes.add(len(rows) > SIZE)
        assert record.after.mask.tolist() == [i < len(kept) for i in range(SIZE)]
        np.testing.assert_array_equal(record.after.survivors[: len(kept)], kept)
        np.testing.assert_array_equal(record.after.fitness[: len(kept)], union[kept])
        assert (record.after.fitness[len(kept) :] == np.inf).all()
    assert sizes == {True, False}, "both a full and a thinned front must occur"


def test_the_population_is_a_front_with_the_best_of_every_objective(histories):
    for record in sum(histories, []):
        state = record.after
        rows = np.flatnonzero(state.mask)
        assert front(state.fitness, rows) == rows.tolist()
        np.testing.assert_array_equal(state.fitness.min(axis=0), state.best_fitness)
        champions = evaluate(state.best_solution)
        np.testing.assert_allclose(np.diag(champions), state.best_fitness, rtol=1e-6)


def test_the_ideal_point_is_the_least_ever_measured(histories):
    for records in histories:
        least = records[0].before.best_fitness
        for record in records:
            valid = np.isfinite(record.fitness).all(axis=1)
            least = np.minimum(least, np.min(record.fitness[valid], axis=0, initial=99))
            np.testing.assert_array_equal(record.after.best_fitness, least)


def test_failures_occur_and_never_survive(histories):
    failed = sum(
        (tuples(r.children[np.isnan(r.fitness[:, 2])]) for r in histories[0]), []
    )
    assert failed
    for record in histories[0]:
        assert not set(failed) & set(tuples(record.after.population[record.after.mask]))


def test_metrics_describe_the_state(histories):
    for records in histories:
        for number, record in enumerate(records):
            assert record.metrics["generation_counter"] == number + 1
            assert record.metrics["evaluated"] == record.after.evaluated
            assert record.metrics["front_size"] == record.after.mask.sum()


def test_lemonade_beats_random_search(searches):
    reference = jnp.array([LEVELS + 1.0, 3 * LEVELS, 210.0])
    volume = jax.jit(lambda state: hypervolume(state.fitness, reference, state.mask))
    for ours, theirs in zip(searches[Lemonade], searches[RandomSearch], strict=True):
        assert volume(ours[-1].after) > volume(theirs[-1].after)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_loop_resumed_from_bytes_repeats_the_scan(kind, searches):
    algorithm, key = build(kind), KEYS[0]
    state = start(algorithm, key)
    for number, expected in enumerate(searches[kind][0][:4]):
        state = serialization.from_bytes(state, serialization.to_bytes(state))
        state = generation(algorithm, jax.random.fold_in(key, number), state).after
        jax.tree.map(np.testing.assert_array_equal, state, expected.after)


def test_a_small_space_is_visited_once_and_solved():
    levels = 4
    space = np.stack(np.indices((levels, levels)), axis=-1).reshape(-1, 2)
    judge = jax.jit(
        jax.vmap(lambda g: jnp.stack([1.0 + g[0], 1.0 + (5 * g[1] - 2 * g[0]) % 7]))
    )
    algorithm = Lemonade(
        8,
        jnp.zeros(2, jnp.int32),
        num_objectives=2,
        mutate=lambda key, g: jax.random.randint(key, (2,), 0, levels),
        cheap=lambda g: 1.0 + g[:1],
        proposals=64,
        accepted=5,
        memory=16,
    )
    params, key = algorithm.default_params, jax.random.key(1)
    first = jnp.array([[3, 3]])
    state = algorithm.init(key, first, judge(first), params)
    visited = tuples(first)
    for number in range(6):
        children, state = algorithm.ask(jax.random.fold_in(key, number), state, params)
        visited += tuples(children[state.children_mask])
        # What is not asked for may come back with any fitness.
        used = state.children_mask[:, None]
        fitness = jnp.where(used, judge(children), -9.0 * number)
        state, _ = algorithm.tell(key, children, fitness, state, params)
    assert sorted(visited) == tuples(space)
    assert not state.children_mask.any()
    best = space[front(np.asarray(judge(space)), range(len(space)))]
    assert sorted(tuples(state.population[state.mask])) == tuples(best)


def test_random_search_drops_what_it_drew_before():
    draw = lambda key: jnp.full(GENES, jax.random.randint(key, (), 0, 3), jnp.int32)  # noqa: E731
    algorithm = build(RandomSearch, sample=draw)
    params, key = algorithm.default_params, jax.random.key(0)
    first = jnp.ones((1, GENES), jnp.int32)
    state = algorithm.init(key, first, jnp.ones((1, OBJECTIVES)), params)
    children, state = algorithm.ask(key, state, params)
    assert sorted(children[state.children_mask][:, 0].tolist()) == [0, 2]


def test_parents_are_drawn_inversely_to_their_density():
    cost = lambda g: jnp.where(g[0] == 0, jnp.nan, jnp.exp(g[:1]))  # noqa: E731
    fresh = lambda key, g: jax.random.randint(key, (2,), 9, 2**31 - 1)  # noqa: E731
    draws = 8192
    algorithm = Lemonade(
        6,
        jnp.zeros(2, jnp.int32),
        num_objectives=2,
        mutate=fresh,
        cheap=lambda g: jnp.where(g[0] > 8, jnp.ones(1), cost(g)),
        proposals=draws,
        accepted=draws,
        memory=0,
    )
    # Row 2 has failed: it must neither breed nor be felt, though its cost is NaN.
    genes = jnp.array([1, 2, 0, 3, 7])
    line = jnp.array([4.0, 3.0, jnp.nan, 2.0, 1.0])
    population, fitness = genes[:, None] * jnp.ones((1, 2), jnp.int32), line[:, None]
    fitness = jnp.concatenate([fitness, -fitness], axis=1)
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    _, state = algorithm.ask(jax.random.key(1), state, params)
    assert state.children_mask.all()
    used = genes[state.mask[:5]].astype(jnp.float32)[:, None]
    weights = np.exp(-np.asarray(jax.jit(kernel_log_density)(used, used), float))
    counts = np.bincount(state.parents, minlength=6)
    assert counts[[2, 5]].sum() == 0
    expected = draws * weights / weights.sum()
    assert stats.chisquare(counts[[0, 1, 3, 4]], expected).pvalue > 0.01
    assert stats.chisquare(counts[[0, 1, 3, 4]]).pvalue < 1e-6


def test_children_are_accepted_inversely_to_density_without_replacement():
    draws = 4000
    algorithm = Lemonade(
        1,
        jnp.zeros(1, jnp.int32),
        num_objectives=1,
        mutate=lambda key, g: jax.random.randint(key, (1,), 1, 5),
        cheap=lambda g: jnp.exp(0.5 * g),
        proposals=64,
        accepted=2,
        memory=0,
    )
    params, keys = algorithm.default_params, jax.random.split(jax.random.key(0), draws)
    origin = jnp.zeros((1, 1), jnp.int32)
    state = algorithm.init(keys[0], origin, jnp.ones((1, 1)), params)
    children, _ = jax.vmap(algorithm.ask, in_axes=(0, None, None))(keys, state, params)
    # The population is one point at log cost 0, so that its density has unit width.
    weights = {gene: np.exp(0.5 * (0.5 * gene) ** 2) for gene in range(1, 5)}
    total = sum(weights.values())
    pairs = [(a, b) for a in weights for b in weights if a != b]
    law = [weights[a] / total * weights[b] / (total - weights[a]) for a, b in pairs]
    drawn = tuples(children[:, :, 0])
    counts = [drawn.count(pair) for pair in pairs]
    assert sum(counts) == draws
    assert stats.chisquare(counts, draws * np.array(law)).pvalue > 0.01


def test_init_masks_what_fails_repeats_or_is_dominated():
    algorithm = build(RandomSearch)
    population = jnp.arange(6)[:, None] * jnp.ones((1, GENES), jnp.int32)
    population = population.at[3].set(population[0])
    fitness = np.array(
        [[1, 5, 1], [2, 4, 1], [0, 0, np.nan], [1, 5, 1], [1, 5, 1], [2, 5, 1]]
    )
    state = algorithm.init(
        jax.random.key(0), population, fitness, algorithm.default_params
    )
    assert np.flatnonzero(state.mask).tolist() == [0, 1, 4]
    assert state.mask.shape == (SIZE,)
    np.testing.assert_array_equal(
        state.fitness[np.array([0, 1, 4])], fitness[[0, 1, 4]]
    )
    assert jnp.isinf(state.fitness[~state.mask]).all()
    np.testing.assert_array_equal(state.best_fitness, [1, 4, 1])
    np.testing.assert_array_equal(population[state.survivors[:6]], state.population[:6])


def test_nothing_is_bred_from_failures_alone():
    algorithm = build(Lemonade)
    params, population = algorithm.default_params, jnp.ones((SIZE, GENES), jnp.int32)
    failed = jnp.full((SIZE, OBJECTIVES), jnp.nan)
    state = algorithm.init(jax.random.key(0), population, failed, params)
    _, state = algorithm.ask(jax.random.key(1), state, params)
    assert not state.mask.any() and not state.children_mask.any()


def test_equal_instances_and_restored_states_share_one_program():
    traces = []

    def counted(key):
        traces.append(key)
        return sample(key)

    def ask(state, **changes):
        algorithm = build(RandomSearch, sample=counted, **changes)
        return algorithm.ask(jax.random.key(1), state, algorithm.default_params)[1]

    state = start(build(RandomSearch, sample=counted), jax.random.key(0))
    state = ask(ask(state))
    state = ask(serialization.from_bytes(state, serialization.to_bytes(state)))
    assert len(traces) == 1
    ask(state, accepted=5)
    assert len(traces) == 2
    assert build(Lemonade) == build(Lemonade) != build(RandomSearch)


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("method", ["init", "ask", "tell"])
def test_the_interface_is_that_of_evosax(kind, method):
    parameters = [
        list(inspect.signature(getattr(cls, method)).parameters)
        for cls in (kind, PopulationBasedAlgorithm)
    ]
    assert parameters[0] == parameters[1]


def test_repeated_rows_are_found_wherever_they_lie():
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 1, (20, 24, 3)).astype(np.int32)
    rows[rows == -1] = np.iinfo(np.int32).min
    mask = rng.random((20, 24)) < 0.7
    actual = jax.jit(jax.vmap(first_occurrences))(rows, mask)
    for trial in range(20):
        seen, expected = set(), []
        for row, used in zip(tuples(rows[trial]), mask[trial], strict=True):
            expected.append(bool(used) and row not in seen)
            seen |= {row} if used else set()
        assert actual[trial].tolist() == expected


@pytest.mark.parametrize(
    ("population", "fitness", "message"),
    [
        ((SIZE, GENES), (SIZE,), r"fitness has shape \(12,\), expected \(12, 3\)"),
        ((SIZE, GENES), (SIZE, 2), r"fitness has shape \(12, 2\).*one column per obj"),
        ((SIZE, GENES), (5, OBJECTIVES), r"fitness has shape \(5, 3\), expected \(12,"),
        (
            (SIZE, 3),
            (SIZE, OBJECTIVES),
            r"int32\[12, 3\], expected int32\[1 to 12, 8\]",
        ),
        (
            (13, GENES),
            (13, OBJECTIVES),
            r"int32\[13, 8\], expected int32\[1 to 12, 8\]",
        ),
    ],
)
def test_init_names_the_shape_it_expected(population, fitness, message):
    algorithm = build(RandomSearch)
    with pytest.raises(ValueError, match=message):
        algorithm.init(
            jax.random.key(0),
            jnp.zeros(population, jnp.int32),
            jnp.zeros(fitness),
            algorithm.default_params,
        )


def test_tell_refuses_a_vector_of_fitness_and_genotypes_of_floats():
    algorithm = build(RandomSearch)
    key, params = jax.random.key(0), algorithm.default_params
    state = start(algorithm, key)
    children = jnp.zeros((ACCEPTED, GENES), jnp.int32)
    with pytest.raises(
        ValueError, match=r"fitness has shape \(6,\), expected \(6, 3\)"
    ):
        algorithm.tell(key, children, jnp.zeros(ACCEPTED), state, params)
    fitness = jnp.zeros((ACCEPTED, OBJECTIVES))
    with pytest.raises(ValueError, match=r"float32\[6, 8\], expected int32\[6, 8\]"):
        algorithm.tell(key, children.astype(jnp.float32), fitness, state, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_objectives": 0}, "num_objectives is 0, expected at least 1"),
        ({"accepted": 0}, "accepted is 0, expected at least 1"),
        ({"accepted": 49}, "proposals is 48, expected at least accepted=49"),
        ({"memory": 5}, "memory is 5, expected 0 or at least population_size=12"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(RandomSearch, **changes)


@pytest.mark.parametrize("solution", [jnp.zeros(3), jnp.zeros((2, 2), jnp.int32)])
def test_a_solution_must_be_a_vector_of_integers(solution):
    with pytest.raises(ValueError, match="expected a genotype of type int32"):
        RandomSearch(SIZE, solution, sample=sample, **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mutate": lambda key, g: g * 1.5},
            r"float32\[48, 8\], expected int32\[48, 8\]",
        ),
        ({"cheap": lambda g: 1.0 + g[0]}, r"cheap returned shape \(\)"),
    ],
)
def test_functions_of_the_wrong_type_are_named(changes, message):
    algorithm = build(Lemonade, **changes)
    state = start(algorithm, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        algorithm.ask(jax.random.key(1), state, algorithm.default_params)

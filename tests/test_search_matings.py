"""Who enters tournaments, and who of the winners mates with whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.search import Categorical, Integer, Nsga2, Nsga3, Real, das_dennis
from jaxnas.search.matings import GROUP, alike, entrants, mixes_values, paired

ROWS = 9


def test_every_row_in_use_enters_equally_often_in_random_order():
    draw = jax.jit(lambda key, mask: entrants(key, mask, 25))
    orders = set()
    for used in (1, 4, 9):
        for seed in range(4):
            rows = draw(jax.random.key(seed), jnp.arange(ROWS) < used)
            counts = np.bincount(rows, minlength=ROWS)
            assert counts[used:].sum() == 0
            assert np.ptp(counts[:used]) <= 1
            orders.add(tuple(rows.tolist()))
    assert len(orders) == 9  # a single row has one order


@pytest.mark.parametrize("count", [2, 8, 38])
def test_neighbours_of_a_group_by_one_objective_mate(count):
    rng = np.random.default_rng(count)
    fitness = np.round(rng.random((20, 3)), 1).astype(np.float32)  # with ties
    winners = rng.integers(0, 20, count).astype(np.int32)
    whole = count // GROUP * GROUP
    expected = []
    for column in range(3):
        groups = np.split(winners[:whole], whole // GROUP) if whole else []
        ordered = [g[np.argsort(fitness[g, column], kind="stable")] for g in groups]
        pairs = np.concatenate([*ordered, winners[whole:]]).reshape(-1, 2)
        expected.append(pairs.T.ravel().tolist())
    arrays = jnp.asarray(winners), jnp.asarray(fitness)
    draw = jax.jit(jax.vmap(lambda key: alike(key, *arrays)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 40))).tolist()
    assert set(map(tuple, found)) == set(map(tuple, expected))


@pytest.mark.parametrize("similar", [False, True])
def test_the_second_half_of_the_pairs_is_the_first_exchanged(similar):
    fitness = jax.random.uniform(jax.random.key(0), (20, 2))
    winners = jax.random.permutation(jax.random.key(1), 20)[:18]
    parents, mates = paired(jax.random.key(2), winners, fitness, similar)
    np.testing.assert_array_equal(parents[:9], mates[9:])
    np.testing.assert_array_equal(parents[9:], mates[:9])
    np.testing.assert_array_equal(np.sort(parents), np.sort(winners))
    assert similar or (parents == winners).all()


def test_values_are_only_mixed_where_no_gene_is_real():
    assert mixes_values((Integer(0, 3), Categorical(2)))
    assert not mixes_values((Integer(0, 3), Real(0, 1)))


@pytest.mark.parametrize("kind", [Nsga2, Nsga3])
def test_parents_lie_closer_if_they_are_to_be_similar(kind):
    options = dict(variables=Categorical(2), num_objectives=2)
    if kind is Nsga3:
        options["directions"] = das_dennis(2, 3)
    apart, algorithms = {}, set()
    for similar in (False, True):
        algorithm = kind(32, jnp.zeros(1, jnp.int32), similar=similar, **options)
        algorithms.add(algorithm)
        state = algorithm._init(jax.random.key(0), algorithm.default_params)
        place = jnp.arange(32.0)
        fitness = jnp.stack([place, -place], axis=1)
        state = state.replace(mask=jnp.ones(32, bool), fitness=fitness)
        keys = jax.random.split(jax.random.key(1), 50)
        parents, mates = jax.vmap(lambda key: algorithm._matings(key, state))(keys)  # noqa: B023
        apart[similar] = float(jnp.mean(jnp.abs(parents - mates)))
    # Of numbers drawn from 32 the mean difference is a third of 32, of neighbours among
    # eight about a ninth.
    assert apart[True] < 0.5 * apart[False]
    assert len(algorithms) == 2  # else both would share one compiled program

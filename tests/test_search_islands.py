"""Islands alone are searches of their own; guests are the best of the island before."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import better

from jaxnas.search import Integer, Nsga2
from jaxnas.search.cheap import advanced, begun
from jaxnas.search.islands import island_search, merged, migrated

KEY = jax.random.key(6)
SIZE, ISLANDS, MIGRANTS = 8, 3, 2


def cost(genome):
    """Two objectives and a constraint of six integers."""
    total = jnp.sum(genome).astype(jnp.float32)
    uneven = jnp.sum((genome[1:] - genome[:-1]) ** 2)
    return jnp.stack([total, 60.0 - total + uneven, 3.0 - genome[0]])


ALGORITHM = Nsga2(
    SIZE,
    jnp.zeros(6, jnp.int32),
    variables=Integer(0, 10),
    num_objectives=2,
    num_constraints=1,
)
PARAMS = ALGORITHM.default_params


def searched(migrants, epochs=2):
    sizes = dict(islands=ISLANDS, epochs=epochs, generations=3, migrants=migrants)
    return island_search(KEY, ALGORITHM, cost, PARAMS, **sizes)


def genomes(state):
    return {tuple(row) for row in np.asarray(state.population)[state.mask].tolist()}


def island(states, number):
    return jax.tree.map(lambda leaf: np.asarray(leaf[number]), states)


def folded(*numbers):
    return functools.reduce(jax.random.fold_in, numbers, KEY)


def test_islands_that_never_meet_are_searches_of_their_own():
    states = searched(0)
    begin = jax.jit(lambda key: begun(key, ALGORITHM, cost, PARAMS))
    walk = jax.jit(lambda key, s: advanced(key, ALGORITHM, cost, PARAMS, s, 3)[0])
    for number in range(ISLANDS):
        state = begin(folded(0, number))
        for epoch in (1, 2):
            state = walk(folded(epoch, number), state)
        alone = island(states, number)
        assert genomes(alone) == genomes(state)
        np.testing.assert_allclose(alone.fitness, state.fitness, rtol=1e-6)


def test_guests_are_the_best_of_the_island_before():
    before = searched(0, epochs=1)
    keys = jax.random.split(KEY, ISLANDS)
    after = migrated(keys, ALGORITHM, before, PARAMS, MIGRANTS)
    came = 0
    for number in range(ISLANDS):
        own, source = (genomes(island(before, n)) for n in (number, number - 1))
        new = genomes(island(after, number)) - own
        came += len(new)
        best = island(before, number - 1)
        rows = np.lexsort((-best.crowding, best.rank, ~best.mask))[:MIGRANTS]
        assert new <= {tuple(row) for row in best.population[rows].tolist()} <= source
    assert came


def test_the_merged_front_is_that_of_all_rows():
    states = searched(MIGRANTS)
    population, fitness, mask = map(np.asarray, merged(states))
    feasible = np.asarray(states.mask & (states.violation <= 0)).reshape(-1)
    front = fitness[mask]
    assert len(front) and len({tuple(row) for row in population[mask]}) == len(front)
    for values in fitness[feasible]:
        beaten = any(better(other, values) for other in front)
        assert beaten != any((values == other).all() for other in front)


@pytest.mark.parametrize("sizes", [dict(islands=0), dict(migrants=9)])
def test_impossible_numbers_are_refused(sizes):
    usual = dict(islands=2, epochs=1, generations=1, migrants=1)
    with pytest.raises(ValueError, match="expected at least one island and 0 to 8"):
        island_search(KEY, ALGORITHM, cost, PARAMS, **usual | sizes)

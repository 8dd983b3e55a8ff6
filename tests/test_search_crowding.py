"""Crowding and thinning against their definition, front by front."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import ROWS, TRIALS, batched, neighbour_gaps, peeled, random_sets

from jaxnas.search.crowding import crowding_distance, neighbours, thin, thinned


@pytest.mark.parametrize("objectives", [1, 2, 3, 6])
def test_crowding_is_that_of_neighbours_within_a_front(objectives):
    fitness, mask = random_sets(objectives, levels=6, failures=True)
    ranks = np.array([peeled(f, m) for f, m in zip(fitness, mask, strict=True)])
    actual = batched(crowding_distance)(fitness, mask, ranks.astype(np.int32))
    expected = [
        neighbour_gaps(*each) for each in zip(fitness, mask, ranks, strict=True)
    ]
    np.testing.assert_allclose(actual, np.array(expected), rtol=1e-6)


def test_crowding_does_not_depend_on_units():
    fitness, mask = random_sets(3, levels=50)
    measure = batched(crowding_distance)
    scaled = measure(fitness * np.float32([4, 0.5, 1024]), mask)
    np.testing.assert_array_equal(measure(fitness, mask), scaled)


def test_distances_of_the_greatest_floats_are_finite():
    # The range of either objective is beyond float32.
    front = np.float32([[-1, 1], [0, 0.5], [0.5, 0], [1, -1]]) * np.float32(3e38)
    distance = jax.jit(crowding_distance)(front)
    np.testing.assert_allclose(distance, [np.inf, 1.25, 1.25, np.inf], rtol=1e-6)


def test_of_two_close_rows_one_stays():
    # Rows 2 and 3 crowd each other: removing both would open the widest gap.
    front = jnp.array([[0, 9], [3, 6], [5, 4.1], [5.1, 4], [9, 0.0]])
    thinned = jax.jit(thin)
    assert thinned(front, 4).tolist() == [True, True, False, True, True]
    assert thinned(front, 3).tolist() in (
        [True, False, False, True, True],
        [True, True, False, False, True],
    )


def test_thinning_removes_the_last_of_the_most_crowded():
    fitness, mask = random_sets(2, levels=50, failures=True)
    sizes = np.arange(TRIALS, dtype=np.int32) % (ROWS + 1)
    actual = batched(thin)(fitness, sizes, mask)
    distances = jax.jit(crowding_distance)
    for trial, size in enumerate(sizes):
        keep = mask[trial].copy()
        while keep.sum() > size:
            distance = distances(fitness[trial], keep)
            keep[max(np.flatnonzero(keep), key=lambda row: (-distance[row], row))] = 0
        np.testing.assert_array_equal(actual[trial], keep)


def test_a_front_is_thinned_alike_among_others_and_alone():
    fitness, mask = random_sets(3, levels=50)
    ranks = np.array([peeled(f, m) for f, m in zip(fitness, mask, strict=True)])
    sizes = np.arange(TRIALS, dtype=np.int32) % 5
    second = mask & (ranks == 1)

    def among_others(fitness, mask, ranks, size, front):
        return thinned(neighbours(fitness, mask, ranks), size, front)

    found = batched(among_others)(fitness, mask, ranks.astype(np.int32), sizes, second)
    np.testing.assert_array_equal(found, batched(thin)(fitness, sizes, second))
    assert (found.sum(axis=1) == np.minimum(sizes, second.sum(axis=1))).all()
    assert (found.sum(axis=1) < second.sum(axis=1)).sum() > TRIALS / 4


def test_thinning_keeps_the_best_of_every_objective():
    fitness = jax.random.uniform(jax.random.key(0), (TRIALS, 20, 4))
    keep = batched(lambda f: thin(f, 8))(fitness)
    assert (keep.sum(axis=1) == 8).all()
    left = jnp.where(keep[:, :, None], fitness, jnp.inf)
    np.testing.assert_array_equal(left.min(axis=1), fitness.min(axis=1))

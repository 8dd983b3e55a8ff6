"""Pareto geometry against brute force: ties, repetitions, failures and masked rows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.search.pareto import (
    crowding_distance,
    dominates,
    front_ranks,
    hypervolume,
    kernel_log_density,
    nondominated,
    thin,
)

TRIALS, ROWS = 30, 14


def random_sets(objectives, *, seed=0, levels=4, failures=False):
    """Sets full of ties and repeated rows; rows outside the mask hold NaN."""
    rng = np.random.default_rng(seed)
    shape = TRIALS, ROWS, objectives
    fitness = rng.integers(0, levels, shape).astype(np.float32)
    fitness[:, -3:] = fitness[:, :3]
    if failures:
        fitness[rng.random(shape) < 0.08] = np.inf
    mask = rng.random(shape[:2]) < 0.8
    fitness[~mask] = np.nan
    return fitness, mask


def batched(function, *axes):
    return jax.jit(jax.vmap(function, in_axes=axes or 0))


def better(a, b):
    return all(a <= b) and any(a < b)


def peeled(fitness, mask):
    """Front numbers by definition: remove what nothing left dominates, and repeat."""
    ranks = np.full(len(fitness), len(fitness))
    left, level = set(np.flatnonzero(mask)), 0
    while left:
        front = {
            i for i in left if not any(better(fitness[j], fitness[i]) for j in left)
        }
        ranks[list(front)] = level
        left, level = left - front, level + 1
    return ranks


def neighbour_gaps(fitness, mask, ranks):
    """Crowding by definition: front by front, objective by objective."""
    distance = np.zeros(len(fitness))
    counted = mask & np.isfinite(fitness).all(axis=1)
    for front in set(ranks[counted]):
        rows = np.flatnonzero(counted & (ranks == front))
        for values in fitness.T:
            order = rows[np.argsort(values[rows], kind="stable")]
            spread = np.ptp(values[rows])
            distance[order[[0, -1]]] = np.inf
            for before, row, after in zip(order, order[1:], order[2:], strict=False):
                if spread > 0:
                    distance[row] += (values[after] - values[before]) / spread
    return distance


def unit_cells(points, mask, size):
    """Hypervolume of integer points: the unit cells whose lower corner is dominated."""
    corners = np.stack(np.indices(size), axis=-1).reshape(-1, len(size))
    reached = (points[mask][None] <= corners[:, None]).all(axis=-1)
    return reached.any(axis=1).sum()


def inclusion_exclusion(points, reference):
    """The volume of a union of boxes, in float64."""
    total = 0.0
    for count in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, count):
            sides = np.clip(reference - np.max(chosen, axis=0), 0, None)
            total -= (-1) ** count * np.prod(sides)
    return total


def test_dominance_is_decided_pair_by_pair():
    values = np.array([0, 1, np.inf], np.float32)
    vectors = np.array(list(itertools.product(values, repeat=2)))
    actual = dominates(jnp.asarray(vectors)[:, None], jnp.asarray(vectors)[None])
    expected = [[better(a, b) for b in vectors] for a in vectors]
    np.testing.assert_array_equal(actual, expected)


def test_nan_reads_as_the_worst_value():
    vectors = jnp.array([[0.0, 1.0], [0.0, jnp.nan], [0.0, jnp.inf]])
    assert dominates(vectors[0], vectors[1])
    assert not dominates(vectors[1], vectors[2])
    assert not dominates(vectors[2], vectors[1])


@pytest.mark.parametrize("objectives", [1, 2, 6])
def test_fronts_are_those_of_peeling(objectives):
    fitness, mask = random_sets(objectives, failures=True)
    expected = np.array([peeled(f, m) for f, m in zip(fitness, mask, strict=True)])
    np.testing.assert_array_equal(batched(front_ranks)(fitness, mask), expected)
    np.testing.assert_array_equal(batched(nondominated)(fitness, mask), expected == 0)


def test_a_chain_has_one_front_per_row():
    chain = jnp.arange(9.0)[::-1, None] * jnp.ones((1, 3))
    np.testing.assert_array_equal(front_ranks(chain), np.arange(9)[::-1])


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


def test_of_two_close_rows_one_stays():
    # Rows 2 and 3 crowd each other: removing both would open the widest gap.
    front = jnp.array([[0, 9], [3, 6], [5, 4.1], [5.1, 4], [9, 0.0]])
    assert thin(front, 4).tolist() == [True, True, False, True, True]
    assert thin(front, 3).tolist() in (
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


def test_thinning_keeps_the_best_of_every_objective():
    fitness = jax.random.uniform(jax.random.key(0), (TRIALS, 20, 4))
    keep = batched(lambda f: thin(f, 8))(fitness)
    assert (keep.sum(axis=1) == 8).all()
    left = jnp.where(keep[:, :, None], fitness, jnp.inf)
    np.testing.assert_array_equal(left.min(axis=1), fitness.min(axis=1))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_hypervolume_counts_unit_cells(objectives):
    size = (5, 6, 3, 4, 5)[:objectives]
    points, mask = random_sets(objectives, levels=7)
    reference = jnp.array(size, jnp.float32)
    actual = batched(hypervolume, 0, None, 0)(points, reference, mask)
    each = zip(points, mask, strict=True)
    np.testing.assert_array_equal(actual, [unit_cells(p, m, size) for p, m in each])
    assert len(np.unique(actual)) > 1


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_is_that_of_a_union_of_boxes(objectives):
    rng = np.random.default_rng(objectives)
    points = rng.random((8, objectives)).astype(np.float32)
    reference = np.full(objectives, 0.9, np.float32)
    expected = inclusion_exclusion(points.astype(float), reference.astype(float))
    actual = jax.jit(hypervolume)(points, reference)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_hypervolume_ignores_points_beyond_the_reference():
    reference = jnp.ones(3)
    beyond = jnp.array([[2.0, 2.0, 2.0], [0.0, 0.0, 1.0], [-9.0, -9.0, jnp.nan]])
    inside = jnp.full((1, 3), 0.5)
    points = jnp.concatenate([beyond, inside])
    masks = jnp.arange(4)[None] < jnp.array([[3], [4]])
    volumes = batched(hypervolume, None, None, 0)(points, reference, masks)
    np.testing.assert_array_equal(volumes, [0, 0.125])


def test_density_is_that_of_scipy_in_one_dimension():
    rng = np.random.default_rng(0)
    points, queries = rng.normal(3, 2, (20, 1)), rng.normal(3, 6, (50, 1))
    expected = stats.gaussian_kde(points[:, 0]).logpdf(queries[:, 0])
    actual = jax.jit(kernel_log_density)(points, queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def diagonal_density(points, queries):
    """The estimate spelled out in float64, agreeing dimensions with unit bandwidth."""
    count, dimensions = points.shape
    spread = np.ptp(points, axis=0) > 0
    sigma = points.std(axis=0, ddof=1) if count > 1 else np.ones(dimensions)
    width = np.where(spread, sigma * count ** (-1 / (dimensions + 4)), 1)
    steps = (queries[:, None] - points[None]) / width
    kernels = np.exp(-0.5 * (steps**2).sum(axis=-1)) / np.prod(
        width * (2 * np.pi) ** 0.5
    )
    return np.log(kernels.mean(axis=1))


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("agreeing", [[], [1], [0, 1, 2]])
def test_density_is_a_mean_of_products(count, agreeing):
    rng = np.random.default_rng(count)
    points = rng.normal(0, (1, 5, 0.1), (12, 3)).astype(np.float32)
    points[:, agreeing] = 0.1
    mask = np.arange(12) < count
    points[~mask] = np.nan
    queries = rng.normal(0, (1, 5, 0.1), (9, 3)).astype(np.float32)
    expected = diagonal_density(points[mask].astype(float), queries.astype(float))
    actual = jax.jit(kernel_log_density)(points, queries, mask)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_density_integrates_to_one():
    points = jnp.array([[-1.0], [0.5], [0.5], [2.0]])
    grid = jnp.linspace(-9, 10, 2001)
    density = jnp.exp(jax.jit(kernel_log_density)(points, grid[:, None]))
    np.testing.assert_allclose(jnp.trapezoid(density, grid), 1, rtol=1e-5)


def test_nothing_has_no_density_anywhere():
    points, nothing = jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool)
    density = jax.jit(kernel_log_density)(points, jnp.zeros((4, 2)), nothing)
    np.testing.assert_array_equal(density, -np.inf)


@pytest.mark.parametrize(
    "function",
    [
        front_ranks,
        lambda fitness, mask: thin(fitness, 4, mask),
        lambda fitness, mask: hypervolume(fitness, jnp.full(3, 4.0), mask),
    ],
    ids=["front_ranks", "thin", "hypervolume"],
)
def test_a_set_alone_and_among_others_gives_the_same(function):
    fitness, mask = random_sets(3)
    among = batched(function)(fitness[:2], mask[:2])
    alone = [function(jnp.array(fitness[i]), jnp.array(mask[i])) for i in range(2)]
    np.testing.assert_allclose(among, jnp.stack(alone), rtol=1e-6)

"""Hypervolume against unit cells, inclusion and exclusion, and float64 recursion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import batched, random_sets

from jaxnas.search.hypervolume import (
    hypervolume,
    hypervolume_contributions,
    hypervolume_estimate,
    reference_point,
)


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


def sliced(points, reference):
    """Hypervolume by slices along the last objective, recursively, in float64."""
    points = points[(points < reference).all(axis=1)]
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return reference[0] - points.min()
    points = points[np.argsort(points[:, -1])]
    ends = np.append(points[1:, -1], reference[-1])
    total = 0.0
    for count, (point, end) in enumerate(zip(points, ends, strict=True), 1):
        if end > point[-1]:
            below = sliced(points[:count, :-1], reference[:-1])
            total += (end - point[-1]) * below
    return total


@pytest.mark.parametrize(("objectives", "rows"), [(2, 1000), (3, 200), (4, 32)])
def test_hypervolume_is_exact_to_a_millionth(objectives, rows):
    rng = np.random.default_rng(rows)
    # On a curved front, where every point counts.
    sides = np.abs(rng.normal(size=(rows, objectives)))
    points = (sides / np.linalg.norm(sides, axis=1, keepdims=True)).astype(np.float32)
    reference = np.full(objectives, 1.1, np.float32)
    expected = sliced(points.astype(float), reference.astype(float))
    actual = jax.jit(hypervolume)(points, reference)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_large_sets_agree_with_moocore():
    moocore = pytest.importorskip("moocore")
    points = np.random.default_rng(0).random((4000, 2)).astype(np.float32)
    points[:, 1] = (1 - points[:, 0]) ** 2
    reference = np.ones(2, np.float32)
    expected = moocore.hypervolume(points.astype(float), ref=reference.astype(float))
    actual = jax.jit(hypervolume)(points, reference)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("objectives", [2, 3])
def test_contributions_are_what_is_lost_without_a_point(objectives):
    points, mask = (each[:6] for each in random_sets(objectives, levels=7))
    reference = np.full(objectives, 6, np.float32)
    actual = batched(hypervolume_contributions, 0, None, 0)(points, reference, mask)
    size = (6,) * objectives
    for found, rows, used in zip(actual, points, mask, strict=True):
        whole = unit_cells(rows, used, size)
        lost = [
            whole - unit_cells(rows, used & (np.arange(len(rows)) != row), size)
            for row in range(len(rows))
        ]
        np.testing.assert_array_equal(found, lost)
    assert np.any(actual > 0)


def test_estimates_lie_around_the_exact_volume_as_their_error_says():
    rng = np.random.default_rng(5)
    points = (rng.random((20, 4)) * [1, 100, 1, 0.01]).astype(np.float32)
    reference = np.array([0.9, 100, 0.9, 0.009], np.float32)
    keys = jax.random.split(jax.random.key(0), 200)
    estimate = batched(
        lambda key: hypervolume_estimate(
            key, jnp.asarray(points), jnp.asarray(reference), samples=64
        )
    )
    values, errors = estimate(keys)
    exact = sliced(points.astype(float), reference.astype(float))
    deviations = (np.asarray(values, float) - exact) / errors
    # The mean of 200 standardised errors has a deviation of 0.07.
    assert abs(deviations.mean()) < 0.3
    assert 0.8 < deviations.std() < 1.25
    assert np.asarray(errors).mean() < 0.1 * exact


def test_the_estimate_of_one_point_is_its_box():
    point = jnp.array([[0.5, 0.25, 0.5, 0.75, 0.0]])
    estimate = jax.jit(hypervolume_estimate)
    value, error = estimate(jax.random.key(0), point, jnp.ones(5))
    box = 0.5 * 0.75 * 0.5 * 0.25
    assert 0 < error < 0.05 * box
    assert abs(value - box) < 4 * error
    nothing = estimate(jax.random.key(0), point, jnp.zeros(5))
    np.testing.assert_array_equal(nothing, [0, 0])


def test_the_reference_is_worse_than_every_finite_row():
    fitness = np.array([[1, 5], [3, 5], [np.nan, 9], [2, np.inf], [99, 99]], np.float32)
    mask = np.arange(5) < 4
    fitness, mask = jnp.asarray(fitness), jnp.asarray(mask)
    np.testing.assert_allclose(reference_point(fitness, mask), [3.2, 5.1])
    np.testing.assert_allclose(reference_point(fitness, mask, margin=1.0), [5, 6])


def test_too_large_a_sweep_and_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="2000 points of 4 objectives.*at most 1625"):
        hypervolume(jnp.zeros((2000, 4)), jnp.ones(4))
    with pytest.raises(ValueError, match="found 1 samples, expected at least 2"):
        hypervolume_estimate(
            jax.random.key(0), jnp.zeros((3, 2)), jnp.ones(2), samples=1
        )

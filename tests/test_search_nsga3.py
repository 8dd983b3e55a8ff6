"""NSGA-III: its directions, its scales and its niching against the written loop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.search import Nsga3, Real, das_dennis
from jaxnas.search.nsga3 import Frame, _levels, _scaled


@pytest.mark.parametrize(("objectives", "divisions"), [(1, 3), (2, 5), (3, 4), (5, 3)])
def test_directions_are_all_the_multiples_that_sum_to_one(objectives, divisions):
    directions = das_dennis(objectives, divisions)
    count = math.comb(divisions + objectives - 1, divisions)
    assert directions.shape == (count, objectives) and directions.dtype == np.float32
    stars = np.rint(directions * divisions)
    np.testing.assert_allclose(directions * divisions, stars, atol=1e-6)
    np.testing.assert_array_equal(stars.sum(axis=1), divisions)
    assert stars.min() >= 0 and len(np.unique(stars, axis=0)) == count


def picked_one_by_one(niche, distance, candidate, counts, noise, size):
    """Algorithm 4: one row at a time out of an emptiest niche."""
    counts, left, chosen = counts.copy(), set(np.flatnonzero(candidate)), []
    while len(chosen) < size:
        open_niches = {niche[row] for row in left}
        least = min(counts[n] for n in open_niches)
        members = [row for row in left if counts[niche[row]] == least]
        # One row of every emptiest niche may come next: chance decides which.
        heads = []
        for n in {niche[row] for row in members}:
            rows = [row for row in left if niche[row] == n]
            by = distance if least == 0 else noise
            heads.append(min(rows, key=lambda row: by[row]))
        row = min(heads, key=lambda row: noise[row])
        chosen.append(row)
        left.remove(row)
        counts[niche[row]] += 1
    return chosen


def test_sorting_by_level_is_the_loop_of_the_paper():
    rng = np.random.default_rng(0)
    order = jax.jit(_levels)
    for _ in range(60):
        niche = rng.integers(0, 5, 24).astype(np.int32)
        distance, noise = rng.random((2, 24)).astype(np.float32)
        candidate = rng.random(24) < 0.7
        counts = np.bincount(niche[~candidate], minlength=6).astype(np.int32)
        counts[rng.integers(5)] = 0
        level = np.asarray(order(niche, distance, candidate, counts, noise))
        rows = np.flatnonzero(candidate)
        found = rows[np.lexsort((noise[rows], level[rows]))]
        expected = picked_one_by_one(
            niche, distance, candidate, counts, noise, len(rows)
        )
        np.testing.assert_array_equal(found, expected)


def scaled(fitness, frame=None):
    objectives = fitness.shape[1]
    if frame is None:
        frame = Frame(
            ideal=jnp.full(objectives, jnp.inf),
            worst=jnp.full(objectives, -jnp.inf),
            extremes=jnp.full((objectives, objectives), jnp.inf),
        )
    rows = fitness.shape[0]
    counted, rank = jnp.ones(rows, bool), jnp.zeros(rows, jnp.int32)
    return jax.jit(_scaled)(frame, jnp.asarray(fitness, jnp.float32), counted, rank)


def test_a_plane_is_scaled_to_the_unit_simplex_whatever_the_units():
    shares = das_dennis(3, 6)
    units, shift = np.array([10.0, 0.5, 300.0]), np.array([5.0, -2.0, 100.0])
    frame, found = scaled(shares * units + shift)
    np.testing.assert_allclose(found, shares, atol=1e-5)
    # The ideal and the extremes are remembered when only the middle is left.
    _, found = scaled((shares * units + shift)[10:12], frame)
    np.testing.assert_allclose(found, shares[10:12], atol=1e-5)


def test_degenerate_fronts_keep_finite_scales():
    for fitness in (
        np.ones((4, 3)),
        np.array([[0.0, 1, 5], [0, 2, 4]]),
        np.arange(8.0)[:, None] * np.ones((1, 2)),
    ):
        assert np.isfinite(scaled(fitness)[1]).all()


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (np.ones((4, 3)), r"shape \(4, 3\), expected \[directions, 2\]"),
        (np.array([[0.0, 0.0], [1.0, 0.0]]), "without a finite length above 0"),
        (np.array([[1.0, -1.0]]), "negative directions"),
    ],
)
def test_impossible_directions_are_refused(directions, message):
    with pytest.raises(ValueError, match=message):
        Nsga3(
            4,
            jnp.zeros(2),
            variables=Real(0, 1),
            num_objectives=2,
            directions=directions,
        )
    with pytest.raises(ValueError, match="expected at least 1 each"):
        das_dennis(0, 3)

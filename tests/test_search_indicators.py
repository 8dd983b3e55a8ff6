"""Indicators against their definitions, and the laws that their names promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import batched, random_sets

from jaxnas.search.indicators import additive_epsilon, igd_plus

FRONT = jnp.asarray(np.random.default_rng(9).integers(0, 4, (40, 3)), jnp.float32)


def by_definition(points, mask):
    lacks = points[mask][None] - np.asarray(FRONT)[:, None]
    distances = np.sqrt((np.maximum(lacks, 0) ** 2).sum(axis=2)).min(axis=1)
    return distances.mean(), lacks.max(axis=2).min(axis=1).max()


def test_indicators_are_their_definitions():
    points, mask = random_sets(3)
    both = batched(lambda p, m: (igd_plus(p, FRONT, m), additive_epsilon(p, FRONT, m)))
    expected = [by_definition(p, m) for p, m in zip(points, mask, strict=True)]
    np.testing.assert_allclose(np.transpose(both(points, mask)), expected, rtol=1e-6)


def test_a_front_stands_for_itself_and_a_better_one_does_too():
    assert igd_plus(FRONT, FRONT) == additive_epsilon(FRONT, FRONT) == 0
    assert igd_plus(FRONT - 0.5, FRONT) == 0
    assert additive_epsilon(FRONT - 0.5, FRONT) == -0.5
    assert additive_epsilon(FRONT + 0.5, FRONT) == 0.5


def test_failed_points_and_none_at_all_stand_for_nothing():
    failed = jnp.full((2, 3), jnp.nan)
    for indicator in map(jax.jit, (igd_plus, additive_epsilon)):
        assert indicator(failed, FRONT) == jnp.inf
        joined = jnp.concatenate([failed, FRONT])
        assert indicator(joined, FRONT) == 0


def test_igd_plus_is_that_of_moocore():
    moocore = pytest.importorskip("moocore")
    points = jax.random.uniform(jax.random.key(0), (50, 3))
    points, front = np.asarray(points, float), np.asarray(FRONT, float)
    expected = moocore.igd_plus(points, ref=front)
    np.testing.assert_allclose(jax.jit(igd_plus)(points, FRONT), expected, rtol=1e-6)

"""Dominance and fronts against brute force: ties, repetitions, failures, masks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import (
    ROWS,
    TRIALS,
    batched,
    better,
    constrained_better,
    peeled,
    random_sets,
    textbook_survivors,
)

from jaxnas.search.crowding import crowding_distance, thin
from jaxnas.search.hypervolume import hypervolume
from jaxnas.search.pareto import dominates, front_ranks, nondominated


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


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5, 6])
def test_fronts_are_those_of_peeling(objectives):
    fitness, mask = random_sets(objectives, failures=True)
    expected = np.array([peeled(f, m) for f, m in zip(fitness, mask, strict=True)])
    np.testing.assert_array_equal(batched(front_ranks)(fitness, mask), expected)
    np.testing.assert_array_equal(batched(nondominated)(fitness, mask), expected == 0)


def test_a_chain_has_one_front_per_row():
    chain = jnp.arange(9.0)[::-1, None] * jnp.ones((1, 3))
    np.testing.assert_array_equal(front_ranks(chain), np.arange(9)[::-1])


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_constraints_come_before_objectives(objectives):
    fitness, mask = random_sets(objectives, failures=True)
    rng = np.random.default_rng(1)
    violation = rng.integers(-2, 3, mask.shape).astype(np.float32)
    violation[rng.random(mask.shape) < 0.1] = np.inf
    actual = batched(front_ranks)(fitness, mask, violation)
    for trial in range(TRIALS):
        rows = range(ROWS)
        beats = np.array(
            [
                [
                    mask[trial, a]
                    and mask[trial, b]
                    and constrained_better(
                        *fitness[trial, [a, b]], *violation[trial, [a, b]]
                    )
                    for b in rows
                ]
                for a in rows
            ]
        )
        # The longest chain of rows above a row is its front, by induction.
        ranks = np.zeros(ROWS, int)
        for _ in rows:
            above = np.where(beats, ranks[:, None] + 1, 0)
            ranks = above.max(axis=0)
        np.testing.assert_array_equal(actual[trial], np.where(mask[trial], ranks, ROWS))


def test_a_violation_that_is_no_number_is_the_worst():
    violation = jnp.array([jnp.nan, 5.0, -1.0])
    ranks = front_ranks(jnp.zeros((3, 2)), None, violation)
    np.testing.assert_array_equal(ranks, [2, 1, 0])


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranking_stops_with_the_front_that_is_enough(objectives):
    fitness, mask = random_sets(objectives, levels=9)
    full = np.asarray(batched(front_ranks)(fitness, mask))
    part = batched(lambda f, m: front_ranks(f, m, enough=5))(fitness, mask)
    for ranks, found in zip(full, part, strict=True):
        needed = next(r for r in range(ROWS + 1) if (ranks <= r).sum() >= 5)
        np.testing.assert_array_equal(found, np.where(ranks <= needed, ranks, ROWS))


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_larger_sets_agree_with_moocore(objectives):
    moocore = pytest.importorskip("moocore")
    rng = np.random.default_rng(0)
    fitness = rng.integers(0, 40, (300, objectives)).astype(np.float32)
    fitness[rng.random(fitness.shape) < 0.01] = np.inf
    fitness[-20:] = fitness[:20]
    # moocore 0.3.2 misplaces infinities of three objectives: any large number will do.
    finite = np.where(np.isinf(fitness), 1e9, fitness.astype(float))
    expected = moocore.pareto_rank(finite)
    np.testing.assert_array_equal(jax.jit(front_ranks)(fitness), expected)


def test_two_ways_lead_to_the_fronts_of_two_objectives():
    # A third objective that is constant decides nothing but takes the other way.
    fitness, mask = random_sets(2, failures=True)
    widened = np.append(fitness, np.ones_like(fitness[..., :1]), axis=2)
    expected = batched(front_ranks)(fitness, mask)
    np.testing.assert_array_equal(batched(front_ranks)(widened, mask), expected)


@pytest.mark.parametrize("objectives", [2, 3])
def test_survivors_are_those_of_the_textbook_on_500_sets(objectives):
    rng = np.random.default_rng(objectives)
    fitness = rng.random((500, 20, objectives)).astype(np.float32)

    def survivors(fitness):
        ranks = front_ranks(fitness, enough=10)
        distance = crowding_distance(fitness, None, ranks)
        return jnp.sort(jnp.lexsort((-distance, ranks))[:10])

    actual = batched(survivors)(fitness)
    expected = [textbook_survivors(each.astype(float), 10) for each in fitness]
    np.testing.assert_array_equal(actual, expected)


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
    one = jax.jit(function)
    alone = [one(fitness[i], mask[i]) for i in range(2)]
    np.testing.assert_allclose(among, jnp.stack(alone), rtol=1e-6)

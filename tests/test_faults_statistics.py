"""Intervals agree with SciPy's, and cover what they promise to cover."""

import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.statistics import (
    clopper_pearson_interval,
    clustered_wilson_interval,
    design_effect,
    wilson_interval,
)

OURS = {"wilson": wilson_interval, "exact": clopper_pearson_interval}


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_intervals_equal_scipy(method, confidence):
    for trials in (1, 7, 100, 12345):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            test = stats.binomtest(successes, trials)
            expected = test.proportion_ci(confidence, method=method)
            found = OURS[method](successes, trials, confidence)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("interval", OURS.values())
def test_arrays_give_the_intervals_of_their_elements(interval):
    successes, trials = np.array([[0], [3], [5]]), np.array([5, 50])
    found = interval(successes, trials)
    for i, j in np.ndindex(3, 2):
        alone = interval(int(successes[i, 0]), int(trials[j]))
        np.testing.assert_array_equal([found.low[i, j], found.high[i, j]], alone)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_coverage_is_that_of_the_definition(share):
    successes = np.arange(61)
    chance = stats.binom(60, share).pmf(successes)
    low, high = clopper_pearson_interval(successes, 60)
    assert chance[(low <= share) & (share <= high)].sum() >= 0.95
    low, high = wilson_interval(successes, 60)
    assert chance[(low <= share) & (share <= high)].sum() > 0.92


def correlated_trials(share, concentration, trials, size, repetitions):
    """Beta-binomial counts: the accuracy of a trial is itself random."""
    rng = np.random.default_rng(0)
    a, b = concentration * share, concentration * (1 - share)
    accuracy = rng.beta(a, b, (repetitions, trials))
    return rng.binomial(size, accuracy)


@pytest.mark.parametrize("share, concentration", [(0.9, 20), (0.6, 5), (0.8, 1e6)])
@pytest.mark.parametrize("trials", [8, 50])
def test_clustered_interval_covers_where_the_plain_one_does_not(
    share, concentration, trials
):
    counts = correlated_trials(share, concentration, trials, 200, 4000)
    low, high = clustered_wilson_interval(counts, 200)
    coverage = np.mean((low <= share) & (share <= high))
    assert 0.93 < coverage < 0.985
    if concentration < 100:
        low, high = wilson_interval(counts.sum(-1), 200 * trials)
        assert np.mean((low <= share) & (share <= high)) < 0.6


def test_design_effect_is_that_of_the_beta_binomial():
    counts = correlated_trials(0.7, 9, 200_000, 50, 1)[0]
    correlation = 1 / (1 + 9)
    assert design_effect(counts, 50) == pytest.approx(1 + 49 * correlation, rel=0.02)


def test_identical_trials_count_as_independent_outcomes():
    assert design_effect(np.full(5, 30), 40) == 1
    assert design_effect(np.full(5, 40), 40) == 1
    low, high = clustered_wilson_interval(np.full(5, 40), 40)
    assert 0.9 < low < high == 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: wilson_interval(3, 0), "at least one"),
        (lambda: wilson_interval(3, 2), "successes=3 of trials=2"),
        (lambda: clopper_pearson_interval(-1, 2), "0 <= successes"),
        (lambda: wilson_interval(1, 2, 95.0), "as 0.95"),
        (lambda: clustered_wilson_interval(np.array([3]), 9), "two trials"),
        (lambda: clustered_wilson_interval(np.array([3, 10]), 9), "of trials=9"),
    ],
)
def test_impossible_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Intervals agree with SciPy's, and cover what they promise to cover."""

import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.statistics import (
    clopper_pearson_interval,
    clustered_wilson_interval,
    design_effect,
    finite_trials,
    score_interval,
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


def test_exact_interval_of_a_population_is_that_of_enumeration():
    """Every population of 12 and every sample of 5: the limits by trying each count."""
    for successes in range(6):
        low, high = clopper_pearson_interval(successes, 5, 0.9, population=12)
        counts = np.arange(13)
        above = stats.hypergeom.sf(successes - 1, 12, counts, 5) > 0.05
        below = stats.hypergeom.cdf(successes, 12, counts, 5) > 0.05
        possible = counts[above & below] / 12
        assert (low, high) == pytest.approx((possible[0], possible[-1]))


@pytest.mark.parametrize("population, trials", [(12, 5), (200, 60), (200, 199)])
def test_intervals_of_a_population_cover_every_truth(population, trials):
    critical = np.arange(population + 1)[:, None]
    successes = np.arange(trials + 1)
    chance = stats.hypergeom.pmf(successes, population, critical, trials)
    covered = {}
    for name, interval in OURS.items():
        low, high = interval(successes, trials, population=population)
        truth = critical / population
        inside = (low <= truth + 1e-12) & (truth <= high + 1e-12)
        covered[name] = np.sum(chance * inside, 1)
    assert covered["exact"].min() >= 0.95 - 1e-9
    assert covered["wilson"].mean() > 0.93 and covered["wilson"].min() > 0.78


def test_a_population_narrows_the_interval_down_to_a_point():
    for interval in OURS.values():
        assert interval(7, 20, population=20) == pytest.approx((0.35, 0.35))
        lone = interval(7, 20)
        vast = interval(7, 20, population=10**9)
        np.testing.assert_allclose(vast, lone, rtol=1e-6)
        half = interval(7, 20, population=40)
        assert lone.low < half.low < half.high < lone.high


def test_finite_trials_have_the_variance_of_the_hypergeometric_law():
    n, population, critical = 30, 100, 40
    variance = stats.hypergeom(population, critical, n).var() / n**2
    assert 0.4 * 0.6 / finite_trials(n, population) == pytest.approx(variance)


def test_clustered_interval_of_lone_outcomes_is_wilsons():
    outcomes = np.repeat([1, 0], [7, 23])
    assert clustered_wilson_interval(outcomes, 1) == wilson_interval(7, 30)
    assert score_interval(7 / 30, 30.0) == wilson_interval(7, 30)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("population", [None, 3000])
def test_wilsons_coverage_is_the_confidence(share, population):
    """2000 campaigns of 1500 faults, of an endless or an exhaustive population."""
    rng, trials = np.random.default_rng(1), 1500
    if population is None:
        successes = rng.binomial(trials, share, 2000)
    else:
        critical = int(share * population)
        successes = rng.hypergeometric(critical, population - critical, trials, 2000)
    low, high = wilson_interval(successes, trials, population=population)
    assert 0.93 <= np.mean((low <= share) & (share <= high)) <= 0.97


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
        (lambda: wilson_interval(1, 9, population=8), "at most the population"),
        (lambda: clopper_pearson_interval(1, 9, population=8), "population of 8"),
        (lambda: clustered_wilson_interval(np.array([3]), 9), "two trials"),
        (lambda: clustered_wilson_interval(np.array([3, 10]), 9), "of trials=9"),
    ],
)
def test_impossible_counts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

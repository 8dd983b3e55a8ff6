"""Campaigns that stop by a rule cover what they claim: exactly, and in simulation."""

import numpy as np
import pytest
from scipy import special, stats

from jaxnas.faults.means import Moments, mean_interval, merge, moments_of
from jaxnas.faults.sequential import (
    StoppingRule,
    anytime_rule,
    confidence_sequence,
    mean_rule,
    share_rule,
)
from jaxnas.faults.statistics import Interval, wilson_interval


def binary(successes, trials):
    mean = successes / trials
    return Moments(trials, mean, trials * mean * (1 - mean))


def exact_coverage(rule, share, chunk):
    """Of all campaigns asked after every chunk: the law of the count, look by look.

    Returns the coverage and the trials expected.
    """
    step = stats.binom.pmf(np.arange(chunk + 1), chunk, share)
    alive, trials, covered, spent = np.ones(1), 0, 0.0, 0.0
    while alive.sum() > 1e-7:
        alive, trials = np.convolve(alive, step), trials + chunk
        moments = binary(np.arange(trials + 1), trials)
        done = rule.done(moments)
        low, high = rule.interval(moments)
        stopped = np.where(done, alive, 0)
        covered += stopped[(low <= share) & (share <= high)].sum()
        spent += trials * stopped.sum()
        alive = np.where(done, 0, alive)
    return covered, spent


def simulated_coverage(rule, draw, truth, chunk=25, campaigns=1000):
    """Of campaigns of drawn numbers per trial, run until the last one stops."""
    moments = moments_of(draw((campaigns, chunk)))
    live, covered = np.ones(campaigns, bool), np.zeros(campaigns, bool)
    while live.any():
        low, high = rule.interval(moments)
        stopped = live & rule.done(moments)
        covered[stopped] = ((low <= truth) & (truth <= high))[stopped]
        live &= ~stopped
        moments = merge(moments, moments_of(draw((campaigns, chunk))))
    return covered.mean()


def walds_rule(half_width):
    def interval(moments):
        error = 1.96 * np.sqrt(moments.mean * (1 - moments.mean) / moments.trials)
        return Interval(moments.mean - error, moments.mean + error)

    def done(moments):
        low, high = interval(moments)
        return high - low <= 2 * half_width

    return StoppingRule(done, interval)


@pytest.mark.parametrize("chunk", [10, 100])
@pytest.mark.parametrize(
    "share, half_width", [(0.01, 0.005), (0.05, 0.01), (0.3, 0.03)]
)
def test_coverage_at_the_stop_is_the_confidence(share, half_width, chunk):
    covered, spent = exact_coverage(share_rule(half_width), share, chunk)
    assert 0.93 <= covered <= 0.97
    needed = 1.96**2 * share * (1 - share) / half_width**2
    assert needed < spent < 1.15 * needed + chunk
    if share == 0.01:
        assert exact_coverage(walds_rule(half_width), share, chunk)[0] < 0.6


def test_simulated_campaigns_agree_with_the_exact_law():
    rng, rule = np.random.default_rng(0), share_rule(0.03)
    found = simulated_coverage(rule, lambda shape: rng.random(shape) < 0.1, 0.1)
    assert found == pytest.approx(exact_coverage(rule, 0.1, 25)[0], abs=0.025)
    assert 0.93 <= found <= 0.97


@pytest.mark.parametrize("share, half_width", [(0.05, 0.015), (0.3, 0.035)])
def test_coverage_where_outcomes_share_the_faults_of_a_trial(share, half_width):
    """Beta-binomial shares of 50 images; without a floor the stop comes too early."""

    def draw(shape):
        return rng.binomial(50, rng.beta(5 * share, 5 * (1 - share), shape)) / 50

    rng = np.random.default_rng(1)
    found = simulated_coverage(share_rule(half_width, size=50), draw, share)
    assert 0.93 <= found <= 0.97
    if share == 0.05:
        eager = share_rule(half_width, size=50, minimum=2)
        assert simulated_coverage(eager, draw, share) < 0.93


def test_coverage_of_a_mean():
    rng, rule = np.random.default_rng(2), mean_rule(0.1)
    found = simulated_coverage(rule, lambda shape: rng.gamma(4, 0.5, shape), 2.0)
    assert 0.93 <= found <= 0.97


def test_rules_stop_at_their_width_and_claim_the_ordinary_interval():
    moments = binary(np.arange(401), 400)
    rule = share_rule(0.04)
    found = rule.interval(moments)
    np.testing.assert_allclose(found, wilson_interval(np.arange(401), 400))
    done = rule.done(moments)
    assert done.any() and not done.all()
    assert np.all((found.high - found.low)[done] <= 0.08)
    values = np.random.default_rng(3).normal(size=900)
    rule = mean_rule(0.08, minimum=500)
    many, few = moments_of(values), moments_of(values[:499])
    assert rule.done(many) and not rule.done(few)
    assert rule.interval(many) == mean_interval(many)
    assert not rule.done(moments_of(values[:1]))
    assert not share_rule(0.04, size=9).done(moments_of(np.full(199, 0.0)))


def test_confidence_sequence_is_the_set_of_unrefuted_proportions():
    for successes, trials in ((0, 10), (3, 10), (50, 50), (400, 1000)):
        low, high = confidence_sequence(binary(successes, trials), 0.9)
        grid = np.linspace(0, 1, 20_001)[1:-1]
        law = successes * np.log(grid) + (trials - successes) * np.log1p(-grid)
        mixture = special.betaln(1 + successes, 1 + trials - successes)
        inside = grid[mixture - law < np.log(10)]
        assert (low, high) == pytest.approx((inside[0], inside[-1]), abs=1e-4)


@pytest.mark.parametrize("spread", ["binary", "between"])
def test_confidence_sequence_misses_at_no_time(spread):
    """1000 campaigns, looked at every 5 of 400 trials; there plain intervals fail."""
    rng = np.random.default_rng(4)
    if spread == "binary":
        values = rng.random((1000, 400)) < 0.2
    else:
        values = rng.beta(0.2, 0.8, (1000, 400))
    trials = np.arange(5, 401, 5)
    sums = np.cumsum(values, 1)[:, 4::5]
    low, high = confidence_sequence(Moments(trials, sums / trials, np.zeros(())))
    assert np.mean(np.any((low > 0.2) | (0.2 > high), 1)) <= 0.05
    if spread == "binary":
        low, high = wilson_interval(sums, trials)
        assert np.mean(np.any((low > 0.2) | (0.2 > high), 1)) > 0.2


def test_anytime_rule_stops_on_the_sequence():
    rule, moments = (
        anytime_rule(0.05),
        binary(np.array([40, 400]), np.array([200, 2000])),
    )
    low, high = confidence_sequence(moments)
    np.testing.assert_array_equal(rule.interval(moments), [low, high])
    np.testing.assert_array_equal(rule.done(moments), high - low <= 0.1)
    assert rule.done(moments).tolist() == [False, True]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: share_rule(0.0), "half_width=0.0"),
        (lambda: share_rule(0.5), "below 0.5"),
        (lambda: share_rule(0.1, confidence=95.0), "as 0.95"),
        (lambda: anytime_rule(0.7), "below 0.5"),
        (lambda: mean_rule(-1.0), "above 0"),
        (lambda: mean_rule(1.0, minimum=1), "two or more"),
        (lambda: confidence_sequence(Moments(3, 1.5, 0.0)), "divide counts"),
    ],
)
def test_impossible_rules_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Estimates over strata are unbiased, reduce to the plain ones, and cover."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from jaxnas.faults.means import moments_of
from jaxnas.faults.sampling_plans import (
    neyman_allocation,
    proportional_allocation,
    sample_size,
    second_phase,
)
from jaxnas.faults.statistics import wilson_interval
from jaxnas.faults.stratified import stratified_mean, stratified_share

CAMPAIGNS = 1000


def network_table(share, seed=0):
    """Every fault of a network: weights and critical ones per layer and bit.

    The higher the bit, the more of its faults are critical, in every layer by its own
    factor; the lowest bits have none, and the highest may have little else.
    """
    rng = np.random.default_rng(seed)
    weights = np.repeat([432, 2304, 4608, 9216, 18432, 36864], 8)
    chances = np.tile(2.0 ** np.arange(8), 6) * np.repeat(rng.uniform(0.5, 1.5, 6), 8)
    for _ in range(20):
        chances = np.minimum(chances * share / np.average(chances, weights=weights), 1)
    return weights, np.rint(chances * weights).astype(int)


def draw(rng, populations, critical, trials, campaigns=CAMPAIGNS):
    shape = (campaigns, len(populations))
    return rng.hypergeometric(critical, populations - critical, trials, shape)


def coverage(estimate, truth):
    return np.mean((estimate.low <= truth) & (truth <= estimate.high))


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("allocation", ["proportional", "neyman", "equal"])
def test_coverage_of_the_exhaustive_truth(share, allocation):
    populations, critical = network_table(share)
    chances = critical / populations
    trials = {
        "proportional": proportional_allocation(2000, populations),
        "neyman": neyman_allocation(
            2000, populations, np.sqrt(np.maximum(chances * (1 - chances), 0.02))
        ),
        "equal": np.full(len(populations), 2000 // len(populations)),
    }[allocation]
    successes = draw(np.random.default_rng(1), populations, critical, trials)
    estimate = stratified_share(successes, trials, populations)
    truth = critical.sum() / populations.sum()
    assert 0.93 <= coverage(estimate, truth) <= 0.97
    error = np.std(estimate.value) / np.sqrt(CAMPAIGNS)
    assert abs(np.mean(estimate.value) - truth) < 4 * error


# Weights per layer of ResNet-20, and in thousandths of a percent the stuck-at faults of
# their 32 bits that changed a prediction in the exhaustive campaign of Ruospo, Gavarini
# and others, DATE 2023.
RESNET = [432, *[2304] * 6, 4608, *[9216] * 5, 18432, *[36864] * 5, 640]
CRITICAL = [1456, 652, 625, 594, 742, 1407, 1237, 703, 1389, 1355]
CRITICAL += [1289, 1409, 1305, 662, 1244, 1309, 1088, 1303, 1067, 694]


@pytest.mark.parametrize("margin", [0.01, 0.003])
def test_coverage_of_a_published_exhaustive_campaign(margin):
    populations = 64 * np.array(RESNET)
    critical = np.rint(populations * np.array(CRITICAL) / 1e5).astype(int)
    total = int(sample_size(int(populations.sum()), margin, 1.96, 0.012))
    trials = proportional_allocation(total, populations)
    successes = draw(np.random.default_rng(6), populations, critical, trials)
    found = stratified_share(successes, trials, populations)
    assert 0.93 <= coverage(found, critical.sum() / populations.sum()) <= 0.97
    assert np.mean(found.high - found.low) / 2 < 1.25 * margin


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_two_phases_cover_and_beat_proportional_allocation(share):
    populations, critical = network_table(share)
    truth, rng = critical.sum() / populations.sum(), np.random.default_rng(2)
    pilot = np.full(len(populations), 10)
    first = draw(rng, populations, critical, pilot)
    rest = np.stack([second_phase(8000, populations, x, pilot) for x in first])
    left = critical - first
    second = rng.hypergeometric(left, populations - pilot - left, rest)
    both = stratified_share(first + second, pilot + rest, populations)
    assert 0.93 <= coverage(both, truth) <= 0.97
    trials = proportional_allocation(8000, populations)
    plain = draw(rng, populations, critical, trials)
    plain = stratified_share(plain, trials, populations)
    assert np.std(both.value) < np.std(plain.value)
    assert np.mean(both.high - both.low) < np.mean(plain.high - plain.low)


@pytest.mark.parametrize("trials", [1, 9, 40])
def test_one_stratum_gives_wilsons_interval(trials):
    for successes in {0, 1, trials // 2, trials}:
        found = stratified_share(
            np.array([successes]), np.array([trials]), np.array([40])
        )
        expected = wilson_interval(successes, trials, population=40)
        np.testing.assert_allclose(found[1:], expected, atol=1e-9)


def test_strata_that_show_nothing_give_wilsons_interval_of_all():
    """Alike strata without success cannot be told from one."""
    nothing, trials = np.zeros(5, int), np.full(5, 12)
    found = stratified_share(nothing, trials, np.full(5, 10**9))
    assert found.low == 0
    lost = 11.2 / 12  # the trials that fitting five proportions to one sum leaves
    upper = stats.norm.ppf(0.975) ** 2
    assert found.high == pytest.approx(upper / (60 * lost + upper), rel=1e-6)


def test_limits_are_the_constrained_likelihoods():
    """At each limit no strata with that average are likelier, and z errors away."""
    x, n, populations = (
        np.array([1, 4, 9]),
        np.array([10, 12, 15]),
        np.array([50, 90, 70]),
    )
    found = stratified_share(x, n, populations)
    worth = n * (populations - 1) / (populations - n)
    weights = populations / populations.sum()
    parts = weights**2 / worth
    factors = parts * n / (n - 1 + parts / parts.sum())
    for limit in found[1:]:
        best = optimize.minimize(
            lambda q: -np.sum(worth * (x / n * np.log(q) + (1 - x / n) * np.log1p(-q))),
            np.full(3, limit),
            bounds=[(1e-6, 1 - 1e-6)] * 3,
            constraints={"type": "eq", "fun": lambda q, p=limit: weights @ q - p},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        error = np.sqrt(np.sum(factors * best.x * (1 - best.x)))
        distance = abs(found.value - limit) / error
        assert distance == pytest.approx(stats.norm.ppf(0.975), rel=1e-3)


def test_estimate_is_unbiased_over_every_sample():
    """All pairs of 3 from 6 and 2 from 4 faults, weighed equally."""
    six, four = np.array([1, 0, 0, 1, 0, 1]), np.array([0, 0, 1, 0])
    pairs = itertools.product(
        itertools.combinations(six, 3), itertools.combinations(four, 2)
    )
    successes = np.array([[sum(a), sum(b)] for a, b in pairs])
    found = stratified_share(successes, np.array([3, 2]), np.array([6, 4]))
    assert np.mean(found.value) == pytest.approx(4 / 10)


def test_a_census_leaves_no_doubt():
    found = stratified_share(np.array([2, 0]), np.array([5, 3]), np.array([5, 3]))
    np.testing.assert_allclose(found, 0.25, atol=1e-12)


def test_certain_strata_are_trusted_as_far_as_they_were_tried():
    certain = np.array([0, 30, 0]), np.array([30, 30, 30]), np.array([900, 100, 500])
    few = stratified_share(*certain)
    many = stratified_share(certain[0] * 3, certain[1] * 3, certain[2])
    assert few.low < many.low < few.value == pytest.approx(100 / 1500)
    assert few.value < many.high < few.high


def test_mean_over_strata_covers_the_exhaustive_truth():
    rng = np.random.default_rng(5)
    populations, trials = np.array([300, 500, 900]), np.array([60, 60, 200])
    faults = [rng.gamma(s, 0.1, n) for s, n in zip((1, 3, 9), populations, strict=True)]
    truth = np.concatenate(faults).mean()
    drawn = [
        rng.permuted(np.tile(f, (CAMPAIGNS, 1)), axis=1)[:, :n]
        for f, n in zip(faults, trials, strict=True)
    ]
    parts = [moments_of(values) for values in drawn]
    moments = type(parts[0])(
        trials, *(np.stack([p[i] for p in parts], -1) for i in (1, 2))
    )
    found = stratified_mean(moments, populations)
    assert 0.93 <= coverage(found, truth) <= 0.97
    variance = [
        (f.var(ddof=1) / n * (1 - n / len(f))) * (len(f) / 1700) ** 2
        for f, n in zip(faults, trials, strict=True)
    ]
    assert np.std(found.value) == pytest.approx(np.sqrt(sum(variance)), rel=0.08)


SINGLE = np.array([[0, 1], [1, 2], [9, 9]])
IMPOSSIBLE = np.array([[0, 3], [2, 2], [9, 9]])
CROWDED = np.array([[0, 1], [2, 9], [9, 8]])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: stratified_share(*np.array([[0, 1], [1, 2], [9, 9]])),
            "1 strata have",
        ),
        (
            lambda: stratified_share(*np.array([[0, 3], [2, 2], [9, 9]])),
            "0 <= successes",
        ),
        (lambda: stratified_share(*np.array([[0, 1], [2, 9], [9, 8]])), "population"),
        (
            lambda: stratified_mean(moments_of(np.ones((2, 1))), np.array([9, 9])),
            "2 strata have a single trial",
        ),
    ],
)
def test_impossible_strata_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

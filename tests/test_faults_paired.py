"""Paired comparisons agree with SciPy, with the likelihood, and cover."""

import numpy as np
import pytest
from scipy import optimize, stats

from jaxnas.faults.paired import (
    clustered_paired_interval,
    mcnemar_test,
    mean_difference_interval,
    paired_interval,
)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    gains, losses = np.meshgrid(np.arange(9), np.arange(9))
    found = mcnemar_test(gains, losses)
    for i, j in np.ndindex(found.shape):
        discordant = int(gains[i, j] + losses[i, j])
        if discordant:
            expected = stats.binomtest(int(gains[i, j]), discordant).pvalue
            assert found[i, j] == pytest.approx(expected)
    assert mcnemar_test(0, 0) == 1


@pytest.mark.parametrize("gains, losses, trials", [(12, 3, 60), (1, 6, 40), (5, 5, 20)])
def test_limits_are_z_errors_from_the_difference(gains, losses, trials):
    """The variance is that of the likeliest table with the difference of the limit."""

    def against(q, d):
        agree = 1 - 2 * q - d
        counts = (gains, losses, trials - gains - losses)
        chances = (q + d, q, agree)
        return -sum(k * np.log(p) for k, p in zip(counts, chances, strict=True))

    for limit in paired_interval(gains, losses, trials):
        bounds = (max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9)
        q = optimize.minimize_scalar(
            against, args=(limit,), bounds=bounds, method="bounded"
        ).x
        error = np.sqrt((2 * q + limit - limit**2) / trials)
        distance = abs((gains - losses) / trials - limit) / error
        assert distance == pytest.approx(stats.norm.ppf(0.975), rel=1e-3)


def test_interval_changes_sign_with_its_sides_and_knows_its_ends():
    gains, losses = np.array([4, 0, 0, 20]), np.array([9, 0, 20, 0])
    low, high = paired_interval(gains, losses, 20)
    swapped = paired_interval(losses, gains, 20)
    np.testing.assert_allclose(low, -swapped.high, atol=1e-9)
    assert low[1] < 0 < high[1] and high[1] == pytest.approx(-low[1])
    assert low[2] == -1 and high[3] == 1


@pytest.mark.parametrize("gain, loss", [(0.06, 0.02), (0.3, 0.1), (0.02, 0.02)])
def test_interval_covers_the_difference(gain, loss):
    chances = [gain, loss, 1 - gain - loss]
    counts = np.random.default_rng(0).multinomial(300, chances, 2000)
    low, high = paired_interval(counts[:, 0], counts[:, 1], 300)
    truth = gain - loss
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


def shared_faults(rng, shape, size):
    """Images per trial that the first alone, or the second alone, classifies rightly.

    How hard the fault of the trial hits is common to both.
    """
    severity = rng.beta(0.8, 2.0, (*shape, 1))
    chances = np.concatenate([0.3 * severity, 0.1 * severity, 1 - 0.4 * severity], -1)
    counts = rng.multinomial(size, chances)
    return counts[..., 0], counts[..., 1]


def test_clustered_interval_covers_where_the_plain_one_does_not():
    gains, losses = shared_faults(np.random.default_rng(1), (1500, 60), 80)
    truth = 0.2 * 0.8 / 2.8
    low, high = clustered_paired_interval(gains, losses, 80)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97
    low, high = paired_interval(gains.sum(-1), losses.sum(-1), 60 * 80)
    assert np.mean((low <= truth) & (truth <= high)) < 0.8


def test_trials_of_one_outcome_give_tangos_interval():
    gains, losses = np.eye(20, dtype=int)[:4].sum(0), np.eye(20, dtype=int)[5]
    found = clustered_paired_interval(gains, losses, 1)
    assert found == paired_interval(int(sum(gains)), int(sum(losses)), 20)


def test_mean_difference_is_scipys_and_gains_from_common_faults():
    rng = np.random.default_rng(2)
    common = rng.exponential(1, 200)
    first, second = common + rng.normal(0, 0.1, 200), common
    found = mean_difference_interval(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval()
    assert found == pytest.approx((expected.low, expected.high))
    apart = mean_difference_interval(first, rng.permutation(second))
    assert found.high - found.low < 0.2 * (apart.high - apart.low)


ONES = np.ones(3, int)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mcnemar_test(-1, 2), "no negative"),
        (lambda: paired_interval(3, 3, 5), "successes=6 of trials=5"),
        (lambda: paired_interval(1, 1, 5, 1.0), "as 0.95"),
        (
            lambda: clustered_paired_interval(ONES[:1], ONES[:1], 5),
            "two trials",
        ),
        (lambda: clustered_paired_interval(ONES * 4, ONES * 4, 5), "of trials=5"),
        (lambda: mean_difference_interval(np.ones(3), np.ones(4)), "the same trials"),
    ],
)
def test_impossible_pairs_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

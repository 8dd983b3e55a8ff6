"""Moments merge exactly, and their intervals are SciPy's and the clustered ones."""

import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.means import (
    Moments,
    effective_trials,
    mean_interval,
    merge,
    moments_by,
    moments_of,
    share_interval,
)
from jaxnas.faults.statistics import clustered_wilson_interval, wilson_interval

RNG = np.random.default_rng(0)
VALUES = 1e6 + RNG.normal(size=(3, 57))  # far from zero: naive sums would cancel


def test_moments_of_any_grouping_are_those_of_all():
    whole = moments_of(VALUES)
    parts = [moments_of(part) for part in np.split(VALUES, [1, 5, 30], axis=1)]
    left = merge(merge(merge(*parts[:2]), parts[2]), parts[3])
    right = merge(parts[3], merge(parts[1], merge(parts[2], parts[0])))
    for merged in (left, right):
        assert merged.trials == 57
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
        np.testing.assert_allclose(merged.squares, 57 * VALUES.var(1), rtol=1e-8)


def test_moments_by_group_are_those_of_each():
    group = RNG.permutation(57) % 5
    found = moments_by(VALUES[0], group, 6)  # the last one is empty
    for n in range(5):
        expected = moments_of(VALUES[0][group == n])
        np.testing.assert_allclose([column[n] for column in found], expected)
    assert found.trials[5] == 0
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        moments_by(np.array([1.0, np.inf]), np.array([0, 0]), 1)


def test_mean_interval_is_scipys():
    found = mean_interval(moments_of(VALUES), 0.9)
    expected = stats.ttest_1samp(VALUES, 0, axis=1).confidence_interval(0.9)
    np.testing.assert_allclose(found.low, expected.low, rtol=1e-12)
    np.testing.assert_allclose(found.high, expected.high, rtol=1e-12)


def test_share_interval_is_that_of_the_counts():
    counts = RNG.binomial(40, RNG.beta(2, 5, (4, 25)))
    found = share_interval(moments_of(counts / 40), 40)
    np.testing.assert_allclose(found, clustered_wilson_interval(counts, 40))
    binary = RNG.random((4, 25)) < 0.3
    found = share_interval(moments_of(binary))
    np.testing.assert_allclose(found, wilson_interval(binary.sum(1), 25))


def test_a_lone_trial_counts_as_one_outcome():
    assert effective_trials(moments_of(np.array([0.4])), 100, 0.95) == 1


@pytest.mark.parametrize("law", ["normal", "uniform", "exponential"])
def test_mean_interval_covers(law):
    draw = {
        "normal": lambda: RNG.normal(0.5, 1, (3000, 80)),
        "uniform": lambda: RNG.random((3000, 80)),
        "exponential": lambda: RNG.exponential(0.5, (3000, 80)),
    }[law]
    low, high = mean_interval(moments_of(draw()))
    assert 0.93 <= np.mean((low <= 0.5) & (0.5 <= high)) <= 0.97


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: moments_of(np.array([])), "one or more trials"),
        (lambda: moments_of(np.array([1.0, np.nan])), "1 of 2 values are not finite"),
        (lambda: mean_interval(Moments(1, 0.0, 0.0)), "two or more"),
        (lambda: mean_interval(Moments(9, 0.0, 1.0), 95.0), "as 0.95"),
        (lambda: share_interval(Moments(9, 3.0, 1.0), 5), "divide counts"),
        (lambda: share_interval(Moments(9, 0.3, 1.0), 0), "size=0"),
    ],
)
def test_impossible_moments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

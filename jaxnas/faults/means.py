"""Means of numbers per trial, from sums that a campaign can carry along.

A metric such as the drop of accuracy is one number per trial, and trials are
independent; the images within a trial are not, as they share its faults. Count, mean
and sum of squares are all that the intervals need: they are merged by the pairwise
update of Chan, Golub and LeVeque, COMPSTAT (1982) 30.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Integer
from scipy import stats

from jaxnas.faults.statistics import (
    Interval,
    Real,
    check_confidence,
    effective_outcomes,
    score_interval,
)

Values = (
    Float[Array | np.ndarray, "..."]
    | Integer[Array | np.ndarray, "..."]
    | Bool[Array | np.ndarray, "..."]
)


class Moments(NamedTuple):
    """What is known of numbers per trial; arrays hold one campaign per element."""

    trials: Integer[np.ndarray, "..."] | np.integer | int
    mean: Float[np.ndarray, "..."] | float
    squares: Float[np.ndarray, "..."] | float  # sum of squared deviations from the mean


def moments_of(values: Values) -> Moments:
    """Count, mean and sum of squared deviations along the last axis, `trials`.

    Raises:
      ValueError: no trials, or a value that is not finite: what such a trial is worth
        is the metric's to say.
    """
    values = np.asarray(values, float)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"values of shape {values.shape}; expected one or more trials on the last "
            "axis"
        )
    _check_finite(values)
    mean = values.mean(-1)
    squares = np.sum((values - mean[..., None]) ** 2, -1)
    return Moments(values.shape[-1], mean, squares)


def moments_by(
    values: Values, group: Integer[np.ndarray, " trials"], groups: int
) -> Moments:
    """The moments of each group of trials, which are numbered from 0 on.

    Raises:
      ValueError: a value that is not finite.
    """
    values = np.asarray(values, float)
    _check_finite(values)
    trials = np.bincount(group, minlength=groups)
    means = np.bincount(group, values, groups) / np.maximum(trials, 1)
    squares = np.bincount(group, (values - means[group]) ** 2, groups)
    return Moments(trials, means, squares)


def _check_finite(values):
    unusable = int(np.sum(~np.isfinite(values)))
    if unusable:
        raise ValueError(
            f"{unusable} of {values.size} values are not finite; give the trials whose "
            "output is not a number a value, or count them as a proportion"
        )


def merge(first: Moments, second: Moments) -> Moments:
    """The moments of all trials of both: of any order and grouping, up to rounding."""
    trials = np.add(first.trials, second.trials)
    weight = np.divide(second.trials, trials)
    step = np.subtract(second.mean, first.mean)
    between = step**2 * weight * first.trials
    mean = first.mean + weight * step
    return Moments(trials, mean, first.squares + second.squares + between)


def mean_interval(moments: Moments, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean over all trials that could be drawn.

    Exact for normal values and in the limit for all others of finite variance. A mean
    made by rare large values is covered less often than promised until some dozens of
    them have been seen; without any spread the interval is a point.

    Raises:
      ValueError: fewer than two trials, or a confidence outside (0, 1).
    """
    check_confidence(confidence)
    if np.any(np.less(moments.trials, 2)):
        raise ValueError(
            f"{moments.trials} trials; the spread of a mean needs two or more"
        )
    free = np.subtract(moments.trials, 1)
    error = np.sqrt(moments.squares / free / moments.trials)
    half = stats.t.ppf((1 + confidence) / 2, free) * error
    return Interval((moments.mean - half)[()], (moments.mean + half)[()])


def share_interval(
    moments: Moments, size: int = 1, confidence: float = 0.95
) -> Interval:
    """Wilson's interval of the mean of shares, each of the `size` outcomes of a trial.

    That of `clustered_wilson_interval`, from moments. With size 1 the trials count as
    yes or no, which is also safe for shares of any other kind: nothing between 0 and 1
    varies more.

    Raises:
      ValueError: a mean outside [0, 1], size below 1, or a confidence outside (0, 1).
    """
    worth = effective_trials(moments, size, confidence)
    return score_interval(np.asarray(moments.mean), worth, confidence)


def effective_trials(moments: Moments, size: int, confidence: float) -> Real:
    """The independent outcomes that the trials are worth: `effective_outcomes`.

    Raises:
      ValueError: as `share_interval`.
    """
    check_confidence(confidence)
    if size < 1:
        raise ValueError(f"size={size} outcomes per trial; expected one or more")
    if np.any(np.less(moments.mean, 0)) or np.any(np.greater(moments.mean, 1)):
        raise ValueError(
            f"a mean of {moments.mean}; expected shares of outcomes, from 0 to 1: "
            "divide counts by the outcomes per trial"
        )
    variance = moments.squares / np.maximum(np.subtract(moments.trials, 1), 1)
    return effective_outcomes(
        np.asarray(moments.mean), variance, moments.trials, size, confidence
    )

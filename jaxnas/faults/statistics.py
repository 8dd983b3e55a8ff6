"""Confidence intervals of proportions: accuracies, error and corruption rates.

Wilson, JASA 22 (1927) 209; Clopper and Pearson, Biometrika 26 (1934) 404; for trials
that share a fault, the effective sample size of Kish, "Survey Sampling" (1965), with
the degrees of freedom of Korn and Graubard, Survey Methodology 24 (1998) 193.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Integer
from scipy import stats

Counts = int | np.integer | Integer[Array | np.ndarray, "..."]
Real = np.floating | Float[np.ndarray, "..."]


class Interval(NamedTuple):
    """Lower and upper limit of a proportion."""

    low: Real
    high: Real


def wilson_interval(
    successes: Counts, trials: Counts, confidence: float = 0.95
) -> Interval:
    """Wilson's score interval of the proportion behind independent trials.

    Arrays broadcast. The coverage is the confidence on average over proportions, not
    for each of them.

    Raises:
      ValueError: no trials, not 0 <= successes <= trials, or a confidence outside
        (0, 1).
    """
    _check_counts(successes, trials)
    _check_confidence(confidence)
    return _wilson(np.divide(successes, trials), np.asarray(trials), confidence)


def _wilson(share, size, confidence) -> Interval:
    """The p with |share - p| <= z sqrt(p (1 - p) / size): roots of a quadratic."""
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    spread = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * size)) / size)
    half = spread / (1 + z2 / size)
    # At share 0 and 1 one root is the share itself, which rounding would miss.
    low = np.where(share == 0, 0.0, np.maximum(centre - half, 0))
    high = np.where(share == 1, 1.0, np.minimum(centre + half, 1))
    return Interval(low[()], high[()])


def clopper_pearson_interval(
    successes: Counts, trials: Counts, confidence: float = 0.95
) -> Interval:
    """The exact interval: it covers every proportion at least with the confidence.

    Raises:
      ValueError: as `wilson_interval`.
    """
    _check_counts(successes, trials)
    _check_confidence(confidence)
    successes, trials = np.asarray(successes), np.asarray(trials)
    tail = (1 - confidence) / 2
    failures = trials - successes
    # A beta law needs positive parameters: the limits at the ends are set by hand.
    lower = stats.beta.ppf(tail, np.maximum(successes, 1), failures + 1)
    upper = stats.beta.isf(tail, successes + 1, np.maximum(failures, 1))
    low = np.where(successes == 0, 0.0, lower)
    return Interval(low[()], np.where(failures == 0, 1.0, upper)[()])


def design_effect(
    successes_per_trial: Integer[Array | np.ndarray, "... trials"], size: int
) -> Real:
    """How many times the variance of the mean exceeds that of independent outcomes.

    The ratio of the variance between the proportions of trials to p (1 - p) / size,
    and at least one: less can only be chance, or the same images in every trial.
    Without any spread it is one. All images of a trial share the trial's faults, so
    that one image is worth 1 / design_effect independent ones.

    Raises:
      ValueError: fewer than two trials, or not 0 <= successes <= size.
    """
    successes = np.asarray(successes_per_trial)
    if successes.ndim == 0 or successes.shape[-1] < 2:
        raise ValueError(
            f"successes of shape {successes.shape}; expected two trials or more along "
            "the last axis, as the spread between trials is what is measured"
        )
    _check_counts(successes, size)
    shares = successes / size
    mean = shares.mean(-1)
    independent = mean * (1 - mean) / size
    between = shares.var(-1, ddof=1)
    positive = np.where(independent > 0, independent, 1)
    return np.maximum(between / positive, 1)[()]


def clustered_wilson_interval(
    successes_per_trial: Integer[Array | np.ndarray, "... trials"],
    size: int,
    confidence: float = 0.95,
) -> Interval:
    """Wilson's interval for trials of `size` outcomes that share the trial's faults.

    The n outcomes count as n / design_effect independent ones, and less by (z / t)^2,
    where t is Student's quantile with trials - 1 degrees of freedom: the design effect
    is itself an estimate. Rare trials that ruin everything are covered only once some
    have been seen.

    Raises:
      ValueError: as `design_effect`, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    effect = design_effect(successes_per_trial, size)
    successes = np.asarray(successes_per_trial)
    trials = successes.shape[-1]
    share = successes.mean(-1) / size
    upper = (1 + confidence) / 2
    estimated = (stats.norm.ppf(upper) / stats.t.ppf(upper, trials - 1)) ** 2
    return _wilson(share, trials * size / effect * estimated, confidence)


def _check_counts(successes: Counts, trials: Counts) -> None:
    if np.any(np.less(trials, 1)):
        raise ValueError(f"{trials} trials; a proportion needs at least one")
    if np.any(np.less(successes, 0)) or np.any(np.greater(successes, trials)):
        raise ValueError(
            f"successes={successes} of trials={trials}; expected counts with "
            "0 <= successes <= trials"
        )


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected between 0 and 1, as 0.95")

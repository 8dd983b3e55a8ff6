"""Confidence intervals of proportions: accuracies, error and corruption rates.

Wilson, JASA 22 (1927) 209; Clopper and Pearson, Biometrika 26 (1934) 404; for faults
drawn without replacement, the finite-population correction of Cochran, "Sampling
Techniques" (1977), chapters 2 and 3; for trials that share a fault, the effective
sample size of Kish, "Survey Sampling" (1965), with the degrees of freedom of Korn and
Graubard, Survey Methodology 24 (1998) 193.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Integer
from scipy import stats

Counts = int | np.integer | Integer[Array | np.ndarray, "..."]
Real = np.floating | Float[np.ndarray, "..."]


class Interval(NamedTuple):
    """Lower and upper limit of a proportion, a mean or a difference."""

    low: Real
    high: Real


def wilson_interval(
    successes: Counts,
    trials: Counts,
    confidence: float = 0.95,
    population: Counts | None = None,
) -> Interval:
    """Wilson's score interval of the proportion behind independent trials.

    Arrays broadcast. The coverage is the confidence on average over proportions, not
    for each of them. With `population` the trials are distinct members of it and the
    proportion is that of its members: a census leaves no doubt.

    Raises:
      ValueError: no trials, not 0 <= successes <= trials, a confidence outside (0, 1),
        or more trials than members of the population.
    """
    check_counts(successes, trials)
    size = finite_trials(trials, population)
    return score_interval(np.divide(successes, trials), size, confidence)


def finite_trials(trials: Counts, population: Counts | None) -> Real:
    """How many independent trials are worth as much as distinct ones of a population.

    n (N - 1) / (N - n): the share of n distinct members has the variance
    p (1 - p) / n (N - n) / (N - 1). A census is worth infinitely many. Without a
    population it is the number of trials.

    Raises:
      ValueError: more trials than members of the population.
    """
    if population is None:
        return np.asarray(trials, float)[()]
    trials, population = np.asarray(trials, float), np.asarray(population, float)
    if np.any(trials > population):
        raise ValueError(
            f"{trials} trials of a population of {population}; trials without "
            "replacement are at most the population: omit it for repeated draws"
        )
    left = population - trials
    worth = trials * (population - 1) / np.where(left > 0, left, 1)
    return np.where(left > 0, worth, np.inf)[()]


def score_interval(
    share: float | Real, size: float | Real, confidence: float = 0.95
) -> Interval:
    """The p with |share - p| <= z sqrt(p (1 - p) / size): roots of a quadratic.

    Wilson's interval for a share with the variance of `size` independent outcomes,
    which need not be a whole number.

    Raises:
      ValueError: a confidence outside (0, 1).
    """
    check_confidence(confidence)
    share, size = np.asarray(share), np.asarray(size)
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    spread = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * size)) / size)
    half = spread / (1 + z2 / size)
    # At share 0 and 1 one root is the share itself, which rounding would miss.
    low = np.where(share == 0, 0.0, np.maximum(centre - half, 0))
    high = np.where(share == 1, 1.0, np.minimum(centre + half, 1))
    return Interval(low[()], high[()])


def clopper_pearson_interval(
    successes: Counts,
    trials: Counts,
    confidence: float = 0.95,
    population: Counts | None = None,
) -> Interval:
    """The exact interval: it covers every proportion at least with the confidence.

    With `population` the trials are distinct members of it: the limits are the least
    and the greatest number of critical members, over the population, under which
    neither tail of the hypergeometric law is below (1 - confidence) / 2.

    Raises:
      ValueError: as `wilson_interval`.
    """
    check_counts(successes, trials)
    check_confidence(confidence)
    tail = (1 - confidence) / 2
    if population is not None:
        finite_trials(trials, population)
        counts = (np.asarray(c, np.int64) for c in (successes, trials, population))
        return _hypergeometric(*np.broadcast_arrays(*counts), tail)
    successes, trials = np.asarray(successes), np.asarray(trials)
    failures = trials - successes
    # A beta law needs positive parameters: the limits at the ends are set by hand.
    lower = stats.beta.ppf(tail, np.maximum(successes, 1), failures + 1)
    upper = stats.beta.isf(tail, successes + 1, np.maximum(failures, 1))
    low = np.where(successes == 0, 0.0, lower)
    return Interval(low[()], np.where(failures == 0, 1.0, upper)[()])


def _hypergeometric(successes, trials, population, tail) -> Interval:
    """Both limits by bisection: the tails are monotone in the critical members."""

    def enough(critical):
        return stats.hypergeom.sf(successes - 1, population, critical, trials) > tail

    low = _first(enough, successes, population - (trials - successes))
    # Failures are the successes of the other members: the same search, mirrored.
    failures = trials - successes

    def enough_sound(sound):
        return stats.hypergeom.sf(failures - 1, population, sound, trials) > tail

    sound = _first(enough_sound, failures, population - successes)
    return Interval((low / population)[()], (1 - sound / population)[()])


def _first(holds, low, high):
    """The first integer in [low, high], elementwise, from which on a test holds."""
    while np.any(low < high):
        middle = (low + high) // 2
        held = holds(middle)
        low, high = np.where(held, low, middle + 1), np.where(held, middle, high)
        low = np.minimum(low, high)
    return low


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
    check_counts(successes, size)
    shares = successes / size
    return _effect(shares.mean(-1), shares.var(-1, ddof=1), size)


def _effect(share, variance, size):
    independent = share * (1 - share) / size
    positive = np.where(independent > 0, independent, 1)
    return np.maximum(variance / positive, 1)[()]


def effective_outcomes(
    share: float | Real,
    variance: float | Real,
    trials: Counts,
    size: int,
    confidence: float = 0.95,
) -> Real:
    """How many independent outcomes `trials` trials of `size` outcomes are worth.

    `share` and `variance` are the mean and the variance of the shares of the trials.
    The outcomes count divided by the design effect, and less by (z / t)^2, where t is
    Student's quantile with trials - 1 degrees of freedom: the design effect is itself
    an estimate. A trial of one outcome needs none of this, and a lone trial counts as
    one outcome.
    """
    trials = np.asarray(trials)
    if size == 1:
        return trials.astype(float)[()]
    upper = (1 + confidence) / 2
    student = stats.t.ppf(upper, np.maximum(trials - 1, 1))
    estimated = (stats.norm.ppf(upper) / student) ** 2
    effect = _effect(np.asarray(share), np.asarray(variance), size)
    outcomes = trials * size / effect * estimated
    return np.where(trials > 1, outcomes, trials)[()]


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
    check_confidence(confidence)
    design_effect(successes_per_trial, size)  # refuses what is not a table of counts
    shares = np.asarray(successes_per_trial) / size
    mean, variance = shares.mean(-1), shares.var(-1, ddof=1)
    worth = effective_outcomes(mean, variance, shares.shape[-1], size, confidence)
    return score_interval(mean, worth, confidence)


def check_counts(successes: Counts, trials: Counts) -> None:
    """Refuses counts that no number of trials can have."""
    if np.any(np.less(trials, 1)):
        raise ValueError(f"{trials} trials; a proportion needs at least one")
    if np.any(np.less(successes, 0)) or np.any(np.greater(successes, trials)):
        raise ValueError(
            f"successes={successes} of trials={trials}; expected counts with "
            "0 <= successes <= trials"
        )


def check_confidence(confidence: float) -> None:
    """Refuses a confidence outside (0, 1), such as a percentage."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected between 0 and 1, as 0.95")

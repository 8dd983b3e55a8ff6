"""Two networks or protections under the same faults: what their difference is.

Under common keys, trial i gives both the same faults, and all that the two have in
common drops out of the difference. Binary outcomes: McNemar, Psychometrika 12 (1947)
153, and the score interval of Tango, Statistics in Medicine 17 (1998) 891. Trials of
many outcomes: the design effect of Kish, "Survey Sampling" (1965), on the difference.
"""

import numpy as np
from jaxtyping import Array, Integer
from scipy import stats

from jaxnas.faults.means import Values, mean_interval, moments_of
from jaxnas.faults.statistics import (
    Counts,
    Interval,
    Real,
    check_confidence,
    check_counts,
)

PerTrial = Integer[Array | np.ndarray, "... trials"]


def mcnemar_test(gains: Counts, losses: Counts) -> Real:
    """The exact two-sided p-value of no difference between paired outcomes.

    Of all pairs, `gains` count those in which the first alone succeeds, `losses` those
    in which the second alone does; pairs that agree say nothing. Outcomes must be
    independent: with trials of many images, count the trials that the first wins and
    loses, which is the sign test.

    Raises:
      ValueError: a negative count.
    """
    gains, losses = np.asarray(gains), np.asarray(losses)
    if np.any(gains < 0) or np.any(losses < 0):
        raise ValueError(f"gains={gains}, losses={losses}; expected no negative count")
    tail = stats.binom.cdf(np.minimum(gains, losses), gains + losses, 0.5)
    return np.minimum(2 * tail, 1.0)[()]


def paired_interval(
    gains: Counts, losses: Counts, trials: Counts, confidence: float = 0.95
) -> Interval:
    """Tango's interval of the difference of two proportions of the same trials.

    The first less the second, (gains - losses) / trials: see `mcnemar_test`. Arrays
    broadcast.

    Raises:
      ValueError: no trials, counts that are impossible, or a confidence outside (0, 1).
    """
    gains, losses = np.asarray(gains), np.asarray(losses)
    _check_pairs(gains, losses, trials)
    check_confidence(confidence)
    return _tango(gains, losses, np.asarray(trials), confidence)


def clustered_paired_interval(
    gains_per_trial: PerTrial,
    losses_per_trial: PerTrial,
    size: int,
    confidence: float = 0.95,
) -> Interval:
    """Tango's interval for trials of `size` outcomes that share the trial's faults.

    The outcomes count divided by the design effect of the difference, and less by
    (z / t)^2, as in `clustered_wilson_interval`.

    Raises:
      ValueError: fewer than two trials, counts that are impossible, or a confidence
        outside (0, 1).
    """
    gains, losses = np.asarray(gains_per_trial), np.asarray(losses_per_trial)
    if gains.shape != losses.shape or gains.ndim == 0 or gains.shape[-1] < 2:
        raise ValueError(
            f"gains of shape {gains.shape} and losses of shape {losses.shape}; "
            "expected one of each for two trials or more, along the last axis"
        )
    _check_pairs(gains, losses, size)
    check_confidence(confidence)
    trials = gains.shape[-1]
    if size == 1:
        return _tango(gains.sum(-1), losses.sum(-1), trials, confidence)
    gain, loss = gains.mean(-1) / size, losses.mean(-1) / size
    independent = (gain + loss - (gain - loss) ** 2) / size
    between = ((gains - losses) / size).var(-1, ddof=1)
    effect = np.maximum(between / np.where(independent > 0, independent, 1), 1)
    upper = (1 + confidence) / 2
    estimated = (stats.norm.ppf(upper) / stats.t.ppf(upper, trials - 1)) ** 2
    worth = trials * size / effect * estimated
    return _tango(gain * worth, loss * worth, worth, confidence)


def mean_difference_interval(
    first: Values, second: Values, confidence: float = 0.95
) -> Interval:
    """Student's interval of the mean difference of a metric, the first less the second.

    Both hold one number per trial along the last axis, and trial i had the same faults.

    Raises:
      ValueError: numbers of different trials, fewer than two, or not finite; or a
        confidence outside (0, 1).
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(
            f"values of shapes {first.shape} and {second.shape}; pairs need the same "
            "trials on both sides"
        )
    return mean_interval(moments_of(first - second), confidence)


def _check_pairs(gains, losses, trials):
    check_counts(gains, trials)
    check_counts(losses, trials)
    check_counts(gains + losses, trials)


def _tango(gains, losses, trials, confidence) -> Interval:
    """The d with |gains - losses - n d| <= z sqrt(n (2 q + d (1 - d))).

    q is the likeliest share of losses if the difference is d: the root of
    2 n q^2 - (gains + losses - (2 n - gains + losses) d) q - losses d (1 - d) = 0.
    """
    quantile = stats.norm.ppf((1 + confidence) / 2)
    gains, losses, trials = np.broadcast_arrays(
        *(np.asarray(a, float) for a in (gains, losses, trials))
    )
    difference = (gains - losses) / trials

    def outside(d):
        linear = gains + losses - (2 * trials - gains + losses) * d
        constant = losses * d * (1 - d)
        root = np.sqrt(np.maximum(linear**2 + 8 * trials * constant, 0))
        q = np.maximum((linear + root) / (4 * trials), 0)
        variance = np.maximum(trials * (2 * q + d * (1 - d)), 0)
        return np.abs(gains - losses - trials * d) > quantile * np.sqrt(variance)

    limits = []
    for end in (-1.0, 1.0):
        out, inside = np.full(difference.shape, end), difference
        reached = np.abs(difference - end) < 1e-12
        for _ in range(50):
            middle = (out + inside) / 2
            beyond = outside(middle)
            out = np.where(beyond, middle, out)
            inside = np.where(beyond, inside, middle)
        limits.append(np.where(reached, end, out)[()])
    return Interval(*limits)

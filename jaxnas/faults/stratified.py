"""Estimates over strata of known populations, such as layers times bit positions.

The estimate weighs each stratum by its population (Cochran, "Sampling Techniques",
1977, chapter 5). Most strata of a network show no effect or nothing else, and their
estimated variance is then zero; Wald's interval fails there, and Wilson intervals
summed over strata (Yan and Su, Statistics in Biopharmaceutical Research 2 (2010) 329)
grow too wide with the number of strata. The score interval here inverts the test of
each proportion at the most likely strata that have it: the construction of Miettinen
and Nurminen, Statistics in Medicine 4 (1985) 213, for a weighted sum.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Integer
from scipy import stats

from jaxnas.faults.means import Moments
from jaxnas.faults.statistics import (
    Real,
    check_confidence,
    check_counts,
    finite_trials,
)

Strata = Integer[Array | np.ndarray, "... strata"]


class Estimate(NamedTuple):
    """An estimate over the population, with its interval."""

    value: Real
    low: Real
    high: Real


def stratified_share(
    successes: Strata, trials: Strata, populations: Strata, confidence: float = 0.95
) -> Estimate:
    """The proportion over all strata, from distinct trials in each of them.

    The limits are the proportions p with (estimate - p)^2 = z^2 V, where V is the
    variance of the estimate if the strata had the proportions q of greatest likelihood
    among those that average to p:

        x_h / q_h - (n_h - x_h) / (1 - q_h) = lambda W_h
        V = sum W_h^2 q_h (1 - q_h) / n_h

    with n_h corrected for the finite population, and each term of V enlarged by
    n_h / (n_h - 1 + c_h) because q_h was fitted to the trials; c_h is the part of the
    variance, were the strata alike, that the constraint takes from the fit. One stratum
    gives Wilson's interval, and a stratum without success has its say in the upper
    limit. Leading axes are campaigns.

    Raises:
      ValueError: a stratum with one trial among several strata, unless that is all of
        it; counts that are impossible; or a confidence outside (0, 1).
    """
    check_counts(successes, trials)
    check_confidence(confidence)
    successes, trials, populations = np.broadcast_arrays(
        *(np.asarray(a) for a in (successes, trials, populations))
    )
    worth = finite_trials(trials, populations)
    if trials.shape[-1] > 1:
        _refuse_single(trials, populations)
    weights = populations / populations.sum(-1, keepdims=True)
    shares = successes / trials
    value = np.sum(weights * shares, -1)
    ratios = weights / worth
    parts = weights * ratios
    doubt = np.maximum(parts.sum(-1, keepdims=True), np.finfo(float).tiny)
    # A census of one element has c = 0 and no variance: any divisor will do.
    lost = np.maximum(trials - 1 + parts / doubt, 0.5)
    factors = parts * trials / lost
    quantile = stats.norm.ppf((1 + confidence) / 2)
    low, high = (
        _limit(side, shares, weights, ratios, factors, value, quantile)
        for side in (-1, 1)
    )
    return Estimate(value[()], np.clip(low, 0, value)[()], np.clip(high, value, 1)[()])


def _limit(side, shares, weights, ratios, factors, value, quantile):
    """The proportion at which the deviation is `quantile` standard errors.

    Bisection over the logarithm of the multiplier, in units in which the stratum with
    the fewest trials for its weight has the ratio one.
    """
    units = np.max(ratios, -1, keepdims=True)
    units = ratios / np.where(units > 0, units, 1)
    below, above = np.full(value.shape, -9.0), np.full(value.shape, 18.0)

    def moved(exponent):
        multiplier = -side * 10.0 ** exponent[..., None] * units
        return _likeliest(shares, multiplier)

    for _ in range(45):
        middle = (below + above) / 2
        fitted = moved(middle)
        deviation = side * (np.sum(weights * fitted, -1) - value)
        error = quantile * np.sqrt(np.sum(factors * fitted * (1 - fitted), -1))
        # Rounding in the sum over strata must not pass for a deviation.
        far = deviation - 1e-13 > error
        above = np.where(far, middle, above)
        below = np.where(far, below, middle)
    return np.sum(weights * moved(above), -1)


def _likeliest(shares, multiplier):
    """The root q in [0, 1] of k q^2 - (1 + k) q + share = 0: q falls as k grows."""
    linear = 1 + multiplier
    root = np.sqrt(np.maximum(linear**2 - 4 * multiplier * shares, 0))
    # The two forms of one root, each without cancellation for its sign of `linear`.
    ahead = linear > 0
    plain = 2 * shares / np.where(ahead, linear + root, 1)
    turned = (linear - root) / np.where(ahead, 1, 2 * multiplier)
    return np.clip(np.where(ahead, plain, turned), 0, 1)


def stratified_mean(
    moments: Moments, populations: Strata, confidence: float = 0.95
) -> Estimate:
    """The mean of numbers per trial over all strata, from distinct trials in each.

    `moments` hold one row per stratum along the last axis. Student's interval with
    the degrees of freedom of Satterthwaite, Biometrics Bulletin 2 (1946) 110. For
    the shares of trials whose outcomes hang together, and for any other metric.

    Raises:
      ValueError: a stratum with fewer than two trials, unless that is all of it; more
        trials than members of the population; or a confidence outside (0, 1).
    """
    check_confidence(confidence)
    trials, means, squares, populations = np.broadcast_arrays(
        *(np.asarray(a) for a in (*moments, populations))
    )
    finite_trials(trials, populations)
    if np.any(trials < 1):
        raise ValueError(f"{trials} trials; expected one or more in every stratum")
    _refuse_single(trials, populations)
    weights = populations / populations.sum(-1, keepdims=True)
    free = np.maximum(trials - 1, 1)
    left = 1 - trials / populations
    variances = weights**2 * left * squares / free / trials
    variance = variances.sum(-1)
    sums = np.sum(variances**2 / free, -1)
    freedom = np.where(sums > 0, variance**2 / np.where(sums > 0, sums, 1), 1)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    value = np.sum(weights * means, -1)
    return Estimate(value[()], (value - half)[()], (value + half)[()])


def _refuse_single(trials, populations):
    """One trial shows no spread, and would pass for certainty."""
    single = int(np.sum((trials < 2) & (trials < populations)))
    if single:
        raise ValueError(
            f"{single} strata have a single trial; expected two or more in each: merge "
            "small strata, or allocate with minimum=2"
        )

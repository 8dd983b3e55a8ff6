"""How many faults to inject, and in which strata: before the campaign.

Sample sizes by Leveugle, Calvez, Maistri and Vanhauwaert, "Statistical fault injection:
quantified error and confidence", DATE 2009, equation 4; allocation by Neyman, Journal
of the Royal Statistical Society 97 (1934) 558, within bounds.
"""

import numpy as np
from jaxtyping import Array, Float, Integer

from jaxnas.faults.statistics import Counts, Real, check_counts

Strata = Integer[Array | np.ndarray, " strata"]


def sample_size(
    population: Counts,
    margin: float,
    quantile: float = 2.58,
    share: float = 0.5,
) -> Integer[np.ndarray, "..."] | np.integer:
    """How many of the possible faults to inject, for a margin of error.

    n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p))), to the nearest whole number as the
    published tables have it. `margin` is e, half the width of the interval of the
    proportion; `quantile` is t, 1.96 for a confidence of 95 % and 2.58 for 99 %;
    `share` is the proportion expected, at worst one half.

    Raises:
      ValueError: no population, or a margin, quantile or share outside its range.
    """
    _check_plan(population, quantile, share)
    if not 0 < margin < 1:
        raise ValueError(f"margin={margin}; expected between 0 and 1, as 0.01")
    population = np.asarray(population, float)
    doubt = margin**2 * (population - 1) / (quantile**2 * share * (1 - share))
    return np.maximum(np.rint(population / (1 + doubt)), 1).astype(int)[()]


def margin_of_error(
    trials: Counts, population: Counts, quantile: float = 2.58, share: float = 0.5
) -> Real:
    """The margin that `trials` distinct faults of a population attain.

    e = t sqrt(p (1 - p) / n (N - n) / (N - 1)), the inverse of `sample_size`.

    Raises:
      ValueError: as `sample_size`, no trials, or more than the population.
    """
    _check_plan(population, quantile, share)
    trials, population = np.asarray(trials, float), np.asarray(population, float)
    if np.any(trials < 1) or np.any(trials > population):
        raise ValueError(
            f"{trials} trials of a population of {population}; expected at least one "
            "and no more than the population"
        )
    left = (population - trials) / np.maximum(population - 1, 1)
    return (quantile * np.sqrt(share * (1 - share) / trials * left))[()]


def proportional_allocation(
    total: int, populations: Strata, minimum: int = 2
) -> Integer[np.ndarray, " strata"]:
    """Trials per stratum in proportion to its population, `total` in sum.

    At least `minimum` in each stratum, or the whole stratum if it is smaller; never
    more than the population.

    Raises:
      ValueError: an empty stratum, or a total that the bounds do not admit.
    """
    populations = _checked(populations)
    return _allocate(
        total, populations, populations, np.full_like(populations, minimum)
    )


def neyman_allocation(
    total: int,
    populations: Strata,
    deviations: Float[Array | np.ndarray, " _"],
    minimum: int = 2,
) -> Integer[np.ndarray, " strata"]:
    """Trials per stratum for the least variance of the estimate over all strata.

    In proportion to population times standard deviation: sqrt(p (1 - p)) for a
    proportion p, of any scale. The bounds are those of `proportional_allocation`, and
    hold before rounding, by the largest remainders. Strata without deviation share
    what the others cannot take.

    Raises:
      ValueError: as `proportional_allocation`, or a negative or infinite deviation.
    """
    populations = _checked(populations)
    deviations = np.asarray(deviations, float)
    if deviations.shape != populations.shape:
        raise ValueError(
            f"{deviations.shape} deviations for {populations.shape} populations; "
            "expected one for each stratum"
        )
    if not np.all(np.isfinite(deviations) & (deviations >= 0)):
        raise ValueError(f"deviations={deviations}; expected finite ones, not below 0")
    minima = np.full_like(populations, minimum)
    return _allocate(total, populations, populations * deviations, minima)


def second_phase(
    total: int,
    populations: Strata,
    successes: Strata,
    trials: Strata,
) -> Integer[np.ndarray, " strata"]:
    """Trials still to run per stratum, after a pilot: `total` with the pilot's.

    Neyman's allocation by the shares of the pilot, which counts as its part; a stratum
    in which the pilot ran more than its due gets none. A success and a failure are
    added to every stratum: without them a stratum that shows nothing in the pilot is
    tried no more, and as those that show something by chance are, the estimate from
    both phases falls short. Keep the pilot below a fifth of the total, as what is left
    of that bias grows with it: about a quarter of a standard error at a fifth.

    Raises:
      ValueError: as `neyman_allocation`, or counts that no pilot can have.
    """
    populations = _checked(populations)
    successes, trials = np.asarray(successes), np.asarray(trials)
    check_counts(successes, trials)
    if np.any(trials > populations):
        raise ValueError(f"a pilot of {trials} trials in populations of {populations}")
    shares = (successes + 1) / (trials + 2)
    weights = populations * np.sqrt(shares * (1 - shares))
    return _allocate(total, populations, weights, trials) - trials


def _allocate(total, populations, weights, minima):
    """Whole numbers near the weights' proportions within bounds, `total` in sum."""
    low = np.minimum(minima, populations)
    if np.any(low < 0) or not np.sum(low) <= total <= np.sum(populations):
        raise ValueError(
            f"total={total} trials in {len(populations)} strata; expected between "
            f"{np.sum(low)}, the least that every stratum gets, and "
            f"{np.sum(populations)}, the population"
        )
    ideal = _fill(total, weights.astype(float), low, populations)
    floors = np.floor(ideal).astype(int)
    # The bounds are whole, so that neither the floor nor one more leaves them.
    short = total - int(np.sum(floors))
    remainders = np.where(floors < populations, ideal - floors, -1.0)
    order = np.argsort(-remainders, kind="stable")
    floors[order[:short]] += 1
    return floors


def _fill(total, weights, low, high):
    """clip(t w, low, high) with the t whose sum is the total: Neyman's within bounds.

    The variance sum w^2 / n is convex and its multiplier t is common to all strata that
    are off their bounds (Karush, Kuhn and Tucker).
    """
    weighty = weights > 0
    room = np.sum(np.where(weighty, high, low))
    if total > room:
        # The strata with weight are full: the others share by their population.
        filled = np.where(weighty, high, low)
        return _fill(total, np.where(weighty, 0, high), filled, high)
    if not np.any(weighty):
        return low.astype(float)
    # The sum is piecewise linear in t, with knots where a stratum meets a bound.
    safe = np.where(weighty, weights, 1)
    ends = np.where(weighty, [low / safe, high / safe], 0)
    knots = np.unique(ends)
    sums = np.array([np.sum(np.clip(t * weights, low, high)) for t in knots])
    return np.clip(np.interp(total, sums, knots) * weights, low, high)


def _checked(populations):
    populations = np.asarray(populations)
    if populations.size == 0 or np.any(populations < 1):
        raise ValueError(
            f"populations={populations}; expected one or more faults in every stratum: "
            "leave out the empty ones"
        )
    return populations.astype(int)


def _check_plan(population, quantile, share):
    if np.any(np.less(population, 1)):
        raise ValueError(f"population={population}; expected one fault or more")
    if not quantile > 0:
        raise ValueError(f"quantile={quantile}; expected above 0, as 1.96 for 95 %")
    if not 0 < share < 1:
        raise ValueError(f"share={share}; expected between 0 and 1, at worst 0.5")

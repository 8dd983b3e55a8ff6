"""When to stop a campaign: rules that are asked after every chunk of trials.

A rule that stops once an interval is narrow enough looks at the estimate to decide, so
that its interval may cover less than promised: the campaigns that stop first are those
that saw too little spread. Wald's rule is the worst, as it stops at once without a
success. Here two successes and two failures are added before asking, as in the interval
of Agresti and Coull, The American Statistician 52 (1998) 119, so that a rule is never
fooled by seeing nothing (cf. Frey, The American Statistician 64 (2010) 242), and
estimated spreads need a floor of trials (Chow and Robbins, Annals of Mathematical
Statistics 36 (1965) 457). The interval at the stop is then the ordinary one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import special, stats

from jaxnas.faults.means import (
    Moments,
    effective_trials,
    mean_interval,
    share_interval,
)
from jaxnas.faults.statistics import Interval, check_confidence

Verdict = bool | np.bool_ | Bool[np.ndarray, "..."]


class StoppingRule(NamedTuple):
    """Pure functions of the moments of all trials so far.

    `done` says whether the campaign may stop, `interval` what it may then claim.
    """

    done: Callable[[Moments], Verdict]
    interval: Callable[[Moments], Interval]


def share_rule(
    half_width: float,
    *,
    size: int = 1,
    minimum: int | None = None,
    confidence: float = 0.95,
) -> StoppingRule:
    """Stops when the proportion is known to within `half_width`.

    The moments are those of the shares of the trials, of `size` outcomes each that have
    the faults in common. `minimum` trials are run in any case: one for size 1, where
    the proportion alone says the spread, else 200. Coverage is near the confidence for
    proportions above twice the `half_width`; below, it is that of Wilson's interval for
    very few successes, which swings about the confidence: ask for a smaller half-width.
    The interval is at most 2 `half_width` long.

    Raises:
      ValueError: a half-width outside (0, 0.5), a confidence outside (0, 1).
    """
    _check_width(half_width, 0.5)
    check_confidence(confidence)
    if minimum is None:
        minimum = 1 if size == 1 else 200
    quantile = stats.norm.ppf((1 + confidence) / 2)

    def done(moments):
        worth = effective_trials(moments, size, confidence)
        enlarged = worth + quantile**2
        centre = (moments.mean * worth + quantile**2 / 2) / enlarged
        half = quantile * np.sqrt(centre * (1 - centre) / enlarged)
        return (half <= half_width) & np.greater_equal(moments.trials, minimum)

    def interval(moments):
        return share_interval(moments, size, confidence)

    return StoppingRule(done, interval)


def mean_rule(
    half_width: float, *, minimum: int = 200, confidence: float = 0.95
) -> StoppingRule:
    """Stops when the mean of a metric is known to within `half_width`, in its unit.

    Student's interval is asked after `minimum` trials at the earliest. Raise the
    minimum for a metric that a few trials decide: until they have been seen the
    spread is taken for less than it is.

    Raises:
      ValueError: a half-width of 0 or less, fewer than two trials as the minimum, or a
        confidence outside (0, 1).
    """
    _check_width(half_width, np.inf)
    check_confidence(confidence)
    if minimum < 2:
        raise ValueError(f"minimum={minimum} trials; a spread needs two or more")

    def done(moments):
        enough = np.greater_equal(moments.trials, minimum)
        # Too few trials have no interval: they are asked as if they were two.
        padded = moments._replace(trials=np.maximum(moments.trials, 2))
        low, high = mean_interval(padded, confidence)
        return enough & ((high - low) / 2 <= half_width)

    def interval(moments):
        return mean_interval(moments, confidence)

    return StoppingRule(done, interval)


def anytime_rule(half_width: float, *, confidence: float = 0.95) -> StoppingRule:
    """Stops on a confidence sequence: covered at all times at once, whoever looks when.

    For shares from 0 to 1, and safe for any number of looks and any reason to stop. The
    price is more coverage than asked for at the stop, nearly certainty, and about four
    times the trials of `share_rule`. See `confidence_sequence`.

    Raises:
      ValueError: as `share_rule`.
    """
    _check_width(half_width, 0.5)
    check_confidence(confidence)

    def interval(moments):
        return confidence_sequence(moments, confidence)

    def done(moments):
        low, high = interval(moments)
        return (high - low) / 2 <= half_width

    return StoppingRule(done, interval)


def confidence_sequence(moments: Moments, confidence: float = 0.95) -> Interval:
    """An interval whose union over all numbers of trials misses with 1 - confidence.

    The p at which the beta mixture of likelihood ratios stays below
    1 / (1 - confidence) (Robbins, Annals of Mathematical Statistics 41 (1970) 1397;
    Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 49 (2021) 1055), with the
    uniform mixture:

        B(1 + s, 1 + n - s) / (p^s (1 - p)^(n - s)) < 1 / (1 - confidence)

    The ratio is a supermartingale for yes and no and, because it is convex in each
    trial, for all shares from 0 to 1 with mean p.

    Raises:
      ValueError: a mean outside [0, 1], or a confidence outside (0, 1).
    """
    effective_trials(moments, 1, confidence)
    trials, mean = np.broadcast_arrays(
        np.asarray(moments.trials, float), np.asarray(moments.mean, float)
    )
    total = trials * mean
    mixture = special.betaln(1 + total, 1 + trials - total)

    def outside(p):
        ratio = mixture - special.xlogy(total, p) - special.xlog1py(trials - total, -p)
        return ratio >= -np.log1p(-confidence)

    low = _edge(outside, np.zeros_like(mean), mean)
    high = _edge(outside, np.ones_like(mean), mean)
    return Interval(low[()], high[()])


def _edge(outside, far, near):
    """Where `outside` ends between a far point and a near one that is inside."""
    reached = ~outside(far)
    out, inside = far, near
    for _ in range(60):
        middle = (out + inside) / 2
        beyond = outside(middle)
        out, inside = np.where(beyond, middle, out), np.where(beyond, inside, middle)
    return np.where(reached, far, out)


def _check_width(half_width, most):
    if not 0 < half_width < most:
        raise ValueError(
            f"half_width={half_width}; expected above 0 and below {most}: the distance "
            "from the middle of the interval to its limits"
        )

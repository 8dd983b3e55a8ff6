"""The nearest of a list of numbers, exactly, without extra passes over memory.

Decision thresholds say where every tie falls. Few are all compared with x. Of many, the
leading bits of x leave a handful to compare: sign, exponent and the first bits of the
mantissa, or the place of its first one, index a table that tells how many thresholds
lie below for certain and which are left. Comparisons do not wait for one another, so
that XLA fuses them into one loop; `jnp.searchsorted`, whose steps do, goes over the
array once a step. Only lists with more than `LEFT` numbers between two such patterns
are bisected, in two to four passes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Num

from jaxnas.numerics.formats import Pair, in_units
from jaxnas.types import Values

COMPARED = 32
"""Up to so many thresholds are all compared with x."""

LEFT = 12
"""Up to so many that the leading bits leave are all compared; more are bisected."""

BUCKETS = 1 << 12
"""At most so many patterns of leading bits are told apart, or twice as many as there
are thresholds: of 16-bit logarithms 1 is then left for each instead of 12, which halves
the time although the tables are longer."""

ROUNDED = 3.01 * 2.0**-24
"""The relative rounding of value * scale * (1 / scale): three half units."""


class Buckets(NamedTuple):
    """What the leading bits of x tell. Positive numbers first, then negative ones; in
    both the first bucket holds all lesser magnitudes, the last all greater ones."""

    shift: int | None  # bits of the mantissa that do not lead; None: its first one does
    least: int  # leading bits of the first bucket
    count: int  # buckets of either sign
    start: Int32[np.ndarray, " buckets"]  # thresholds certainly below
    left: int  # at most so many undecided after these


class Lookup(NamedTuple):
    """The decodable numbers at scale one. NumPy arrays, hence constants of a program.

    A number x belongs to the value whose index is how many thresholds lie below x.
    """

    decoded: Float32[np.ndarray, " words"]  # by word
    values: Float32[np.ndarray, " values"]  # distinct, ascending
    words: Int32[np.ndarray, " values"]  # the smallest word of each value
    thresholds: Float32[np.ndarray, " values-1"]
    slack: int  # how many values the rounding of units may be off
    buckets: Buckets | None  # for many thresholds

    def encode(self, x: Values, scale: Float32[Array, "..."]) -> Int[Array, "..."]:
        """The smallest word of the value nearest to x, at an opaque scale."""
        return self._nearest(self.words, x, scale)

    def quantize(self, x: Values, scale: Float32[Array, "..."]) -> Array:
        """The value nearest to x, at an opaque scale."""
        return self._nearest(self.values, x, scale) * scale

    def neighbours(self, x: Values, scale: Float32[Array, "..."]) -> Pair:
        """`Format.neighbours` at an opaque scale."""
        index = self._nearest(np.arange(len(self.values), dtype=np.int32), x, scale)
        low = high = entry(self.values, index) * scale
        # Values next to each other may agree once scaled: up to three of float32.
        for step in range(1, 2 + 2 * bool(self.slack)):
            below = jnp.maximum(index - step, 0)
            above = jnp.minimum(index + step, len(self.values) - 1)
            low = jnp.where(low > x, entry(self.values, below) * scale, low)
            high = jnp.where(high < x, entry(self.values, above) * scale, high)
        return low, high

    def _nearest(
        self,
        entries: Num[np.ndarray, " values"],
        x: Values,
        scale: Float32[Array, "..."],
    ) -> Num[Array, "..."]:
        """The entry of the value nearest to x; NaN counts as zero."""
        units = in_units(x, scale)
        units = jnp.where(jnp.isnan(units), 0, units)
        if self.buckets is None and not self.slack:
            return _compared(self.thresholds, entries, units)
        if self.buckets is None:
            indices = np.arange(len(self.values), dtype=np.int32)
            index = _compared(self.thresholds, indices, units)
        else:
            index = _searched(self.thresholds, self.buckets, units)
        return entry(entries, self._corrected(index, x, scale))

    def _corrected(
        self, index: Array, x: Values, scale: Float32[Array, "..."]
    ) -> Int[Array, "..."]:
        # Units are off by their rounding, which can be more than the way to the next
        # value. Scaled values are what decodes, so those x has reached are counted:
        # a number that decodes comes back, and others stay between their neighbours.
        # NaN beyond the ends compares as false.
        ends = np.full(self.slack, np.nan, np.float32)
        padded, found = np.concatenate([ends, self.values, ends]), index + self.slack
        for step in range(1, self.slack + 1):
            above = x >= entry(padded, found + step) * scale
            below = x <= entry(padded, found - step) * scale
            index = index + above.astype(jnp.int32) - below.astype(jnp.int32)
        return index


def entry(
    table: Num[np.ndarray, " entries"], index: Int[Array, "..."]
) -> Num[Array, "..."]:
    """table[index], for an index known to lie inside."""
    return jnp.asarray(table).at[index].get(mode="promise_in_bounds")


Middle = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Where the numbers between two neighbours part, in float64."""


def tabulate(
    decoded: Float[np.ndarray, " words"],
    middle: Middle = lambda low, high: (low + high) / 2,
) -> Lookup:
    """The lookup of a format whose word w stands for `decoded[w]` in float32.

    A number in the middle belongs to the value of smaller magnitude, of +-v to +v.
    """
    decoded = decoded.astype(np.float32) + np.float32(0)  # no negative zero
    values, words = np.unique(decoded, return_index=True)  # the first of equal ones
    middles = middle(values[:-1].astype(np.float64), values[1:].astype(np.float64))
    thresholds = _thresholds(values, middles)
    many = len(thresholds) > COMPARED
    return Lookup(
        decoded,
        values,
        words.astype(np.int32),
        thresholds,
        _slack(values, middles),
        _buckets(thresholds) if many else None,
    )


def _thresholds(values: np.ndarray, middle: np.ndarray) -> np.ndarray:
    # x > t must hold for a float32 x exactly where x is nearer to the upper value. So
    # t is the largest float32 not above the middle, and below it if the middle itself
    # belongs to the upper value.
    low, high = values[:-1], values[1:]
    rounded = middle.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    upwards = (abs(high) <= abs(low)) & (rounded == middle)
    thresholds = np.where(upwards | (rounded > middle), below, rounded)
    # XLA takes subnormal numbers for zero: the threshold below zero must be normal.
    tiny = np.finfo(np.float32).tiny
    return np.where((-tiny < thresholds) & (thresholds < 0), -tiny, thresholds)


def _slack(values: np.ndarray, middle: np.ndarray) -> int:
    values, own = values.astype(np.float64), np.arange(len(values))
    rounded = [values * (1 + way * ROUNDED) for way in (-1, 1)]
    return max(int(np.abs(np.searchsorted(middle, r) - own).max()) for r in rounded)


def _buckets(thresholds: np.ndarray) -> Buckets:
    """As many leading bits as `BUCKETS` says, or the place of the mantissa's first one,
    where that leaves fewer: thresholds may crowd above powers of two."""
    most = max(BUCKETS, 2 * len(thresholds))
    magnitude = np.abs(thresholds).view(np.int32)
    least, largest = int(magnitude[magnitude > 0].min()), int(magnitude.max())
    shifts = range(24)
    shift = next(s for s in shifts if 2 * ((largest >> s) - (least >> s) + 1) <= most)
    found = [_decided(thresholds, least, largest, one) for one in (shift, None)]
    return min(found, key=lambda buckets: buckets.left)


def _decided(thresholds, least, largest, shift: int | None) -> Buckets:
    """What is certain and what is left for every pattern of leading bits."""
    ends = np.array([[least], [largest]], np.int32)
    first, last = (int(_pattern(end, shift)[0]) for end in ends)
    edges = _lowest(np.arange(first + 1, last + 1, dtype=np.int32), shift)
    low, high = np.append(np.float32(0), edges), np.append(edges, np.float32(np.inf))
    # Thresholds below all of low <= x < high, or of -high < x <= -low, are decided, as
    # are those not below any.
    search = functools.partial(np.searchsorted, thresholds)
    start = np.append(search(low), search(-high, side="right"))
    left = np.append(search(high), search(-low)) - start
    count = last - first + 1
    return Buckets(shift, first, count, start.astype(np.int32), int(left.max()))


def _pattern(magnitude: Int[Array | np.ndarray, "..."], shift: int | None):
    """A number that never falls as the magnitude, given as its bits, rises."""
    if shift is not None:
        return magnitude >> shift
    mantissa = magnitude & 0x7FFFFF
    if isinstance(
        mantissa, np.ndarray
    ):  # a table may be made while a program is traced
        first_one = np.frexp(mantissa)[1]
    else:
        first_one = 32 - jax.lax.clz(mantissa)
    return (magnitude >> 23) * 24 + first_one


def _lowest(pattern: Int32[np.ndarray, "..."], shift: int | None) -> np.ndarray:
    """The least magnitude with a pattern."""
    if shift is not None:
        return (pattern << shift).view(np.float32)
    exponent, first_one = np.divmod(pattern, np.int32(24))
    mantissa = (np.int32(1) << first_one) >> 1
    return ((exponent << 23) | mantissa).astype(np.int32).view(np.float32)


def _compared(
    thresholds: np.ndarray, entries: np.ndarray, x: Float32[Array, "..."]
) -> Num[Array, "..."]:
    # Words and indices as float32: LLVM makes slow scalar code of integers that ascend.
    exact = entries.astype(np.float32)
    found = jnp.full_like(x, exact[0])
    for threshold, one in zip(thresholds, exact[1:], strict=True):
        found = jnp.where(x > threshold, one, found)
    return found.astype(entries.dtype)


def _searched(
    thresholds: np.ndarray, buckets: Buckets, x: Float32[Array, "..."]
) -> Int[Array, "..."]:
    """How many thresholds lie below x."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    leading = _pattern(bits & 0x7FFFFFFF, buckets.shift) - buckets.least
    bucket = jnp.clip(leading, 0, buckets.count - 1)
    bucket = jnp.where(bits < 0, bucket + buckets.count, bucket)
    below = entry(buckets.start, bucket)
    if buckets.left <= LEFT:
        padded = np.append(thresholds, np.full(LEFT, np.inf, np.float32))
        for step in range(buckets.left):
            one = entry(padded[buckets.start + step], bucket)
            below = below + (x > one).astype(jnp.int32)
        return below
    steps = buckets.left.bit_length()
    padded = np.append(thresholds, np.full(1 << steps, np.inf, np.float32))
    for half in (1 << step for step in reversed(range(steps))):
        below = jnp.where(x > entry(padded, below + half - 1), below + half, below)
    return below

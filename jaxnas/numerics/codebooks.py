"""Codebooks: formats that are lists of numbers, and the search for the nearest one.

A list of any length is searched through its decision thresholds, exactly: every tie
falls as stated. Ternary words follow Li et al., "Ternary weight networks",
arXiv:1605.04711; binary ones Courbariaux et al., "BinaryConnect", arXiv:1511.00363.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Num, UInt

from jaxnas.numerics.formats import (
    Pair,
    bracket,
    in_units,
    integers,
    opaque,
    signed_fields,
    word_dtype,
)
from jaxnas.types import Scale, Values, Words

CLOSEST = 2.0**-20
"""Numbers nearer to each other, relatively, count as one: a real scale must not move
a decoded number over a threshold, and costs three units in the last place."""

COMPARED = 32
"""Up to so many thresholds are all compared with x; more are searched by bisection."""


class Lookup(NamedTuple):
    """The decodable numbers at scale one. NumPy arrays, hence constants of a program.

    A number x belongs to the value whose index is how many thresholds lie below x.
    """

    decoded: Float32[np.ndarray, " words"]  # by word
    values: Float32[np.ndarray, " values"]  # distinct, ascending
    words: Int32[np.ndarray, " values"]  # the smallest word of each value
    thresholds: Float32[np.ndarray, " values-1"]

    def neighbours(self, x: Values, scale: Float32[Array, "..."]) -> Pair:
        """`Format.neighbours` for values that are these times an opaque scale."""
        index = nearest(self, in_units(x, scale))
        last = len(self.values) - 1
        around = (index, jnp.maximum(index - 1, 0), jnp.minimum(index + 1, last))
        return bracket(x, *(entry(self.values, each) * scale for each in around))


def tabulate(decoded: Float[np.ndarray, " words"]) -> Lookup:
    """The lookup of a format whose word w stands for `decoded[w]`.

    Of two equally near values the one of smaller magnitude is nearest, of +-v it is +v.
    """
    decoded = decoded.astype(np.float32) + np.float32(0)  # no negative zero
    order = np.argsort(decoded, kind="stable")
    ascending = decoded[order].astype(np.float64)
    gaps = np.diff(ascending)
    apart = gaps > CLOSEST * np.maximum(abs(ascending[1:]), abs(ascending[:-1]))
    group = np.concatenate([[0], np.cumsum(apart)])
    words = np.full(group[-1] + 1, len(decoded))
    np.minimum.at(words, group, order)
    values = decoded[words]
    return Lookup(decoded, values, words.astype(np.int32), _thresholds(values))


def _thresholds(values: np.ndarray) -> np.ndarray:
    # x > t must hold for a float32 x exactly where x is nearer to the upper value. So
    # t is the largest float32 not above the middle, and below it if the middle itself
    # belongs to the upper value.
    low, high = values[:-1].astype(np.float64), values[1:].astype(np.float64)
    middle = (low + high) / 2
    rounded = middle.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    upwards = (abs(high) <= abs(low)) & (rounded == middle)
    thresholds = np.where(upwards | (rounded > middle), below, rounded)
    # XLA takes subnormal numbers for zero: the threshold below zero must be normal.
    tiny = np.finfo(np.float32).tiny
    return np.where((-tiny < thresholds) & (thresholds < 0), -tiny, thresholds)


def nearest(table: Lookup, x: Values) -> Int[Array, "..."]:
    """The index of the value nearest to x; NaN counts as zero."""
    x = jnp.where(jnp.isnan(x), 0, x)
    compared = len(table.thresholds) <= COMPARED
    method = "compare_all" if compared else "scan_unrolled"
    return jnp.searchsorted(jnp.asarray(table.thresholds), x, method=method)


def entry(
    table: Num[np.ndarray, " entries"], index: Int[Array, "..."]
) -> Num[Array, "..."]:
    """table[index], for an index known to lie inside."""
    return jnp.asarray(table).at[index].get(mode="promise_in_bounds")


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """Word w stands for values[w] * scale: any list of numbers, in any order.

    The nearest value is taken; of two equally near ones that of smaller magnitude, of
    +-v the positive one. NaN counts as zero. Aliases: repeated values (those within
    2**-20 of each other count as repeated), of which the first is written; whoever has
    fewer values than words repeats one, and so says what the surplus words read.

    Raises ValueError unless there are 2, 4, 8, ... or 65536 values, all of them zero or
    normal float32 numbers and not all equal.
    """

    values: tuple[float, ...]

    def __post_init__(self):
        count, tiny = len(self.values), np.finfo(np.float32).tiny
        if not 2 <= count <= 1 << 16 or count & (count - 1):
            raise ValueError(
                f"a codebook of {count} values; expected a power of two from 2 to "
                "65536: repeat a value to say what the surplus words read"
            )
        largest = float(np.finfo(np.float32).max)
        wrong = [v for v in self.values if v and not tiny <= abs(v) <= largest]
        if wrong:
            raise ValueError(
                f"codebook values {wrong[:4]} are no normal float32 numbers; take "
                "finite ones and leave their magnitude to the scale"
            )
        if len(_listed(self.values).values) < 2:
            raise ValueError(
                f"all codebook values equal {self.values[0]}; expected at least two"
            )

    @property
    def bits(self) -> int:
        return len(self.values).bit_length() - 1

    @property
    def fields(self) -> dict[str, int]:
        return {"index": len(self.values) - 1}

    @property
    def span(self) -> float:
        return float(np.abs(np.float32(self.values)).max())

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        table = _listed(self.values)
        index = nearest(table, in_units(x, opaque(scale)))
        return entry(table.words, index).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, self.bits)
        return entry(_listed(self.values).decoded, word) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        table, scale = _listed(self.values), opaque(scale)
        return entry(table.values, nearest(table, in_units(x, scale))) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        return _listed(self.values).neighbours(x, opaque(scale))

    def bounds(self, scale: Scale) -> Pair:
        scale, values = opaque(scale), _listed(self.values).values
        return float(values[0]) * scale, float(values[-1]) * scale


@functools.lru_cache
def _listed(values: tuple[float, ...]) -> Lookup:
    return tabulate(np.asarray(values, np.float64))


@dataclass(frozen=True, kw_only=True)
class Ternary:
    """-scale, 0 or +scale: a sign bit and a magnitude bit.

    Magnitudes up to threshold * scale become zero, and so does NaN; 0.5 is nearest
    rounding. Alias: the negative zero, word 2, decodes to 0.
    Raises ValueError for a threshold that is not between 0 and 1.
    """

    threshold: float = 0.5

    def __post_init__(self):
        if not 0 < self.threshold < 1 - CLOSEST:
            raise ValueError(
                f"a ternary threshold of {self.threshold}; expected a number between 0 "
                "and 1, in units of the scale, such as 0.5"
            )

    @property
    def bits(self) -> int:
        return 2

    @property
    def fields(self) -> dict[str, int]:
        return signed_fields(2, "magnitude")

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        code = self._code(x, opaque(scale)).astype(jnp.int32)
        return jnp.where(code < 0, 3, code).astype(word_dtype(2))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, 2)
        code = jnp.where(word & 1, 1 - (word & 2), 0)
        return code.astype(jnp.float32) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._code(x, scale) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale = opaque(scale)
        code = jnp.clip(jnp.round(in_units(x, scale)), -1, 1)
        code = jnp.where(jnp.abs(code) > 0, code, 0)
        below, above = jnp.maximum(code - 1, -1), jnp.minimum(code + 1, 1)
        return bracket(x, code * scale, below * scale, above * scale)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -scale, scale

    def _code(self, x: Values, scale: Float32[Array, "..."]) -> Float32[Array, "..."]:
        units = in_units(x, scale)
        code = jnp.where(units > self.threshold, 1.0, 0.0)
        return jnp.where(units < -self.threshold, -1.0, code)


@dataclass(frozen=True, kw_only=True)
class Binary:
    """+scale for word 0 and -scale for word 1: a sign bit alone.

    Zeros of either sign and NaN become +scale. No aliases; the flipped bit negates.
    """

    @property
    def bits(self) -> int:
        return 1

    @property
    def fields(self) -> dict[str, int]:
        return {"sign": 1}

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        return (jnp.asarray(x) < 0).astype(word_dtype(1))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        return (1 - 2 * integers(words, 1)).astype(jnp.float32) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return jnp.where(jnp.asarray(x) < 0, -1.0, 1.0) * opaque(scale)

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale = opaque(scale)
        low, high = x < scale, x <= -scale
        return jnp.where(low, -scale, scale), jnp.where(high, -scale, scale)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -scale, scale

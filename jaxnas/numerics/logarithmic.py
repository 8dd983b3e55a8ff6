"""Logarithmic words: a sign and an exponent of any base.

Vogel et al., "Efficient hardware acceleration of CNNs using logarithmic data
representation with arbitrary log-base", ICCAD 2018 (doi 10.1145/3240765.3240803).
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt

from jaxnas.numerics.formats import (
    Pair,
    bracket,
    check_width,
    in_units,
    integers,
    opaque,
    signed_fields,
    word_dtype,
)
from jaxnas.numerics.lookups import entry
from jaxnas.types import Scale, Values, Words


class Antilogarithms(NamedTuple):
    """The magnitudes of a format at scale one, ascending. NumPy arrays.

    Level i is `values[i]`, written as the exponent field `fields[i]`. A magnitude is
    on the level whose index is how many thresholds lie below it.
    """

    values: Float32[np.ndarray, " levels"]
    fields: Int32[np.ndarray, " levels"]
    thresholds: Float32[np.ndarray, " levels-1"]
    level: Int32[np.ndarray, " fields"]  # by exponent field


@dataclass(frozen=True, kw_only=True)
class Logarithmic:
    """A sign and an exponent: value = +-scale * p(m), p(m) = base**(m - M).

    m is the exponent field, M its largest value. The nearest exponent minimises the
    relative error (half-way in the logarithm, where the smaller magnitude is taken),
    and magnitudes beyond M saturate. Flipping bit k of m multiplies the value by
    base**(+-2**k) between nonzero words.

    zero: with a zero code m = 0 stands for zero, magnitudes below m = 1/2 and NaN
        become zero, and so do negative numbers where there is no sign. Alias: the
        negative zero decodes to 0. Without a zero code m = 0 stands for base**-M like
        any other exponent, no two words are equal, and all that would become zero
        becomes the least magnitude instead: 0 and NaN with a positive sign, negative
        numbers with a negative one if there is a sign.
    fraction: None, or the width F of the binary fraction to which powers are rounded,
        p(m) = round(2**F base**(m - M)) / 2**F, as the table and the shift of a chip
        give them. All values are then integers times scale * 2**-F, so that products
        and sums are those of integers. More aliases: exponents that round to the same
        number, of which the least is written; those that round to zero. The law of
        flipped bits holds up to that rounding.

    Raises ValueError for a width outside 2..16; for a base that is not finite and above
    1, or whose powers collide or underflow in float32; for a fraction outside 1..16, or
    one at which no zero code stands for the zeros that it makes.
    """

    bits: int
    base: float
    signed: bool = True
    zero: bool = True
    fraction: int | None = None

    def __post_init__(self):
        check_width(self)
        check_base(self.base)
        powers = _powers(self)
        least = powers[int(self.zero)]
        if (
            least < np.finfo(np.float32).tiny
            or (np.diff(powers) <= 2.0**-20 * powers[1:]).any()
        ):
            steepest = 2 ** (126 / max(self._largest - self.zero, 1))
            raise ValueError(
                f"base {self.base} with {self._largest} exponents leaves float32: some "
                "powers collide or underflow; take fewer bits or a base between "
                f"{1 + 2**-19:.8g} and {steepest:.8g}"
            )
        if self.fraction is not None:
            self._check_fraction(least)

    def _check_fraction(self, least: np.floating) -> None:
        if not 1 <= self.fraction <= 16:
            raise ValueError(
                f"powers of {self.fraction} fraction bits; expected 1 to 16, or None "
                "for powers that are not rounded"
            )
        if not self.zero and least * 2**self.fraction <= 0.5:
            raise ValueError(
                f"the least power of base {self.base}, {least:.3g}, rounds to zero at "
                f"{self.fraction} fraction bits, and zero=False leaves no word for "
                "zero; take more fraction bits, a smaller base, or zero=True"
            )

    @property
    def fields(self) -> dict[str, int]:
        if not self.signed:
            return {"exponent": (1 << self.bits) - 1}
        return signed_fields(self.bits, "exponent")

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        level, negative = self._level(in_units(x, opaque(scale)))
        field = entry(antilogarithms(self).fields, level)
        word = jnp.where(negative, field | (self._largest + 1), field)
        return word.astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        # Powers from a float64 table, not from exp2: the table is exact to half a unit
        # in the last place on every device, and measured as fast on CPU.
        word = integers(words, self.bits)
        return entry(_decoded(self), word) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        level, negative = self._level(in_units(x, scale))
        magnitude = entry(antilogarithms(self).values, level)
        return jnp.where(negative, -magnitude, magnitude) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale, values = opaque(scale), antilogarithms(self).values
        level, negative = self._level(in_units(x, scale))
        # Ascending: the negative levels downwards, then the others. Without a zero,
        # ranks -1 and 0 are +-least.
        apart = int(values[0] > 0)
        rank = jnp.where(negative, -level - apart, level)
        last = len(values) - 1
        below = jnp.maximum(rank - 1, -last - apart if self.signed else 0)
        above = jnp.minimum(rank + 1, last)

        def ranked(rank):
            level = jnp.where(rank < 0, -rank - apart, rank)
            magnitude = entry(values, level)
            return jnp.where(rank < 0, -magnitude, magnitude) * scale

        return bracket(x, ranked(rank), ranked(below), ranked(above))

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        if self.signed:
            return -scale, scale
        return float(antilogarithms(self).values[0]) * scale, scale

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    def _level(self, units: Array) -> tuple[Int32[Array, "..."], Bool[Array, "..."]]:
        """The level of each magnitude, and whether the number is negative."""
        table, magnitude = antilogarithms(self), jnp.abs(units)
        last = len(table.values) - 1
        # A logarithm finds the level or one beside it; the thresholds decide, so that
        # no compiler and no device rounds another way.
        octaves = jnp.log(magnitude) * (1 / math.log(self.base))
        guess = jnp.clip(self._largest + jnp.round(octaves), 0, self._largest)
        guess = jnp.where(guess > 0, guess, 0).astype(jnp.int32)  # drops NaN
        level = guess if last == self._largest else entry(table.level, guess)
        padded = np.concatenate([[-np.inf], table.thresholds, [np.inf]])
        padded = padded.astype(np.float32)
        up = magnitude > entry(padded, level + 1)
        down = magnitude <= entry(padded, level)
        level = level + up.astype(jnp.int32) - down.astype(jnp.int32)
        negative = (units < 0) & ((level > 0) | bool(table.values[0] > 0))
        if not self.signed:
            level = jnp.where(units < 0, 0, level)
            negative = jnp.zeros_like(negative)
        return level, negative


def check_base(base: float) -> None:
    """Raises ValueError for a number that cannot be the base of a logarithm here."""
    if not 1 < base < math.inf:
        raise ValueError(
            f"a logarithmic base of {base}; expected a finite number above 1, "
            "such as 2 ** 0.125"
        )


@functools.lru_cache
def _powers(format: Logarithmic) -> Float[np.ndarray, " fields"]:
    """base**(m - M) by exponent field, exact, and zero where that is meant."""
    largest = format._largest
    powers = np.float64(format.base) ** (np.arange(largest + 1) - largest)
    if format.zero:
        powers[0] = 0
    return powers


@functools.lru_cache
def antilogarithms(format: Logarithmic) -> Antilogarithms:
    """The magnitudes that words of a format stand for, and where they part."""
    powers = _powers(format)
    read = powers.astype(np.float32)
    if format.fraction is not None:
        read = np.rint(np.ldexp(powers, format.fraction)) * 2.0**-format.fraction
        read = read.astype(np.float32)
    values, fields, level = np.unique(read, return_index=True, return_inverse=True)
    # Parted half-way in the logarithm; zero and the least power half an exponent below.
    exact = powers if format.fraction is None else values.astype(np.float64)
    low, high = exact[:-1], exact[1:]
    # The least power itself may have been rounded down.
    least = min(powers[fields[1]], exact[1])
    edge = least / np.sqrt(np.float64(format.base))
    middle = np.where(low > 0, np.sqrt(low) * np.sqrt(high), edge)
    thresholds = middle.astype(np.float32)
    above = thresholds > middle
    thresholds[above] = np.nextafter(thresholds[above], np.float32(0))
    fields, level = fields.astype(np.int32), level.astype(np.int32)
    return Antilogarithms(values, fields, thresholds, level)


@functools.lru_cache
def _decoded(format: Logarithmic) -> Float32[np.ndarray, " words"]:
    """Value of every word at scale one."""
    table = antilogarithms(format)
    magnitudes = table.values[table.level]
    negative = -magnitudes + np.float32(0)  # no negative zero
    return np.concatenate([magnitudes, negative]) if format.signed else magnitudes

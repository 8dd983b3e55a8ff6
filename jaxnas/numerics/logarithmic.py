"""Logarithmic words: a sign and an exponent of any base.

Vogel et al., "Efficient hardware acceleration of CNNs using logarithmic data
representation with arbitrary log-base", ICCAD 2018 (doi 10.1145/3240765.3240803).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Float32, UInt

from jaxnas.numerics.formats import (
    Pair,
    check_width,
    integers,
    opaque,
    signed_fields,
    word_dtype,
)
from jaxnas.numerics.lookups import Lookup, entry, tabulate
from jaxnas.types import Scale, Values, Words


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
        return _table(self).encode(x, opaque(scale)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        # Powers from a float64 table, not from exp2: the table is exact to half a unit
        # in the last place on every device, and measured as fast on CPU.
        word = integers(words, self.bits)
        return entry(_table(self).decoded, word) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return _table(self).quantize(x, opaque(scale))

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        return _table(self).neighbours(x, opaque(scale))

    def bounds(self, scale: Scale) -> Pair:
        scale, values = opaque(scale), _table(self).values
        return float(values[0]) * scale, float(values[-1]) * scale

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - self.signed)) - 1


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
def _table(format: Logarithmic) -> Lookup:
    """Words and numbers, parted half-way in the logarithm."""
    powers = _powers(format)
    read = powers
    if format.fraction is not None:
        read = np.rint(np.ldexp(powers, format.fraction)) * 2.0**-format.fraction
    # Zero and the least magnitude part half an exponent below it, or below the power
    # that was rounded up to it.
    first = np.flatnonzero(read)[0]
    edge = min(read[first], powers[first]) / np.sqrt(np.float64(format.base))

    def middle(low, high):
        mean = np.sqrt(np.abs(low)) * np.sqrt(np.abs(high))
        around_zero = np.where(low < 0, -edge, edge) * ((low == 0) | (high == 0))
        mean = np.where(mean == 0, around_zero, np.sign(low) * mean)
        return np.where(low * high < 0, 0.0, mean)

    return tabulate(np.concatenate([read, -read]) if format.signed else read, middle)

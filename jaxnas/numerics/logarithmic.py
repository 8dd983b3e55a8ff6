"""Logarithmic words: a sign and an exponent of any base.

Vogel et al., "Efficient hardware acceleration of CNNs using logarithmic data
representation with arbitrary log-base", ICCAD 2018 (doi 10.1145/3240765.3240803).
"""

import functools
import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt

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


@dataclass(frozen=True, kw_only=True)
class Logarithmic:
    """A sign and an exponent: value = +-scale * base**(m - M), nearest exponent.

    m is the exponent field, M its largest value. The nearest exponent minimises the
    relative error (half-way in the logarithm), and magnitudes beyond M saturate.
    Flipping bit k of m multiplies the value by base**(+-2**k) between nonzero words.

    zero: with a zero code m = 0 stands for zero, magnitudes below m = 1/2 and NaN
        become zero, and so do negative numbers where there is no sign. Alias: the
        negative zero decodes to 0. Without a zero code m = 0 stands for base**-M like
        any other exponent, no two words are equal, and all that would become zero
        becomes the least magnitude instead: 0 and NaN with a positive sign, negative
        numbers with a negative one if there is a sign.

    Raises ValueError for a width outside 2..16 and for a base that is not finite and
    above 1, or whose powers collide or underflow in float32.
    """

    bits: int
    base: float
    signed: bool = True
    zero: bool = True

    def __post_init__(self):
        check_width(self)
        check_base(self.base)
        powers = _powers(self.bits, self.base, self.signed, self.zero)
        powers = powers[: self._largest + 1]
        least = powers[int(self.zero)]
        if least < np.finfo(np.float32).tiny or not (np.diff(powers) > 0).all():
            steepest = 2 ** (126 / max(self._largest - self.zero, 1))
            raise ValueError(
                f"base {self.base} with {self._largest} exponents leaves float32: some "
                "powers collide or underflow; take fewer bits or a base between "
                f"{1 + 2**-22:.8g} and {steepest:.8g}"
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
        return self._word(x, opaque(scale)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        return self._value(integers(words, self.bits)) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._value(self._word(x, scale)) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale, sign = opaque(scale), self._largest + 1
        word = self._word(x, scale)
        # Ascending: the negative words downwards, then the others. With a zero code
        # the negative zero has no rank; without one, ranks -1 and 0 are +-least.
        rank = jnp.where(word & sign, sign - word - (not self.zero), word)
        lowest = (1 - sign - (not self.zero)) if self.signed else 0
        below = jnp.maximum(rank - 1, lowest)
        above = jnp.minimum(rank + 1, self._largest)
        ranks = [self._ranked(each) * scale for each in (rank, below, above)]
        return bracket(x, *ranks)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        if self.signed:
            return -scale, scale
        return float(_powers(self.bits, self.base, False, self.zero)[0]) * scale, scale

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    def _word(self, x: Values, scale: Float32[Array, "..."]) -> Array:
        # Rounded before M is added, so that no compiler can fuse the product and the
        # sum: a fused one would round ties in another way than the separate two.
        units = in_units(x, scale)
        octaves = jnp.log(jnp.abs(units))
        exponent = self._largest + jnp.round(octaves * (1 / math.log(self.base)))
        exponent = jnp.clip(exponent, 0, self._largest)
        exponent = jnp.where(exponent > 0, exponent, 0).astype(jnp.int32)  # drops NaN
        negative = (units < 0) & ((exponent > 0) | (not self.zero))
        if not self.signed:
            return jnp.where(negative, 0, exponent)
        return jnp.where(negative, exponent | (self._largest + 1), exponent)

    def _ranked(self, rank: Array) -> Float32[Array, "..."]:
        sign = self._largest + 1
        return self._value(jnp.where(rank < 0, sign - rank - (not self.zero), rank))

    def _value(self, word: Array) -> Float32[Array, "..."]:
        # Powers from a float64 table, not from exp2: the table is exact to half a unit
        # in the last place on every device, and measured as fast on CPU.
        return entry(_powers(self.bits, self.base, self.signed, self.zero), word)


def check_base(base: float) -> None:
    """Raises ValueError for a number that cannot be the base of a logarithm here."""
    if not 1 < base < math.inf:
        raise ValueError(
            f"a logarithmic base of {base}; expected a finite number above 1, "
            "such as 2 ** 0.125"
        )


@functools.lru_cache
def _powers(
    bits: int, base: float, signed: bool, zero: bool
) -> Float32[np.ndarray, " words"]:
    """Value of every logarithmic word at scale one."""
    largest = (1 << (bits - signed)) - 1
    powers = np.float64(base) ** (np.arange(largest + 1) - largest)
    if zero:
        powers[0] = 0
    table = np.concatenate([powers, -powers]) if signed else powers
    return (table + 0.0).astype(np.float32)  # + 0.0: no negative zero

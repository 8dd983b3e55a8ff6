"""Logarithmic words with two exponents: a sign and the sum of two powers of any base.

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
    check_width,
    integers,
    opaque,
    word_dtype,
)
from jaxnas.numerics.logarithmic import check_base
from jaxnas.numerics.lookups import Lookup, entry, tabulate
from jaxnas.types import Scale, Values, Words


@dataclass(frozen=True, kw_only=True)
class TwoTermLogarithmic:
    """A sign and two exponents: value = +-scale * (p(m1) + p(m2)).

    p(m) = base**(m - M) and p(0) = 0; M is the largest value of an exponent field. The
    word is sign, m1, m2 from its highest bit down, so that a product is two shifts and
    an addition when base is a power of two. The largest magnitude is 2 * scale.
    The nearest value is taken by absolute error, of two equally near the smaller
    magnitude; NaN becomes zero, negative numbers too where there is no sign.

    Aliases: exchanged fields; the negative zero; sums that agree, as 2**-1 + 2**-1 and
    2**0 + 0, or that float32 cannot tell apart, as 2**0 + 2**-24 and 2**0 + 0. Of the
    words for one number the smallest is written: m1 <= m2 and a single power rather
    than two. All other sums are written, whatever lies beside them. At scales that are
    no powers of two numbers are rounded: each still comes back as the same number, not
    always in the same word where two round to one, and which of the two numbers around
    x is nearer is judged to 2**-22 of x.
    Flipping bit k of a nonzero exponent multiplies its term by base**(+-2**k) unless it
    becomes zero.

    Raises ValueError for a width outside 2..16 that leaves the two fields unequal, and
    for a base that is not finite and above 1, or whose powers underflow in float32.
    """

    bits: int
    base: float
    signed: bool = True

    def __post_init__(self):
        check_width(self)
        check_base(self.base)
        if (self.bits - self.signed) % 2 or self.bits == self.signed:
            raise ValueError(
                f"TwoTermLogarithmic words of {self.bits} bits with "
                f"signed={self.signed} leave two exponents of unequal width; take an "
                f"{'odd' if self.signed else 'even'} number of bits"
            )
        largest = (1 << self._width) - 1
        if (1 - largest) * math.log2(self.base) < -126:
            raise ValueError(
                f"base {self.base} with {largest} exponents underflows float32; take "
                f"fewer bits or a base up to {2 ** (126 / (largest - 1)):.8g}"
            )

    @property
    def fields(self) -> dict[str, int]:
        second = (1 << self._width) - 1
        sign = {"sign": 1 << (self.bits - 1)} if self.signed else {}
        return sign | {"first": second << self._width, "second": second}

    @property
    def span(self) -> float:
        return 2.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        word = _two_terms(self).encode(x, opaque(scale))
        return word.astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, self.bits)
        return entry(_two_terms(self).decoded, word) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return _two_terms(self).quantize(x, opaque(scale))

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        return _two_terms(self).neighbours(x, opaque(scale))

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return (-2 * scale if self.signed else jnp.zeros_like(scale)), 2 * scale

    @property
    def _width(self) -> int:
        return (self.bits - self.signed) // 2


@functools.lru_cache
def _two_terms(format: TwoTermLogarithmic) -> Lookup:
    largest = (1 << format._width) - 1
    powers = np.float64(format.base) ** (np.arange(largest + 1) - largest)
    powers[0] = 0
    sums = (powers[:, None] + powers[None, :]).reshape(-1)
    return tabulate(np.concatenate([sums, -sums]) if format.signed else sums)

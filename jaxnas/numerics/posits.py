"""Posits: floats whose exponent takes as many bits as it needs.

Gustafson and Yonemoto, "Beating floating point at its own game: posit arithmetic",
Supercomputing Frontiers and Innovations 4(2), 2017; words and rounding as in the posit
standard of 2022, for any number of exponent bits.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
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
from jaxnas.types import Scale, Values, Words


@dataclass(frozen=True, kw_only=True)
class Posit:
    """value = +-scale * 2**(k * 2**es + e) * (1 + f), with es = exponent_bits.

    Below the sign lies the regime, a run of equal bits and its opposite: of k+1 ones
    for k >= 0, of -k zeros for k < 0. Then come es bits of e and as many of f as are
    left; bits that find no place are zero. A negative number is the two's complement of
    its magnitude, so words are ordered as signed integers. The word 100..0 is NaR, not
    a real: it decodes to NaN, and NaN and infinities encode to it.

    Nearest word: between neighbours p and p+1 the threshold is the posit 2p+1 of one
    more bit, and a tie takes the even word. Nonzero finite numbers become neither zero
    nor NaR but the least or largest posit. No aliases: all words are distinct.

    span is 1, not the largest magnitude: posits are finest around one, and a scale that
    puts the peak of a tensor at their largest would leave no fraction bits for it.

    Raises ValueError for a width outside 3..16, and for exponent bits with which the
    largest posit, 2**((bits-2) * 2**es), leaves float32.
    """

    bits: int
    exponent_bits: int = 2

    def __post_init__(self):
        check_width(self, 3)
        if self.exponent_bits < 0 or self._extent > 126:
            room = (126 // (self.bits - 2)).bit_length() - 1
            raise ValueError(
                f"Posit with {self.bits} bits and {self.exponent_bits} exponent bits "
                f"leaves float32; take 0 to {room} exponent bits"
            )

    @property
    def fields(self) -> dict[str, int]:
        return signed_fields(self.bits, "regime_and_rest")

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        word = self._word(in_units(x, opaque(scale)))
        return (word & ((1 << self.bits) - 1)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        unused = 32 - self.bits
        signed = (integers(words, self.bits) << unused) >> unused
        return self._value(signed) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._value(self._word(in_units(x, scale))) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        """See `Format.neighbours`; here infinities, like NaN, give NaN."""
        scale, largest = opaque(scale), (1 << (self.bits - 1)) - 1
        word = self._word(in_units(x, scale))
        around = (jnp.maximum(word - 1, -largest), jnp.minimum(word + 1, largest))
        return bracket(x, *(self._value(each) * scale for each in (word, *around)))

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -(2.0**self._extent) * scale, 2.0**self._extent * scale

    @property
    def _extent(self) -> int:
        """Binary logarithm of the largest posit."""
        return (self.bits - 2) << self.exponent_bits

    def _word(self, units: Float32[Array, "..."]) -> Array:
        """Words as signed integers; NaR is the most negative one."""
        bits = jax.lax.bitcast_convert_type(units, jnp.int32)
        whole = bits & 0x7FFFFFFF
        exponent = jnp.clip((whole >> 23) - 127, -self._extent - 1, self._extent)
        regime = exponent >> self.exponent_bits
        rest = (exponent << 23) | (whole & 0x7FFFFF)
        rest = rest & ((1 << (23 + self.exponent_bits)) - 1)
        # The shortest pattern, 10 or 01 and the rest, at the top of 32 bits; shifting
        # it as a signed number lengthens the run of its first bit.
        top = jnp.where(regime >= 0, jnp.int32(-(1 << 31)), jnp.int32(1 << 30))
        pattern = top | (rest << (7 - self.exponent_bits))
        shift = jnp.where(regime >= 0, regime, ~regime)
        lost = pattern & ((1 << shift) - 1)
        pattern = jax.lax.shift_right_arithmetic(pattern, shift)
        dropped = 33 - self.bits
        body = jax.lax.shift_right_logical(pattern, jnp.full_like(pattern, dropped))
        tail = (pattern & ((1 << dropped) - 1)) | (lost != 0)
        half = 1 << (dropped - 1)
        body = body + ((tail > half) | ((tail == half) & (body & 1 == 1)))
        word = jnp.clip(body, 1, (1 << (self.bits - 1)) - 1)
        word = jnp.where(units == 0, 0, jnp.where(bits < 0, -word, word))
        return jnp.where(whole < 0x7F800000, word, -(1 << (self.bits - 1)))

    def _value(self, word: Array) -> Float32[Array, "..."]:
        """The number of a word that is given as a signed integer, at scale one."""
        body = jnp.abs(word) << (33 - self.bits)
        run = jax.lax.clz(jnp.where(body < 0, ~body, body))
        regime = jnp.where(body < 0, run - 1, -run)
        rest = (body << run) << 1
        unused = jnp.full_like(rest, 9 - self.exponent_bits)
        rest = jax.lax.shift_right_logical(rest, unused)
        # Regime, exponent and fraction lie side by side as those of a float32 do.
        whole = (127 << 23) + (regime << (23 + self.exponent_bits)) + rest
        value = jax.lax.bitcast_convert_type(whole, jnp.float32)
        value = jnp.where(word < 0, -value, jnp.where(word == 0, 0, value))
        return jnp.where(word == -(1 << (self.bits - 1)), jnp.nan, value)

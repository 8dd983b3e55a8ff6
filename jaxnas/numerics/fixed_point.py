"""Fixed point: integers times a step. Textbook arithmetic."""

from dataclasses import dataclass
from typing import Literal, get_args

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

Code = Literal["twos_complement", "sign_magnitude", "offset_binary", "unsigned"]


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Integers times a step: value = code * scale, nearest code, ties to even.

    With a power-of-two scale the arithmetic is exact. Codes saturate at
    [-2**(bits-1), 2**(bits-1)-1] in two's complement and in offset binary, whose word
    is code + 2**(bits-1); at +-(2**(bits-1)-1) in sign magnitude; at [0, 2**bits-1]
    unsigned. Alias: the negative zero of sign magnitude decodes to 0.
    Flipping bit k adds or takes 2**k steps; the sign bit of two's complement does so
    with the opposite sign, that of sign magnitude negates.

    Raises ValueError for a width outside 2..16 or an unknown code.
    """

    bits: int
    code: Code = "twos_complement"

    def __post_init__(self):
        check_width(self)
        if self.code not in get_args(Code):
            raise ValueError(
                f"unknown fixed-point code {self.code!r}; take one of {get_args(Code)}"
            )

    @property
    def fields(self) -> dict[str, int]:
        if self.code in ("unsigned", "offset_binary"):
            return {"magnitude": (1 << self.bits) - 1}
        return signed_fields(self.bits, "magnitude")

    @property
    def span(self) -> float:
        return float(1 << (self.bits - (self.code != "unsigned")))

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        code = self._code(x, opaque(scale)).astype(jnp.int32)
        if self.code == "sign_magnitude":
            code = jnp.where(code < 0, (1 << (self.bits - 1)) - code, code)
        if self.code == "offset_binary":
            code = code + (1 << (self.bits - 1))
        return (code & ((1 << self.bits) - 1)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        code, sign = integers(words, self.bits), 1 << (self.bits - 1)
        if self.code == "twos_complement":
            code = (code ^ sign) - sign
        if self.code == "sign_magnitude":
            code = jnp.where(code & sign, sign - code, code)
        if self.code == "offset_binary":
            code = code - sign
        return code.astype(jnp.float32) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._code(x, scale) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale, (lowest, highest) = opaque(scale), self._range
        code = self._code(x, scale)
        below = jnp.maximum(code - 1, lowest) * scale
        above = jnp.minimum(code + 1, highest) * scale
        return bracket(x, code * scale, below, above)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        lowest, highest = self._range
        return lowest * scale, highest * scale

    @property
    def _range(self) -> tuple[int, int]:
        span = int(self.span)
        lowest = {"sign_magnitude": 1 - span, "unsigned": 0}
        return lowest.get(self.code, -span), span - 1

    def _code(self, x: Values, scale: Float32[Array, "..."]) -> Float32[Array, "..."]:
        nearest = jnp.clip(jnp.round(in_units(x, scale)), *self._range)
        # Drops NaN and the sign of a negative zero, neither of which has a word.
        return jnp.where(jnp.abs(nearest) > 0, nearest, 0)


def q_format(
    integer_bits: int, fraction_bits: int, signed: bool = True
) -> tuple[FixedPoint, float]:
    """The format and scale of Qm.n: m integer bits, n fraction bits, step 2**-n.

    The sign is counted apart (Q3.4 has 8 bits signed, 7 unsigned) and stored in two's
    complement. Either count may be negative, as in Q-2.9, where the binary point lies
    outside the word.

    Raises ValueError when the word does not have 2 to 16 bits, or the step is no normal
    float32 number.
    """
    name = f"Q{integer_bits}.{fraction_bits}"
    bits = integer_bits + fraction_bits + signed
    if not 2 <= bits <= 16:
        raise ValueError(
            f"{name} with signed={signed} has {bits} bits; expected 2 to 16: change "
            "integer_bits or fraction_bits"
        )
    if not -112 <= fraction_bits <= 126:
        raise ValueError(
            f"{name} has a step of 2**{-fraction_bits}, which leaves float32; take "
            "fraction_bits between -112 and 126"
        )
    code = "twos_complement" if signed else "unsigned"
    return FixedPoint(bits=bits, code=code), 2.0**-fraction_bits

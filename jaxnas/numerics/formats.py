"""Number formats: what a memory word stands for, as frozen, hashable values.

A format maps real numbers to words (`encode`) and *every* word back to a real number
(`decode`), so that a flipped bit always has a meaning. Words are unsigned integers of
the smallest dtype that holds them; bits above the format's width are ignored.
All formats obey, bit for bit, on every word w and every float32 x,

    encode(decode(w)) == w   but for aliases, which each format lists,
    quantize(x) == decode(encode(x)),

as long as the scale and every magnitude met are normal float32 numbers. NaN encodes
to zero where a format has no word for it; infinities saturate unless a format says
otherwise.

This module holds what they share; fixed_point, codebooks, logarithmic, two_terms,
floats, exponents and posits hold the formats.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt

from jaxnas.types import Scale, Values, Words

Pair = tuple[Float32[Array, "..."], Float32[Array, "..."]]


@runtime_checkable
class Format(Protocol):
    """What every number format offers; `scale` is a scalar or of the rank of x."""

    @property
    def bits(self) -> int:
        """Width of a word."""
        ...

    @property
    def fields(self) -> dict[str, int]:
        """Disjoint bit masks that together cover the word, by meaning."""
        ...

    @property
    def span(self) -> float:
        """Largest nominal magnitude in units of the scale: scale = peak / span."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether the value of a word depends on the scale."""
        ...

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        """The words that store x."""
        ...

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        """The numbers that the words stand for."""
        ...

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        """decode(encode(x, scale), scale), bit for bit."""
        ...

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        """The decodable numbers next to x: low <= x <= high, for random rounding.

        Both are x itself where x is decodable, and both are the extreme number where x
        lies beyond it. Every `quantize(x, scale)` is one of the two.
        """
        ...

    def bounds(self, scale: Scale) -> Pair:
        """Smallest and largest finite number that a word can stand for."""
        ...


def word_dtype(bits: int) -> np.dtype:
    """Smallest unsigned integer dtype that holds a word of so many bits (1 to 32)."""
    if not 1 <= bits <= 32:
        raise ValueError(f"a word of {bits} bits; expected 1 to 32")
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def check_width(format: Any, lowest: int = 2, highest: int = 16) -> None:
    """Raises ValueError for a format whose words are too narrow or too wide."""
    if not lowest <= format.bits <= highest:
        raise ValueError(
            f"{type(format).__name__} words of {format.bits} bits; expected {lowest} "
            f"to {highest}"
        )


def signed_fields(bits: int, rest: str) -> dict[str, int]:
    """Masks of a word with a sign in its highest bit and one field below."""
    sign = 1 << (bits - 1)
    return {"sign": sign, rest: sign - 1}


def integers(words: Words, bits: int) -> Array:
    """The lowest `bits` bits of each word as int32."""
    return jnp.asarray(words).astype(jnp.int32) & ((1 << bits) - 1)


def opaque(scale: Scale) -> Float32[Array, "..."]:
    """The scale as a float32 array that the compiler cannot see through.

    XLA reassociates (x * c1) * c2 when both are constants, which changes last bits.
    """
    return jax.lax.optimization_barrier(jnp.asarray(scale, jnp.float32))


def in_units(x: Values, scale: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """x in units of an opaque scale.

    Not x / scale: XLA turns a division by a constant into a product with its
    reciprocal, so that a ratio near a tie would round one way with a constant scale
    and the other way with an argument.
    """
    return x * (1 / scale)


def bracket(x: Values, nearest: Values, below: Values, above: Values) -> Pair:
    """The two of three consecutive decodable numbers that hold x between them.

    The middle one is a nearest to x. Decoded numbers are compared, never codes, which
    would be off where x / scale is rounded.
    """
    low = jnp.where(nearest > x, below, nearest)
    return low, jnp.where(nearest < x, above, nearest)

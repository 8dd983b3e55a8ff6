"""Memory words as bits: planes, fields, counts and flips.

Position k is the bit of weight 2**k. Arrays of words keep their shape; where bits are
spread out, they form one more trailing axis, least significant first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, Integer, UInt

from jaxnas.numerics.formats import word_dtype
from jaxnas.types import Words


def all_words(bits: int) -> UInt[Array, " words"]:
    """Every word of so many bits, ascending.

    Raises ValueError above 16 bits, where exhaustion is no longer meant.
    """
    if not 1 <= bits <= 16:
        raise ValueError(f"all words of {bits} bits; expected 1 to 16: sample instead")
    return jnp.arange(1 << bits, dtype=jnp.uint32).astype(word_dtype(bits))


def bit_planes(words: Words, bits: int) -> Bool[Array, "... bits"]:
    """The lowest `bits` bits of each word."""
    word = jnp.asarray(words)[..., None]
    position = jnp.arange(bits, dtype=word.dtype).reshape(
        (1,) * (word.ndim - 1) + (-1,)
    )
    return ((word >> position) & 1).astype(bool)


def from_planes(planes: Bool[Array | np.ndarray, "... bits"]) -> UInt[Array, "..."]:
    """The words with these bits, in the smallest dtype: inverse of `bit_planes`."""
    bits = planes.shape[-1]
    position = jnp.arange(bits, dtype=jnp.uint32)
    position = position.reshape((1,) * (planes.ndim - 1) + (-1,))
    weighted = planes.astype(jnp.uint32) << position
    return weighted.sum(-1, dtype=jnp.uint32).astype(word_dtype(bits))


def population_count(words: Words) -> Int32[Array, "..."]:
    """How many bits of each word are one."""
    return jax.lax.population_count(jnp.asarray(words)).astype(jnp.int32)


def flip(
    words: Words, position: int | Integer[Array | np.ndarray, "..."]
) -> UInt[Array, "..."]:
    """The words with one bit inverted each; `position` is a scalar or of their rank."""
    words = jnp.asarray(words)
    return words ^ (jnp.ones((), words.dtype) << jnp.asarray(position, words.dtype))


def field(words: Words, mask: int) -> UInt[Array, "..."]:
    """The bits under a contiguous mask (see `Format.fields`), moved to bit 0."""
    words = jnp.asarray(words)
    lowest = (mask & -mask).bit_length() - 1
    return (words & jnp.asarray(mask, words.dtype)) >> lowest

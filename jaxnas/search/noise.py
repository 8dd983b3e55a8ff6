"""Random words in bulk, and the hash that they are made of."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from jaxnas.types import Key


def random_words(key: Key, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Words uniform over all values: their numbers, hashed with two words of the key.

    For variation, which uses words faster than `jax.random` makes them: a word costs a
    ninth here of one by its twenty rounds, a loop that XLA does not fuse on a CPU.
    """
    offset, twist = jax.random.bits(key, (2,), jnp.uint32)
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return scrambled(scrambled(numbers + offset) ^ twist)


def scrambled(words: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit words in which every bit depends on every bit (a
    xor-shift-multiply finaliser with the constants of Wellons' search, 2018)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x21F0AAAD)
    words = (words ^ (words >> 15)) * jnp.uint32(0xD35A2D97)
    return words ^ (words >> 15)

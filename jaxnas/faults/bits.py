"""The bits of words that a fault strikes: as a list or, where many are, as masks.

Bits may have rates of their own. Those whose rates are alike are sampled together, so
that a rare fault of many bits does not pay for a frequent one of few.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped, UInt, UInt8, UInt32

from jaxnas.faults.masks import bernoulli_masks, bernoulli_positions, flips_to_masks
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.types import Key


class Flips(NamedTuple):
    """Struck bits, as a list: bit `bit[i]` of word `word[i]`, all pairs distinct.

    Words are numbered in row-major order; numbers beyond the last are unused slots.
    """

    word: UInt32[Array, " capacity"]
    bit: UInt8[Array, " capacity"]


Struck = Flips | Shaped[Array, "..."]
"""A list, or masks of the shape and dtype of the words."""

DENSE_RATE = 0.125
"""From here on a number per bit is cheaper than a list of flips. Measured on one CPU
core for 2.4 million bits: 9 ms that way, lists 0.5 ms at 0.01, 4 at 0.1, 10 at 0.13."""


def listed(positions: UInt32[Array, " n"], bits: int) -> Flips:
    """Positions among all bits of a memory as words and their bits."""
    bit = (positions % bits).astype(jnp.uint8)
    return Flips(word=positions // bits, bit=bit)


def strike_bits(
    key: Key,
    shape: tuple[int, ...],
    format: Format,
    rates: Float32[Array, " bits"],
    bounds: Float[np.ndarray, " bits"],
    *,
    far: bool = False,
) -> Struck:
    """Each bit of each word, struck with its rate and independently of all others.

    rates: probability by place in the word, lowest bit first.
    bounds: static upper bounds of the rates. Rates above zero within a factor of two
        of each other share a sampler.
    far: as in `bernoulli_positions`: near and far strikes under one key share no bit
        as long as their rates sum up to at most `bounds`.
    """
    if bounds.max() >= DENSE_RATE:
        rates, dtype = jnp.minimum(rates, bounds), word_dtype(format.bits)
        return bernoulli_masks(key, shape, format.bits, rates, dtype, far=far)
    groups = _alike(bounds)
    keys = [key] if len(groups) == 1 else jax.random.split(key, max(len(groups), 1))
    words = math.prod(shape)
    parts = [Flips(jnp.zeros(0, jnp.uint32), jnp.zeros(0, jnp.uint8))]
    for key_of_group, bit in zip(keys, groups, strict=False):
        bound, own = float(bounds[bit].max()), rates[bit]
        positions = bernoulli_positions(
            key_of_group, words * bit.size, own, bound, far=far
        )
        place = jnp.asarray(bit)[positions % bit.size]
        parts.append(Flips(positions // bit.size, place))
    return Flips(*map(jnp.concatenate, zip(*parts, strict=True)))


def _alike(bounds: Float[np.ndarray, " bits"]) -> list[UInt8[np.ndarray, " group"]]:
    """The bits with a bound above zero, by the power of two below it."""
    exponents = np.frexp(bounds)[1]
    return [
        np.flatnonzero((bounds > 0) & (exponents == exponent)).astype(np.uint8)
        for exponent in np.unique(exponents[bounds > 0])
    ]


def as_masks(struck: Struck, words: Shaped[Array, "*shape"]) -> UInt[Array, "*shape"]:
    """Ones where bits of the words are struck."""
    if isinstance(struck, Flips):
        return flips_to_masks(*struck, words.shape, words.dtype)
    return struck

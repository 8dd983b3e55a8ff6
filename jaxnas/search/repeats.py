"""Genomes seen before, found by their hashes.

Equal genomes have equal hashes; of `n` different ones some two share their 64 bits with
a probability of about `n ** 2 / 2 ** 65`, one in a billion for 200,000. The floats -0.0
and 0.0 count as different.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

SEEDS = (0x9E3779B9, 0x7F4A7C15)


def hashes(population: Any) -> UInt32[Array, "rows 2"]:
    """Sixty-four bits for every row of a pytree of leaves with a leading axis.

    Every gene is scrambled together with its place and the results are summed, twice.
    """
    leaves = jax.tree.leaves(population)
    words = jnp.concatenate([_words(leaf) for leaf in leaves], axis=1)
    places = jnp.arange(words.shape[1], dtype=jnp.uint32)
    return jnp.stack(
        [
            jnp.sum(
                _scrambled(words ^ _scrambled(places + jnp.uint32(seed))[None, :]),
                axis=1,
                dtype=jnp.uint32,
            )
            for seed in SEEDS
        ],
        axis=1,
    )


def first_of_equals(
    keys: UInt32[Array, "rows 2"], mask: Bool[Array, " rows"]
) -> Bool[Array, " rows"]:
    """Which rows take part and have the hash of no earlier row that does."""
    numbers = jnp.arange(mask.size, dtype=jnp.int32)
    out = (~mask).astype(jnp.uint32)
    sort = jax.lax.sort((out, keys[:, 0], keys[:, 1], numbers), num_keys=3)
    ordered, order = jnp.stack(sort[:3]), sort[3]
    repeats = jnp.all(ordered[:, 1:] == ordered[:, :-1], axis=0)
    first = jnp.append(True, ~repeats)
    return mask & jnp.zeros(mask.size, bool).at[order].set(first)


def _words(leaf):
    """The genes of each row as 32-bit words, without loss."""
    flat = leaf.reshape(leaf.shape[0], -1)
    size = flat.dtype.itemsize
    if size >= 4:
        words = jax.lax.bitcast_convert_type(flat, jnp.uint32)
        return words.reshape(leaf.shape[0], -1)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}[size]
    return jax.lax.bitcast_convert_type(flat, unsigned).astype(jnp.uint32)


def _scrambled(words):
    """A bijection of 32-bit words in which every bit depends on every bit (a
    xor-shift-multiply finaliser with the constants of Wellons' search, 2018)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x21F0AAAD)
    words = (words ^ (words >> 15)) * jnp.uint32(0xD35A2D97)
    return words ^ (words >> 15)

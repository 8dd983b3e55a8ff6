"""Genomes seen before, found by their hashes.

Equal genomes have equal hashes; of `n` different ones some two share their 64 bits with
a probability of about `n ** 2 / 2 ** 65`, one in a billion for 200,000. The floats -0.0
and 0.0 count as different.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

from .noise import scrambled

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
                scrambled(words ^ scrambled(places + jnp.uint32(seed))[None, :]),
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
    rows = mask.size
    numbers = jnp.arange(rows, dtype=jnp.int32)
    slots = 1 << (2 * rows).bit_length()

    # A table of rows: of all that fall into a slot the first takes it. Equal rows share
    # their slot, so that who has the hash of the winner repeats it; the others try
    # again with other slots.
    def entered(carry):
        first, left, turn = carry
        place = scrambled(scrambled(keys[:, 0] + turn) ^ keys[:, 1])
        slot = (place % jnp.uint32(slots)).astype(jnp.int32)
        entries = jnp.full(slots, rows, jnp.int32)
        entries = entries.at[jnp.where(left, slot, slots)].min(numbers, mode="drop")
        winner = jnp.minimum(entries[slot], rows - 1)
        equal = jnp.all(keys[winner] == keys, axis=1)
        return first | (left & (winner == numbers)), left & ~equal, turn + 1

    start = jnp.zeros(rows, bool), mask, jnp.uint32(0)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), entered, start)[0]


def _words(leaf):
    """The genes of each row as 32-bit words, without loss."""
    flat = leaf.reshape(leaf.shape[0], -1)
    size = flat.dtype.itemsize
    if size >= 4:
        words = jax.lax.bitcast_convert_type(flat, jnp.uint32)
        return words.reshape(leaf.shape[0], -1)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}[size]
    return jax.lax.bitcast_convert_type(flat, unsigned).astype(jnp.uint32)

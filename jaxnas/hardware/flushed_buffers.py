"""DRAM words under buffers that are flushed whole when full: those of SCALE-Sim.

A read buffer takes in what it does not hold; with its B-th word it is full and forgets
everything. Its traffic is the number of words it takes in. Half of a memory serves the
array, in 50 of 100 sets, so that

    B = 50 floor(bytes / 100)

for words of one byte. A group starts with empty buffers. Version 3.0.0, mode `CALC`.

*Weights* come in blocks of D words that are read in the same order `r` times in a row,
and no block shares words with another. If D >= B nothing is ever found: r D. Otherwise
a block is read once, and the one in which the buffer fills up, after p words, costs
these p once more, as the rest of the block is held. With m = floor((B - 1) / D), the
blocks that fit, this happens to the blocks m + 1, 2m + 1, ... with p = B - m D. This is
exact.

*Results* leave as they come, partial sums as often as they are written. The buffer is
first drained when one word more than its half H has come; if lines of `columns` words
fill H evenly, that word alone starts a line, whose rest is counted as written, too.
This is exact in all simulations we know.

*Operands* are touched by overlapping windows. If all words U of a map fit, U; otherwise
every repetition of a touch (`windows`) either comes soon enough to find its word, or
does not. We divide repetitions by the words that are touched between the two; those
with at least B do not find theirs. Those with fewer do, unless the buffer is flushed
in between, which costs as many words as then wait for a repetition. The classes nest
(what waits for its neighbour also waits for the next row), so we count the largest
number waiting. With base misses b and w words waiting at n flushes, b + n w misses are
at least n B before the last of them:

    n = floor((b - w) / (B - w)).

This is an approximation, exact where the map fits or no word is repeated in time.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxnas.hardware.folding import Folding
from jaxnas.hardware.systolic import PerLayer
from jaxnas.hardware.windows import Windows

SETS = 100


class Repetitions(NamedTuple):
    """A class of touches of words that were touched before; counts of one pass."""

    touches: PerLayer
    between: PerLayer  # words touched since
    waiting: PerLayer  # words that wait for their repetition at one time


def buffer_words(memory_bytes, word_bytes) -> PerLayer:
    """Words B after which a read buffer of a memory is flushed; at least one."""
    words = jnp.floor(memory_bytes / jnp.maximum(word_bytes, 1 / 8))
    return jnp.maximum(SETS / 2 * _quotient(words, SETS), 1)


def operand_reads(fold: Folding, windows: Windows, buffer, array, dataflow) -> PerLayer:
    """Words read into a buffer of `buffer` words, all groups together."""
    if dataflow == "ws":
        classes = _pass_repetitions(fold, windows, array)
    else:
        classes = _block_repetitions(fold, windows, array, dataflow)
    passes = 1.0 if dataflow == "is" else fold.column_folds
    missed, waiting = windows.words, jnp.zeros_like(windows.words)
    for one in classes:
        held = one.between < buffer
        missed = missed + jnp.where(held, 0, one.touches)
        found = jnp.where(held, jnp.minimum(one.waiting, one.touches), 0)
        waiting = jnp.maximum(waiting, found)
    waiting = jnp.minimum(waiting, 0.9 * buffer)
    missed = passes * missed
    flushes = jnp.floor((missed - waiting) / (buffer - waiting))
    misses = missed + jnp.maximum(flushes, 0) * waiting
    most = passes * windows.pixels * windows.fan_in
    # Cropping at the border may leave fewer touches than words.
    misses = jnp.maximum(jnp.minimum(misses, most), windows.words)
    return fold.groups * jnp.where(windows.words < buffer, windows.words, misses)


def weight_reads(fold: Folding, buffer, array, dataflow) -> PerLayer:
    """Words read into a buffer of `buffer` words, all groups together; exact."""
    if dataflow == "ws":
        return fold.groups * fold.over_rows * fold.over_columns
    if dataflow == "is":
        words, repeats = fold.over_rows * fold.streamed, fold.column_folds
        return fold.groups * jnp.where(words < buffer, words, repeats * words)
    block, repeats = fold.streamed * array.columns, fold.row_folds
    whole = jnp.maximum(fold.column_folds - 1, 0)
    last = fold.streamed * fold.over_columns - whole * block
    return fold.groups * _repeated_blocks(block, whole, last, repeats, buffer)


def output_writes(fold: Folding, memory_words, array, dataflow) -> PerLayer:
    """Words written from a memory of `memory_words`, all groups together."""
    if dataflow == "os":
        words = fold.over_rows * fold.over_columns
    else:
        words = fold.row_folds * fold.over_columns * fold.streamed
    half = memory_words - jnp.ceil(memory_words / 2)
    even = (_remainder(half, array.columns) == 0) & (words > half)
    return fold.groups * (words + jnp.where(even, array.columns - 1.0, 0.0))


def _repeated_blocks(block, whole, last, repeats, buffer) -> PerLayer:
    """Misses of `whole` blocks and a last, perhaps smaller one, each read `repeats`
    times."""
    again = repeats > 1
    fit = jnp.maximum(_quotient(buffer - 1, jnp.maximum(block, 1)), 1)
    filled = jnp.floor(jnp.maximum(whole - 1, 0) / fit)
    held = (whole - fit * filled) * block  # when the last block starts
    small = whole * block + jnp.where(again, filled * (buffer - fit * block), 0)
    thrashed = whole * repeats * block
    fits = block < buffer
    before = jnp.where(fits, small, thrashed)
    held = jnp.where(fits, held, _remainder(thrashed, buffer))
    once_more = jnp.where(again & (held + last >= buffer), buffer - held, 0)
    ending = jnp.where(last < buffer, last + once_more, repeats * last)
    # Without repetition every word is read once, wherever the buffer fills up.
    return jnp.where(again, before + ending, whole * block + last)


def _remainder(dividend, divisor) -> PerLayer:
    """Of whole numbers below 2**21; `fmod` would take most of the time."""
    return dividend - _quotient(dividend, divisor) * divisor


def _quotient(dividend, divisor) -> PerLayer:
    # Half a unit more: a rounded quotient cannot fall below its integer.
    return jnp.floor((dividend + 0.5) / divisor)


def _pass_repetitions(fold: Folding, w: Windows, array) -> list[Repetitions]:
    """Weight stationary: passes over all pixels, each for `rows` of the inputs K."""
    held = jnp.minimum(array.rows, w.fan_in)
    step = w.stride_width * w.channels  # in K, to the touch by the window beside
    down = w.stride_height * w.kernel_width * w.channels
    single = fold.row_folds <= 1
    beside = jnp.where(single, 1.0, jnp.maximum(1 - step / array.rows, 0))
    below = jnp.where(single, 1.0, jnp.maximum(1 - down / array.rows, 0))
    line = held / w.kernel_width * w.width
    depth = jnp.minimum(w.channels, held / (w.kernel_width * w.kernel_height))
    later_beside, later_below = w.beside * (1 - beside), w.below * (1 - below)
    rows_apart = w.stride_height * w.out_height * w.width * w.channels
    return [
        Repetitions(w.beside * beside, held, held / 2),
        Repetitions(w.below * below, line, w.halo_height * w.width * depth),
        Repetitions(
            later_beside,
            step * w.pixels,
            later_beside * jnp.minimum(step / w.fan_in, 1),
        ),
        Repetitions(
            later_below, rows_apart, later_below * jnp.minimum(down / w.fan_in, 1)
        ),
    ]


def _block_repetitions(fold: Folding, w: Windows, array, dataflow) -> list[Repetitions]:
    """Output and input stationary: blocks of pixels, each for all inputs K in order."""
    side = array.rows if dataflow == "os" else array.columns
    pixels = jnp.maximum(jnp.minimum(side, w.pixels), 1)
    blocks = fold.row_folds if dataflow == "os" else fold.column_folds
    blocks = jnp.maximum(blocks, 1)
    # Pieces of rows of windows that lie in one block.
    aligned = jnp.where(_remainder(pixels, jnp.maximum(w.out_width, 1)) == 0, blocks, 1)
    aligned = jnp.where(_remainder(w.out_width, pixels) == 0, w.out_height, aligned)
    pieces = w.out_height + blocks - aligned
    piece_width = pixels * w.stride_width + w.halo_width * pieces / blocks
    touched = w.channels * piece_width  # by a block, for one line of the kernel
    broken = w.kernel_height * w.channels * w.halo_width * (pieces - w.out_height)
    within = jnp.maximum(1 - w.out_width / pixels, 0)
    within = jnp.where(blocks <= 1, 1.0, within)
    small = pixels <= w.out_width
    rows = pixels / jnp.maximum(w.out_width, 1)
    step = w.stride_width * w.channels
    below, across = w.below * within, w.below * (1 - within)
    block_words = jnp.where(
        small,
        w.kernel_height * touched,
        touched + (w.kernel_height - 1) * w.width * w.channels,
    )
    lines = jnp.where(small, w.kernel_height, rows * w.stride_height + w.halo_height)
    late = jnp.maximum(1 - w.stride_height * rows / w.kernel_height, 0)
    halo = w.halo_height * w.width * w.channels * (1 - within) * late
    return [
        Repetitions(
            w.beside - broken,
            pixels * step,
            pixels * step * w.halo_width / w.kernel_width / 2,
        ),
        Repetitions(
            below,
            w.stride_height * touched,
            below / blocks * w.stride_height / w.kernel_height,
        ),
        Repetitions(broken, block_words, broken / blocks),
        Repetitions(
            across,
            lines * w.width * w.channels,
            jnp.where(small, halo, across / blocks),
        ),
    ]

"""DRAM words under buffers that keep a part of what is read again and again.

A scan that is repeated r times over D words finds, in a buffer of B words, at most
min(B, D) of them each time, whatever is evicted (Belady, 1966); keeping that part, and
passing the rest through, attains it:

    D + (r - 1) max(D - B, 0).

This is continuous, falls with B and never below D, and so do sums and minima of it.

*Weights* are read in folds of the outputs, each again for every fold of the pixels
(output stationary), or all of them for every fold of the pixels (input stationary), or
once (weight stationary).

*Operands* are scanned once per fold of the outputs (not when they are stationary).
Within a scan, rows of windows share lines: L words of them must wait, or are read
again. For weight stationary a scan is one of the folds of the inputs, which read at
most the map and at most their share of all touches. The buffer holds waiting lines
first and a part of the map with the rest, or a part of the map only, whichever moves
fewer words.

*Results* are written once. Partial sums of one fold of the outputs stay on the chip if
they fit the output buffer, else they are written and read back for each fold of the
inputs: 2 F - 1 times.
"""

import jax.numpy as jnp

from jaxnas.hardware.folding import Folding
from jaxnas.hardware.systolic import PerLayer
from jaxnas.hardware.windows import Windows


def operand_reads(fold: Folding, windows: Windows, buffer, array, dataflow) -> PerLayer:
    """Words read into a buffer of `buffer` words, all groups together."""
    w = windows
    scans = 1.0 if dataflow == "is" else jnp.maximum(fold.column_folds, 1)
    scan = w.words
    if dataflow == "ws":
        scan = jnp.minimum(w.words * fold.row_folds, w.pixels * w.fan_in)
        scan = jnp.maximum(scan, w.words)
    line = w.halo_height * w.width * w.channels
    short = jnp.maximum(1 - buffer / jnp.maximum(line, 1), 0)
    spare = jnp.clip(buffer - line, 0, w.words)
    lines_first = scans * (scan + w.below * short) - (scans - 1) * spare
    # A kept word saves all its readings but the first, also those of a long scan.
    kept = jnp.minimum(buffer / jnp.maximum(w.words, 1), 1)
    map_only = w.words * kept + scans * (scan + w.below) * (1 - kept)
    return fold.groups * jnp.maximum(jnp.minimum(lines_first, map_only), w.words)


def weight_reads(fold: Folding, buffer, array, dataflow) -> PerLayer:
    """Words read into a buffer of `buffer` words, all groups together."""
    if dataflow == "ws":
        return fold.groups * fold.over_rows * fold.over_columns
    if dataflow == "is":
        words, repeats = fold.over_rows * fold.streamed, fold.column_folds
        missing = jnp.maximum(words - buffer, 0)
    else:
        words, repeats = fold.streamed * fold.over_columns, fold.row_folds
        block = fold.streamed * array.columns
        whole = jnp.maximum(fold.column_folds - 1, 0)
        missing = whole * jnp.maximum(block - buffer, 0)
        missing = missing + jnp.maximum(words - whole * block - buffer, 0)
    return fold.groups * (words + jnp.maximum(repeats - 1, 0) * missing)


def output_words(fold: Folding, buffer, array, dataflow) -> tuple[PerLayer, PerLayer]:
    """Results written, and partial sums moved both ways as they do not fit `buffer`
    partial sums; all groups together."""
    if dataflow == "os":
        return fold.groups * fold.over_rows * fold.over_columns, 0 * fold.groups
    results = fold.groups * fold.over_columns * fold.streamed
    at_once = fold.streamed * jnp.minimum(array.columns, fold.over_columns)
    again = 2 * jnp.maximum(fold.row_folds - 1, 0)
    return results, jnp.where(at_once <= buffer, 0, again * results)

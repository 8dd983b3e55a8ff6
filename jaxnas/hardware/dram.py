"""Words and bytes between DRAM and the buffers of an accelerator.

Convention `scalesim` is that of `flushed_buffers`: every layer reads its operand and
writes its result, padding is read, partial sums are written and never read back, and
biases are free. Convention `realistic` is that of `pinned_buffers`, and

- a result stays in the operand and output buffers, and is not read by the next layer,
  if all maps that are alive while either of the two runs fit them together (the table's
  `live_bits`). The first operand is always read, and the last result written;
- what a layer reads beside its operand (shortcuts, parts of a map before its pooling)
  is read from DRAM unless the maps of this layer and the one before fit;
- padding is not read, biases are.

The right factor of a product of two maps is read as weights are. Vector operations move
nothing of their own; see `topology`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxnas.arithmetic import FLOAT32
from jaxnas.hardware import flushed_buffers, pinned_buffers
from jaxnas.hardware.accelerators import Accelerator
from jaxnas.hardware.folding import choose
from jaxnas.hardware.systolic import PerLayer
from jaxnas.hardware.windows import windows
from jaxnas.topology import (
    LayerTable,
    over_layers,
    products,
)

BITS_PER_BYTE = 8


class DramWords(NamedTuple):
    """Words moved; partial sums, both ways, are apart where they are wider words."""

    operand_reads: PerLayer
    weight_reads: PerLayer
    output_writes: PerLayer
    partial_sums: PerLayer


class DramBytes(NamedTuple):
    """Bytes moved on each link to DRAM."""

    operand: PerLayer
    weight: PerLayer
    output: PerLayer

    @property
    def total(self) -> Float[Array, "*batch"]:
        # One sum per link: XLA keeps the operand of a product in memory, where an
        # inner sum would be computed anew for every cost that reads it.
        operand, weight, output = map(over_layers, self)
        return operand + weight + output


def dram_words(
    table: LayerTable, hardware: Accelerator, *, padded: bool | None = None
) -> DramWords:
    """DRAM words of each layer, under the dataflow of the array.

    `padded=False` takes the sides of the table's operands for what is read; by default
    `scalesim` reads padding, too, so a table whose operands include their padding
    must say so.
    """
    if padded is None:
        padded = hardware.convention == "scalesim"
    parts = _simulated if hardware.convention == "scalesim" else _realistic
    return parts(table, hardware, windows(table, padded=padded))


def dram_bytes(
    table: LayerTable, hardware: Accelerator, *, padded: bool | None = None
) -> DramBytes:
    """DRAM bytes of each layer on the three links."""
    words = dram_words(table, hardware, padded=padded)
    operand = words.operand_reads * word_bytes(hardware, table.input_bits)
    weight = words.weight_reads * word_bytes(hardware, table.weight_bits)
    output = words.output_writes * word_bytes(hardware, table.output_bits)
    if hardware.convention == "realistic":
        output += words.partial_sums * word_bytes(hardware, hardware.partial_sum_bits)
        biases = jnp.asarray(table.out_channels).astype(jnp.float32)
        weight += present(table, biases * word_bytes(hardware, table.bias_bits))
        operand += _other_reads(table, hardware)
    return DramBytes(operand, weight, output)


def word_bytes(hardware: Accelerator, bits) -> PerLayer:
    """Bytes that a word of `bits` bits takes in memory."""
    taken = jnp.asarray(bits).astype(jnp.float32) / BITS_PER_BYTE
    return taken if hardware.packed else jnp.ceil(taken)


def present(table: LayerTable, column) -> PerLayer:
    """The column where there are products, else zero."""
    return jnp.where(products(table).mask, column, 0.0)


class Kept(NamedTuple):
    """Whether a layer finds its operand on the chip, and leaves its result there."""

    operand: Bool[Array, "*batch layers"]
    result: Bool[Array, "*batch layers"]


def kept(table: LayerTable, hardware: Accelerator) -> Kept:
    """What stays on the chip between layers, in `realistic`."""
    table = products(table)
    capacity = hardware.operand_sram_bytes + hardware.output_sram_bytes
    live = jnp.asarray(table.live_bits).astype(jnp.float32) / BITS_PER_BYTE
    fits = (live <= capacity) & table.mask
    # The last present row before, and the first one after, without gathering: position
    # and flag in one number, of which the running extreme is taken.
    axis, layers = fits.ndim - 1, fits.shape[-1]
    marked = 2 * jnp.broadcast_to(jnp.arange(layers), fits.shape) + fits
    before = lax.cummax(jnp.where(table.mask, marked, -2), axis)
    after = lax.cummin(jnp.where(table.mask, marked, 2 * layers), axis, reverse=True)
    empty = jnp.zeros_like(fits[..., :1])
    previous = jnp.concatenate([empty, before[..., :-1] % 2 == 1], axis=-1)
    following = jnp.concatenate([after[..., 1:] % 2 == 1, empty], axis=-1)
    return Kept(fits & previous, fits & following)


def _simulated(table: LayerTable, hardware: Accelerator, w) -> DramWords:
    buffers = flushed_buffers
    sizes = [word_bytes(hardware, b) for b in (table.input_bits, table.weight_bits)]
    operand = buffers.buffer_words(hardware.operand_sram_bytes, sizes[0])
    weight = buffers.buffer_words(hardware.weight_sram_bytes, sizes[1])
    output = word_bytes(hardware, table.output_bits)
    output = jnp.floor(hardware.output_sram_bytes / jnp.maximum(output, 1 / 8))

    def moved(fold, *dataflow):
        return DramWords(
            buffers.operand_reads(fold, w, operand, *dataflow),
            buffers.weight_reads(fold, weight, *dataflow),
            buffers.output_writes(fold, output, *dataflow),
            jnp.zeros_like(fold.groups),
        )

    return choose(moved, table, hardware, FLOAT32)


def _realistic(table: LayerTable, hardware: Accelerator, w) -> DramWords:
    buffers = pinned_buffers
    sizes = [
        (hardware.operand_sram_bytes, table.input_bits),
        (hardware.weight_sram_bytes, table.weight_bits),
        (hardware.output_sram_bytes, hardware.partial_sum_bits),
    ]
    operand, weight, output = (
        total / jnp.maximum(word_bytes(hardware, bits), 1 / 8) for total, bits in sizes
    )

    def moved(fold, *dataflow):
        return DramWords(
            buffers.operand_reads(fold, w, operand, *dataflow),
            buffers.weight_reads(fold, weight, *dataflow),
            *buffers.output_words(fold, output, *dataflow),
        )

    words, stays = choose(moved, table, hardware, FLOAT32), kept(table, hardware)
    return words._replace(
        operand_reads=jnp.where(stays.operand, 0.0, words.operand_reads),
        output_writes=jnp.where(stays.result, 0.0, words.output_writes),
    )


def _other_reads(table: LayerTable, hardware: Accelerator) -> PerLayer:
    """Bytes of maps that are read beside the operand and not on the chip."""
    sides = (table.in_height, table.in_width, table.in_channels, table.input_bits)
    operand = 1.0
    for column in sides:
        operand = operand * jnp.asarray(column).astype(jnp.float32)
    read = jnp.asarray(table.read_bits).astype(jnp.float32)
    others = jnp.maximum(read - operand, 0.0) / BITS_PER_BYTE
    stays = kept(table, hardware).operand
    return present(table, jnp.where(stays, 0.0, others))

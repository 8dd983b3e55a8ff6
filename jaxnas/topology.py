"""The layer table: what every cheap objective knows about a network.

A table has one row per operation, in program order, and a mask, so that networks of
every depth share one shape. It is obtained from a genotype by arithmetic or from any
JAX function by `tracing.trace_topology`; hardware models and the resilience predictor
read nothing else. The rows are of two sorts.

*Products* keep an array of multipliers busy: layers, which multiply a map with a kernel
(a dense layer is the 1x1 convolution of a 1x1 map; a transposed convolution is one over
an operand with zeros between its pixels), and products of two maps, as in
attention. Genotypes give these, and so does tracing unless it is asked for more.

*Vector operations* work element by element: poolings and other reductions, elementwise
operations with the sums of shortcuts among them, concatenations. They have no memory
traffic of their own. Each is computed while a product around it writes its result or
reads its operand, and so the columns of that product count the maps that it takes.
`products` masks these rows; the models of arrays and memories do so by themselves.

The counts below are float32: exact below 2**24 (and wherever the result has at most
24 significant bits), otherwise rounded to about seven digits. They accept tables
with any leading axes. A masked row counts zero, whatever its other columns hold.
`exact_counts` gives the same as integers, on the host.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxnas.arithmetic import FLOAT32, INT64, Arithmetic

Column = Int[Array | np.ndarray, "*batch layers"]
Mask = Bool[Array | np.ndarray, "*batch layers"]
Count = Float[Array, "*batch layers"]
ExactCount = Int[np.ndarray, "*batch layers"]

NO_ROW, LAYER, TRANSPOSED, MAP_PRODUCT, POOLING, ELEMENTWISE, CONCATENATION = range(7)
KINDS = (
    "none",
    "layer",
    "transposed convolution",
    "product of two maps",
    "pooling",
    "elementwise",
    "concatenation",
)
"""What the kinds of rows are called."""


class LayerTable(NamedTuple):
    """One row per layer; int32 columns `[layers]`, masked rows are all zero.

    A *stored map* is a map of words in memory: the network's quantised input or the
    quantised output of a layer, in the size in which it is stored, which is before
    any pooling. Words are counted in bits, for a batch of one.

    A product of two maps stands as the layer that the right one would be the kernel of.
    A pooling or reduction stands as a depthwise layer with its window as kernel, an
    elementwise operation as one with a 1x1 window. Of vector operations the last five
    columns are zero.

    `live_bits` is exact in program order. Its maximum is the least possible where there
    is no other order: in chains, with sums of shortcuts over any number of layers. For
    networks with parallel branches it is an upper bound, since another order of the
    branches may need less.
    """

    mask: Mask  # False: padding, no such row
    kind: Column  # LAYER, MAP_PRODUCT, ... by number; NO_ROW where masked
    in_height: Column  # the layer's own operand: after pooling, without padding
    in_width: Column
    in_channels: Column
    out_height: Column  # the layer's own result: before pooling
    out_width: Column
    out_channels: Column
    kernel_height: Column
    kernel_width: Column
    stride_height: Column
    stride_width: Column
    dilation_height: Column  # of the kernel: between two of its taps; 1: dense
    dilation_width: Column
    upsampling_height: Column  # of the operand: between two of its pixels, with zeros
    upsampling_width: Column  # in between; 1: dense
    groups: Column  # which divide the channels
    weight_bits: Column  # of one word of the kernel or second operand; 0: there is none
    bias_bits: Column  # of one word; 0: no bias
    input_bits: Column  # of one word of the first operand
    output_bits: Column  # of one word of the result
    stored: Column  # 1: the result passes a quantisation site
    rectified: Column  # 1: a maximum with zero lies between layer and store
    pools_after: Column  # max-poolings from this map to the network's output
    read_bits: Column  # of all stored maps that the layer reads, shortcuts included
    live_bits: Column  # of all stored maps alive while it runs, each counted once


def products(table: LayerTable) -> LayerTable:
    """The table with the rows of vector operations masked."""
    return table._replace(mask=table.mask & (table.kind <= MAP_PRODUCT))


def layers(table: LayerTable) -> LayerTable:
    """The table with all rows masked but those of layers, which have kernels."""
    return table._replace(mask=table.mask & (table.kind <= TRANSPOSED))


def fan_in(table: LayerTable) -> Count:
    """Products, or elements of a window, that go into one output element."""
    return _fan_in(table, FLOAT32)


def weights(table: LayerTable) -> Count:
    """Elements of the kernel, without bias."""
    return _weights(table, FLOAT32)


def parameters(table: LayerTable) -> Count:
    """Elements of kernel and bias."""
    return _parameters(table, FLOAT32)


def output_elements(table: LayerTable) -> Count:
    """Elements of the result, before any pooling."""
    return _output_elements(table, FLOAT32)


def macs(table: LayerTable) -> Count:
    """Multiply-accumulates of products, those on padding included, biases left out.

    In a transposed convolution every pixel of the operand meets every weight once: the
    zeros between the pixels are not multiplied, and taps beyond the border count.
    """
    return _macs(table, FLOAT32)


def vector_operations(table: LayerTable) -> Count:
    """Operations on single elements of poolings and elementwise operations.

    One per element of an elementwise result, one per element of each pooling window.
    The addition of a bias is the layer's own and no vector operation.
    """
    return _vector_operations(table, FLOAT32)


def over_layers(per_layer: Count) -> Float[Array, "*batch"]:
    """The sum over layers; as a product, which XLA does faster than a short sum."""
    ones = jnp.ones(per_layer.shape[-1], per_layer.dtype)
    return jnp.dot(per_layer, ones, precision="highest")


class ExactCounts(NamedTuple):
    """The counts of this module for every row, as int64."""

    fan_in: ExactCount
    weights: ExactCount
    parameters: ExactCount
    output_elements: ExactCount
    macs: ExactCount
    vector_operations: ExactCount


def exact_counts(table: LayerTable) -> ExactCounts:
    """The counts without rounding, below 2**63; NumPy on the host, not traceable."""
    on_host = LayerTable(*(np.asarray(column) for column in table))
    counts = (
        _fan_in,
        _weights,
        _parameters,
        _output_elements,
        _macs,
        _vector_operations,
    )
    return ExactCounts(*(count(on_host, INT64) for count in counts))


def exact_macs(table: LayerTable) -> int:
    """Multiply-accumulates of all rows together, without rounding; not traceable."""
    return int(exact_counts(table).macs.sum())


def exact_parameters(table: LayerTable) -> int:
    """Elements of all kernels and biases together, without rounding; not traceable."""
    return int(exact_counts(table).parameters.sum())


def from_rows(rows: Sequence[dict[str, int]]) -> LayerTable:
    """Layers given as columns by name, all but the mask, as a NumPy table.

    Raises:
      ValueError: if a column is missing or unknown, or a count is beyond 32 bits.
    """
    names = LayerTable._fields[1:]
    for row in rows:
        if set(row) != set(names):
            raise ValueError(
                f"found columns {sorted(set(row) ^ set(names))} missing or unknown, "
                f"expected exactly {', '.join(names)}"
            )
        name, count = max(row.items(), key=lambda column: column[1])
        if count >= 2**31:
            raise ValueError(
                f"found {count} in column {name}, expected less than 2**31, since "
                "tables hold 32-bit counts: describe a smaller input or a part"
            )
    columns = {name: np.array([row[name] for row in rows], np.int32) for name in names}
    return LayerTable(mask=np.ones(len(rows), bool), **columns)


def compress(table: LayerTable) -> LayerTable:
    """The table without its masked rows, as NumPy columns; not traceable.

    Raises:
      ValueError: if the columns have leading axes.
    """
    mask = np.asarray(table.mask)
    if mask.ndim != 1:
        raise ValueError(
            f"compress takes one table, columns of shape [layers], but found shape "
            f"{mask.shape}: index the leading axes first"
        )
    return LayerTable(*(np.asarray(column)[mask] for column in table))


def stack(tables: Sequence[LayerTable]) -> LayerTable:
    """Tables `[layers_i]` as one NumPy table `[tables, max(layers_i)]`, zero padded.

    Raises:
      ValueError: if there are no tables.
    """
    if not tables:
        raise ValueError("stack needs at least one table, found none")
    layers = max(np.size(table.mask) for table in tables)
    padded = ([_pad(column, layers) for column in table] for table in tables)
    return LayerTable(*(np.stack(columns) for columns in zip(*padded, strict=True)))


# One formula for floats and integers.


def _fan_in(table: LayerTable, arithmetic: Arithmetic) -> Any:
    number, column = arithmetic.number, arithmetic.column
    groups = arithmetic.xp.maximum(column(table.groups), 1)
    per_group = arithmetic.exact_divide(column(table.in_channels), groups)
    window = number(table.mask) * number(table.kernel_height)
    return window * number(table.kernel_width) * number(per_group)


def _weights(table: LayerTable, arithmetic: Arithmetic) -> Any:
    return _fan_in(layers(table), arithmetic) * arithmetic.number(table.out_channels)


def _parameters(table: LayerTable, arithmetic: Arithmetic) -> Any:
    biased = products(table).mask & (arithmetic.column(table.bias_bits) > 0)
    biases = arithmetic.number(biased) * arithmetic.number(table.out_channels)
    return _weights(table, arithmetic) + biases


def _output_elements(table: LayerTable, arithmetic: Arithmetic) -> Any:
    number = arithmetic.number
    height = number(table.mask) * number(table.out_height)
    return height * number(table.out_width) * number(table.out_channels)


def _macs(table: LayerTable, arithmetic: Arithmetic) -> Any:
    transposed, where = table.kind == TRANSPOSED, arithmetic.xp.where
    height = where(transposed, table.in_height, table.out_height)
    width = where(transposed, table.in_width, table.out_width)
    met = products(table)._replace(out_height=height, out_width=width)
    return _fan_in(met, arithmetic) * _output_elements(met, arithmetic)


def _vector_operations(table: LayerTable, arithmetic: Arithmetic) -> Any:
    vector = (table.kind == POOLING) | (table.kind == ELEMENTWISE)
    counted = table._replace(mask=table.mask & vector)
    return _fan_in(counted, arithmetic) * _output_elements(counted, arithmetic)


def _pad(column, layers: int) -> np.ndarray:
    return np.pad(np.asarray(column), (0, layers - np.size(column)))

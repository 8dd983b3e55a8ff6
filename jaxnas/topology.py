"""The layer table: what every cheap objective knows about a network.

A table has one row per convolution or dense layer, in program order, and a mask, so
that networks of every depth share one shape. It is obtained from a genotype by
arithmetic or from any JAX function by `tracing.trace_topology`; hardware models and
the resilience predictor read nothing else. A dense layer is the 1x1 convolution of a
1x1 map.

The counts below are float32: exact below 2**24 (and wherever the result has at most
24 significant bits), otherwise rounded to about seven digits. They accept tables
with any leading axes. A masked row counts zero, whatever its other columns hold.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Bool, Float, Int

Column = Int[Array | np.ndarray, "*batch layers"]
Mask = Bool[Array | np.ndarray, "*batch layers"]
Count = Float[Array, "*batch layers"]


class LayerTable(NamedTuple):
    """One row per layer; int32 columns `[layers]`, masked rows are all zero.

    A *stored map* is a map of words in memory: the network's quantised input or the
    quantised output of a layer, in the size in which it is stored, which is before
    any pooling. Words are counted in bits, for a batch of one.
    """

    mask: Mask  # False: padding, no such layer
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
    groups: Column
    weight_bits: Column  # of one word
    bias_bits: Column  # of one word; 0: no bias
    input_bits: Column  # of one word of the operand
    output_bits: Column  # of one word of the result
    stored: Column  # 1: the result passes a quantisation site
    rectified: Column  # 1: a maximum with zero lies between layer and store
    pools_after: Column  # max-poolings from this map to the network's output
    read_bits: Column  # of all stored maps that the layer reads, shortcuts included
    live_bits: Column  # of all stored maps alive while it runs, each counted once


def fan_in(table: LayerTable) -> Count:
    """Products summed into one output element."""
    per_group = table.in_channels // jnp.maximum(table.groups, 1)
    return _product(table, table.kernel_height, table.kernel_width, per_group)


def weights(table: LayerTable) -> Count:
    """Elements of the kernel, without bias."""
    return fan_in(table) * _product(table, table.out_channels)


def parameters(table: LayerTable) -> Count:
    """Elements of kernel and bias."""
    biased = jnp.asarray(table.bias_bits) > 0
    return weights(table) + _product(table, table.out_channels, biased)


def output_elements(table: LayerTable) -> Count:
    """Elements of the layer's result, before any pooling."""
    return _product(table, table.out_height, table.out_width, table.out_channels)


def macs(table: LayerTable) -> Count:
    """Multiply-accumulates, those on padding included, biases left out."""
    return fan_in(table) * output_elements(table)


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


def convolution_shape(eqn: JaxprEqn) -> dict[str, int]:
    """The columns of a row that a `conv_general_dilated` equation alone decides.

    The one axis of a 1-D convolution is its height.

    Raises:
      ValueError: for more than two spatial axes, a batch larger than one, or a batch
        that is split in groups.
    """
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["batch_group_count"]
    operand, kernel = (v.aval.shape for v in eqn.invars)
    batch, axes = operand[numbers.lhs_spec[0]], len(numbers.lhs_spec) - 2
    if axes > 2 or batch != 1 or groups != 1:
        raise ValueError(
            f"found a convolution over {axes} axes of a batch of {batch} in {groups} "
            "groups, expected at most two axes and a batch of one: trace the network "
            "on a single image"
        )
    return _row_shape(
        in_sides=[operand[axis] for axis in numbers.lhs_spec[2:]],
        in_channels=operand[numbers.lhs_spec[1]],
        out_sides=[eqn.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]],
        out_channels=kernel[numbers.rhs_spec[0]],
        kernel_sides=[kernel[axis] for axis in numbers.rhs_spec[2:]],
        strides=eqn.params["window_strides"],
        groups=eqn.params["feature_group_count"],
    )


def dense_shape(eqn: JaxprEqn, *, kernel_left: bool) -> dict[str, int]:
    """The columns of a row that a `dot_general` equation alone decides.

    Summed axes are input channels, shared (batch) axes are groups, the free axes of
    the kernel are output channels. Those of the map, but for a leading batch of one,
    are positions: its last one is the width, all before it the height.
    """
    shapes = (v.aval.shape for v in eqn.invars)
    sides = list(zip(shapes, *eqn.params["dimension_numbers"], strict=True))
    (operand, summed, shared), kernel = reversed(sides) if kernel_left else sides
    positions = _free(operand, summed, shared)
    if positions[:1] == [1]:
        positions = positions[1:]
    if len(positions) > 1:
        positions = [prod(positions[:-1]), positions[-1]]
    groups = prod(operand[axis] for axis in shared)
    return _row_shape(
        in_sides=positions,
        in_channels=groups * prod(operand[axis] for axis in summed),
        out_sides=positions,
        out_channels=groups * prod(_free(*kernel)),
        kernel_sides=[],
        strides=[],
        groups=groups,
    )


def _free(shape, summed, shared) -> list[int]:
    return [n for axis, n in enumerate(shape) if axis not in (*summed, *shared)]


def _row_shape(
    in_sides, in_channels, out_sides, out_channels, kernel_sides, strides, groups
) -> dict[str, int]:
    """Columns by name; a side that is missing is one."""
    sides = {
        "in": in_sides,
        "out": out_sides,
        "kernel": kernel_sides,
        "stride": strides,
    }
    columns = {"in_channels": in_channels, "out_channels": out_channels}
    for name, given in sides.items():
        columns[f"{name}_height"], columns[f"{name}_width"] = (*given, 1, 1)[:2]
    columns["groups"] = groups
    return {name: int(count) for name, count in columns.items()}


def _pad(column, layers: int) -> np.ndarray:
    return np.pad(np.asarray(column), (0, layers - np.size(column)))


def _product(table: LayerTable, *columns) -> Count:
    result = jnp.asarray(table.mask).astype(jnp.float32)
    for column in columns:
        result = result * jnp.asarray(column).astype(jnp.float32)
    return result

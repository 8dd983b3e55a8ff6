"""Cycles, utilisation and buffer traffic of a systolic array, in closed form.

The array and its three dataflows are those of SCALE-Sim (Samajdar et al., 2018, arXiv
1811.02883). A layer is `groups` matrix products of M x K by K x N, with

    M = output pixels,  K = fan-in,  N = output channels per group.

Two of the three are laid over rows and columns of the array, fold by fold; the third
is streamed through it:

                              rows  columns  stream   cycles of one fold
    os  output stationary      M      N        K       K +  rows + columns - 2
    ws  weight stationary      K      N        M       M + 2 rows + columns - 2
    is  input stationary       K      M        N       N + 2 rows + columns - 2

A fold costs its full time whether it fills the array or not, and nothing overlaps two
folds. `dataflow="best"` takes for every layer the dataflow of the fewest cycles.

The formulas equal the simulator (version 3.0.0) but for three artefacts, which
`as_reported=True` adds: its total is one cycle short per group, the skew of stationary
weights and inputs enters its compute utilisation twice, and output stationary counts
rows + columns writes per fold that carry no data.

All counts are float32, exact below 2**24; masked rows and vector operations count zero.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.topology import LayerTable, macs, products

DATAFLOWS = ("os", "ws", "is")

PerLayer = Float[Array, "*batch layers"]


@dataclass(frozen=True, kw_only=True)
class SystolicArray:
    """An array of `rows` x `columns` multiply-accumulate units and its dataflow.

    Raises:
      ValueError: for an empty array or an unknown dataflow.
    """

    rows: int = 16
    columns: int = 16
    dataflow: str = "os"

    def __post_init__(self):
        if self.rows < 1 or self.columns < 1:
            raise ValueError(
                f"found an array of {self.rows} x {self.columns} units, expected at "
                "least one row and one column"
            )
        if self.dataflow not in (*DATAFLOWS, "best"):
            raise ValueError(
                f"found dataflow {self.dataflow!r}, expected one of "
                f"{', '.join(DATAFLOWS)} or best"
            )


class SramWords(NamedTuple):
    """Words moved between the array and its three buffers."""

    operand_reads: PerLayer
    weight_reads: PerLayer
    output_writes: PerLayer


def latency_cycles(table: LayerTable, array: SystolicArray) -> Float[Array, "*batch"]:
    """Cycles of the whole network, one layer after another."""
    return jnp.sum(cycles(table, array), axis=-1)


def cycles(
    table: LayerTable, array: SystolicArray, *, as_reported: bool = False
) -> PerLayer:
    """Cycles of each layer."""
    return _choose(_cycles, table, array, as_reported)


def utilisation(
    table: LayerTable, array: SystolicArray, *, as_reported: bool = False
) -> PerLayer:
    """Share of unit-cycles that do a multiply-accumulate, 0..1; zero where masked."""
    spent = cycles(table, array, as_reported=as_reported) * array.rows * array.columns
    return _ratio(macs(table), spent)


def mapping_efficiency(table: LayerTable, array: SystolicArray) -> PerLayer:
    """Share of the units that hold data, averaged over folds, 0..1."""
    return _choose(_mapping_efficiency, table, array, False)


def compute_utilisation(
    table: LayerTable, array: SystolicArray, *, as_reported: bool = False
) -> PerLayer:
    """Utilisation within the time of the folds, 0..1.

    It equals `utilisation` unless `as_reported`.
    """
    return _choose(_compute_utilisation, table, array, as_reported)


def sram_words(
    table: LayerTable, array: SystolicArray, *, as_reported: bool = False
) -> SramWords:
    """Buffer accesses of each layer; a partial sum counts as an output word."""
    chosen = (
        _choose(part, table, array, as_reported)
        for part in (_operand_reads, _weight_reads, _output_writes)
    )
    return SramWords(*chosen)


class _Folding(NamedTuple):
    """A table under one dataflow; a masked row has no groups and no folds."""

    groups: PerLayer
    over_rows: PerLayer  # the extent laid over the rows
    over_columns: PerLayer
    streamed: PerLayer
    row_folds: PerLayer
    column_folds: PerLayer
    fold_cycles: PerLayer


def _fold(table: LayerTable, array: SystolicArray, dataflow: str) -> _Folding:
    table = products(LayerTable(*(jnp.asarray(column) for column in table)))
    groups = jnp.maximum(table.groups, 1)
    pixels = table.out_height * table.out_width
    inputs = table.kernel_height * table.kernel_width * (table.in_channels // groups)
    outputs = table.out_channels // groups
    over_rows, over_columns, streamed = {
        "os": (pixels, outputs, inputs),
        "ws": (inputs, outputs, pixels),
        "is": (inputs, pixels, outputs),
    }[dataflow]
    filling = array.rows * (1 if dataflow == "os" else 2) + array.columns - 2
    # Divided as integers: a rounded quotient could fall on the wrong side.
    row_folds = -(-over_rows // array.rows)
    column_folds = -(-over_columns // array.columns)
    extents = (groups, over_rows, over_columns, streamed, row_folds, column_folds)
    present = (jnp.where(table.mask, x, 0).astype(jnp.float32) for x in extents)
    return _Folding(*present, (streamed + filling).astype(jnp.float32))


def _choose(quantity, table, array: SystolicArray, as_reported: bool) -> PerLayer:
    """A quantity under the array's dataflow, or under the fastest of each layer."""
    if array.dataflow != "best":
        fold = _fold(table, array, array.dataflow)
        return quantity(fold, array, array.dataflow, as_reported)
    folds = {dataflow: _fold(table, array, dataflow) for dataflow in DATAFLOWS}
    spent = jnp.stack([_cycles(folds[d], array, d, False) for d in DATAFLOWS])
    found = jnp.stack([quantity(folds[d], array, d, as_reported) for d in DATAFLOWS])
    fastest = jnp.argmin(spent, axis=0, keepdims=True)
    return jnp.take_along_axis(found, fastest, axis=0)[0]


def _cycles(fold: _Folding, array, dataflow, as_reported):
    missing = fold.groups if as_reported else 0.0
    return fold.groups * fold.row_folds * fold.column_folds * fold.fold_cycles - missing


def _mapping_efficiency(fold: _Folding, array, dataflow, as_reported):
    units = fold.row_folds * fold.column_folds * array.rows * array.columns
    return _ratio(fold.over_rows * fold.over_columns, units)


def _compute_utilisation(fold: _Folding, array, dataflow, as_reported):
    skew = array.columns - 1 if as_reported and dataflow != "os" else 0
    held = _mapping_efficiency(fold, array, dataflow, as_reported)
    return held * _ratio(fold.streamed, fold.fold_cycles + skew)


def _operand_reads(fold: _Folding, array, dataflow, as_reported):
    """Stationary inputs are read once, others anew for every fold of the outputs."""
    if dataflow == "is":
        return fold.groups * fold.over_rows * fold.over_columns
    return fold.groups * fold.column_folds * fold.over_rows * fold.streamed


def _weight_reads(fold: _Folding, array, dataflow, as_reported):
    """Stationary weights are read once, others anew for every fold of the pixels."""
    if dataflow == "ws":
        return fold.groups * fold.over_rows * fold.over_columns
    folds = fold.row_folds if dataflow == "os" else fold.column_folds
    columns = fold.over_columns if dataflow == "os" else fold.over_rows
    return fold.groups * folds * columns * fold.streamed


def _output_writes(fold: _Folding, array, dataflow, as_reported):
    """Stationary outputs are written once, partial sums for each fold of the inputs."""
    if dataflow != "os":
        return fold.groups * fold.row_folds * fold.over_columns * fold.streamed
    empty = (array.rows + array.columns) * float(as_reported)
    folds = fold.row_folds * fold.column_folds
    return fold.groups * (fold.over_rows * fold.over_columns + folds * empty)


def _ratio(part: PerLayer, whole: PerLayer) -> PerLayer:
    """part / whole, zero where the whole is."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)

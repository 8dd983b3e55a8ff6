"""Cycles, utilisation and buffer traffic of a systolic array, in closed form.

The array and its three dataflows are those of SCALE-Sim (Samajdar et al., 2018, arXiv
1811.02883); `folding` derives the cycles. `dataflow="best"` takes for every layer the
dataflow of the fewest cycles.

In convention `scalesim` the formulas equal the simulator (version 3.0.0) but for three
artefacts, which `as_reported=True` adds: its total is one cycle short per group, the
skew of stationary weights and inputs enters its compute utilisation twice, and output
stationary counts rows + columns writes per fold that carry no data. It never reads
partial sums back. In `realistic` they are: with F folds of the inputs, an output is
written F times and read F - 1 times.

Counts are float32, exact below 2**24, or of the arithmetic that is passed; masked rows
and vector operations count zero.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.arithmetic import FLOAT32, Arithmetic
from jaxnas.hardware.accelerators import Hardware
from jaxnas.hardware.arrays import DATAFLOWS as DATAFLOWS
from jaxnas.hardware.arrays import SystolicArray as SystolicArray
from jaxnas.hardware.folding import Folding, choose
from jaxnas.hardware.folding import PerLayer as PerLayer
from jaxnas.topology import (
    LayerTable,
    over_layers,
)


class SramWords(NamedTuple):
    """Words moved between the array and its three buffers."""

    operand_reads: PerLayer
    weight_reads: PerLayer
    output_writes: PerLayer
    output_reads: PerLayer  # of partial sums


def latency_cycles(
    table: LayerTable, array: Hardware, *, arithmetic: Arithmetic = FLOAT32
) -> Float[Array, "*batch"]:
    """Cycles of the whole network, one layer after another."""
    spent = cycles(table, array, arithmetic=arithmetic)
    return over_layers(spent) if arithmetic.xp is jnp else spent.sum(axis=-1)


def cycles(
    table: LayerTable,
    array: Hardware,
    *,
    as_reported: bool = False,
    arithmetic: Arithmetic = FLOAT32,
) -> PerLayer:
    """Cycles of each layer."""
    quantity = partial(_cycles, as_reported=as_reported)
    return choose(quantity, table, array, arithmetic)


def utilisation(
    table: LayerTable, array: Hardware, *, as_reported: bool = False
) -> PerLayer:
    """Share of unit-cycles that do a multiply-accumulate, 0..1; zero where masked."""
    quantity = partial(_utilisation, as_reported=as_reported)
    return choose(quantity, table, array, FLOAT32)


def mapping_efficiency(table: LayerTable, array: Hardware) -> PerLayer:
    """Share of the units that hold data, averaged over folds, 0..1."""
    return choose(_mapping_efficiency, table, array, FLOAT32)


def compute_utilisation(
    table: LayerTable, array: Hardware, *, as_reported: bool = False
) -> PerLayer:
    """Utilisation within the time of the folds, 0..1.

    It equals `utilisation` in `scalesim` unless `as_reported`; in `realistic` it leaves
    out that the array is filled and drained once.
    """
    quantity = partial(_compute_utilisation, as_reported=as_reported)
    return choose(quantity, table, array, FLOAT32)


def sram_words(
    table: LayerTable,
    array: Hardware,
    *,
    as_reported: bool = False,
    arithmetic: Arithmetic = FLOAT32,
) -> SramWords:
    """Buffer accesses of each layer; a partial sum counts as an output word."""
    quantity = partial(_sram_words, as_reported=as_reported)
    return choose(quantity, table, array, arithmetic)


def _cycles(fold: Folding, array, dataflow, as_reported):
    return fold.cycles - fold.groups if as_reported else fold.cycles


def _utilisation(fold: Folding, array, dataflow, as_reported):
    done = fold.groups * fold.over_rows * fold.over_columns * fold.streamed
    spent = _cycles(fold, array, dataflow, as_reported) * array.rows * array.columns
    return _ratio(done, spent)


def _mapping_efficiency(fold: Folding, array, dataflow):
    units = fold.row_folds * fold.column_folds * array.rows * array.columns
    return _ratio(fold.groups * fold.over_rows * fold.over_columns, fold.runs * units)


def _compute_utilisation(fold: Folding, array, dataflow, as_reported):
    skew = array.columns - 1 if as_reported and dataflow != "os" else 0
    held = _mapping_efficiency(fold, array, dataflow)
    return held * _ratio(fold.streamed, fold.fold_cycles + skew)


def _sram_words(fold: Folding, array, dataflow, as_reported):
    return SramWords(
        operand_reads=_operand_reads(fold, array, dataflow),
        weight_reads=_weight_reads(fold, array, dataflow),
        output_writes=_output_writes(fold, array, dataflow, as_reported),
        output_reads=_output_reads(fold, array, dataflow),
    )


def _operand_reads(fold: Folding, array, dataflow):
    """Stationary inputs are read once, others anew for every fold of the outputs."""
    if dataflow == "is":
        return fold.groups * fold.over_rows * fold.over_columns
    return fold.groups * fold.column_folds * fold.over_rows * fold.streamed


def _weight_reads(fold: Folding, array, dataflow):
    """Stationary weights are read once, others anew for every fold of the pixels."""
    if dataflow == "ws":
        return fold.groups * fold.over_rows * fold.over_columns
    folds = fold.row_folds if dataflow == "os" else fold.column_folds
    columns = fold.over_columns if dataflow == "os" else fold.over_rows
    return fold.groups * folds * columns * fold.streamed


def _output_writes(fold: Folding, array, dataflow, as_reported):
    """Stationary outputs are written once, partial sums for each fold of the inputs."""
    if dataflow != "os":
        return fold.groups * fold.row_folds * fold.over_columns * fold.streamed
    outputs = fold.groups * fold.over_rows * fold.over_columns
    if not as_reported:
        return outputs
    folds = fold.groups * fold.row_folds * fold.column_folds
    return outputs + folds * (array.rows + array.columns)


def _output_reads(fold: Folding, array, dataflow):
    """Partial sums are read for each fold of the inputs but the first."""
    if dataflow == "os" or array.convention == "scalesim":
        return 0 * fold.groups
    outputs = fold.over_columns * fold.streamed
    # A masked row has folds of zero extent.
    return fold.groups * (fold.row_folds * outputs - outputs)


def _ratio(part: PerLayer, whole: PerLayer) -> PerLayer:
    """part / whole, zero where the whole is."""
    positive = whole > 0
    return jnp.where(positive, part / jnp.where(positive, whole, 1), 0.0)

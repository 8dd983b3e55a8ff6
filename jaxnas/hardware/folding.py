"""How a layer is laid over a systolic array, fold by fold, and how long it takes.

A layer is `groups` matrix products of M x K by K x N, with

    M = output pixels,  K = fan-in,  N = output channels per group.

Two of the three are laid over rows and columns of the array, fold by fold; the third
is streamed through it:

                              rows  columns  stream   cycles of one fold
    os  output stationary      M      N        K       K +  rows + columns - 2
    ws  weight stationary      K      N        M       M + 2 rows + columns - 2
    is  input stationary       K      M        N       N + 2 rows + columns - 2

These are the cycles of convention `scalesim`, where nothing overlaps two folds and
groups run one after another. In `realistic` the words that stay are loaded, and results
drained, while another fold computes, so that a fold takes max(stream, rows) cycles and
filling and draining is paid once a layer. And as many groups as fit run together, on
blocks along the diagonal of the array:

    p = min(floor(rows / rows of one), floor(columns / columns of one), groups), p >= 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from jaxnas.arithmetic import Arithmetic
from jaxnas.hardware.accelerators import Hardware
from jaxnas.hardware.arrays import DATAFLOWS
from jaxnas.topology import LayerTable, products

PerLayer = Any
"""Numbers `[*batch, layers]` of the arithmetic in use."""


class Folding(NamedTuple):
    """A table under one dataflow; rows without products have no groups and runs."""

    groups: PerLayer
    runs: PerLayer  # of groups or packs of groups, one after another
    over_rows: PerLayer  # the extent laid over the rows, of one group
    over_columns: PerLayer
    streamed: PerLayer
    row_folds: PerLayer
    column_folds: PerLayer
    fold_cycles: PerLayer
    once_cycles: PerLayer  # of a layer, whatever its folds

    @property
    def cycles(self) -> PerLayer:
        folds = self.runs * self.row_folds * self.column_folds
        return folds * self.fold_cycles + self.once_cycles


Quantity = Callable[[Folding, Hardware, str], Any]
"""Of a folding, an array and a dataflow; a pytree of numbers per layer."""


def choose(
    quantity: Quantity, table: LayerTable, hardware: Hardware, arithmetic: Arithmetic
) -> Any:
    """A quantity under the array's dataflow, or under the fastest of each layer."""
    dataflows = DATAFLOWS if hardware.dataflow == "best" else (hardware.dataflow,)
    best, fewest = None, None
    for dataflow in dataflows:
        folding = fold(table, hardware, dataflow, arithmetic)
        found, spent = quantity(folding, hardware, dataflow), folding.cycles
        if best is None:
            best, fewest = found, spent
            continue
        take = partial(arithmetic.xp.where, spent < fewest)
        best, fewest = jax.tree.map(take, (found, spent), (best, fewest))
    return best


def fold(
    table: LayerTable, hardware: Hardware, dataflow: str, arithmetic: Arithmetic
) -> Folding:
    """The extents, folds and cycles of a table under one dataflow."""
    table, number, where = products(table), arithmetic.number, arithmetic.xp.where
    groups, pixels, inputs, outputs = extents(table, arithmetic)
    over_rows, over_columns, streamed = {
        "os": (pixels, outputs, inputs),
        "ws": (inputs, outputs, pixels),
        "is": (inputs, pixels, outputs),
    }[dataflow]
    row_folds = arithmetic.ceil_divide(over_rows, hardware.rows)
    column_folds = arithmetic.ceil_divide(over_columns, hardware.columns)
    rows, columns = number(hardware.rows), number(hardware.columns)
    filling = rows * (1 if dataflow == "os" else 2) + columns - 2
    runs, fold_cycles, once_cycles = groups, number(streamed) + filling, 0 * filling
    if hardware.convention == "realistic":
        runs = _packs(groups, over_rows, over_columns, hardware, arithmetic)
        fold_cycles = arithmetic.maximum(number(streamed), rows)
        once_cycles = filling
    present = (
        where(table.mask, number(x), number(0))
        for x in (groups, runs, over_rows, over_columns, streamed)
    )
    folds = number(row_folds), number(column_folds)
    once_cycles = where(table.mask, once_cycles, number(0))
    return Folding(*present, *folds, fold_cycles, once_cycles)


def extents(table: LayerTable, arithmetic: Arithmetic):
    """Groups, pixels M, inputs K and outputs N of one group: columns, not masked."""
    column, divide = arithmetic.column, arithmetic.exact_divide
    groups = arithmetic.xp.maximum(column(table.groups), 1)
    pixels = column(table.out_height) * column(table.out_width)
    window = column(table.kernel_height) * column(table.kernel_width)
    inputs = window * divide(column(table.in_channels), groups)
    return groups, pixels, inputs, divide(column(table.out_channels), groups)


def _packs(groups, over_rows, over_columns, hardware: Hardware, arithmetic: Arithmetic):
    """Runs that the groups of a layer take, as many at a time as fit the diagonal."""
    xp, divide = arithmetic.xp, arithmetic.floor_divide
    # A masked row may have extents of zero.
    fit = xp.minimum(
        divide(hardware.rows, xp.maximum(over_rows, 1)),
        divide(hardware.columns, xp.maximum(over_columns, 1)),
    )
    return arithmetic.ceil_divide(groups, xp.maximum(xp.minimum(fit, groups), 1))

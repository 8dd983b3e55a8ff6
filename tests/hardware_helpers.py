"""Tables of random and simulated layers, and a replay of the simulator's buffers."""

import csv
from functools import partial

import jax
import numpy as np

from jaxnas.hardware import Accelerator
from jaxnas.topology import (
    CONCATENATION,
    ELEMENTWISE,
    LAYER,
    MAP_PRODUCT,
    POOLING,
    LayerTable,
)

ONES = dict.fromkeys(LayerTable._fields, 1)


def layers(**columns) -> LayerTable:
    """Columns that broadcast against each other; the others are one."""
    arrays = np.broadcast_arrays(
        *(np.atleast_1d(np.int32(x)) for x in columns.values())
    )
    shape = arrays[0].shape if arrays else (1,)
    given = {name: np.full(shape, value, np.int32) for name, value in ONES.items()}
    given |= dict(zip(columns, arrays, strict=True))
    return LayerTable(**given | {"mask": given["mask"] == 1})


def padded(table: LayerTable) -> LayerTable:
    """With masked rows up to eight layers: operations on one shape compile once."""
    missing = 8 - len(table.mask)
    return LayerTable(*(np.pad(column, (0, missing)) for column in table))


def random_layers(seed: int, shape: tuple[int, ...], *, largest: int = 64):
    """Rows of every kind: grouped, strided, dilated, of odd words, some masked."""
    draw = partial(np.random.default_rng(seed).integers, size=shape)
    groups = np.where(draw(3), 1, draw(1, 17))
    sides = {}
    for side in ("height", "width"):
        out, kernel, step, dilation = draw(1, 33), draw(1, 6), draw(1, 4), draw(1, 3)
        padding = np.minimum(draw(0, 3), (kernel - 1) // 2)
        covered = (out - 1) * step + (kernel - 1) * dilation + 1 - 2 * padding
        sides |= {f"out_{side}": out, f"in_{side}": np.maximum(covered, 1)}
        sides |= {f"kernel_{side}": kernel, f"stride_{side}": step}
        sides |= {f"dilation_{side}": dilation}
    columns = sides | {name: draw(1, 33) for name in _BITS}
    columns |= dict(
        mask=draw(6) > 0,
        kind=np.array(KINDS)[draw(len(KINDS))],
        groups=groups,
        in_channels=groups * draw(1, largest),
        out_channels=groups * draw(1, largest),
    )
    maps = [columns["input_bits"], columns["output_bits"]]
    for axis in ("height", "width", "channels"):
        maps = [maps[0] * columns[f"in_{axis}"], maps[1] * columns[f"out_{axis}"]]
    # Vector operations have no memory of their own.
    product, other = columns["kind"] <= MAP_PRODUCT, draw(2) * maps[0]
    reads, live = product * (maps[0] + other), product * (sum(maps) + other)
    return layers(**columns, read_bits=reads, live_bits=live)


# Transposed convolutions are left out: their sides depend on each other.
KINDS = (LAYER, MAP_PRODUCT, POOLING, ELEMENTWISE, CONCATENATION)
_BITS = ("weight_bits", "bias_bits", "input_bits", "output_bits")


def simulations(path, dataflow: str):
    """One layer per table, an accelerator for each, and what the simulator found."""
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataflow"] == dataflow]
    skip = ("layer", "dataflow")
    truth = {name: _numbers(rows, name) for name in rows[0] if name not in skip}
    table = jax.tree.map(lambda column: column[:, None], simulated_layers(truth))
    hardware = Accelerator(dataflow=dataflow, convention="scalesim").replace(
        rows=truth["array_rows"].astype(np.int32),
        columns=truth["array_cols"].astype(np.int32),
        operand_sram_bytes=truth["sram_ifmap_kB"].astype(np.int32) * 1024,
        weight_sram_bytes=truth["sram_filter_kB"].astype(np.int32) * 1024,
        output_sram_bytes=truth["sram_ofmap_kB"].astype(np.int32) * 1024,
    )
    return table._replace(**{name: 8 + 0 * table.groups for name in _BITS}), (
        hardware,
        truth,
    )


def simulated_layers(truth) -> LayerTable:
    """The simulator's layers: their operands include padding, and may end early."""
    truth = {name: column.astype(int) for name, column in truth.items()}
    groups = np.where(truth["depthwise"], truth["in_ch"], 1)
    sides = {}
    for side, letter in (("height", "h"), ("width", "w")):
        stored, kernel = truth[f"ifmap_{letter}"], truth[f"filt_{letter}"]
        # The simulator rounds the last, incomplete stride up.
        out = -((kernel - truth["stride"] - stored) // truth["stride"])
        sides |= {f"in_{side}": stored, f"kernel_{side}": kernel}
        sides |= {f"out_{side}": out, f"stride_{side}": truth["stride"]}
    return layers(
        in_channels=truth["in_ch"],
        out_channels=groups * truth["num_filt"],
        groups=groups,
        **sides,
    )


def misses(stream, buffer: int) -> int:
    """Words that a buffer takes in which forgets everything when it is full."""
    held, count = set(), 0
    for word in stream:
        if word not in held:
            held.add(word)
            count += 1
            if len(held) == buffer:
                held = set()
    return count


def operand_stream(table: LayerTable, hardware) -> list[int]:
    """Addresses of one group's operand in the order in which the array reads them."""
    one = {name: int(column[0]) for name, column in table._asdict().items()}
    channels = one["in_channels"] // one["groups"]
    outputs = one["out_channels"] // one["groups"]
    width = (one["out_width"] - 1) * one["stride_width"] + one["kernel_width"]
    pixel, tap = np.indices(
        (
            one["out_height"] * one["out_width"],
            one["kernel_height"] * one["kernel_width"] * channels,
        )
    )
    y, x = np.divmod(pixel, one["out_width"])
    down, rest = np.divmod(tap, one["kernel_width"] * channels)
    across, channel = np.divmod(rest, channels)
    row, column = y * one["stride_height"] + down, x * one["stride_width"] + across
    matrix = (row * width + column) * channels + channel
    rows, columns = hardware.rows, hardware.columns
    pixels, taps = matrix.shape
    if hardware.dataflow == "is":
        blocks = [
            matrix[p : p + columns, k : k + rows].T[::-1].ravel()
            for p in range(0, pixels, columns)
            for k in range(0, taps, rows)
        ]
        return np.concatenate(blocks).tolist()
    if hardware.dataflow == "os":
        folds = [matrix[p : p + rows].T for p in range(0, pixels, rows)]
    else:
        folds = [matrix[:, k : k + rows] for k in range(0, taps, rows)]
    return np.concatenate([_skewed(fold) for fold in folds]).tolist() * -(
        -outputs // columns
    )


def weight_stream(table: LayerTable, hardware) -> list[int]:
    """Addresses of one group's weights in the order in which the array reads them."""
    one = {name: int(column[0]) for name, column in table._asdict().items()}
    taps = one["kernel_height"] * one["kernel_width"] * one["in_channels"]
    taps, outputs = taps // one["groups"], one["out_channels"] // one["groups"]
    matrix = np.arange(taps * outputs).reshape(taps, outputs)
    pixels = one["out_height"] * one["out_width"]
    if hardware.dataflow == "is":
        return matrix.ravel().tolist() * -(-pixels // hardware.columns)
    again = -(-pixels // hardware.rows) if hardware.dataflow == "os" else 1
    starts = range(0, outputs, hardware.columns)
    blocks = [
        np.tile(matrix[:, start : start + hardware.columns].ravel(), again)
        for start in starts
    ]
    return np.concatenate(blocks).tolist()


def _skewed(fold):
    """Column k starts k cycles late, as in a systolic array."""
    cycle, lane = np.indices(fold.shape)
    order = np.lexsort((lane.ravel(), (cycle + lane).ravel()))
    return fold.ravel()[order]


def _numbers(rows, name):
    return np.array([float(row[name]) for row in rows])

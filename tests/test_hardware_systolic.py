"""The systolic array against the simulator it is the closed form of, and its laws."""

import csv
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.hardware import systolic
from jaxnas.hardware.systolic import DATAFLOWS, SystolicArray
from jaxnas.topology import LayerTable, macs


def table(**columns):
    """A table of the given columns, all rows present; other columns are one."""
    layers = max(np.size(column) for column in columns.values())
    columns = {name: columns.get(name, 1) for name in LayerTable._fields}
    columns = {
        name: np.broadcast_to(np.asarray(column, np.int32), layers)
        for name, column in columns.items()
    }
    return LayerTable(**columns | {"mask": columns["mask"] == 1})


def random_table(seed, layers=40):
    draw = partial(np.random.default_rng(seed).integers, size=layers)
    groups = np.where(draw(2), 1, draw(1, 9))
    return table(
        mask=draw(2),
        in_channels=groups * draw(1, 40),
        out_channels=groups * draw(1, 40),
        groups=groups,
        kernel_height=draw(1, 6),
        kernel_width=draw(1, 6),
        out_height=draw(1, 30),
        out_width=draw(1, 30),
    )


@pytest.fixture(scope="module")
def simulated(shared):
    """Rows of the simulator's results grouped by array, each group as a table."""
    with shared("truth/scalesim.csv").open() as file:
        rows = list(csv.DictReader(file))
    groups = {}
    for row in rows:
        array = SystolicArray(
            rows=int(row["array_rows"]),
            columns=int(row["array_cols"]),
            dataflow=row["dataflow"],
        )
        groups.setdefault(array, []).append(row)
    assert sum(map(len, groups.values())) == len(rows) > 400
    return {array: (_layers(rows), _columns(rows)) for array, rows in groups.items()}


def _columns(rows):
    texts = ("layer", "dataflow")
    names = [name for name in rows[0] if name not in texts]
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def _layers(rows):
    truth = {name: column.astype(int) for name, column in _columns(rows).items()}
    groups = np.where(truth["depthwise"], truth["in_ch"], 1)

    def side(name):
        # The simulator rounds the last, incomplete stride up.
        return -(
            (truth[f"filt_{name}"] - truth["stride"] - truth[f"ifmap_{name}"])
            // truth["stride"]
        )

    return table(
        in_channels=truth["in_ch"],
        out_channels=groups * truth["num_filt"],
        groups=groups,
        kernel_height=truth["filt_h"],
        kernel_width=truth["filt_w"],
        out_height=side("h"),
        out_width=side("w"),
    )


def test_cycles_equal_the_simulator_in_every_row(simulated):
    for array, (layers, truth) in simulated.items():
        np.testing.assert_array_equal(macs(layers), truth["macs"])
        np.testing.assert_array_equal(
            systolic.cycles(layers, array), truth["demand_lines"]
        )
        np.testing.assert_array_equal(
            systolic.cycles(layers, array, as_reported=True),
            truth["total_cycles_reported"],
        )


def test_utilisation_equals_the_simulator_in_every_row(simulated):
    for array, (layers, truth) in simulated.items():
        for found, expected in (
            (systolic.utilisation(layers, array, as_reported=True), "overall_util_pct"),
            (systolic.mapping_efficiency(layers, array), "mapping_eff_pct"),
            (
                systolic.compute_utilisation(layers, array, as_reported=True),
                "compute_util_pct",
            ),
        ):
            np.testing.assert_allclose(100 * found, truth[expected], rtol=1e-6)


def test_buffer_words_equal_the_simulator_in_every_row(simulated):
    for array, (layers, truth) in simulated.items():
        words = systolic.sram_words(layers, array, as_reported=True)
        np.testing.assert_array_equal(words.operand_reads, truth["sram_ifmap_reads"])
        np.testing.assert_array_equal(words.weight_reads, truth["sram_filter_reads"])
        np.testing.assert_array_equal(words.output_writes, truth["sram_ofmap_writes"])


def test_cycles_of_a_layer_counted_by_hand():
    # M = 5*4 = 20, K = 3*3*2 = 18, N = 6 on 8 rows and 4 columns.
    layer = table(
        in_channels=2,
        out_channels=6,
        kernel_height=3,
        kernel_width=3,
        out_height=5,
        out_width=4,
    )
    spent = {d: 0.0 for d in (*DATAFLOWS, "best")}
    for dataflow in spent:
        array = SystolicArray(rows=8, columns=4, dataflow=dataflow)
        spent[dataflow] = float(systolic.latency_cycles(layer, array))
    assert spent == {
        "os": 3 * 2 * (18 + 8 + 4 - 2),
        "ws": 3 * 2 * (20 + 16 + 4 - 2),
        "is": 3 * 5 * (6 + 16 + 4 - 2),
        "best": 3 * 2 * (18 + 8 + 4 - 2),
    }


def test_groups_run_one_after_another():
    one = table(in_channels=3, out_channels=5, kernel_height=3, out_height=9)
    four = one._replace(
        in_channels=4 * one.in_channels, out_channels=4 * one.out_channels, groups=[4]
    )
    four = LayerTable(*map(np.asarray, four))
    for dataflow in DATAFLOWS:
        array = SystolicArray(rows=4, columns=4, dataflow=dataflow)
        np.testing.assert_array_equal(
            systolic.cycles(four, array), 4 * systolic.cycles(one, array)
        )


@pytest.mark.parametrize("quantity", ["cycles", "utilisation", "compute_utilisation"])
def test_best_takes_the_fastest_dataflow_of_each_layer(quantity):
    layers = random_table(0)
    cost = getattr(systolic, quantity)
    spent = np.stack(
        [systolic.cycles(layers, SystolicArray(dataflow=d)) for d in DATAFLOWS]
    )
    chosen = spent.argmin(axis=0)
    assert len(set(chosen[layers.mask])) > 1
    each = np.stack([cost(layers, SystolicArray(dataflow=d)) for d in DATAFLOWS])
    np.testing.assert_array_equal(
        cost(layers, SystolicArray(dataflow="best")),
        np.take_along_axis(each, chosen[None], axis=0)[0],
    )


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_no_array_beats_one_product_per_unit_and_cycle(dataflow):
    array = SystolicArray(rows=7, columns=5, dataflow=dataflow)
    layers = random_table(1)
    used = np.asarray(systolic.utilisation(layers, array))
    assert (used[layers.mask] > 0).all() and (used <= 1).all()
    np.testing.assert_allclose(
        used, systolic.compute_utilisation(layers, array), rtol=1e-6
    )
    assert (used <= np.asarray(systolic.mapping_efficiency(layers, array))).all()


@pytest.mark.parametrize("dataflow", [*DATAFLOWS, "best"])
def test_masked_rows_cost_nothing(dataflow):
    array = SystolicArray(dataflow=dataflow)
    empty = random_table(2)._replace(mask=np.zeros(40, bool))
    zeros = LayerTable(*(np.zeros_like(column) for column in empty))
    for nothing in (empty, zeros):
        words = systolic.sram_words(nothing, array, as_reported=True)
        for found in (
            systolic.latency_cycles(nothing, array),
            systolic.cycles(nothing, array, as_reported=True),
            systolic.utilisation(nothing, array, as_reported=True),
            systolic.mapping_efficiency(nothing, array),
            systolic.compute_utilisation(nothing, array),
            *words,
        ):
            np.testing.assert_array_equal(found, np.zeros(np.shape(found)))


def test_latency_is_the_same_eager_jitted_vmapped_and_with_leading_axes():
    array = SystolicArray(rows=8, columns=8, dataflow="best")
    tables = [random_table(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *columns: jnp.stack(columns), *tables)
    latency = partial(systolic.latency_cycles, array=array)
    expected = np.array([latency(one) for one in tables])
    np.testing.assert_array_equal(jax.jit(jax.vmap(latency))(stacked), expected)
    np.testing.assert_array_equal(latency(stacked), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rows=0), "array of 0 x 16 units"),
        (dict(columns=-1), "array of 16 x -1 units"),
        (dict(dataflow="rs"), "dataflow 'rs', expected one of os, ws, is or best"),
    ],
)
def test_impossible_arrays_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SystolicArray(**options)

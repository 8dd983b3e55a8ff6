"""Descriptions of accelerators: files, presets, arrays of them, and refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hardware_helpers import random_layers

from jaxnas.hardware import (
    ENERGY_TABLES,
    PRESETS,
    Accelerator,
    EnergyTable,
    SystolicArray,
    area_mm2,
    dram_bytes,
    energy_pj,
    latency_us,
    load,
    preset,
    save,
)
from jaxnas.hardware.accelerators import accelerator
from jaxnas.topology import stack


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_file_are_hashable_and_name_their_source(name, tmp_path):
    one = preset(name)
    save(one, tmp_path / "one.json")
    again = load(tmp_path / "one.json")
    assert again == one and hash(again) == hash(one) and len(one.source) > 10
    assert one.energy in ENERGY_TABLES.values()


def test_a_file_may_leave_fields_to_their_defaults(tmp_path):
    (tmp_path / "one.json").write_text('{"rows": 7}')
    assert load(tmp_path / "one.json") == Accelerator(rows=7)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"lines": 8}, "unknown fields .'lines'. .*expected fields of Accelerator: "),
        ({"rows": "8"}, "found rows='8' in .*expected a number"),
        ({"rows": True}, "found rows=True in .*expected a number"),
        ({"dataflow": 3}, "found dataflow=3 in .*expected str"),
        ({"rows": 0}, "array of 0 x 16 units"),
        ({"energy": {"name": "mine"}}, "found an incomplete EnergyTable in"),
    ],
)
def test_files_that_describe_nothing_are_refused(plain, message, tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "one.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rows=0), "array of 0 x 16 units"),
        (dict(columns=-1), "found columns=-1, expected a finite number"),
        (dict(weight_sram_bytes=-1), "found weight_sram_bytes=-1, expected a finite"),
        (dict(clock_hz=float("nan")), "found clock_hz=nan, expected a finite number"),
        (dict(output_bytes_per_cycle=0), "found output_bytes_per_cycle=0, expected a"),
        (dict(dataflow="rs"), "dataflow 'rs', expected one of os, ws, is or best"),
        (dict(convention="real"), "convention 'real', expected one of scalesim, real"),
    ],
)
def test_impossible_accelerators_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Accelerator(**options)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="no accelerator 'gpu', expected one of eyeri"):
        preset("gpu")


def test_negative_energies_are_refused():
    with pytest.raises(ValueError, match="found dram_pj_per_byte=-1, expected a fin"):
        EnergyTable(
            name="x",
            source="x",
            technology="x",
            multiply_pj_per_bit2=1,
            add_pj_per_bit=1,
            sram_pj_per_byte=1,
            dram_pj_per_byte=-1,
        )


def test_an_array_alone_gets_the_default_buffers():
    array = SystolicArray(rows=3, columns=5, dataflow="ws")
    found = accelerator(array)
    assert found == Accelerator(rows=3, columns=5, dataflow="ws", convention="scalesim")
    assert accelerator(found) is found


def costs(table, hardware):
    moved = dram_bytes(table, hardware).total
    return latency_us(table, hardware), energy_pj(table, hardware), moved


@pytest.mark.parametrize(
    ("convention", "dataflow"), [("scalesim", "os"), ("realistic", "ws")]
)
def test_one_call_costs_networks_times_accelerators(convention, dataflow):
    sizes = dict(rows=[4, 16, 3], columns=[8, 2, 30], weight_sram_bytes=[512, 99, 4096])
    start = Accelerator(dataflow=dataflow, convention=convention)
    grid = start.replace(**{name: jnp.array(size) for name, size in sizes.items()})
    tables = stack([random_layers(seed, (8,)) for seed in range(2)])
    over_tables = jax.vmap(costs, (0, None))
    found = np.stack(jax.jit(jax.vmap(over_tables, (None, 0)))(tables, grid))
    each = jax.jit(over_tables)
    for index in range(3):
        one = start.replace(**{name: size[index] for name, size in sizes.items()})
        expected = np.stack(each(tables, one))
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-6)


def test_area_grows_with_units_bits_and_memory():
    # By hand: 2 units of an 8-bit multiplier and a 32-bit adder, and a byte.
    none = dict(operand_sram_bytes=0, weight_sram_bytes=0)
    one = Accelerator(rows=1, columns=2, output_sram_bytes=1, **none)
    assert area_mm2(one) == pytest.approx((2 * (282 + 137) + 8 * 0.7) * 1e-6)
    wide = area_mm2(one, weight_bits=16, operand_bits=4)
    assert wide == pytest.approx(area_mm2(one))

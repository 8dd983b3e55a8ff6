"""Energy: published constants, a layer by hand, and ResNet-20 as published."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hardware_helpers import layers, padded

from jaxnas.hardware import (
    HOROWITZ_45NM,
    Accelerator,
    DramBytes,
    cycles,
    dram_words,
    energy_parts,
    energy_pj,
    eyeriss,
)
from jaxnas.hardware.energy import mac_pj, sram_pj_per_byte
from jaxnas.networks.references import resnet20
from jaxnas.topology import macs
from jaxnas.tracing import trace_topology

# What the simulator reports of ResNet-20 on 32 x 32 units with three buffers of 64 kB:
# cycles, and words of operands, weights and results between DRAM and buffers; and the
# energy of these words in microjoules.
SIMULATED = {
    "os": (72_334, (225_020, 339_926, 188_426), 143.95),
    "ws": (83_632, (225_020, 268_336, 1_323_586), 314.60),
    "is": (191_012, (225_020, 452_656, 1_323_586), 346.90),
}


@pytest.fixture(scope="module")
def network():
    """ResNet-20 as traced; logits are counted as bytes, as the simulator counts."""
    net, image = resnet20(), jnp.zeros((1, 32, 32, 3), jnp.uint8)
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), image))
    table = trace_topology(lambda v, x: net.apply(v, x), variables, image)
    assert macs(table).sum() == 40_551_040
    return table._replace(output_bits=np.full_like(table.output_bits, 8))


@pytest.mark.parametrize("dataflow", SIMULATED)
def test_resnet20_costs_what_the_simulator_and_the_published_energies_say(
    network, dataflow
):
    hardware = Accelerator(
        rows=32, columns=32, dataflow=dataflow, convention="scalesim"
    )
    spent, words, energy_uj = SIMULATED[dataflow]
    assert cycles(network, hardware).sum() == spent
    found = [part.sum() for part in dram_words(network, hardware)]
    np.testing.assert_array_equal(found, [*words, 0])
    assert energy_pj(network, hardware) * 1e-6 == pytest.approx(energy_uj, abs=5e-3)
    given = DramBytes(*(jnp.full(20, count / 20, jnp.float32) for count in words))
    parts = energy_parts(network, hardware, traffic=given)
    assert sum(p.sum() for p in parts) * 1e-6 == pytest.approx(energy_uj, abs=5e-3)


def test_horowitz_constants_are_near_his_table():
    bits = np.array([8, 32])
    hardware = Accelerator(energy=HOROWITZ_45NM)
    multiply = HOROWITZ_45NM.multiply_pj_per_bit2 * bits**2
    np.testing.assert_allclose(multiply, [0.2, 3.1], rtol=0.04)
    np.testing.assert_allclose(HOROWITZ_45NM.add_pj_per_bit * 32, 0.1)
    sizes = np.array([8, 32, 1024]) * 1024.0
    found = [sram_pj_per_byte(hardware, size) for size in sizes]
    np.testing.assert_allclose(found, np.array([10, 20, 100]) / 8, rtol=0.14)
    int8 = layers(weight_bits=8, input_bits=8)
    assert mac_pj(int8, hardware)[0] == pytest.approx(0.3)


def test_eyeriss_constants_are_its_table_in_words_of_sixteen_bits():
    table = layers(weight_bits=16, input_bits=16)
    hardware = Accelerator(energy=eyeriss())
    assert mac_pj(table, hardware)[0] == pytest.approx(1 + 4 * 1)
    for size in (100, 10**6):
        assert 2 * sram_pj_per_byte(hardware, size) == pytest.approx(6 + 2)
    assert 2 * hardware.energy.dram_pj_per_byte == 200


def test_a_layer_by_hand():
    # 4 pixels, fan-in 2, 3 outputs; one column: three folds of outputs.
    table = layers(
        in_height=2,
        in_width=2,
        in_channels=2,
        out_height=2,
        out_width=2,
        out_channels=3,
        weight_bits=4,
        bias_bits=0,
        input_bits=8,
        output_bits=16,
        read_bits=64,
        live_bits=256,
    )
    hardware = Accelerator(
        rows=1,
        columns=1,
        dataflow="ws",
        operand_sram_bytes=8192,
        weight_sram_bytes=8192,
        output_sram_bytes=8192,
    )
    parts = energy_parts(padded(table), hardware)
    assert parts.operations_pj[0] == pytest.approx(24 * (4 * 8 + 32) / 320)
    # Operands three times; two folds of inputs: 12 partial sums written and read.
    moved = 3 * 8 + 6 / 2 + 12 * 2 + 2 * 12 * 4
    assert parts.sram_pj[0] == pytest.approx(moved * 1.25)
    assert parts.dram_pj[0] == pytest.approx((8 + 3 + 24) * 160)


def test_energy_rises_with_everything_that_is_paid_for():
    table = padded(layers(in_channels=9, out_channels=9, out_height=9, in_height=9))
    base = energy_pj(table, Accelerator())
    for name in ("multiply_pj_per_bit2", "sram_pj_per_byte", "dram_pj_per_byte"):
        dear = dataclasses.replace(HOROWITZ_45NM, **{name: 999.0})
        assert energy_pj(table, Accelerator(energy=dear)) > base

"""Exposure by hand, its laws, and the arithmetic of failures in time."""

import numpy as np
import pytest
from hardware_helpers import layers, padded, random_layers

from jaxnas.hardware import (
    Accelerator,
    bandwidth_limited_cycles,
    expected_upsets,
    exposure,
    upsets,
    weight_bytes,
)


def test_a_megabit_for_a_billion_hours_fails_as_often_as_its_rate_says():
    assert upsets(1e6 * 1e9 * 3600, 1000.0) == pytest.approx(1000)
    assert upsets(8 * 2**20 * 8.0, 600.0) == pytest.approx(
        8 * 2**20 / 1e6 * 600 / 1e9 * 8 / 3600
    )


def test_two_layers_by_hand():
    table = padded(
        layers(
            in_channels=[4, 6],
            out_channels=[6, 2],
            weight_bits=[8, 3],
            bias_bits=[16, 0],
            live_bits=[100, 70],
        )
    )
    hardware = Accelerator(clock_hz=1e3)
    first, second, *_ = np.asarray(bandwidth_limited_cycles(table, hardware)) / 1e3
    found = exposure(table, hardware)
    bits = 24 * 8 + 6 * 16, 12 * 3
    assert found.weight_bit_seconds == pytest.approx(sum(bits) * (first + second))
    assert found.map_bit_seconds == pytest.approx(100 * first + 70 * second)
    streamed = exposure(table, hardware, resident_weights=False)
    assert streamed.weight_bit_seconds == pytest.approx(
        bits[0] * first + bits[1] * second
    )
    assert streamed.map_bit_seconds == found.map_bit_seconds
    assert float(expected_upsets(table, hardware)) == pytest.approx(
        upsets(float(found.total_bit_seconds), 1000.0)
    )


def test_upsets_are_linear_in_rate_and_time():
    table = random_layers(0, (8,))
    base = float(expected_upsets(table, Accelerator()))
    twice = Accelerator(sram_fit_per_mbit=2000.0)
    assert expected_upsets(table, twice) == pytest.approx(2 * base)
    slow = Accelerator(clock_hz=5e8)
    assert expected_upsets(table, slow) == pytest.approx(2 * base, rel=1e-5)


def test_resident_weights_are_all_weights_for_the_whole_time():
    table = random_layers(1, (8,))
    hardware = Accelerator()
    seconds = bandwidth_limited_cycles(table, hardware).sum() / hardware.clock_hz
    found = exposure(table, hardware).weight_bit_seconds
    np.testing.assert_allclose(found, 8 * weight_bytes(table) * seconds, rtol=1e-5)
    streamed = exposure(table, hardware, resident_weights=False).weight_bit_seconds
    assert 0 < streamed < found

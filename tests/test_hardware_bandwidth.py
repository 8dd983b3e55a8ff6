"""Latency under bandwidth: the slowest part of every layer."""

import jax
import jax.numpy as jnp
import numpy as np
from hardware_helpers import random_layers

from jaxnas.hardware import (
    Accelerator,
    DramBytes,
    after_first_fill,
    bandwidth_limited_cycles,
    cycles,
    dram_bytes,
    latency_us,
    roofline_cycles,
    smooth,
)

LINKS = ("operand_bytes_per_cycle", "weight_bytes_per_cycle", "output_bytes_per_cycle")


def test_every_layer_takes_as_long_as_its_slowest_part():
    table = random_layers(0, (300,))
    rates = np.array([[0.9], [2.5], [1.5]])
    hardware = Accelerator(**dict(zip(LINKS, rates[:, 0].tolist(), strict=True)))
    moved = np.stack(jax.jit(lambda t: dram_bytes(t, hardware))(table))
    parts = np.stack([cycles(table, hardware), *(moved / rates)])
    found = jax.jit(lambda t: bandwidth_limited_cycles(t, hardware))(table)
    np.testing.assert_allclose(found, parts.max(axis=0), rtol=1e-6)
    assert set(parts.argmax(axis=0)) == {0, 1, 2, 3}
    np.testing.assert_allclose(
        jax.jit(latency_us)(table, hardware.replace(clock_hz=2e6)),
        found.sum() / 2,
        rtol=1e-5,
    )


def test_without_limits_latency_is_that_of_computing():
    table = random_layers(1, (8,))
    hardware = Accelerator(**dict.fromkeys(LINKS, 1e30))
    found = bandwidth_limited_cycles(table, hardware)
    np.testing.assert_array_equal(found, cycles(table, hardware))


def test_given_traffic_replaces_the_model():
    table = random_layers(2, (8,))
    hardware = Accelerator(**dict.fromkeys(LINKS, 2.0))
    heavy = DramBytes(jnp.zeros(8), jnp.full(8, 1e9), jnp.zeros(8))
    found = bandwidth_limited_cycles(table, hardware, traffic=heavy)
    np.testing.assert_array_equal(found, np.full(8, 5e8, np.float32))


def test_half_of_the_buffers_that_are_read_is_full_before_the_first_cycle():
    traffic = DramBytes(jnp.array([10.0, 90.0]), jnp.array([7.0, 8.0]), jnp.ones(2))
    hardware = Accelerator(operand_sram_bytes=40, weight_sram_bytes=14)
    later = after_first_fill(traffic, hardware)
    np.testing.assert_array_equal(np.stack(later), [[0, 70], [0, 1], [1, 1]])


def test_a_smooth_maximum_is_between_the_slowest_part_and_the_sum():
    parts = np.random.default_rng(0).uniform(1, 100, (4, 50)).astype(np.float32)
    found = roofline_cycles(
        parts[0], tuple(parts[1:]), (1.0, 1.0, 1.0), arithmetic=smooth(sharpness=4.0)
    )
    assert (found >= parts.max(axis=0) * (1 - 1e-6)).all()
    assert (found <= parts.sum(axis=0)).all()

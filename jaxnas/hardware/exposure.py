"""Fault exposure: bits in memory times how long they stay, and upsets to be expected.

A bit can only be upset while it holds something. Soft errors of a memory are quoted in
FIT per Mbit, failures of 10**6 bits in 10**9 hours, and arrive as a Poisson process, so
that over an inference

    upsets = bit-seconds / 10**6 bits x FIT / (10**9 x 3600 s).

Maps are exposed while they are alive: all bits of the table's `live_bits` for the time
of the layer. Weights are exposed for the whole inference where they are resident, or,
streamed, each layer's for the time of that layer. The time is that of
`bandwidth_limited_cycles`, so that a network that waits for its memory is exposed for
longer. Not every upset is an error: multiply by what a campaign of faults measures.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.hardware.accelerators import Accelerator
from jaxnas.hardware.bandwidth import bandwidth_limited_cycles
from jaxnas.hardware.dram import BITS_PER_BYTE, DramBytes, present, word_bytes
from jaxnas.topology import (
    LayerTable,
    over_layers,
    weights,
)

BITS_PER_MBIT = 1e6
SECONDS_PER_FIT = 1e9 * 3600


class Exposure(NamedTuple):
    """Bit-seconds of one inference."""

    weight_bit_seconds: Float[Array, "*batch"]
    map_bit_seconds: Float[Array, "*batch"]

    @property
    def total_bit_seconds(self) -> Float[Array, "*batch"]:
        return self.weight_bit_seconds + self.map_bit_seconds


def expected_upsets(
    table: LayerTable,
    hardware: Accelerator,
    *,
    resident_weights: bool = True,
    traffic: DramBytes | None = None,
) -> Float[Array, "*batch"]:
    """Upsets per inference to be expected at the hardware's `sram_fit_per_mbit`."""
    exposed = exposure(
        table, hardware, resident_weights=resident_weights, traffic=traffic
    )
    return upsets(exposed.total_bit_seconds, hardware.sram_fit_per_mbit)


def upsets(bit_seconds, fit_per_mbit) -> float | Float[Array, "..."]:
    """Expected number of upsets of an exposure at a rate in FIT per Mbit."""
    return bit_seconds / BITS_PER_MBIT * (fit_per_mbit / SECONDS_PER_FIT)


def exposure(
    table: LayerTable,
    hardware: Accelerator,
    *,
    resident_weights: bool = True,
    traffic: DramBytes | None = None,
) -> Exposure:
    """Bits times residency; `traffic` replaces the bytes that the model counts."""
    spent = bandwidth_limited_cycles(table, hardware, traffic=traffic)
    spent = spent / hardware.clock_hz
    channels = jnp.asarray(table.out_channels).astype(jnp.float32)
    kernels = weights(table) * word_bytes(hardware, table.weight_bits)
    biases = present(table, channels * word_bytes(hardware, table.bias_bits))
    stored = (kernels + biases) * BITS_PER_BYTE
    if resident_weights:
        held = over_layers(stored) * over_layers(spent)
    else:
        held = over_layers(stored * spent)
    alive = present(table, jnp.asarray(table.live_bits).astype(jnp.float32))
    return Exposure(held, over_layers(alive * spent))

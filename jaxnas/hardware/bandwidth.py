"""Latency where computing or one link to DRAM is the bottleneck.

With double buffers transfers overlap with computing and with each other, so that a
layer takes as long as its slowest part (the roofline of Williams et al., 2009, with a
roof per link):

    cycles = max(compute, bytes_k / bandwidth_k  for each of the three links k).
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.arithmetic import FLOAT32, Arithmetic
from jaxnas.hardware.accelerators import Accelerator
from jaxnas.hardware.dram import DramBytes, dram_bytes
from jaxnas.hardware.systolic import PerLayer, cycles
from jaxnas.topology import LayerTable, over_layers


def latency_us(
    table: LayerTable, hardware: Accelerator, *, traffic: DramBytes | None = None
) -> Float[Array, "*batch"]:
    """Microseconds of one inference; `traffic` replaces the bytes the model counts."""
    spent = over_layers(bandwidth_limited_cycles(table, hardware, traffic=traffic))
    return spent / (hardware.clock_hz * 1e-6)


def bandwidth_limited_cycles(
    table: LayerTable,
    hardware: Accelerator,
    *,
    arithmetic: Arithmetic = FLOAT32,
    traffic: DramBytes | None = None,
) -> PerLayer:
    """Cycles of each layer; `traffic` replaces the bytes that the model counts."""
    traffic = dram_bytes(table, hardware) if traffic is None else traffic
    links = (
        hardware.operand_bytes_per_cycle,
        hardware.weight_bytes_per_cycle,
        hardware.output_bytes_per_cycle,
    )
    compute = cycles(table, hardware, arithmetic=arithmetic)
    return roofline_cycles(compute, traffic, links, arithmetic=arithmetic)


def after_first_fill(traffic: DramBytes, hardware: Accelerator) -> DramBytes:
    """What is left to move at cycle 0, where SCALE-Sim begins to count.

    It fills half of each buffer that it reads from before, at the expense of nobody;
    give the result as `traffic` to compare with its totals under limited bandwidth.
    """
    halves = hardware.operand_sram_bytes / 2, hardware.weight_sram_bytes / 2, 0.0
    later = (jnp.maximum(t - h, 0) for t, h in zip(traffic, halves, strict=True))
    return DramBytes(*later)


def roofline_cycles(
    compute: PerLayer,
    traffic: Sequence[PerLayer],
    per_cycle: Sequence,
    *,
    arithmetic: Arithmetic = FLOAT32,
) -> PerLayer:
    """The longest of computing and transferring, for given cycles and traffic."""
    slowest = compute
    for moved, rate in zip(traffic, per_cycle, strict=True):
        slowest = arithmetic.maximum(slowest, moved / rate)
    return slowest

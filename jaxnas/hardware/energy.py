"""Energy of an inference: operations, buffers and DRAM, by a table of energies.

    operations   multiply-accumulates, with the accesses to registers they need
    buffers      words between array and buffers, priced by the size of the buffer
    DRAM         bytes on the three links

Constants and their sources are in `technologies`; leakage is left out.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.hardware.accelerators import Accelerator
from jaxnas.hardware.dram import DramBytes, dram_bytes, present, word_bytes
from jaxnas.hardware.systolic import PerLayer, sram_words
from jaxnas.topology import (
    LayerTable,
    macs,
    over_layers,
)


class EnergyParts(NamedTuple):
    """Picojoules of each layer."""

    operations_pj: PerLayer
    sram_pj: PerLayer
    dram_pj: PerLayer


def energy_pj(
    table: LayerTable, hardware: Accelerator, *, traffic: DramBytes | None = None
) -> Float[Array, "*batch"]:
    """Picojoules of one inference; `traffic` replaces the bytes the model counts."""
    traffic = dram_bytes(table, hardware) if traffic is None else traffic
    parts = energy_parts(table, hardware, traffic=traffic)
    # Linear in the traffic, whose sum is an objective, too, and computed once for both.
    dram_pj = traffic.total * hardware.energy.dram_pj_per_byte
    return over_layers(parts.operations_pj + parts.sram_pj) + dram_pj


def energy_parts(
    table: LayerTable, hardware: Accelerator, *, traffic: DramBytes | None = None
) -> EnergyParts:
    """Picojoules of each layer; `traffic` replaces the DRAM bytes the model counts."""
    traffic = dram_bytes(table, hardware) if traffic is None else traffic
    moved = traffic.operand + traffic.weight + traffic.output
    return EnergyParts(
        operations_pj=macs(table) * mac_pj(table, hardware),
        sram_pj=_sram_pj(table, hardware),
        dram_pj=moved * hardware.energy.dram_pj_per_byte,
    )


def mac_pj(table: LayerTable, hardware: Accelerator) -> PerLayer:
    """Picojoules of one multiply-accumulate, registers included."""
    prices = hardware.energy
    weight, operand = (
        jnp.asarray(bits).astype(jnp.float32)
        for bits in (table.weight_bits, table.input_bits)
    )
    multiply = prices.multiply_pj_per_bit2 * weight * operand
    add = prices.add_pj_per_bit * hardware.partial_sum_bits
    registers = prices.register_accesses * prices.register_pj_per_byte
    return multiply + add + registers * word_bytes(hardware, table.input_bits)


def sram_pj_per_byte(hardware: Accelerator, memory_bytes) -> Float[Array, ""]:
    """Picojoules of a byte between a buffer of `memory_bytes` and the array."""
    prices = hardware.energy
    size = jnp.maximum(memory_bytes, 1) / prices.sram_bytes
    access = prices.sram_pj_per_byte * size**prices.sram_exponent
    return access + prices.network_pj_per_byte


def _sram_pj(table: LayerTable, hardware: Accelerator) -> PerLayer:
    words = sram_words(table, hardware)
    # Written again and again, an output is a partial sum but for the last time.
    sums = words.output_reads
    sum_bytes = word_bytes(hardware, hardware.partial_sum_bits)
    results = (words.output_writes - sums) * word_bytes(hardware, table.output_bits)
    moved = (
        words.operand_reads * word_bytes(hardware, table.input_bits),
        words.weight_reads * word_bytes(hardware, table.weight_bits),
        results + 2 * sums * sum_bytes,
    )
    sizes = (
        hardware.operand_sram_bytes,
        hardware.weight_sram_bytes,
        hardware.output_sram_bytes,
    )
    parts = zip(moved, sizes, strict=True)
    energy = sum(one * sram_pj_per_byte(hardware, size) for one, size in parts)
    return present(table, energy)

"""An estimate of the silicon that array and buffers take.

Arithmetic is that of Horowitz, ISSCC 2014, as quoted by Sze et al., "Efficient
processing of deep neural networks", Proc. IEEE 2017: in 45 nm an 8-bit multiplier has
282 um2, a 32-bit adder 137 um2. We scale the multiplier by the product of its widths
and the adder by its width. That a bit of SRAM takes 0.7 um2 (a 0.346 um2 cell, half of
the memory being cells) is our own estimate, and so is the whole, which leaves out
registers, control and wires.
"""

from jaxtyping import Array, Float

from jaxnas.hardware.accelerators import Accelerator

MULTIPLIER_UM2_PER_BIT2 = 282 / 64
ADDER_UM2_PER_BIT = 137 / 32
SRAM_UM2_PER_BIT = 0.7


def area_mm2(
    hardware: Accelerator, *, weight_bits: int = 8, operand_bits: int = 8
) -> float | Float[Array, "..."]:
    """Square millimetres in 45 nm, for words of the widest that is computed with."""
    multiplier = MULTIPLIER_UM2_PER_BIT2 * weight_bits * operand_bits
    adder = ADDER_UM2_PER_BIT * hardware.partial_sum_bits
    memory_bytes = (
        hardware.operand_sram_bytes
        + hardware.weight_sram_bytes
        + hardware.output_sram_bytes
    )
    units = hardware.rows * hardware.columns * (multiplier + adder)
    return (units + 8 * memory_bytes * SRAM_UM2_PER_BIT) * 1e-6

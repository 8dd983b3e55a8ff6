"""What one operation and one byte moved cost, with source and technology.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, lists
for 45 nm and 0.9 V: additions of 8 / 32 bits 0.03 / 0.1 pJ, multiplications 0.2 / 3.1
pJ, 64-bit reads of 8 kB / 32 kB / 1 MB caches 10 / 20 / 100 pJ. `HOROWITZ_45NM` goes
through these with one line per quantity:

    multiplication  bits x bits / 320 pJ      8 bits 0.2 (0.2),   32 bits 3.2 (3.1)
    addition        bits / 320 pJ             8 bits 0.025 (0.03), 32 bits 0.1 (0.1)
    memory          1.25 sqrt(kB / 8) pJ/B    8 kB 1.25 (1.25), 32 kB 2.5 (2.5),
                                              1 MB 14.1 (12.5)

DRAM is the 640 pJ per 32 bits that Han et al., "Learning both weights and connections",
NIPS 2015, quote with the same table.

Chen, Emer & Sze, "Eyeriss: a spatial architecture for energy-efficient dataflow",
ISCA 2016, table IV, gives multiples of one 16-bit multiply-accumulate in 65 nm:
register file 1, network between units 2, buffer 6, DRAM 200, per 16-bit word. `eyeriss`
scales them by an energy per operation that the paper does not give. Four register
accesses per operation (two operands, a partial sum read and written) are counted. That
a multiplication of other widths costs in proportion to the product of its widths is our
own assumption.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

Number = Any
"""A number, or an array of numbers where hardware is traced: see `Accelerator`."""


@dataclass(frozen=True, kw_only=True)
class EnergyTable:
    """Energies of one technology; a pytree whose numbers may be arrays.

    A multiply-accumulate of words of `w` and `a` bits into `s` bits costs
    `multiply_pj_per_bit2 * w * a + add_pj_per_bit * s` and moves `register_accesses`
    words of `a` bits between registers. A byte of a memory of `x` bytes costs
    `sram_pj_per_byte * (x / sram_bytes) ** sram_exponent`, and on its way to the array
    `network_pj_per_byte`.

    Raises:
      ValueError: for a negative or infinite number.
    """

    name: str
    source: str
    technology: str
    multiply_pj_per_bit2: Number
    add_pj_per_bit: Number
    register_pj_per_byte: Number = 0.0
    register_accesses: Number = 4.0
    network_pj_per_byte: Number = 0.0
    sram_pj_per_byte: Number
    sram_bytes: Number = 8192.0
    sram_exponent: Number = 0.5
    dram_pj_per_byte: Number

    def __post_init__(self):
        check_numbers(self)


def register_pytree(kind, static: tuple[str, ...]):
    """Registers a dataclass as a pytree whose fields but `static` are its leaves."""
    leaves = [field.name for field in fields(kind) if field.name not in static]
    jax.tree_util.register_dataclass(kind, leaves, list(static))
    return kind


def is_number(value: Any) -> bool:
    """Whether a field holds a number that can be checked: neither array nor tracer."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def check_numbers(one: Any) -> None:
    """Raises ValueError for a field that is a negative or not a finite number."""
    for field in fields(one):
        value = getattr(one, field.name)
        if is_number(value) and not (value >= 0 and math.isfinite(value)):
            raise ValueError(
                f"found {field.name}={value}, expected a finite number that is not "
                "negative"
            )


register_pytree(EnergyTable, ("name", "source", "technology"))

HOROWITZ_45NM = EnergyTable(
    name="horowitz",
    source="Horowitz, ISSCC 2014; DRAM: Han et al., NIPS 2015",
    technology="45 nm, 0.9 V",
    multiply_pj_per_bit2=1 / 320,
    add_pj_per_bit=1 / 320,
    sram_pj_per_byte=1.25,
    dram_pj_per_byte=160.0,
)


def eyeriss(mac_pj: Number = 1.0) -> EnergyTable:
    """Eyeriss' relative energies; by default in units of a 16-bit operation, not pJ."""
    return EnergyTable(
        name="eyeriss",
        source="Chen, Emer & Sze, ISCA 2016, table IV",
        technology="65 nm, in multiples of a 16-bit multiply-accumulate",
        multiply_pj_per_bit2=mac_pj / 256,
        add_pj_per_bit=0.0,
        register_pj_per_byte=mac_pj / 2,
        network_pj_per_byte=2 * mac_pj / 2,
        sram_pj_per_byte=6 * mac_pj / 2,
        sram_exponent=0.0,
        dram_pj_per_byte=200 * mac_pj / 2,
    )


ENERGY_TABLES = {"horowitz": HOROWITZ_45NM, "eyeriss": eyeriss()}

"""Accelerators: an array, its buffers, its links to DRAM and what they cost.

An `Accelerator` is a value: frozen, hashable, written to and read from JSON. It is also
a pytree whose numbers may be arrays, so that one call costs networks x accelerators:

    grid = accelerator.replace(rows=jnp.array([8, 16]), columns=jnp.array([32, 16]))
    jax.vmap(energy_pj, in_axes=(None, 0))(table, grid)   # the other numbers broadcast

`vmap` needs a leading axis in every number it maps; `replace` gives numbers that are
left alone the shape of the arrays. Everything in `jaxnas.hardware` that takes a
`SystolicArray` takes an `Accelerator`.
"""

import dataclasses
import json
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.hardware.arrays import SystolicArray, check_array
from jaxnas.hardware.technologies import (
    HOROWITZ_45NM,
    EnergyTable,
    Number,
    check_numbers,
    eyeriss,
    is_number,
    register_pytree,
)


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A systolic array with three buffers, each with its own link to DRAM.

    Raises:
      ValueError: for an empty array, an unknown dataflow or convention, a negative or
        infinite number, or a bandwidth or clock of zero.
    """

    name: str = "custom"
    source: str = "illustrative"
    rows: Number = 16  # units
    columns: Number = 16
    dataflow: str = "os"
    convention: str = "realistic"
    operand_sram_bytes: Number = 64 * 1024
    weight_sram_bytes: Number = 64 * 1024
    output_sram_bytes: Number = 64 * 1024
    operand_bytes_per_cycle: Number = 16.0  # from DRAM
    weight_bytes_per_cycle: Number = 16.0
    output_bytes_per_cycle: Number = 16.0  # to DRAM
    clock_hz: Number = 1e9
    partial_sum_bits: Number = 32
    sram_fit_per_mbit: Number = 1000.0  # upsets of 10**6 bits in 10**9 hours
    packed: bool = True  # words of b bits take b / 8 bytes, otherwise whole bytes
    energy: EnergyTable = HOROWITZ_45NM

    def __post_init__(self):
        check_numbers(self)
        if is_number(self.rows) and is_number(self.columns):
            check_array(self.rows, self.columns, self.dataflow, self.convention)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("per_cycle", "_hz")) and is_number(value):
                if value == 0:
                    raise ValueError(
                        f"found {field.name}=0, expected a positive number: nothing "
                        "would ever finish"
                    )

    def replace(self, **changes) -> "Accelerator":
        """The same with other fields; numbers broadcast to the arrays among them."""
        shapes = [jnp.shape(x) for x in jax.tree.leaves(changes) if not _is_plain(x)]
        changed = dataclasses.replace(self, **changes)
        shape = jnp.broadcast_shapes(*shapes)
        if not shape:
            return changed
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), changed)


register_pytree(Accelerator, ("name", "source", "dataflow", "convention", "packed"))

Hardware = SystolicArray | Accelerator


def accelerator(hardware: Hardware) -> Accelerator:
    """An accelerator as it is, or one around an array, with the default buffers."""
    if isinstance(hardware, Accelerator):
        return hardware
    array = {f.name: getattr(hardware, f.name) for f in fields(hardware)}
    return Accelerator(**array)


def preset(name: str) -> Accelerator:
    """An accelerator of `PRESETS`; raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(
            f"found no accelerator {name!r}, expected one of {', '.join(PRESETS)}: "
            "choose one of them or load a file"
        )
    return PRESETS[name]


def save(hardware: Accelerator, path: str | Path) -> None:
    """Writes a description whose numbers are plain as JSON."""
    plain = dataclasses.asdict(hardware)
    Path(path).write_text(json.dumps(plain, indent=2) + "\n")


def load(path: str | Path) -> Accelerator:
    """Reads what `save` writes; fields that are missing have their defaults.

    Raises:
      ValueError: for unknown fields, fields of the wrong kind, and for accelerators
        that cannot be.
    """
    plain = json.loads(Path(path).read_text())
    energy = plain.pop("energy", None)
    if energy is not None:
        plain["energy"] = _from_plain(EnergyTable, energy, path)
    return _from_plain(Accelerator, plain, path)


def _from_plain(kind, plain: dict, path):
    known = {field.name: field.type for field in fields(kind)}
    unknown = sorted(set(plain) - set(known))
    if unknown:
        raise ValueError(
            f"found unknown fields {unknown} in {path}, expected fields of "
            f"{kind.__name__}: {', '.join(known)}"
        )
    for name, value in plain.items():
        numeric = known[name] is Number
        if numeric != is_number(value) and (numeric or known[name] in (str, bool)):
            raise ValueError(
                f"found {name}={value!r} in {path}, expected "
                f"{'a number' if numeric else known[name].__name__}"
            )
    try:
        return kind(**plain)
    except TypeError as error:
        raise ValueError(
            f"found an incomplete {kind.__name__} in {path}: {error}"
        ) from error


def _is_plain(leaf) -> bool:
    return not isinstance(leaf, jax.Array | np.ndarray)


PRESETS = {
    one.name: one
    for one in (
        Accelerator(
            name="eyeriss",
            source="Chen et al., JSSC 2017: 12 x 14 units, 108 kB buffer, 200 MHz; how "
            "the buffer is divided and one byte per cycle and link are our choice, and "
            "its row-stationary dataflow is approximated by weight stationary",
            rows=12,
            columns=14,
            dataflow="ws",
            operand_sram_bytes=54 * 1024,
            weight_sram_bytes=8 * 1024,
            output_sram_bytes=46 * 1024,
            operand_bytes_per_cycle=1.0,
            weight_bytes_per_cycle=1.0,
            output_bytes_per_cycle=1.0,
            clock_hz=200e6,
            energy=eyeriss(),
        ),
        Accelerator(
            name="tpu",
            source="Jouppi et al., ISCA 2017 (TPU v1): 256 x 256 units, 24 MiB unified "
            "buffer, 4 MiB accumulators, 700 MHz, weights at 30 GiB/s, host at 14 "
            "GiB/s shared by operands and results; a 256 kB weight FIFO of four tiles",
            rows=256,
            columns=256,
            dataflow="ws",
            operand_sram_bytes=24 * 2**20,
            weight_sram_bytes=4 * 64 * 1024,
            output_sram_bytes=4 * 2**20,
            operand_bytes_per_cycle=7 * 2**30 / 700e6,
            weight_bytes_per_cycle=30 * 2**30 / 700e6,
            output_bytes_per_cycle=7 * 2**30 / 700e6,
            clock_hz=700e6,
        ),
        Accelerator(
            name="edge",
            source="illustrative: a small signal processor with on-chip memory",
            rows=16,
            columns=16,
            dataflow="best",
            operand_sram_bytes=64 * 1024,
            weight_sram_bytes=32 * 1024,
            output_sram_bytes=64 * 1024,
            operand_bytes_per_cycle=2.0,
            weight_bytes_per_cycle=2.0,
            output_bytes_per_cycle=2.0,
            clock_hz=500e6,
        ),
    )
}

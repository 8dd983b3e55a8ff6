"""The readable costs of a network: its layer table, row by row, and the totals.

What is printed of whole networks is listed in one place, `totals`.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxnas import runs
from jaxnas.config import SearchConfig, from_plain
from jaxnas.hardware import (
    PRESETS,
    Accelerator,
    SystolicArray,
    cycles,
    dram_bytes,
    energy_pj,
    expected_upsets,
    latency_cycles,
    latency_us,
    load,
    peak_activation_bytes,
    traffic_bytes,
    weight_bytes,
)
from jaxnas.hardware.accelerators import Hardware, accelerator
from jaxnas.networks.references import (
    REFERENCES,
    Described,
    describe_reference,
    trained_parameters,
)
from jaxnas.networks.tables import layer_table
from jaxnas.numerics import FixedPoint, Rule, quantize_model
from jaxnas.preparation import prepare
from jaxnas.topology import (
    KINDS,
    LAYER,
    MAP_PRODUCT,
    LayerTable,
    compress,
    exact_counts,
    exact_macs,
    exact_parameters,
    products,
)
from jaxnas.tracing import trace_topology

PIPED_WIDTH = 160  # columns of text where the output is no terminal


def totals(table: LayerTable, hardware: Hardware) -> dict[str, int | float]:
    """What a whole network costs, by name with its unit; one table, all in integers.

    Costs of hardware are added here, and appear wherever costs are printed.
    """
    table, device = products(table), accelerator(hardware)
    name = _hardware_name(hardware)
    return {
        "MACs": exact_macs(table),
        "parameters": exact_parameters(table),
        "weight bytes": float(weight_bytes(table)),
        "traffic bytes": float(traffic_bytes(table)),
        "peak activation bytes": float(peak_activation_bytes(table)),
        f"cycles, {name}": float(latency_cycles(table, hardware)),
        f"microseconds, {name}": float(latency_us(table, device)),
        f"DRAM bytes, {name}": float(dram_bytes(table, device).total.sum()),
        f"microjoules, {name}": float(energy_pj(table, device)) * 1e-6,
        f"upsets, {name}": float(expected_upsets(table, device)),
    }


def described_hardware(name: str | None) -> Hardware | None:
    """A preset or a file of `hardware.save`; ValueError for what is neither."""
    if name is None:
        return None
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).is_file():
        raise ValueError(
            f"found --hardware={name}, expected one of {', '.join(PRESETS)} or a file "
            "that jaxnas.hardware.save wrote"
        )
    return load(name)


def print_costs(
    target: str,
    *,
    image: int | None = None,
    classes: int | None = None,
    bits: int | None = None,
    operations: bool = False,
    network: int | None = None,
    hardware: str | None = None,
    console: Console | None = None,
) -> None:
    """Prints the costs of a reference network, or of the networks of a run's front.

    target: a name of `networks.references.REFERENCES`, or a run directory.
    image, classes: pixels of a side and classes of a reference network.
    bits: width of the fixed-point words in which a reference network, which otherwise
        stays as it is, reads its weights and maps.
    operations: whether vector operations have lines too.
    network: the number of the one network of a run whose layers are printed.
    hardware: a preset or a file; otherwise the array of the run, or one of 16x16.

    Raises:
      ValueError: for a target that is neither, a run that is not finished, a network
        that is not on its front, or an option of the other sort of target.
    """
    console, device = console or _console(), described_hardware(hardware)
    if (Path(target) / "config.json").is_file():
        _refuse(target, "a run", image=image, classes=classes, bits=bits)
        _print_run(Path(target), network, operations, device, console)
        return
    _refuse(target, "a reference network", network=network)
    if Path(target).exists() and target not in REFERENCES:
        raise ValueError(
            f"{target} is no run directory (it has no config.json); give the folder "
            "that 'jaxnas search' wrote, or the name of a reference network: "
            f"{', '.join(REFERENCES)}"
        )
    described = describe_reference(target, image=image, classes=classes)
    table = _traced(described, bits, operations)
    device = device or SystolicArray()
    _print_layers(f"{target}, {_image(described.images.shape)}", table, device, console)
    lines = totals(table, device) | {
        "trained parameters": trained_parameters(described)
    }
    _print_totals(lines, console)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _refuse(target: str, what: str, **options: int | None) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"found {', '.join(given)} with {target}, which is {what}: leave it out"
        )


def _traced(described: Described, bits: int | None, operations: bool) -> LayerTable:
    fun = described.module.apply
    if bits is not None:
        word = FixedPoint(bits=bits)
        fun = quantize_model(fun, Rule(weight=word, activation=word))
    arguments = described.variables, described.images
    return trace_topology(fun, *arguments, vector_operations=operations)


class _Member(NamedTuple):
    """A network of the front."""

    number: int
    architecture: str
    genotype: list[int]


def _print_run(
    run: Path,
    network: int | None,
    operations: bool,
    device: Hardware | None,
    console: Console,
) -> None:
    if not (run / "front.csv").is_file():
        raise ValueError(
            f"the search in {run} has not finished (it has no front.csv); continue it "
            "with 'jaxnas search CONFIG.py --resume' first"
        )
    members = _members(run)
    described = json.loads((run / "config.json").read_text())
    stage = prepare(from_plain(SearchConfig, described["config"]), run)
    space, device = stage.problem.space, device or stage.config.hardware
    genotypes = jnp.array([one.genotype for one in members], jnp.int32)
    tables = jax.jit(jax.vmap(lambda one: layer_table(space, one)))(genotypes)
    each = [compress(LayerTable(*(c[i] for c in tables))) for i in range(len(members))]
    if network is None:
        _print_front(run, members, [totals(one, device) for one in each], console)
        return
    numbers = [one.number for one in members]
    if network not in numbers:
        raise ValueError(
            f"found no network {network} on the front of {run}, expected one of "
            f"{', '.join(map(str, numbers))}"
        )
    if operations:
        raise ValueError(
            "found --operations with a network of a run, whose table holds layers only"
        )
    table = each[numbers.index(network)]
    member = members[numbers.index(network)]
    console.print(member.architecture, highlight=False)
    name = f"network {network} of {run}, {_image((1, *space.image))}"
    _print_layers(name, table, device, console)
    _print_totals(totals(table, device), console)


def _members(run: Path) -> list[_Member]:
    with open(run / "front.csv", newline="", encoding="utf-8") as file:
        front = [int(row["id"]) for row in csv.DictReader(file)]
    lines = runs.read_lines(run / "records.jsonl")
    records = {record["id"]: record for record in lines}
    missing = [number for number in front if number not in records]
    if missing:
        raise ValueError(
            f"found no record of the networks {missing} in {run / 'records.jsonl'}, "
            "which are on its front: restore the file"
        )
    return [
        _Member(number, records[number]["architecture"], records[number]["genotype"])
        for number in front
    ]


def _print_front(
    run: Path, members: Sequence[_Member], costs: Sequence[dict], console: Console
) -> None:
    shown = Table(title=f"{run}: {len(members)} networks on the front")
    shown.add_column("network", justify="right")
    for name in costs[0]:
        shown.add_column(name, justify="right")
    shown.add_column("architecture", overflow="fold")
    for member, cost in zip(members, costs, strict=True):
        values = map(_number, cost.values())
        shown.add_row(str(member.number), *values, member.architecture)
    console.print(shown, highlight=False)


def _print_layers(
    title: str, table: LayerTable, device: Hardware, console: Console
) -> None:
    counts = exact_counts(table)
    spent = np.asarray(cycles(table, device))
    columns: dict[str, Callable[[int], str]] = {
        "": lambda row: str(row + 1),
        "layer": lambda row: _operation(_row(table, row)),
        "input": lambda row: _shape(table, "in", row),
        "output": lambda row: _shape(table, "out", row),
        "MACs": lambda row: _number(counts.macs[row]),
        "parameters": lambda row: _number(counts.parameters[row]),
        "words": lambda row: _words(_row(table, row)),
        "cycles": lambda row: _number(spent[row]),
        "live bytes": lambda row: _number(table.live_bits[row] / 8),
    }
    if (table.kind > MAP_PRODUCT).any():
        columns["element operations"] = lambda row: _number(
            counts.vector_operations[row]
        )
    shown = Table(title=title)
    for name in columns:
        shown.add_column(name, justify="left" if name == "layer" else "right")
    for row in range(len(table.mask)):
        shown.add_row(*(text(row) for text in columns.values()))
    console.print(shown, highlight=False)


def _print_totals(lines: dict[str, int | float], console: Console) -> None:
    shown = Table(title="in all", show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for name, value in lines.items():
        shown.add_row(name, _number(value))
    console.print(shown, highlight=False)


def _row(table: LayerTable, index: int) -> dict[str, int]:
    return {name: int(column[index]) for name, column in table._asdict().items()}


def _operation(row: dict[str, int]) -> str:
    """`depthwise 3x3, stride 2`; sides of one are left out."""
    window = f"{row['kernel_height']}x{row['kernel_width']}"
    pixels = row["out_height"] * row["out_width"] * row["in_height"] * row["in_width"]
    name = KINDS[row["kind"]]
    if row["kind"] == LAYER:
        depthwise = 1 < row["groups"] == row["in_channels"]
        name = "depthwise" if depthwise else "convolution"
        name = "dense" if pixels == 1 and window == "1x1" else name
    parts = [name if window == "1x1" and name != "convolution" else f"{name} {window}"]
    for what in ("stride", "dilation", "upsampling"):
        sides = row[f"{what}_height"], row[f"{what}_width"]
        if max(sides) > 1:
            parts.append(f"{what} {_sides(*sides)}")
    if row["kind"] <= MAP_PRODUCT and 1 < row["groups"] < row["in_channels"]:
        parts.append(f"{row['groups']} groups")
    return ", ".join(parts)


def _sides(height: int, width: int) -> str:
    return str(height) if height == width else f"{height}x{width}"


def _shape(table: LayerTable, which: str, row: int) -> str:
    sides = ("height", "width", "channels")
    return "x".join(str(getattr(table, f"{which}_{side}")[row]) for side in sides)


def _words(row: dict[str, int]) -> str:
    """Bits of a word of the kernel (or second operand), the map and the result:
    `w8 a8 -> a8`."""
    second = "w" if row["kind"] < MAP_PRODUCT else "a"
    other = f"{second}{row['weight_bits']} " if row["weight_bits"] else ""
    return f"{other}a{row['input_bits']} -> a{row['output_bits']}"


def _image(shape: Sequence[int]) -> str:
    return "images of " + "x".join(map(str, shape[1:]))


def _hardware_name(hardware: Hardware) -> str:
    """Its own, or else that of the array."""
    if isinstance(hardware, Accelerator) and hardware.name != "custom":
        return hardware.name
    return f"{hardware.rows}x{hardware.columns} {hardware.dataflow}"


def _number(value: int | float | np.number) -> str:
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if 0 < abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.1f}".removesuffix(".0")

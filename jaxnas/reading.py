"""A run directory read back, and checked to be whole."""

import csv
import itertools
import json
import os
from pathlib import Path
from typing import NamedTuple

from jaxnas.lineage import ancestry
from jaxnas.results import COLUMNS

FLIPS = "bit_flips"
FAULT_KEY = ("id", "scheme", "target", "fault", "rate")


class Run(NamedTuple):
    """What a finished search left: one dictionary per line of its files.

    `faults` is keyed by (id, scheme, target, fault, rate); of measurements of the same
    thing the last one stands. `front` is in the order of `front.csv`.
    """

    path: Path
    config: dict
    provenance: dict
    records: dict[int, dict]
    front: list[dict[str, str]]
    faults: dict[tuple[int, str, str, str, float], dict]
    progress: list[dict]


def read_run(run: str | os.PathLike) -> Run:
    """The files of run directory `run`.

    Raises:
      ValueError: `run` is no run directory, its search has not finished, or a file is
        damaged or lacks what another one names.
    """
    path = Path(run)
    if not (path / "config.json").is_file():
        raise ValueError(
            f"{path} is no run directory (it has no config.json); "
            "give the folder that 'jaxnas search' wrote, such as runs/digits"
        )
    if not (path / "front.csv").is_file():
        raise ValueError(
            f"the search in {path} has not finished (it has no front.csv); "
            "continue it with 'jaxnas search CONFIG.py --resume'"
        )
    with open(path / "front.csv", newline="", encoding="utf-8") as file:
        front = list(csv.DictReader(file))
    faults = _read_lines(path / "faults.jsonl")
    _require_columns(path, faults)
    read = Run(
        path,
        _read_json(path / "config.json"),
        _read_json(path / "provenance.json"),
        {record["id"]: record for record in _read_lines(path / "records.jsonl")},
        front,
        {tuple(fault[name] for name in FAULT_KEY): fault for fault in faults},
        _read_lines(path / "progress.jsonl"),
    )
    _require_complete(read)
    return read


def _require_columns(path: Path, faults: list[dict]) -> None:
    for fault in faults:
        if missing := set(COLUMNS.values()) - fault.keys():
            raise ValueError(
                f"{path / 'faults.jsonl'} has measurements without {sorted(missing)}, "
                "of another version; delete that file, then measure again with "
                f"'jaxnas inject {path}'"
            )


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _incomplete(path, "is missing or not JSON") from error


def _read_lines(path: Path) -> list[dict]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise _incomplete(path, "is missing") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise _incomplete(path, f"is not JSON in line {number}") from error
    return rows


def _incomplete(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} {reason}; continue the run with 'jaxnas search CONFIG.py --resume', "
        "or repeat it with --overwrite"
    )


def _require_complete(run: Run) -> None:
    if not run.front:
        raise _incomplete(run.path / "front.csv", "holds no network")
    members = {int(row["id"]) for row in run.front}
    if missing := members - run.records.keys():
        raise _incomplete(
            run.path / "records.jsonl", f"lacks front members {sorted(missing)}"
        )
    for member in members:
        ancestry(run.records, member)
    groups = {key[1:] for key in run.faults}
    for member, group in itertools.product(sorted(members), sorted(groups)):
        if (member, *group) not in run.faults:
            raise ValueError(
                f"{run.path / 'faults.jsonl'} lacks front member {member} at "
                f"{group_words(*group[:3])}, rate {group[3]:g}; measure it with "
                f"'jaxnas inject {run.path}'"
            )


def group_words(scheme: str, target: str, fault: str) -> str:
    """What was struck and how: `logarithmic, weights, stuck at`."""
    plural = {"weight": "weights", "activation": "activations"}.get(target, target)
    return f"{scheme.replace('_', ' ')}, {named(plural, fault)}"


def named(target: str, fault: str) -> str:
    """The target, with its fault where that is not the usual one."""
    return target if fault == FLIPS else f"{target}, {fault.replace('_', ' ')}"

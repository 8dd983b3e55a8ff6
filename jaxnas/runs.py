"""Run directories: what a run writes, so that it can be killed at any moment.

`config.json` and `provenance.json` say what was run and with what; `records.jsonl`,
`progress.jsonl` and `faults.jsonl` grow by lines; `front.csv` appears when all is done.
Lines are written before the checkpoint that counts them, so a resumed run only ever has
to drop lines, never to guess missing ones.
"""

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

PACKAGES = ("jaxnas", "jax", "jaxlib", "flax", "optax", "numpy", "evosax")


def open_run(
    out: Path, name: str, config, *, resume: bool, overwrite: bool, command: str
) -> None:
    """Create the run directory `out`, or check that it can be resumed.

    Raises ValueError, before anything is written, for an existing run without `resume`
    or `overwrite`, a resumed run of another configuration, and nothing to resume.
    """
    described = {"name": name, "config": _plain(config)}
    if resume:
        _require_same_config(out, described)
    else:
        _clear(out, overwrite)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "config.json", json.dumps(described, indent=2) + "\n")
    # The configuration came first: a folder with one is a run, however far it got.
    if not (out / "provenance.json").is_file():
        _write_provenance(out, config.seed, command)


def _write_provenance(out: Path, seed: int, command: str) -> None:
    provenance = {
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "seed": seed,
        "git_commit": _git_commit(),
        "command": command,
    }
    write_text(out / "provenance.json", json.dumps(provenance, indent=2) + "\n")


def _require_same_config(out: Path, described: dict) -> None:
    path = out / "config.json"
    if not path.is_file():
        raise ValueError(
            f"nothing to resume: {path} does not exist; start the run without --resume"
        )
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable as JSON ({error}); start again with --overwrite"
        ) from None
    differences = sorted(_differences(found, described))
    if differences:
        raise ValueError(
            f"{out} holds a run of another configuration ({', '.join(differences[:4])} "
            "differ); resume it with its own configuration, or choose another --out"
        )


def _differences(a, b, prefix=""):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {*a, *b}:
            yield from _differences(
                a.get(key), b.get(key), f"{prefix}.{key}".strip(".")
            )
    elif a != b:
        yield prefix.removeprefix("config.")


def _clear(out: Path, overwrite: bool) -> None:
    """Delete the run in `out`; raise ValueError for one that must not be touched."""
    found = list(out.iterdir()) if out.is_dir() else []
    unused = {path.name for path in found} <= {"config.json.tmp"}
    if unused and not out.is_file():
        return
    if not (out / "config.json").is_file():
        raise ValueError(
            f"{out} exists and is not a run directory: choose another --out, nothing "
            "there was touched"
        )
    if not overwrite:
        raise ValueError(
            f"{out} already holds a run: continue it with --resume, replace it with "
            "--overwrite, or choose another --out"
        )
    # Killed meanwhile, this leaves a run that can be resumed or overwritten: its
    # checkpoints go before the lines that they count, and the configuration goes last.
    order = {"checkpoints": 0, "config.json": 2}
    for path in sorted(found, key=lambda path: order.get(path.name, 1)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _plain(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _git_commit() -> str | None:
    """The commit of the code that runs, None outside a checkout or without git."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return answer.stdout.strip() or None


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step: readers and crashes see the old text or the new."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def append_lines(path: Path, records: Iterable[dict]) -> None:
    """Append one JSON line per record and wait until they are on the disk."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict]:
    """The records of a file of JSON lines; a last line cut short by a crash is left."""
    if not path.is_file():
        return []
    *lines, tail = path.read_text().split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise ValueError(
                f"{path} line {number} is not JSON; restore the file or start the run "
                "again with --overwrite"
            ) from None
    return records


def keep_lines(path: Path, keep: Callable[[dict], bool]) -> list[dict]:
    """Drop the records that `keep` refuses, in one step; the others are returned."""
    records = [record for record in read_lines(path) if keep(record)]
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
    return records


def write_table(path: Path, rows: list[dict]) -> None:
    """A CSV file with one line per row; all rows have the same keys."""
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    temporary.replace(path)

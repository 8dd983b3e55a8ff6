"""Trial records on disk: a folder with one binary column per metric.

    manifest.json   {"format": "jaxnas trial records 1", "columns": {"sdc1": "<f4"},
                     "about": {...}}
    sdc1.bin        row i is the value of trial i: nothing but little-endian numbers

Columns only grow. Each append is on the disk before the next one begins, and rows that
a killed process left incomplete are dropped, so that a folder depends on what was
measured and never on how often that was interrupted. Plain NumPy reads it:

    manifest = json.load(open("records/manifest.json"))
    sdc1 = np.fromfile("records/sdc1.bin", manifest["columns"]["sdc1"])

and takes the shortest column while a campaign still runs, as `read_records` does.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from jaxnas.runs import write_text

FORMAT = "jaxnas trial records 1"
KINDS = "bool", "int8", "int16", "int32", "int64"
KINDS += "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"

Columns = Mapping[str, Shaped[np.ndarray, " rows"]]


def check_columns(dtypes: Mapping[str, np.dtype]) -> None:
    """Raises ValueError unless these names and dtypes can be columns."""
    if not dtypes:
        raise ValueError("no columns; expected a metric or more")
    for name, dtype in dtypes.items():
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"column {name!r}; expected a name that a file can have, of letters, "
                "digits, '_', '-' and '.'"
            )
        if np.dtype(dtype).name not in KINDS:
            raise ValueError(
                f"column {name!r} of {np.dtype(dtype).name}; expected one of "
                f"{', '.join(KINDS)}: convert it, as with .astype(jnp.float32)"
            )


class Records(NamedTuple):
    """A folder of records that one process writes to."""

    folder: Path
    dtypes: dict[str, np.dtype]

    @property
    def rows(self) -> int:
        """Rows that all columns have."""
        return _rows(self.folder, self.dtypes)

    def append(self, rows: Columns) -> None:
        """Adds rows to all columns and returns when they are on the disk.

        Raises:
          ValueError: the columns are others, or not all of them ended at the same row:
            another process writes to the folder, or its files were changed.
        """
        if rows.keys() != self.dtypes.keys():
            raise ValueError(f"rows of {[*rows]}; expected {[*self.dtypes]}")
        start = self.rows
        for name, dtype in self.dtypes.items():
            path = _path(self.folder, name)
            with path.open("ab") as file:
                if file.tell() != start * dtype.itemsize:
                    raise ValueError(
                        f"{path} has {file.tell()} bytes, expected {start} rows of "
                        f"{dtype.itemsize}; let one process alone write to a folder, "
                        "and resume it"
                    )
                file.write(rows[name].astype(dtype, casting="safe").tobytes())
                file.flush()
                os.fsync(file.fileno())
        if not start:  # the new files' names
            _sync_folder(self.folder)

    def columns(self, rows: int) -> dict[str, Shaped[np.ndarray, " rows"]]:
        """The first `rows` rows, mapped: files are read as their pages are used."""
        return _mapped(self.folder, self.dtypes, rows)


class TrialRecords(NamedTuple):
    """What a folder holds: the rows that all columns have, and what they are about."""

    columns: dict[str, Shaped[np.ndarray, " rows"]]
    about: dict[str, Any]


def open_records(
    folder: str | os.PathLike,
    dtypes: Mapping[str, np.dtype],
    about: Mapping[str, Any],
    *,
    resume: bool,
) -> Records:
    """Begins a folder of records; with `resume` goes on with one that exists.

    about: what decides on the values, in JSON; a folder about anything else is not
        resumed. Incomplete rows at the end of a resumed folder are dropped.

    Raises:
      ValueError: bad names or dtypes of columns; `about` is not JSON; there are records
        and `resume` is false, records of other columns or about something else, an
        unreadable manifest, or a folder of other things.
    """
    check_columns(dtypes)
    folder = Path(folder)
    little = {name: np.dtype(d).newbyteorder("<") for name, d in dtypes.items()}
    manifest = _manifest(little, about)
    path = folder / "manifest.json"
    if path.is_file():
        if not resume:
            raise ValueError(
                f"{folder} already holds records; pass resume=True to go on with them, "
                "or choose another folder"
            )
        _require_same(folder, _read_manifest(folder), json.loads(manifest))
        _drop_torn_rows(folder, little)
    else:
        found = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        if folder.is_file() or set(found) - {"manifest.json.tmp"}:
            raise ValueError(
                f"{folder} exists and holds no records; choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, manifest)
        _sync_folder(folder)
    return Records(folder, little)


def read_records(folder: str | os.PathLike) -> TrialRecords:
    """The records in a folder, even while they are written; nothing is changed.

    Raises:
      ValueError: there are none, or their manifest is damaged.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    dtypes = {name: np.dtype(text) for name, text in manifest["columns"].items()}
    columns = _mapped(folder, dtypes, _rows(folder, dtypes))
    return TrialRecords(columns, manifest["about"])


def _manifest(dtypes, about) -> str:
    kinds = {name: dtype.str for name, dtype in dtypes.items()}
    content = {"format": FORMAT, "columns": kinds, "about": dict(about)}
    try:
        return json.dumps(content, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the description of the records is not JSON ({error}); use numbers, "
            "strings, lists and dictionaries"
        ) from None


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, not {FORMAT!r}")
        check_columns({name: np.dtype(d) for name, d in manifest["columns"].items()})
        return {name: manifest[name] for name in ("format", "columns", "about")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a manifest of trial records ({error}); choose another "
            "folder, or restore this one"
        ) from None


def _require_same(folder, found, expected) -> None:
    pairs = {
        name: (found[part].get(name), expected[part].get(name))
        for part in ("columns", "about")
        for name in {**found[part], **expected[part]}
    }
    other = [
        f"{name}: {there!r} there, {here!r} here"
        for name, (there, here) in pairs.items()
        if there != here
    ]
    if other:
        raise ValueError(
            f"{folder} holds records of another campaign ({'; '.join(other)}); resume "
            "with what began them, or choose another folder"
        )


def _path(folder, name) -> Path:
    return folder / f"{name}.bin"


def _rows(folder, dtypes) -> int:
    sizes = {name: _path(folder, name) for name in dtypes}
    return min(
        path.stat().st_size // dtypes[name].itemsize if path.is_file() else 0
        for name, path in sizes.items()
    )


def _mapped(folder, dtypes, rows):
    if not rows:  # an empty file cannot be mapped
        return {name: np.empty(0, dtype) for name, dtype in dtypes.items()}
    return {
        name: np.memmap(_path(folder, name), dtype, mode="r", shape=(rows,))
        for name, dtype in dtypes.items()
    }


def _drop_torn_rows(folder, dtypes) -> None:
    rows = _rows(folder, dtypes)
    for name, dtype in dtypes.items():
        path = _path(folder, name)
        if path.is_file() and path.stat().st_size > rows * dtype.itemsize:
            os.truncate(path, rows * dtype.itemsize)


def _sync_folder(folder) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

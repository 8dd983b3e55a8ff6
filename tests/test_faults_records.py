"""Records: columns that plain NumPy reads, whole after any interruption."""

import json

import numpy as np
import pytest

from jaxnas.faults.records import open_records, read_records

DTYPES = {
    "sdc1": np.dtype("float32"),
    "right": np.dtype("int64"),
    "hit": np.dtype(bool),
}
ABOUT = {"key": ["fry", 0, 1], "description": {"rate": 1e-3}}


def rows(start, count):
    numbers = np.arange(start, start + count)
    return {
        "right": numbers * 10**10,
        "sdc1": (numbers / 7).astype(np.float32),
        "hit": numbers % 3 == 0,
    }


def begin(folder, **options):
    return open_records(folder, DTYPES, ABOUT, **({"resume": False} | options))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_plain_numpy_reads_the_columns(tmp_path):
    records = begin(tmp_path / "r")
    records.append(rows(0, 5))
    records.append(rows(5, 1))
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert manifest["about"] == ABOUT
    assert manifest["columns"] == {"sdc1": "<f4", "right": "<i8", "hit": "|b1"}
    for name, kind in manifest["columns"].items():
        column = np.fromfile(tmp_path / "r" / f"{name}.bin", kind)
        np.testing.assert_array_equal(column, rows(0, 6)[name])


def test_bytes_do_not_depend_on_the_chunks(tmp_path):
    for name, chunks in {"a": [7], "b": [1, 2, 4], "c": [6, 0, 1]}.items():
        records = begin(tmp_path / name)
        for count in chunks:
            records.append(rows(records.rows, count))
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")
    assert len(content(tmp_path / "a")) == 4


def test_columns_are_mapped_and_reading_changes_nothing(tmp_path):
    records = begin(tmp_path / "r")
    assert records.columns(0)["hit"].shape == (0,)
    records.append(rows(0, 9))
    with (tmp_path / "r" / "hit.bin").open("ab") as file:
        file.write(b"\1")
    before = content(tmp_path / "r")
    found = read_records(tmp_path / "r")
    assert found.about == ABOUT and list(found.columns) == list(DTYPES)
    for columns, count in ((found.columns, 9), (records.columns(4), 4)):
        for name, column in columns.items():
            assert isinstance(column, np.memmap) and not column.flags.writeable
            np.testing.assert_array_equal(column, rows(0, count)[name])
    assert content(tmp_path / "r") == before


def test_a_write_cut_anywhere_is_resumed(tmp_path):
    """All columns before the cut one have the new rows, all after it have not."""
    whole = begin(tmp_path / "whole")
    whole.append(rows(0, 3))
    old = content(tmp_path / "whole")
    whole.append(rows(3, 2))
    new = content(tmp_path / "whole")
    cuts = 0
    for place, name in enumerate(DTYPES):
        file = f"{name}.bin"
        for size in range(len(old[file]), len(new[file]) + 1):
            folder = tmp_path / f"{place}-{size}"
            begin(folder)
            for index, other in enumerate(DTYPES):
                path, source = folder / f"{other}.bin", new if index < place else old
                path.write_bytes(source[path.name])
            (folder / file).write_bytes(new[file][:size])
            records = begin(folder, resume=True)
            # Later columns still lack the new rows, unless this is the last one.
            complete = (size - len(old[file])) // DTYPES[name].itemsize
            assert records.rows == 3 + (complete if name == "hit" else 0)
            records.append(rows(records.rows, 5 - records.rows))
            assert content(folder) == new
            cuts += 1
    assert cuts == 2 * (4 + 8 + 1) + 3


def test_resuming_begins_where_there_is_nothing_yet(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "manifest.json.tmp").write_text("{")  # killed right there
    begin(tmp_path / "r", resume=True).append(rows(0, 2))
    assert begin(tmp_path / "r", resume=True).rows == 2


def refused(folder, dtypes=DTYPES, about=ABOUT, *, match, resume=True):
    exists = folder.is_dir()
    before = content(folder) if exists else None
    with pytest.raises(ValueError, match=match):
        open_records(folder, dtypes, about, resume=resume)
    assert folder.exists() == exists and (not exists or content(folder) == before)


def test_other_records_are_refused_and_left_as_they_are(tmp_path):
    folder = tmp_path / "r"
    begin(folder).append(rows(0, 2))
    with (folder / "hit.bin").open("ab") as file:
        file.write(b"\1")
    refused(folder, resume=False, match="resume=True")
    refused(folder, about=ABOUT | {"key": ["fry", 0, 2]}, match="key: .* 1.* there")
    refused(folder, dtypes=DTYPES | {"sdc1": np.dtype("float64")}, match="<f8")
    refused(folder, dtypes={"sdc1": DTYPES["sdc1"]}, match="right: '<i8' there")
    (folder / "manifest.json").write_text("{")
    refused(folder, match="not a manifest")
    with pytest.raises(ValueError, match="not a manifest"):
        read_records(folder)


def test_bad_folders_and_columns_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    refused(tmp_path / "other", match="holds no records")
    new = tmp_path / "new"
    refused(new, dtypes={}, match="no columns")
    refused(new, dtypes={"a/b": np.dtype("float32")}, match="name that a file")
    refused(new, dtypes={"a": np.dtype("complex64")}, match="complex64")
    refused(new, about={"network": object()}, match="not JSON")
    refused(new, about={"rate": float("nan")}, match="not JSON")
    with pytest.raises(ValueError, match="not a manifest"):
        read_records(new)


def test_a_second_writer_is_noticed(tmp_path):
    records = begin(tmp_path / "r")
    records.append(rows(0, 2))
    with (tmp_path / "r" / "right.bin").open("ab") as file:
        file.write(bytes(8))
    with pytest.raises(ValueError, match="one process alone"):
        records.append(rows(2, 1))
    with pytest.raises(ValueError, match="expected"):
        records.append({"sdc1": np.zeros(1, np.float32)})

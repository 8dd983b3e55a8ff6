"""Run directories: what may be opened, and what a crash leaves of every write."""

import csv
import dataclasses
import json
import os
import shutil

import pytest

from jaxnas import runs
from jaxnas.config import EvolutionConfig, SearchConfig
from jaxnas.runs import append_lines, keep_lines, open_run, read_lines, write_table

CONFIG = SearchConfig(seed=5)
OTHER = dataclasses.replace(
    CONFIG, seed=6, evolution=EvolutionConfig(generations=3, children=4)
)


class Killed(BaseException):
    """Nothing in the library may catch it."""


def start(out, config=CONFIG, **options):
    options = {"resume": False, "overwrite": False, "command": "jaxnas x"} | options
    open_run(out, "digits", config, **options)


def snapshot(folder):
    """Every file below a folder with its bytes and time of change."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_new_run_says_what_is_run_and_with_what(tmp_path):
    out = tmp_path / "deep" / "run"
    start(out)
    described = json.loads((out / "config.json").read_text())
    assert described["name"] == "digits"
    assert described["config"]["seed"] == 5
    assert described["config"]["space"]["stages"][0]["widths"] == [4, 8, 12, 16]
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["seed"] == 5 and provenance["command"] == "jaxnas x"
    assert {"jax", "python", "platform", "devices", "git_commit"} < set(provenance)
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "provenance.json",
    ]


def test_an_empty_folder_is_a_new_run(tmp_path):
    start(tmp_path)
    assert (tmp_path / "config.json").is_file()


def test_resuming_changes_nothing(tmp_path):
    start(tmp_path / "run")
    before = snapshot(tmp_path)
    start(tmp_path / "run", resume=True, command="jaxnas y")
    assert snapshot(tmp_path) == before


def make_run(out):
    start(out)
    append_lines(out / "records.jsonl", [{"id": 0}])
    (out / "checkpoints" / "search" / "0").mkdir(parents=True)
    (out / "checkpoints" / "search" / "0" / "data").write_bytes(b"weights")


REFUSED = {
    "exists": (
        {},
        "already holds a run: continue it with --resume, replace it with --overwrite",
    ),
    "other": (
        {"config": OTHER, "resume": True},
        "of another configuration (evolution.children, evolution.generations, seed "
        "differ); resume it with its own configuration",
    ),
    "nothing": (
        {"resume": True},
        "nothing to resume: {out}/config.json does not exist; start the run without",
    ),
    "unreadable": ({"resume": True}, "config.json is not readable as JSON"),
    "foreign": (
        {"overwrite": True},
        "exists and is not a run directory: choose another --out, nothing there was",
    ),
    "file": ({"overwrite": True}, "exists and is not a run directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_opened_is_left_as_it_is(case, tmp_path):
    out = tmp_path / "run"
    if case in ("exists", "other", "unreadable"):
        make_run(out)
    if case == "unreadable":
        (out / "config.json").write_text('{"name"')
    if case == "foreign":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    if case == "file":
        out.write_text("years of work")
    before = snapshot(tmp_path)
    options, text = REFUSED[case]
    with pytest.raises(ValueError) as error:
        start(out, **options)
    assert text.format(out=out) in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_old_run(tmp_path):
    make_run(tmp_path / "run")
    start(tmp_path / "run", OTHER, overwrite=True)
    start(tmp_path / "new", OTHER)
    assert snapshot(tmp_path / "run").keys() == {
        tmp_path / "run" / path.name for path in (tmp_path / "new").iterdir()
    }
    start(tmp_path / "run", OTHER, resume=True)


def count_and_kill(monkeypatch, module, name, turns):
    """Let the function run `turns` times, then kill the process in its place."""
    function, calls = getattr(module, name), []

    def counted(*arguments, **options):
        calls.append(arguments)
        if len(calls) > turns:
            raise Killed
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, counted)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("turns", range(2))
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_killed_while_opening_it_can_be_opened(
    step, turns, overwrite, tmp_path, monkeypatch
):
    """Before or after the text is on the disk, for either file."""
    out = tmp_path / "run"
    if overwrite:
        make_run(out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        module = {"fsync": os, "replace": type(out)}[step]
        count_and_kill(patch, module, step, turns)
        start(out, OTHER, overwrite=overwrite)
    is_run = (out / "config.json").is_file()
    assert is_run == (turns == 1)
    start(out, OTHER, resume=is_run)
    assert json.loads((out / "config.json").read_text())["config"]["seed"] == 6
    assert json.loads((out / "provenance.json").read_text())["seed"] == 6


def test_killed_while_clearing_it_can_still_be_overwritten(tmp_path, monkeypatch):
    out = tmp_path / "run"
    make_run(out)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        count_and_kill(patch, type(out), "unlink", 0)
        start(out, overwrite=True)
    assert not (out / "checkpoints").exists(), "they are gone before what they count"
    start(out, overwrite=True)
    assert read_lines(out / "records.jsonl") == []


RECORDS = [{"id": 0, "error": 0.1}, {"id": 1, "error": 1 / 3, "parents": [0]}]


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "records.jsonl"
    assert read_lines(path) == []
    append_lines(path, RECORDS[:1])
    append_lines(path, [])
    append_lines(path, RECORDS[1:])
    assert read_lines(path) == RECORDS
    assert path.read_bytes().count(b"\n") == 2


def test_a_line_cut_short_is_dropped_and_does_not_stay_in_the_way(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, RECORDS)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = (end >= first) + (end == len(whole))
        assert read_lines(path) == RECORDS[:complete]
        assert keep_lines(path, lambda record: True) == RECORDS[:complete]
        append_lines(path, RECORDS[complete:])
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": 0}\n{"id": \n{"id": 2}\n')
    with pytest.raises(ValueError, match="records.jsonl line 2 is not JSON; restore"):
        read_lines(path)


def test_keeping_lines_drops_the_others(tmp_path):
    path = tmp_path / "records.jsonl"
    append_lines(path, [{"id": number} for number in range(5)])
    odd = [{"id": 1}, {"id": 3}]
    assert keep_lines(path, lambda record: record["id"] % 2 == 1) == odd
    assert read_lines(path) == odd
    before = path.read_bytes()
    keep_lines(path, lambda record: True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_the_old_or_the_new_one(step, tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    append_lines(path, RECORDS)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        count_and_kill(patch, {"fsync": os, "replace": type(path)}[step], step, 0)
        keep_lines(path, lambda record: False)
    assert read_lines(path) == RECORDS
    keep_lines(path, lambda record: False)
    assert read_lines(path) == []


def test_a_table_keeps_every_digit_and_replaces_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "front.csv"
    rows = [
        {"id": 3, "error": 0.1 + 0.2, "genotype": "1 0"},
        {"id": 7, "error": 1e-9, "genotype": "a, b"},
    ]
    write_table(path, rows[:1])
    old = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        count_and_kill(patch, type(path), "replace", 0)
        write_table(path, rows)
    assert path.read_bytes() == old
    write_table(path, rows)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [int(row["id"]) for row in found] == [3, 7]
    assert [float(row["error"]) for row in found] == [0.1 + 0.2, 1e-9]
    assert found[1]["genotype"] == "a, b"
    assert b"\r" not in path.read_bytes()


@pytest.mark.parametrize("lacking", ["checkout", "git"])
def test_without_a_checkout_or_git_there_is_no_commit(lacking, tmp_path, monkeypatch):
    if lacking == "git":
        monkeypatch.setenv("PATH", "")
    else:
        source = shutil.copy(runs.__file__, tmp_path / "runs.py")
        monkeypatch.setattr(runs, "__file__", str(source))
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    start(tmp_path / "run")
    text = (tmp_path / "run" / "provenance.json").read_text()
    assert json.loads(text)["git_commit"] is None

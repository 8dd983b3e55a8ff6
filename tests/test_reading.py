"""Runs are read back whole, or what is missing is named before anything is written."""

import json

import pytest

from jaxnas.reading import read_run
from jaxnas.report import write_report


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_last_measurement_of_a_thing_stands(finished_run):
    faults = lines_of(finished_run / "faults.jsonl")
    later = faults[0] | {"accuracy": 0.123}
    with open(finished_run / "faults.jsonl", "a") as file:
        file.write(json.dumps(later) + "\n")
    key = tuple(later[name] for name in ("id", "scheme", "target", "fault", "rate"))
    assert read_run(finished_run).faults[key]["accuracy"] == 0.123


def drop_first_line(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def tear_last_line(path):
    path.write_text(path.read_text()[:-20])


def forget(path, name, other='"other"'):
    path.write_text(path.read_text().replace(name, other))


DAMAGE = {
    "config": (lambda run: (run / "config.json").unlink(), "no run directory.*give"),
    "front": (lambda run: (run / "front.csv").unlink(), "not finished.*--resume"),
    "empty": (
        lambda run: (run / "front.csv").write_text("id,generation\n"),
        "front.csv holds no network",
    ),
    "provenance": (
        lambda run: (run / "provenance.json").write_text("{"),
        "provenance.json is missing or not JSON; continue",
    ),
    "records": (
        lambda run: drop_first_line(run / "records.jsonl"),
        r"records.jsonl lacks front members \[0\]; continue",
    ),
    "ancestor": (
        lambda run: forget(run / "records.jsonl", '"parents": []', '"parents": [99]'),
        "found no record of network 99, an ancestor of .: records.jsonl is incomplete",
    ),
    "torn": (
        lambda run: tear_last_line(run / "records.jsonl"),
        "records.jsonl is not JSON in line 60; continue",
    ),
    "progress": (lambda run: (run / "progress.jsonl").unlink(), "progress.* missing"),
    "faults": (
        lambda run: drop_first_line(run / "faults.jsonl"),
        "faults.jsonl lacks front member . at fixed point, weights, rate 0.0001; "
        "measure it with 'jaxnas inject",
    ),
    "other version": (
        lambda run: forget(run / "faults.jsonl", '"sdc1"'),
        r"measurements without \['sdc1'\], of another version; delete that file",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_missing_is_named_with_its_cure(finished_run, name):
    damage, message = DAMAGE[name]
    damage(finished_run)
    with pytest.raises(ValueError, match=message):
        write_report(finished_run)
    assert not (finished_run / "report.md").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run directory.*such as runs/digits"):
        write_report(tmp_path / "nothing")

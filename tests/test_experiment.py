"""A whole experiment: what it leaves, and that no interruption changes it."""

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from search_helpers import CONFIG, space

from jaxnas import checkpoints, evolving, experiment, runs
from jaxnas.cli import load_config
from jaxnas.config import DataConfig, SpaceConfig
from jaxnas.evolving import evolve
from jaxnas.experiment import inject, search
from jaxnas.networks.layers import SCHEMES
from jaxnas.preparation import prepare
from jaxnas.runs import read_lines
from jaxnas.search.objectives import CHEAP, EXPENSIVE

TARGETS = ("weight", "activation")
LINES = ("records.jsonl", "faults.jsonl", "progress.jsonl")
MEASURED = list(itertools.product(SCHEMES, TARGETS, CONFIG.faults.rates))


class Killed(BaseException):
    """Nothing in the library may catch it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run directory of a search that nothing interrupted; to be read only."""
    out = tmp_path_factory.mktemp("experiment") / "tiny"
    assert search(CONFIG, out, name="tiny", command="jaxnas search tiny.py") == out
    return out


@pytest.fixture
def copy(finished, tmp_path):
    """The same, to be written to."""
    return shutil.copytree(finished, tmp_path / "tiny")


def front_of(run):
    with (run / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_files_are_there(finished):
    names = {path.name for path in finished.iterdir()}
    files = {"config.json", "provenance.json", "front.csv", "report.md", *LINES}
    tables = {"faults.csv", "faults.json"}
    assert names == files | tables | {"checkpoints", "figures"}
    assert any((finished / "figures").iterdir())
    provenance = json.loads((finished / "provenance.json").read_text())
    assert provenance["command"] == "jaxnas search tiny.py"


def test_everyone_is_recorded(finished):
    records = read_lines(finished / "records.jsonl")
    evolution = CONFIG.evolution
    generations = [record["generation"] for record in records]
    assert [record["id"] for record in records] == list(range(len(records)))
    assert generations == sorted(generations)
    assert set(generations) == set(range(evolution.generations + 1))
    assert generations.count(0) == evolution.initial
    for record in records:
        assert set(record["objectives"]) == {EXPENSIVE, *CHEAP}
        assert len(record["genotype"]) == space().genes
        assert record["architecture"].startswith("stem 3x3 ")
        assert len(record["parents"]) == (record["generation"] > 0)
        for parent in record["parents"]:
            assert records[parent]["generation"] < record["generation"]


def test_progress_is_that_of_the_records(finished):
    records = read_lines(finished / "records.jsonl")
    lines = read_lines(finished / "progress.jsonl")
    assert [line["generation"] for line in lines] == [0, 1, 2]
    for line in lines:
        born = [r for r in records if r["generation"] <= line["generation"]]
        assert line["evaluated"] == len(born)
        errors = [record["objectives"][EXPENSIVE] for record in born]
        assert line["best_validation_error"] == min(errors)
        assert 0 < line["front_size"] <= len(born)
    volumes = [line["hypervolume"] for line in lines]
    # The front keeps all that nothing dominates, so no volume is ever lost.
    assert volumes == sorted(volumes) and 0 < volumes[0] < volumes[-1]


def test_the_front_is_a_front(finished):
    front = front_of(finished)
    names = CONFIG.evolution.objectives
    values = np.array([[float(row[name]) for name in names] for row in front])
    assert 2 <= len(front) <= CONFIG.evolution.finalists
    for one, other in itertools.permutations(values, 2):
        assert not (np.all(one <= other) and np.any(one < other))
    assert np.all(np.diff(values[:, names.index(EXPENSIVE)]) >= 0)


def test_every_front_member_has_all_that_was_measured(finished):
    records = {record["id"]: record for record in read_lines(finished / LINES[0])}
    faults = read_lines(finished / "faults.jsonl")
    by_key = {(f["id"], f["scheme"], f["target"], f["rate"]): f for f in faults}
    front = front_of(finished)
    members = [int(row["id"]) for row in front]
    assert by_key.keys() == {(m, *key) for m in members for key in MEASURED}
    assert len(by_key) == len(faults)
    for row in front:
        record = records[int(row["id"])]
        assert int(row["generation"]) == record["generation"]
        assert row["architecture"] == record["architecture"]
        assert [int(gene) for gene in row["genotype"].split()] == record["genotype"]
        for name in CHEAP:
            assert float(row[name]) == record["objectives"][name]
        for scheme, target, rate in MEASURED:
            found = by_key[record["id"], scheme, target, rate]
            assert found["trials"] == CONFIG.faults.trials
            column = f"accuracy_{scheme}_{target}_{rate:g}"
            accuracy = float(row[column])
            low, high = (float(row[f"{column}_{end}"]) for end in ("low", "high"))
            assert 0 <= low <= accuracy <= high <= 1 and low < high
            values = [found[name] for name in ("accuracy", "low", "high")]
            assert [accuracy, low, high] == values
            assert float(row[f"test_accuracy_{scheme}"]) == found["clean_accuracy"]


def test_searching_did_not_see_the_test_images(finished, tmp_path, monkeypatch):
    """With other test images every record of the search is the same."""
    prepare = experiment.prepare

    def with_other_test_images(config, out):
        stage = prepare(config, out)
        images = stage.images._replace(test_images=255 - stage.images.test_images)
        evaluation = stage.evaluation
        evaluation = evaluation._replace(test_images=255 - evaluation.test_images)
        return stage._replace(images=images, evaluation=evaluation)

    monkeypatch.setattr(experiment, "prepare", with_other_test_images)
    monkeypatch.setattr(experiment, "write_report", lambda run: None)
    other = search(CONFIG, tmp_path / "other", name="tiny")
    for name in ("records.jsonl", "progress.jsonl"):
        assert (other / name).read_bytes() == (finished / name).read_bytes()
    for name in ("id", EXPENSIVE):
        assert [row[name] for row in front_of(other)] == [
            row[name] for row in front_of(finished)
        ]
    assert front_of(other) != front_of(finished)


EVENTS = [
    (runs, "append_lines"),
    (runs, "write_table"),
    (checkpoints, "save"),
    (experiment, "write_report"),
]


def killed_at(monkeypatch, number, how):
    """Let the process die at a write of its run directory: before, after or during."""
    count = itertools.count()

    def event(function):
        def run(*arguments, **options):
            if next(count) != number:
                return function(*arguments, **options)
            if how != "before":
                function(*arguments, **options)
            if how == "during" and function.__name__ == "append_lines":
                path = arguments[0]
                path.write_bytes(path.read_bytes()[:-9])
            raise Killed

        return run

    for module, name in EVENTS:
        monkeypatch.setattr(module, name, event(getattr(module, name)))


def assert_same_run(found, expected):
    assert (found / "front.csv").read_bytes() == (expected / "front.csv").read_bytes()
    for name in LINES:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_run_that_is_killed_ends_as_if_it_was_not(finished, tmp_path, monkeypatch):
    """Killed again and again, each time somewhat later than the time before."""
    out = tmp_path / "tiny"
    monkeypatch.setattr(experiment, "write_report", lambda run: None)
    pace, ways = (
        itertools.cycle([0, 4, 2, 5, 3]),
        itertools.cycle(["before", "during", "after"]),
    )
    deaths = 0
    for number, how in zip(pace, ways, strict=False):
        with monkeypatch.context() as patch:
            killed_at(patch, number, how)
            try:
                search(CONFIG, out, name="tiny", resume=deaths > 0)
                break
            except Killed:
                deaths += 1
        assert deaths < 50, "a resumed run makes no progress"
    assert deaths >= 5
    search(CONFIG, out, name="tiny", resume=True)
    assert_same_run(out, finished)


def test_the_shipped_search_works_on_a_parquet_folder(shared, tmp_path):
    full = load_config(Path(__file__).parents[1] / "configs" / "mnist.py", "smoke")
    folder = str(shared("data/mnist"))
    config = dataclasses.replace(
        full, data=dataclasses.replace(full.data, path=folder, limit=32)
    )
    evolve(prepare(config, tmp_path))
    records = read_lines(tmp_path / "records.jsonl")
    assert records[-1]["generation"] == config.evolution.generations
    # Nothing is smaller than the stem at 28 x 28: 9 taps, at least 2 filters.
    macs = [record["objectives"]["macs"] for record in records]
    assert min(macs) >= 28 * 28 * 9 * 2


def test_resuming_a_finished_run_changes_nothing(copy, finished):
    search(CONFIG, copy, name="tiny", resume=True)
    assert_same_run(copy, finished)
    assert (copy / "report.md").read_text() == (finished / "report.md").read_text()


def test_measuring_again_finds_the_same(copy, finished, monkeypatch):
    """Also behind a line that a killed measurement cut short."""
    monkeypatch.setattr(experiment, "write_report", lambda run: None)
    faults = copy / "faults.jsonl"
    before = read_lines(faults)
    with faults.open("a") as file:
        file.write('{"id": 3, "sche')
    assert inject(copy, CONFIG.faults.rates, CONFIG.faults.trials) == copy
    after = read_lines(faults)
    assert after[: len(before)] == before
    again = after[len(before) :]
    assert len(again) == len(before) and all(line in before for line in again)
    assert (copy / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()


def test_other_faults_in_one_scheme_stand_beside_the_first(copy, finished):
    """And single flips are listed for every bit of the first network."""
    rates, trials = (CONFIG.faults.rates[-1],), CONFIG.faults.trials
    options = {"kind": "stuck_at", "stored": ("weight",), "schemes": ("fixed_point",)}
    inject(copy, rates, trials, **options, sensitivity_trials=4)
    before = len(read_lines(finished / "faults.jsonl"))
    added = read_lines(copy / "faults.jsonl")[before:]
    members = [int(row["id"]) for row in front_of(copy)]
    assert [line["id"] for line in added] == members
    for line in added:
        found = tuple(line[name] for name in ("scheme", "target", "fault", "rate"))
        assert found == ("fixed_point", "weight", "stuck_at", *rates)
    report = (copy / "report.md").read_text()
    assert "**Fixed point, weights, stuck at**" in report
    assert len(json.loads((copy / "faults.json").read_text())) == before + len(added)
    with (copy / "sensitivity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows} == {str(members[0])}
    assert {row["stored"] for row in rows} == {"weight"}
    assert rows[0]["site"] == "stem/kernel" and rows[-1]["site"] == "head/kernel"
    assert (copy / "figures" / "sensitivity.png").is_file()
    # What is asked for again in front.csv are the faults of the configuration.
    search(CONFIG, copy, name="tiny", resume=True)
    assert (copy / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()


def test_a_run_that_is_not_finished_cannot_be_measured(copy):
    (copy / "front.csv").unlink()
    with pytest.raises(ValueError, match="has not finished .* continue it with"):
        inject(copy, CONFIG.faults.rates, CONFIG.faults.trials)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained or measured."""

    def forbidden(*arguments, **options):
        raise AssertionError("training has begun")

    for name in ("start", "generation"):
        monkeypatch.setattr(evolving, name, forbidden)
    for name in ("train_finalists", "measure_faults"):
        monkeypatch.setattr(experiment, name, forbidden)


OTHER = dataclasses.replace(CONFIG, seed=1)
REFUSED = {
    "exists": (CONFIG, {}, "already holds a run: continue it with --resume"),
    "other": (OTHER, {"resume": True}, "of another configuration (seed differ)"),
    "data": (
        dataclasses.replace(CONFIG, data=DataConfig(path="./no/images")),
        {"overwrite": True},
        "data folder ./no/images does not exist; give an existing folder",
    ),
    "space": (
        dataclasses.replace(CONFIG, space=SpaceConfig(kernels=(2,))),
        {"overwrite": True},
        "kernels must be odd so that maps keep their size, found (2,)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_touches_nothing(case, copy, untrained):
    config, options, text = REFUSED[case]
    before = contents(copy)
    with pytest.raises(ValueError) as error:
        search(config, copy, name="tiny", **options)
    assert text in str(error.value) and "\n" not in str(error.value)
    assert contents(copy) == before


def test_nothing_to_resume(tmp_path, untrained):
    with pytest.raises(ValueError, match="nothing to resume: .*start the run without"):
        search(CONFIG, tmp_path / "none", name="tiny", resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["search", *(f"final-{name}" for name in SCHEMES)])
def test_a_damaged_checkpoint_is_named(folder, copy, untrained):
    parent = copy / "checkpoints" / folder
    step = checkpoints.latest_step(parent)
    files = [path for path in (parent / str(step)).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    before = contents(copy)
    with pytest.raises(ValueError) as error:
        search(CONFIG, copy, name="tiny", resume=True)
    assert f"checkpoint {parent / str(step)} is damaged" in str(error.value)
    assert "delete this folder" in str(error.value) and "\n" not in str(error.value)
    assert contents(copy) == before


def test_without_its_damaged_checkpoint_a_run_ends_the_same(
    copy, finished, monkeypatch
):
    """The error's cure works: the step before is still there."""
    monkeypatch.setattr(experiment, "write_report", lambda run: None)
    for folder in ("search", "final-logarithmic"):
        step = checkpoints.latest_step(copy / "checkpoints" / folder)
        shutil.rmtree(copy / "checkpoints" / folder / str(step))
    search(CONFIG, copy, name="tiny", resume=True)
    assert_same_run(copy, finished)


def test_a_damaged_record_is_named(copy, untrained):
    path = copy / "records.jsonl"
    path.write_text("{\n" + path.read_text())
    before = contents(copy)
    with pytest.raises(ValueError, match="records.jsonl line 1 is not JSON; restore"):
        search(CONFIG, copy, name="tiny", resume=True)
    assert contents(copy) == before

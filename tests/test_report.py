"""A report says what the files say, or which command completes them."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from jaxnas.report import write_report

FIGURES = ("front", "parallel", "faults", "agreement", "progress", "family")


@pytest.fixture(scope="module")
def written(pristine_run, tmp_path_factory):
    run = shutil.copytree(pristine_run, tmp_path_factory.mktemp("r") / "digits")
    write_report(run)
    return run


def rows_below(report, title):
    """The cells of the first table below a heading or a bold line."""
    lines = report[report.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return table
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_hold_the_recorded_numbers(written):
    report = (written / "report.md").read_text()
    records = {r["id"]: r for r in lines_of(written / "records.jsonl")}
    table = rows_below(report, "## The front")
    assert len(table) == 10
    errors = [records[int(row[0])]["objectives"]["validation_error"] for row in table]
    assert errors == sorted(errors)
    assert [row[1] for row in table] == [f"{100 * error:.2f} %" for error in errors]
    assert all(row[-3:-1] == ["97.00 %", "95.00 %"] for row in table)
    assert "60 networks were trained and measured" in report

    faults = lines_of(written / "faults.jsonl")
    rows = rows_below(report, "**Logarithmic, activations**")
    found = {row[0]: row[2:] for row in rows}
    for member, cells in found.items():
        expected = [
            f"{100 * f['accuracy']:.1f} [{100 * f['low']:.1f}, {100 * f['high']:.1f}] %"
            for f in faults
            if (f["id"], f["scheme"], f["target"])
            == (int(member), "logarithmic", "activation")
        ]
        assert cells == expected and len(cells) == 3
    assert "200 trials or more of 539 images" in report
    assert "seed = 3\nspace.stages.0.widths = [4, 8]\n" in report


def test_agreement_is_spearmans_between_objective_and_loss(written):
    report = (written / "report.md").read_text()
    records = {r["id"]: r for r in lines_of(written / "records.jsonl")}
    table = rows_below(report, "## Predicted against measured")
    assert len(table) == 12
    for scheme, target, rate, shown in table:
        pairs = [
            (
                records[f["id"]]["objectives"][f"{target}_fragility"],
                f["clean_accuracy"] - f["accuracy"],
            )
            for f in lines_of(written / "faults.jsonl")
            if (f["scheme"], f["target"], f["rate"])
            == (scheme.replace(" ", "_"), target, float(rate))
        ]
        expected = stats.spearmanr(*zip(*pairs, strict=True)).statistic
        value, low, high = map(float, re.findall(r"-?\d\.\d\d", shown))
        assert value == pytest.approx(expected, abs=0.005)
        assert low <= value <= high


def test_schemes_are_compared_member_by_member(written):
    report = (written / "report.md").read_text()
    table = rows_below(report, "## The number schemes compared")
    assert len(table) == 6
    faults = lines_of(written / "faults.jsonl")
    for _, target, rate, difference, better, worse, overlap in table:
        by_scheme = {}
        for f in faults:
            if (f["target"], f["rate"]) == (target, float(rate)):
                by_scheme.setdefault(f["scheme"], []).append(f)
        a, b = by_scheme["fixed_point"], by_scheme["logarithmic"]
        means = [np.mean([f["accuracy"] for f in side]) for side in (a, b)]
        assert float(difference) == pytest.approx(
            100 * (means[0] - means[1]), abs=0.006
        )
        apart = sum(x["low"] > y["high"] for x, y in zip(a, b, strict=True))
        assert (int(better), int(worse), int(overlap)) == (apart, 0, 10 - apart)


def test_the_same_files_give_the_same_bytes(written, finished_run):
    write_report(finished_run)
    names = ["report.md", *(f"figures/{name}.png" for name in FIGURES)]
    for name in names:
        assert (written / name).read_bytes() == (finished_run / name).read_bytes()
    links = re.findall(r"\((figures/\w+\.png)\)", (written / "report.md").read_text())
    assert sorted(links) == sorted(names[1:])


def test_a_run_without_fault_measurements_is_still_reported(finished_run):
    (finished_run / "faults.jsonl").write_text("")
    report = write_report(finished_run).read_text()
    assert "## The front" in report and "bit faults" not in report

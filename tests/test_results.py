"""Tables hold what the lines hold, and heat maps what the table holds."""

import csv
import json

import numpy as np

from jaxnas.results import COLUMNS, read_heat_maps, write_fault_tables
from jaxnas.runs import read_lines, write_table


def test_both_tables_hold_the_recorded_numbers(pristine_run, tmp_path):
    lines = read_lines(pristine_run / "faults.jsonl")
    write_fault_tables(tmp_path, lines)
    with (tmp_path / "faults.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = json.loads((tmp_path / "faults.json").read_text())
    assert len(table) == len(rows) == len(lines)
    for text, row, line in zip(table, rows, lines, strict=True):
        assert row == {name: line[key] for name, key in COLUMNS.items()}
        assert text == {name: str(value) for name, value in row.items()}


def test_without_faults_there_is_no_table(tmp_path):
    write_fault_tables(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert read_heat_maps(tmp_path) == {}


def test_heat_maps_keep_the_order_of_layers_and_leave_bits_that_are_not(tmp_path):
    shares = {("stem/kernel", 1): 0.5, ("stem/kernel", 0): 0.25, ("a/kernel", 0): 0.125}
    about = {"network": 3, "scheme": "fixed_point", "stored": "weight"}
    rows = [
        about | {"site": site, "bit": bit, "sdc1": share}
        for (site, bit), share in shares.items()
    ]
    rows.append(rows[0] | {"stored": "activation", "site": "stem/output", "bit": 0})
    write_table(tmp_path / "sensitivity.csv", rows)
    maps = read_heat_maps(tmp_path)
    assert list(maps) == ["fixed point, weights", "fixed point, activations"]
    layers, values = maps["fixed point, weights"]
    assert layers == ["stem", "a"]
    np.testing.assert_array_equal(values, [[0.25, 0.5], [0.125, np.nan]])

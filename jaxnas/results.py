"""What was measured under faults, in the forms that other programs read."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxnas.plots import HeatMap
from jaxnas.runs import write_table, write_text

COLUMNS = {
    "network": "id",
    "scheme": "scheme",
    "target": "target",
    "fault": "fault",
    "rate": "rate",
    "trials": "trials",
    "accuracy": "accuracy",
    "low": "low",
    "high": "high",
    "sdc1": "sdc1",
    "due": "due",
}


def write_fault_tables(run: Path, faults: Iterable[dict]) -> None:
    """`faults.csv` and `faults.json`: one row per network, scheme, target, fault, rate.

    accuracy, with the limits `low` and `high` of its interval at 95 %, `sdc1` and `due`
    are shares of the images of all trials; the rate is per bit, or per word for faults
    of words. Writes nothing without faults.
    """
    rows = [{name: one[key] for name, key in COLUMNS.items()} for one in faults]
    if rows:
        write_table(run / "faults.csv", rows)
        write_text(run / "faults.json", json.dumps(rows, indent=1) + "\n")


def read_heat_maps(run: Path) -> dict[str, HeatMap]:
    """SDC-1 by layer and bit position out of `sensitivity.csv`, by scheme and target.

    Nothing where there is no such file.
    """
    path = run / "sensitivity.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["scheme"], row["stored"]), []).append(row)
    return {
        f"{scheme.replace('_', ' ')}, {stored}s": _heat_map(group)
        for (scheme, stored), group in groups.items()
    }


def _heat_map(rows: list[dict]) -> HeatMap:
    names = list(dict.fromkeys(row["site"] for row in rows))
    width = 1 + max(int(row["bit"]) for row in rows)
    shares = np.full((len(names), width), np.nan)
    for row in rows:
        shares[names.index(row["site"]), int(row["bit"])] = float(row["sdc1"])
    # The last part of a site's name says what is stored, as the panel does.
    return HeatMap([name.rpartition("/")[0] or name for name in names], shares)

"""The final front of an experiment: who is on it, and the table of what is known."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxnas import runs
from jaxnas.measurement import Finalists
from jaxnas.networks.layers import SCHEMES
from jaxnas.preparation import Stage
from jaxnas.search.crowding import thin
from jaxnas.search.evolution import Front
from jaxnas.search.objectives import CHEAP, EXPENSIVE
from jaxnas.search.pareto import nondominated


def finalists_of(stage: Stage, front: Front) -> Bool[Array, " rows"]:
    """The rows of the front that are trained to the end: as many as are wanted."""
    return jax.jit(thin)(front.fitness, stage.config.evolution.finalists, front.mask)


def front_rows(stage: Stage, front: Front, finalists: list[Finalists]) -> list[int]:
    """Rows of the front that are left, by validation error after final training.

    The final training moves the errors, so networks that are dominated now are left.
    """
    error = finalists[0].validation_error
    column = stage.problem.objectives.index(EXPENSIVE)
    fitness = jnp.asarray(front.fitness).at[:, column].set(error)
    left = np.asarray(nondominated(fitness, finalists_of(stage, front)))
    rows = np.flatnonzero(left)
    return [
        int(row) for row in rows[np.argsort(np.asarray(error)[rows], kind="stable")]
    ]


def members_of(rows: list[int]) -> list[tuple[int, int]]:
    """Scheme and row of every network on the front."""
    return [(scheme, row) for row in rows for scheme in range(len(SCHEMES))]


def write_front(stage, front, finalists) -> None:
    """`front.csv`: every front member with all that is known of it."""
    records = {r["id"]: r for r in runs.read_lines(stage.out / "records.jsonl")}
    faults = runs.read_lines(stage.out / "faults.jsonl")
    widest = max(stage.problem.space.word_bits)
    rows = []
    for row in front_rows(stage, front, finalists):
        record = records[int(front.identity[row])]
        entry = {name: record[name] for name in ("id", "generation", "architecture")}
        entry["genotype"] = " ".join(map(str, record["genotype"]))
        entry[EXPENSIVE] = float(finalists[0].validation_error[row])
        entry |= {name: record["objectives"][name] for name in CHEAP}
        for name, one in zip(SCHEMES, finalists, strict=True):
            entry[f"test_accuracy_{name}"] = 1 - float(one.test_error[row])
            wide = f"test_accuracy_{name}_all_words_{widest}_bits"
            entry[wide] = 1 - float(one.widest_test_error[row])
        for line in faults:
            asked = line["fault"] == "bit_flips"
            asked &= line["rate"] in stage.config.faults.rates
            if asked and line["id"] == record["id"]:
                what = f"accuracy_{line['scheme']}_{line['target']}_{line['rate']:g}"
                entry[what] = line["accuracy"]
                entry[f"{what}_low"] = line["low"]
                entry[f"{what}_high"] = line["high"]
        rows.append(entry)
    runs.write_table(stage.out / "front.csv", rows)

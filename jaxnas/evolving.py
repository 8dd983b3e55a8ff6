"""The generations of a run on disk: one checkpoint and some lines after each.

`records.jsonl` gets a line per network that was evaluated, `progress.jsonl` one per
generation. Lines behind the latest checkpoint are those of a generation that was killed
and are made again, the same.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import checkpoints, runs
from jaxnas.config import SearchConfig, from_plain
from jaxnas.networks import space as spaces
from jaxnas.preparation import GENERATION, START, Stage, prepare
from jaxnas.progress import progress_bar
from jaxnas.search.evolution import (
    Evolution,
    empty_evolution,
    front_of,
    generation,
    start,
)
from jaxnas.search.founders import Ancestors
from jaxnas.search.objectives import EXPENSIVE, front_hypervolume


def evolve(stage: Stage) -> Evolution:
    """All generations, from the latest checkpoint on."""
    folder = stage.out / "checkpoints" / "search"
    generations = stage.config.evolution.generations
    done = checkpoints.latest_step(folder)
    evolution = ancestors = None
    if done is None:
        ancestors = ancestors_of(stage)
    else:
        evolution = checkpoints.restore(folder, search_state(stage), done)
    for name in ("records.jsonl", "progress.jsonl"):
        last = -1 if done is None else done
        runs.keep_lines(stage.out / name, lambda line: line["generation"] <= last)  # noqa: B023
    with progress_bar() as progress:
        task = progress.add_task("search: generations", total=generations + 1)
        for number in range(generations + 1):
            if done is None or number > done:
                if _stagnates(stage):
                    break
                before = ancestors if number == 0 else evolution
                evolution = _one_generation(stage, number, before)
                checkpoints.save(folder, number, evolution)
            progress.advance(task)
    return evolution


def ancestors_of(stage: Stage) -> Ancestors | None:
    """The front of the run that `warm_start` names, and its weights.

    Raises:
      ValueError: it is no run directory, has no generation yet, or searched another
        space.
    """
    if stage.config.evolution.warm_start is None:
        return None
    run = Path(stage.config.evolution.warm_start)
    folder = run / "checkpoints" / "search"
    done = checkpoints.latest_step(folder)
    if not (run / "config.json").is_file() or done is None:
        raise ValueError(
            f"found no search to start from in warm_start {run}, expected the run "
            "directory of one with at least one generation"
        )
    described = json.loads((run / "config.json").read_text())
    other = prepare(from_plain(SearchConfig, described["config"]), run)
    if other.problem.space != stage.problem.space:
        raise ValueError(
            f"the run {run} searched another space, {other.problem.space}, than this "
            f"configuration, {stage.problem.space}: weights would not fit; set the "
            "space and the data as in its config.json"
        )
    evolution = checkpoints.restore(folder, search_state(other), done)
    front = front_of(evolution)
    rows = np.flatnonzero(front.mask)
    return Ancestors(
        front.genotypes[rows],
        jax.tree.map(lambda leaf: leaf[rows], front.weights),
    )


def _stagnates(stage: Stage) -> bool:
    """Whether the latest generations, `patience` many, found nothing larger."""
    patience = stage.config.evolution.patience
    lines = runs.read_lines(stage.out / "progress.jsonl")
    volumes = [line["hypervolume"] for line in lines]
    if not patience or len(volumes) <= patience:
        return False
    return max(volumes[-patience:]) <= max(volumes[:-patience])


def _one_generation(
    stage: Stage, number: int, before: Evolution | Ancestors | None
) -> Evolution:
    if number == 0:
        evolution, individuals = start(stage.key(START), stage.problem, before)
    else:
        key = stage.key(GENERATION, number)
        evolution, individuals = generation(key, stage.problem, before)
    space = stage.problem.space
    records = [
        {
            "id": one.id,
            "generation": number,
            "parents": one.parents,
            "genotype": one.genotype,
            "architecture": spaces.describe(space, jnp.array(one.genotype, jnp.int32)),
            "objectives": one.objectives,
        }
        for one in individuals
    ]
    runs.append_lines(stage.out / "records.jsonl", records)
    runs.append_lines(stage.out / "progress.jsonl", [_state(stage, number, evolution)])
    return evolution


def _state(stage: Stage, number: int, evolution: Evolution) -> dict:
    """The line of `progress.jsonl` after a generation."""
    objectives = stage.problem.objectives
    front = front_of(evolution)
    records = runs.read_lines(stage.out / "records.jsonl")
    initial = [r["objectives"] for r in records if r["generation"] == 0]
    initial = np.array([[one[name] for name in objectives] for one in initial])
    volume = front_hypervolume(front.fitness, front.mask, initial, objectives)
    best = evolution.algorithm.best_fitness[objectives.index(EXPENSIVE)]
    return {
        "generation": number,
        "evaluated": int(evolution.evaluated),
        "front_size": int(front.mask.sum()),
        "hypervolume": volume,
        "best_validation_error": float(best),
    }


def search_state(stage: Stage) -> Evolution:
    """The shapes and types of the search's state, without computing it."""
    return jax.eval_shape(
        functools.partial(empty_evolution, stage.problem), stage.key(START)
    )

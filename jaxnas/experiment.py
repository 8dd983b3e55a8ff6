"""A configuration in, a run directory out; every stage resumes where it was killed.

The stages are the search (one checkpoint a generation), the final training in both
number schemes (one checkpoint each), the fault measurements (one group of lines per
network and scheme), the table of the front and the report. All randomness is keyed by
seed, stage and number, so an interrupted run ends in the same bytes as a whole one.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from jaxnas import checkpoints, runs
from jaxnas.config import SearchConfig, from_plain
from jaxnas.evolving import ancestors_of, evolve
from jaxnas.front import finalists_of, front_rows, members_of, write_front
from jaxnas.measurement import (
    TARGETS,
    Faults,
    Finalists,
    measure_faults,
    train_finalists,
)
from jaxnas.networks.layers import SCHEMES
from jaxnas.networks.materialize import materialize
from jaxnas.preparation import (
    FAULTS,
    FINAL,
    SENSITIVITY,
    Stage,
    prepare,
    recipe,
)
from jaxnas.progress import progress_bar
from jaxnas.report import write_report
from jaxnas.search.evolution import Front, front_of
from jaxnas.sensitivity import measure_sensitivity


def search(
    config: SearchConfig,
    out: Path,
    *,
    name: str,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> Path:
    """Run a whole experiment, or what is left of it, and return its run directory.

    Raises ValueError before any training for a configuration, data or run directory
    that cannot be used, and for a damaged checkpoint.
    """
    stage = prepare(config, out)
    if not (out / "checkpoints").exists():
        ancestors_of(stage)  # before a run directory is made that could not begin
    runs.open_run(
        out, name, config, resume=resume, overwrite=overwrite, command=command
    )
    front = front_of(evolve(stage))
    with progress_bar() as progress:
        finalists = _train(stage, front, progress)
        _measure(stage, front, finalists, progress)
    write_front(stage, front, finalists)
    write_report(out)
    return out


def inject(
    run: Path,
    rates: tuple[float, ...],
    trials: int,
    *,
    half_width: float = 0.0,
    kind: str = "bit_flips",
    stored: tuple[str, ...] = TARGETS,
    schemes: tuple[str, ...] = SCHEMES,
    sensitivity_trials: int = 0,
) -> Path:
    """Measure the front of a finished run under other faults and rewrite its report.

    rates, trials, half_width, kind, stored: as of `Faults`.
    schemes: the number schemes whose networks are measured.
    sensitivity_trials: single flips in every bit position of every layer of the first
        network of the front, for `sensitivity.csv`; 0 leaves that as it is.

    Raises ValueError for a run that is not finished.
    """
    if not (run / "front.csv").is_file():
        raise ValueError(
            f"the search in {run} has not finished (it has no front.csv); continue it "
            "with 'jaxnas search CONFIG.py --resume' first"
        )
    described = json.loads((run / "config.json").read_text())
    stage = prepare(from_plain(SearchConfig, described["config"]), run)
    front = front_of(evolve(stage))
    images = stage.config.faults.images
    faults = Faults(rates, trials, images, half_width, kind, stored)
    runs.keep_lines(run / "faults.jsonl", lambda line: True)
    with progress_bar() as progress:
        finalists = _train(stage, front, progress)
        rows = front_rows(stage, front, finalists)
        members = [m for m in members_of(rows) if SCHEMES[m[0]] in schemes]
        total = len(members) * len(stored) * len(rates) * trials
        task = progress.add_task("faults: trials", total=total)
        advance = functools.partial(progress.advance, task)
        for scheme, row in members:
            lines = _measure_one(stage, front, finalists, scheme, row, faults, advance)
            runs.append_lines(run / "faults.jsonl", lines)
        if sensitivity_trials:
            best = [member for member in members if member[1] == rows[0]]
            count = stored, sensitivity_trials
            _write_sensitivity(stage, front, finalists, best, *count, progress)
    write_report(run)
    return run


def _write_sensitivity(
    stage, front, finalists, members, stored, trials, progress
) -> None:
    """`sensitivity.csv`: the bits of one network, in every scheme of `members`."""
    task = progress.add_task("single flips: trials", total=None)
    rows = []
    for scheme, row in members:
        module, variables = materialize(
            stage.problem.space,
            front.genotypes[row],
            *jax.tree.map(lambda leaf: leaf[row], finalists[scheme].weights),  # noqa: B023
            scheme=SCHEMES[scheme],
        )
        found = measure_sensitivity(
            stage.key(SENSITIVITY),
            module.apply,
            variables,
            jnp.asarray(stage.images.test_images),
            stored=stored,
            trials=trials,
            advance=functools.partial(progress.advance, task),
        )
        about = {"network": int(front.identity[row]), "scheme": SCHEMES[scheme]}
        rows += [about | one for one in found]
    runs.write_table(stage.out / "sensitivity.csv", rows)


def _train(stage: Stage, front: Front, progress: Progress) -> list[Finalists]:
    """The front's networks trained to the end in every scheme, empty rows at zero."""
    rows = np.flatnonzero(finalists_of(stage, front))
    task = progress.add_task("final training: networks", total=len(SCHEMES) * len(rows))
    template = _final_template(front)
    finalists = []
    for scheme, name in enumerate(SCHEMES):
        folder = stage.out / "checkpoints" / f"final-{name}"
        if checkpoints.latest_step(folder) is None:
            trained = _train_scheme(
                stage,
                front,
                rows,
                scheme,
                functools.partial(progress.advance, task),
            )
            checkpoints.save(folder, 0, trained)
        else:
            progress.advance(task, len(rows))
        finalists.append(checkpoints.restore(folder, template, 0))
    return finalists


def _train_scheme(stage, front, rows, scheme, advance) -> Finalists:
    training, problem = stage.config.training, stage.problem
    trained = train_finalists(
        stage.key(FINAL, scheme),
        problem.space,
        jax.tree.map(lambda leaf: leaf[rows], front.weights),
        front.genotypes[rows],
        problem.train_images,
        problem.train_labels,
        stage.evaluation,
        recipe(stage.config, training.final_steps, training.final_learning_rate),
        scheme=scheme,
        group=problem.group,
        advance=advance,
    )
    size = len(front.mask)
    return jax.tree.map(
        lambda leaf: jnp.zeros((size, *leaf.shape[1:]), leaf.dtype).at[rows].set(leaf),
        trained,
    )


def _final_template(front: Front) -> Finalists:
    like = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)  # noqa: E731
    errors = jax.ShapeDtypeStruct(front.mask.shape, jnp.float32)
    return Finalists(jax.tree.map(like, front.weights), errors, errors, errors)


def _measure(stage, front, finalists, progress) -> None:
    """Append the fault records that are missing, one network and scheme at a time."""
    settings = stage.config.faults
    faults = Faults(settings.rates, settings.trials, settings.images)
    members = members_of(front_rows(stage, front, finalists))
    path = stage.out / "faults.jsonl"
    per_member = 2 * len(faults.rates)
    found = [_group(line) for line in runs.read_lines(path)]
    whole = {group for group in found if found.count(group) >= per_member}
    runs.keep_lines(path, lambda line: _group(line) in whole)
    total = len(members) * per_member * faults.trials
    task = progress.add_task("faults: trials", total=total)
    for scheme, row in members:
        if (int(front.identity[row]), SCHEMES[scheme]) in whole:
            progress.advance(task, per_member * faults.trials)
            continue
        lines = _measure_one(
            stage,
            front,
            finalists,
            scheme,
            row,
            faults,
            functools.partial(progress.advance, task),
        )
        runs.append_lines(path, lines)


def _group(line: dict) -> tuple[int, str]:
    return line["id"], line["scheme"]


def _measure_one(stage, front, finalists, scheme, row, faults, advance):
    one = finalists[scheme]
    records = measure_faults(
        stage.key(FAULTS),
        stage.problem.space,
        jax.tree.map(lambda leaf: leaf[row], one.weights),
        front.genotypes[row],
        jnp.asarray(stage.images.test_images),
        jnp.asarray(stage.images.test_labels),
        faults,
        scheme=scheme,
        advance=advance,
    )
    member = {"id": int(front.identity[row]), "scheme": SCHEMES[scheme]}
    clean = {"clean_accuracy": 1 - float(one.test_error[row])}
    return [{**member, **record, **clean} for record in records]

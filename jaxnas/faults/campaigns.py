"""Campaigns: many trials of one faulty function, measured, recorded and summed up.

Trial i is a pure function of the key and of i. What a campaign finds, and the bytes of
its records, therefore depend neither on how many trials the host asks for at a time,
nor on devices, processes or interruptions.

On the CPU every device runs its trials one by one: `vmap` over the weights of
convolutions takes several times as long there. On accelerators a `batch` of trials is
computed together; as kernels of another size may round otherwise, the batch belongs to
the definition of the results. `fastest_batch` measures which one to take. On GPUs XLA
can choose other kernels at every compilation, too, unless its autotuning is off.
"""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxnas.devices import across_processes
from jaxnas.faults.findings import Campaign, Columns
from jaxnas.faults.records import open_records
from jaxnas.faults.tasks import Metrics, Task, prepare_task
from jaxnas.faults.trials import run_one, run_range
from jaxnas.progress import progress_bar
from jaxnas.types import Key

SECONDS = 2.0
"""How long the trials take, about, that the host asks for at a time."""

GROUPS = 4096
"""The most batches that a device gets at a time."""


def campaign(
    faulty: Callable,
    args: tuple = (),
    *,
    key: Key,
    trials: int,
    metrics: Metrics,
    labels: PyTree = None,
    golden: PyTree = None,
    batch: int = 1,
    chunk: int | None = None,
    records: str | os.PathLike | None = None,
    resume: bool = False,
    description: Mapping[str, Any] | None = None,
    stop: Callable[[Columns], bool] | None = None,
    looks: Sequence[int] | None = None,
    progress: bool = True,
) -> Campaign:
    """Runs `faulty(trial_key(key, i), *args)` for i below `trials`; takes the metrics.

    faulty: any function of a key, as `inject` makes it. It and the metrics are compiled
        once for every function object: pass the same ones again, not new closures.
    golden, labels: what the metrics get beside the faulty outputs: the outputs without
        faults, computed by the caller, and the right answers.
    batch: trials that each device computes together; see above.
    chunk: trials between two visits of the host, which writes records and shows the
        progress. By default as many as take two seconds.
    records: folder for the columns, see `records`; with `resume` a folder that exists
        is continued, up to any number of trials. The manifest holds the key, the batch
        and a digest of args, golden and labels; `description` is to say the rest, as
        the network, the fault models and the versions. Memory stays constant.
    stop: asked with the columns so far, of 100 trials, 125, 156, ... (each a quarter
        more) or of the numbers in `looks`; true ends the campaign there. It is never
        asked at other moments, and asked again when a campaign is resumed. `stop_at`
        makes one of a `StoppingRule`.
    progress: show a bar where standard error is a terminal.

    With several processes of `jax.distributed`, all call this alike. Process 0 asks
    `stop` and owns the records.

    A trial whose output is not finite is a trial like all others: metrics count it.

    Raises:
      ValueError: before any trial, for numbers below one, golden outputs that are not
        finite, a metric that is no real scalar or refuses its arguments, bad `looks`,
        and records as `open_records` says.
    """
    _check_counts(trials=trials, batch=batch, chunk=chunk)
    looks = _looks(looks, trials) if stop is not None else []
    inputs = {"labels": labels, "golden": golden, "batch": batch}
    task = prepare_task(faulty, args, key, metrics, **inputs)
    options = _Options(chunk, records, resume, description, stop, looks, progress)
    return _run(task, trials, options)


def exhaustive(
    trial: Callable,
    args: tuple = (),
    *,
    positions: int,
    metrics: Metrics,
    labels: PyTree = None,
    golden: PyTree = None,
    batch: int = 1,
    chunk: int | None = None,
    records: str | os.PathLike | None = None,
    resume: bool = False,
    description: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Campaign:
    """`trial(position, *args)` for every position below `positions` once: no chance.

    With a trial of `flip_each` every bit of every word is flipped:
    row i of the columns is what bit i does, and their mean is exactly the expectation
    over one flip anywhere. Everything else is as in `campaign`.
    """
    _check_counts(positions=positions, batch=batch, chunk=chunk)
    inputs = {"labels": labels, "golden": golden, "batch": batch}
    task = prepare_task(trial, args, None, metrics, **inputs)
    options = _Options(chunk, records, resume, description, None, [], progress)
    return _run(task, positions, options)


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and not 1 <= count < 2**31:
            raise ValueError(
                f"{name}={count}; expected at least 1 and less than 2**31, which int32 "
                "numbers"
            )


def _looks(looks, trials) -> list[int]:
    """The numbers of trials after which the rule is asked, fixed beforehand."""
    if looks is None:
        looks = [100]
        while looks[-1] < trials:
            looks.append(looks[-1] * 5 // 4)
    looks = list(looks)
    if any(b <= a for a, b in zip([0, *looks], looks, strict=False)):
        raise ValueError(
            f"looks={looks}; expected ascending numbers of trials, from 1 on"
        )
    return [look for look in looks if look < trials]


class _Options(NamedTuple):
    chunk: int | None
    records: str | os.PathLike | None
    resume: bool
    description: Mapping[str, Any] | None
    stop: Callable[[Columns], bool] | None
    looks: list[int]
    progress: bool


def _run(task: Task, trials: int, options: _Options) -> Campaign:
    store, rows = _store(task, trials, options)
    pace = _Pace(task, trials, options.chunk)
    stopped, looks = False, [0, *options.looks, trials]
    shown = options.progress and jax.process_index() == 0
    with progress_bar(shown=shown) as bar:
        bar_task = bar.add_task("trials", total=trials, completed=min(rows, trials))
        # Rows that are there already are gone through from look to look as well.
        for seen, look in zip(looks, looks[1:], strict=False):
            rows = max(rows, seen)
            while rows < look:
                columns = pace.run(rows, look - rows)
                rows += len(next(iter(columns.values())))
                if store is not None:
                    store.append(columns)
                bar.update(bar_task, completed=rows)
            if look < trials and _asked(options.stop, store, look):
                stopped, trials = True, look
                break
    return Campaign(
        columns={} if store is None else store.columns(trials),
        trials=trials,
        stopped=stopped,
        inputs=task.inputs,
        replay=functools.partial(_replay, task),
    )


def _store(task, trials, options):
    """Where the columns go, None in a process that keeps none; and rows it has."""
    if options.records is None:
        return _Memory(task.dtypes, trials), 0
    about = task.about | {"description": dict(options.description or {})}
    store, error = None, None
    if jax.process_index() == 0:
        try:
            store = open_records(
                options.records, task.dtypes, about, resume=options.resume
            )
        except ValueError as refused:
            error = refused
    # The others must not wait for trials that process 0 refuses to begin.
    rows = _agreed(-1 if store is None else store.rows)
    if rows < 0:
        raise error or ValueError("process 0 refused the records; it says why")
    return store, rows


class _Memory:
    """Columns of a known length that are filled from the first row on."""

    def __init__(self, dtypes, trials):
        self._columns = {
            name: np.empty(trials, dtype) for name, dtype in dtypes.items()
        }
        self._rows = 0

    def append(self, rows):
        end = self._rows + len(next(iter(rows.values())))
        for name, column in self._columns.items():
            column[self._rows : end] = rows[name]
        self._rows = end

    def columns(self, rows):
        return {name: column[:rows] for name, column in self._columns.items()}


class _Pace:
    """Runs trials, and finds how many of them make about `SECONDS`."""

    def __init__(self, task: Task, trials: int, chunk: int | None):
        self._task = task
        workers = jax.device_count()
        most = GROUPS * workers * task.batch if chunk is None else chunk
        self._capacity = -(-min(most, trials) // task.batch)
        self._measured = chunk is None
        self._count = workers * task.batch if chunk is None else chunk

    def run(self, start: int, limit: int) -> Columns:
        """At least one trial and at most `limit` ones from `start` on."""
        task = self._task
        count = min(self._count, self._capacity * task.batch - start % task.batch)
        count = min(count, limit)
        began = time.perf_counter()
        columns = run_range(
            task.measure,
            task.operands,
            start,
            count,
            batch=task.batch,
            capacity=self._capacity,
        )
        if self._measured:
            fitting = count * SECONDS / (time.perf_counter() - began)
            # Growing step by step, as the first time holds the compilation.
            self._count = max(1, int(_agreed(min(fitting, 4 * self._count, 2**30))))
        return columns


def _asked(stop, store, look) -> bool:
    asked = jax.process_index() == 0
    return bool(_agreed(asked and bool(stop(store.columns(look)))))


def _agreed(number: float | int) -> int:
    """What process 0 passes, in all processes."""
    return int(across_processes(np.int32(number))[0])


def _replay(task: Task, number: int) -> PyTree:
    if not 0 <= number < 2**31:
        raise ValueError(f"trial {number}; expected a number from 0 on, below 2**31")
    return run_one(task.output, task.operands, number, batch=task.batch)


def fastest_batch(
    faulty: Callable,
    args: tuple = (),
    *,
    key: Key,
    metrics: Metrics,
    labels: PyTree = None,
    golden: PyTree = None,
    candidates: Sequence[int] = (1, 4, 16, 64),
    seconds: float = 1.0,
) -> int:
    """The `batch` that makes most trials per second of this campaign, on these devices.

    Each candidate is compiled, and measured for about `seconds`; of those within 5 % of
    the best the smallest is taken. Pass the same number wherever the same results are
    wanted, as on other devices another one may come out.

    Raises:
      ValueError: as `campaign`; no candidates.
    """
    if not candidates:
        raise ValueError("no candidates; expected batches to choose from, as (1, 16)")
    for batch in candidates:
        _check_counts(batch=batch)
    rates = {}
    for batch in sorted(candidates):
        inputs = {"labels": labels, "golden": golden, "batch": batch}
        task = prepare_task(faulty, args, key, metrics, **inputs)
        rates[batch] = _rate(task, seconds)
    best = max(rates.values())
    return _agreed(next(batch for batch in rates if rates[batch] >= 0.95 * best))


def _rate(task: Task, seconds: float) -> float:
    """Trials per second, without the compilation."""
    workers = jax.device_count()
    count = workers * task.batch

    def seconds_of_one_call():
        began = time.perf_counter()
        sizes = {"batch": task.batch, "capacity": workers}
        run_range(task.measure, task.operands, 0, count, **sizes)
        return time.perf_counter() - began

    seconds_of_one_call()
    # All processes take part in equally many calls.
    calls = max(1, _agreed(min(seconds / seconds_of_one_call(), 10**6)))
    return calls * count / sum(seconds_of_one_call() for _ in range(calls))

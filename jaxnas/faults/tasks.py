"""What a campaign computes for one trial, and all that can be refused beforehand."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxnas.faults.records import check_columns
from jaxnas.faults.trials import trial_key
from jaxnas.types import Key

Metric = Callable[[Any, Any, Any], Any]
"""`(golden, faulty, labels) -> scalar`, as those of `outcomes`."""

Metrics = Mapping[str, Metric] | Sequence[Metric]
"""Metrics by the names of their columns; in a sequence each by its own name."""


class Task(NamedTuple):
    """Trials of one kind, however many there will be.

    measure: `measure(number, *operands)` gives the columns' values of one trial.
    output: the same for the outputs of the faulty function.
    dtypes: those of the columns, in their order.
    inputs: length of the first axis of the outputs; 1 where they have none.
    batch: trials that a device computes together.
    about: in JSON, all that decides on the results but the functions themselves.
    """

    measure: Callable
    output: Callable
    operands: tuple
    dtypes: dict[str, np.dtype]
    inputs: int
    batch: int
    about: dict[str, Any]


def prepare_task(
    faulty: Callable,
    args: tuple,
    key: Key | None,
    metrics: Metrics,
    *,
    labels: PyTree,
    golden: PyTree,
    batch: int,
) -> Task:
    """Traces a trial; nothing is computed.

    Trial i is `faulty(trial_key(key, i), *args)`; without a key, `faulty(i, *args)`.

    Raises:
      ValueError: golden outputs that are not finite, no metrics, metrics that share a
        name, or one that refuses its arguments or gives no real scalar.
    """
    _check_golden(golden)
    named = named_metrics(metrics)
    draw = _position if key is None else trial_key
    measure = _measured(faulty, draw, tuple(named.items()))
    output = _output(faulty, draw)
    operands = key, golden, labels, tuple(args)
    outputs = jax.eval_shape(output, jnp.int32(0), *operands)
    columns = jax.eval_shape(measure, jnp.int32(0), *operands)
    for name, column in columns.items():
        if column.shape:
            raise ValueError(
                f"metric {name!r} has shape {column.shape}; expected one number per "
                "trial: reduce it, as by jnp.mean"
            )
    dtypes = {name: np.dtype(columns[name].dtype) for name in named}
    check_columns(dtypes)
    shape = next((leaf.shape for leaf in jax.tree.leaves(outputs)), ())
    return Task(
        measure=measure,
        output=output,
        operands=operands,
        dtypes=dtypes,
        inputs=shape[0] if shape else 1,
        batch=batch,
        about={
            "key": None if key is None else _key_text(key),
            "batch": batch,
            "operands": _digest((args, golden, labels)),
        },
    )


def _position(key, number):
    return number


@functools.lru_cache(maxsize=256)
def _output(faulty, draw):
    def one(number, key, golden, labels, args):
        # The barrier keeps what is computed after it out of the network's kernels,
        # which could round otherwise: so a replay has the bits of the campaign.
        return jax.lax.optimization_barrier(faulty(draw(key, number), *args))

    return one


@functools.lru_cache(maxsize=256)
def _measured(faulty, draw, metrics):
    output = _output(faulty, draw)

    def one(number, key, golden, labels, args):
        outputs = output(number, key, golden, labels, args)
        return {
            name: jnp.asarray(metric(golden, outputs, labels))
            for name, metric in metrics
        }

    return one


def named_metrics(metrics: Metrics) -> dict[str, Metric]:
    """Metrics by the names of their columns.

    Raises ValueError for none, and for two of one name.
    """
    if not metrics:
        raise ValueError("no metrics; expected one or more, as outcomes.sdc1")
    if isinstance(metrics, Mapping):
        return dict(metrics)
    names = [metric.__name__ for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(
            f"metrics {names} share a name; pass a dictionary of names and metrics"
        )
    return dict(zip(names, metrics, strict=True))


def _check_golden(golden) -> None:
    for leaf in jax.tree.leaves(golden):
        bad = int(np.sum(~np.isfinite(np.asarray(leaf, np.float64))))
        if bad:
            raise ValueError(
                f"{bad} golden outputs are NaN or infinite; expected finite ones, as "
                "they tell what a fault does: leave out the inputs that give them"
            )


def _key_text(key) -> list:
    return [str(jax.random.key_impl(key)), *map(int, jax.random.key_data(key))]


def _digest(tree) -> str:
    """SHA-256 of the structure, dtypes, shapes and bytes of a pytree."""
    leaves, structure = jax.tree.flatten(tree)
    digest = hashlib.sha256(str(structure).encode())
    for leaf in map(jnp.asarray, leaves):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()

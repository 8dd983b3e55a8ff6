"""Trials by number: the same networks, images and rates, new faults.

Trial i draws its images and faults from `fold_in(key, i)` and nothing else, so that it
can be repeated alone, its result depends on no batch or device, and two networks or
rates measured under one key meet the same images and nested faults.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree, UInt8

from jaxnas.devices import across_processes, map_over_devices
from jaxnas.types import Key


def trial_key(key: Key, number: int | Int[Array, ""]) -> Key:
    """The key from which trial `number` draws all that is random in it."""
    return jax.random.fold_in(key, number)


def run_trials(
    trial: Callable, key: Key, numbers: Int[Array, " trials"], *shared
) -> Int[Array, "trials ..."]:
    """`trial(trial_key(key, i), *shared)` for every number i, parted over the devices.

    One program is compiled for every function object `trial`: pass one that lasts.
    """
    return map_over_devices(_numbered(trial), numbers, key, *shared)


@functools.cache
def _numbered(trial):
    def one(number, key, *shared):
        return trial(trial_key(key, number), *shared)

    return one


FIRST_LOOK = 200
"""Trials before a campaign may stop: an estimated spread needs a floor of them."""

CHUNK = 50


def run_until(
    trial: Callable,
    key: Key,
    done: Callable[[Int[np.ndarray, "trials ..."]], bool | np.bool_],
    most: int,
    *shared,
) -> Int[np.ndarray, "trials ..."]:
    """Trials 0, 1, ... as by `run_trials` until `done` says so, or `most` of them.

    done: asked with all rows so far, first of `FIRST_LOOK` trials and then each time
        that a quarter more have been run, so that a rule of chance has few occasions.
    """
    rows, look = None, FIRST_LOOK
    while rows is None or len(rows) < most:
        first = 0 if rows is None else len(rows)
        numbers = jnp.arange(first, first + CHUNK)
        found = np.asarray(run_trials(trial, key, numbers, *shared))[: most - first]
        rows = found if rows is None else np.concatenate([rows, found])
        if len(rows) >= look:
            if done(rows):
                break
            look = len(rows) * 5 // 4
    return rows


class Outcomes(NamedTuple):
    """Of the images of a trial, how many are right, corrupted silently, or no numbers.

    As the metrics `accuracy`, `sdc1` and `due` of `outcomes`, in images.
    """

    right: Int[Array, "..."]
    sdc1: Int[Array, "..."]
    due: Int[Array, "..."]


def count_outcomes(
    faulty: Callable,
    key: Key,
    images: UInt8[Array, "images height width channels"],
    labels: Int[Array, " images"],
    golden: Int[Array, " images"],
    size: int,
) -> Outcomes:
    """What one fault pattern does to `size` random images.

    `faulty(key, images)` gives logits, such as `inject` makes it; `golden` are the
    classes predicted without faults. A prediction from logits that are not all finite
    is wrong, whatever its largest entry.
    """
    choose, strike = jax.random.split(key)
    chosen = jax.random.randint(choose, (size,), 0, images.shape[0])
    logits = faulty(strike, images[chosen])
    finite = jnp.all(jnp.isfinite(logits), axis=1)
    predicted = jnp.argmax(logits, axis=1)
    return Outcomes(
        right=jnp.sum(finite & (predicted == labels[chosen])),
        sdc1=jnp.sum(finite & (predicted != golden[chosen])),
        due=jnp.sum(~finite),
    )


def run_range(
    evaluate: Callable,
    operands: tuple,
    start: int,
    count: int,
    *,
    batch: int = 1,
    capacity: int,
) -> PyTree[np.ndarray]:
    """`evaluate(i, *operands)` for count numbers from `start` on, as host arrays.

    Every process of `jax.distributed` calls this alike, computes its share and gets all
    results, with a leading axis of `count`.

    batch: numbers that are computed together by `vmap`: multiples of it begin a group,
        so that a number always has the same neighbours, whatever the range.
    capacity: groups that one call can hold. One program is compiled for every
        `evaluate`, batch and capacity, whatever the range.
    """
    first = start - start % batch
    groups = np.arange(first, start + count, batch, dtype=np.int32)
    processes = jax.process_count()
    shares = np.array_split(groups, processes)
    room = -(-capacity // processes)
    own = _on_this_host(
        _grouped(evaluate, batch), shares[jax.process_index()], room, operands
    )
    if processes > 1:
        own = jax.tree.map(lambda leaf: _padded(leaf, room), own)
    # Process by process, without the padding: the groups in their order.
    used = np.arange(room) < np.array([[share.size] for share in shares])

    def in_order(leaf):
        leaf = leaf[used[:, : leaf.shape[1]]]
        return leaf.reshape(-1, *leaf.shape[2:])[start - first :][:count]

    return jax.tree.map(in_order, across_processes(own))


def run_one(
    evaluate: Callable, operands: tuple, number: int, *, batch: int = 1
) -> PyTree[np.ndarray]:
    """What `run_range` gives for one number; a process may call this alone."""
    first = number - number % batch
    group = np.array([first], np.int32)
    results = map_over_devices(_grouped(evaluate, batch), group, *operands)
    return jax.tree.map(lambda leaf: np.asarray(leaf[0, number - first]), results)


def _on_this_host(function, groups, room, operands):
    """Results of some groups, parted evenly over this host's devices."""
    devices = jax.local_device_count()
    rows = np.full((devices, -(-room // devices)), -1, np.int32)
    for row, share in zip(rows, np.array_split(groups, devices), strict=True):
        row[: share.size] = share
    rows = rows.ravel()
    results = map_over_devices(function, rows, *operands)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows >= 0], results)


def _padded(leaf, rows):
    return np.pad(leaf, [(0, rows - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1))


@functools.lru_cache(maxsize=256)
def _grouped(evaluate, batch):
    """A group of numbers that starts at `first`; nothing where that is negative."""

    def group(first, *operands):
        @jax.jit  # traced once for the shapes and the branch
        def together():
            def one(number):
                return evaluate(number, *operands)

            if batch == 1:  # not vmap: other kernels, which are slower on the CPU
                return jax.tree.map(lambda leaf: leaf[None], one(first))
            return jax.vmap(one)(first + jnp.arange(batch, dtype=jnp.int32))

        shapes = jax.eval_shape(together)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return lax.cond(first >= 0, together, lambda: zeros)

    return group

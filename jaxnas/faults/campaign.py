"""Monte Carlo over trial numbers: the same networks, images and rates, new faults.

Trial i draws its images and faults from `fold_in(key, i)` and nothing else, so that it
can be repeated alone, its result depends on no batch or device, and two networks or
rates measured under one key meet the same images and nested faults.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from jaxnas.devices import map_over_devices
from jaxnas.types import Key


def run_trials(
    trial: Callable, key: Key, numbers: Int[Array, " trials"], *shared
) -> Int[Array, "trials ..."]:
    """`trial(fold_in(key, i), *shared)` for every number i, parted over the devices.

    One program is compiled for every function object `trial`: pass one that lasts.
    """
    return map_over_devices(_numbered(trial), numbers, key, *shared)


@functools.cache
def _numbered(trial):
    def one(number, key, *shared):
        return trial(jax.random.fold_in(key, number), *shared)

    return one


def count_correct(
    faulty: Callable,
    key: Key,
    images: UInt8[Array, "images height width channels"],
    labels: Int[Array, " images"],
    size: int,
) -> Int[Array, ""]:
    """Of `size` random images, how many are classified rightly under one fault pattern.

    `faulty(key, images)` gives logits, such as `inject` makes it. A prediction from
    logits that are not all finite is wrong, whatever its largest entry.
    """
    choose, strike = jax.random.split(key)
    chosen = jax.random.randint(choose, (size,), 0, images.shape[0])
    logits = faulty(strike, images[chosen])
    finite = jnp.all(jnp.isfinite(logits), axis=1)
    return jnp.sum(finite & (jnp.argmax(logits, axis=1) == labels[chosen]))

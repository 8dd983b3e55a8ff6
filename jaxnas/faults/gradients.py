"""Faults in training: in gradients, and in the words of an optimiser's state.

Gradient transformations of optax (DeepMind, 2020), to be chained with others.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from jaxnas.faults.corruption import corrupt
from jaxnas.faults.models import FaultModel
from jaxnas.numerics.formats import Format
from jaxnas.types import Key


class Steps(NamedTuple):
    """How many steps have been taken, and the state of what is wrapped, if anything."""

    count: Int32[Array, ""]
    inner: Any = ()


def faulty_updates(
    model: FaultModel, key: Key, *, format: Format | None = None, site: str = "*"
) -> optax.GradientTransformation:
    """Updates with faults in their words: gradients, where it stands first in a chain.

    Step `n` is `corrupt(fold_in(key, n), updates, model, format=format, site=site)`,
    so that a run that resumes has the same faults. Raises ValueError as `corrupt`.
    """

    def update(updates, state, params=None):
        fresh = jax.random.fold_in(key, state.count)
        faulted = corrupt(fresh, updates, model, format=format, site=site)
        return faulted, Steps(state.count + 1)

    return optax.GradientTransformation(_start, update)


def _start(params: optax.Params) -> Steps:
    return Steps(jnp.int32(0))


def faulty_state(
    inner: optax.GradientTransformation,
    model: FaultModel,
    key: Key,
    *,
    format: Format | None = None,
    site: str = "*",
) -> optax.GradientTransformationExtraArgs:
    """`inner`, whose floating-point state is read back with faults before every step.

    Step `n` draws from `fold_in(key, n)`; faults stay in the state that it leaves.
    site: glob on the paths of the leaves of the state, as "*mu*" for the moments of
        Adam. Raises ValueError as `corrupt`.
    """
    inner = optax.with_extra_args_support(inner)

    def start(params):
        return Steps(jnp.int32(0), inner.init(params))

    def update(updates, state, params=None, **extra):
        fresh = jax.random.fold_in(key, state.count)
        read = corrupt(fresh, state.inner, model, format=format, site=site)
        updates, left = inner.update(updates, read, params, **extra)
        return updates, Steps(state.count + 1, left)

    return optax.GradientTransformationExtraArgs(start, update)

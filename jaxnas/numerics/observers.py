"""Observers: scales of data that come batch by batch.

An observer is three pure functions around a state, a pytree of fixed shapes, so that
it runs under `jit`, `vmap` and `scan`:

    state = observer.init(jax.eval_shape(layer, batch))
    for batch in batches:
        state = observer.update(state, layer(batch))
    scale = observer.scale(state, format)

The state knows nothing of formats: one pass over the data serves them all. Batches may
differ in size along the axes that share a scale.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxnas.numerics.calibration import (
    Axis,
    largest_magnitude,
    peak_scale,
    reduced_axes,
)

Shape = jax.ShapeDtypeStruct | Array | np.ndarray


class Observer(NamedTuple):
    """`init(like) -> state`, `update(state, x) -> state` and
    `scale(state, format, power_of_two=True) -> scale`.

    `like` is an array or a `jax.ShapeDtypeStruct` of the shape of x. The scale is a
    scalar, or of the rank of x where axes are kept; `power_of_two` as in
    `calibration.absmax_scale`.
    """

    init: Callable[[Shape], Any]
    update: Callable[..., Any]
    scale: Callable[..., Float32[Array, "..."]]


@functools.cache
def absmax(axis: Axis = None) -> Observer:
    """The largest magnitude seen; the order of the batches does not matter."""

    def init(like):
        return jnp.zeros(peak_shape(like.shape, axis))

    def update(state, x):
        return jnp.maximum(state, largest_magnitude(x, axis))

    return Observer(init, update, peak_scale)


class Average(NamedTuple):
    """A mean of peaks and how many it is made of."""

    peak: Float32[Array, "..."]
    count: Int32[Array, ""]


@functools.cache
def running_average(momentum: float | None = 0.9, axis: Axis = None) -> Observer:
    """The average of the largest magnitudes of the batches.

    momentum: weight of the past in an exponential average, which starts at the first
        peak and depends on the order (Jacob et al., arXiv:1712.05877). None: the mean
        of all peaks, which depends on the order in the last bits only.

    Raises ValueError for a momentum outside [0, 1).
    """
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(
            f"a momentum of {momentum}; expected 0 <= momentum < 1 or None"
        )

    def init(like):
        return Average(jnp.zeros(peak_shape(like.shape, axis)), jnp.int32(0))

    def update(state, x):
        count = state.count + 1
        share = 1 / count if momentum is None else 1 - momentum
        share = jnp.where(count == 1, 1, share)
        change = largest_magnitude(x, axis) - state.peak
        return Average(state.peak + share * change, count)

    def scale(state, format, power_of_two=True):
        return peak_scale(state.peak, format, power_of_two)

    return Observer(init, update, scale)


def peak_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape of the peaks of an array: ones for the axes that share a scale."""
    reduced = reduced_axes(shape, axis)
    if axis is None:
        return ()
    return tuple(1 if i in reduced else size for i, size in enumerate(shape))

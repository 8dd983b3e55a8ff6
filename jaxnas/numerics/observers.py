"""Observers: scales of data that come batch by batch.

An observer is three pure functions around a state, a pytree of fixed shapes, so that
it runs under `jit`, `vmap` and `scan`:

    state = observer.init(jax.eval_shape(layer, batch))
    for batch in batches:
        state = observer.update(state, layer(batch))
    scale = observer.scale(state, format)

Where the histogram's bins suffice, `percentile`, `mean_square_error` and
`kullback_leibler` find the clipping of large magnitudes that `calibration` finds in
whole arrays. The state knows nothing of formats: one pass over the data serves them
all. Batches may differ in size along the axes that share a scale.
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
    gathered,
    largest_magnitude,
    millionths_above,
    peak_scale,
    peak_shape,
    rounded_peak,
)
from jaxnas.numerics.histograms import (
    add,
    empty,
    least_divergence_peak,
    least_mean_square_error_peak,
    percentile_peak,
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
        return jnp.maximum(state, largest_magnitude(jnp.asarray(x), axis))

    return Observer(init, update, peak_scale)


@functools.cache
def percentile(
    percent: float | int = 99.9, axis: Axis = None, bins: int = 2048
) -> Observer:
    """The percentile of all magnitudes seen, rounded up to the next end of a bin.

    The bins part a power of two above the largest magnitude, so the result exceeds
    `calibration.percentile_scale` by less than two in `bins` parts of that magnitude;
    at 100 it is exact. percent: above 0, up to 100, read to four decimals.
    """
    millionths = millionths_above(percent)

    def peak(state, format, power_of_two):
        return rounded_peak(percentile_peak(state, millionths), power_of_two)

    return _histogram_observer(peak, axis, bins)


@functools.cache
def mean_square_error(axis: Axis = None, bins: int = 2048) -> Observer:
    """The least mean square error of all numbers seen, taken at the centres of bins.

    The peaks that are tried are those of `calibration.mean_square_error_scale`.
    """
    return _histogram_observer(least_mean_square_error_peak, axis, bins)


@functools.cache
def kullback_leibler(
    axis: Axis = None, bins: int = 2048, thresholds: int = 128
) -> Observer:
    """The least divergence of the stored distribution from that of all numbers seen.

    See `histograms.least_divergence_peak`; the threshold is rounded as told afterwards.
    Words of more than about 10 bits are finer than the bins: nothing is clipped.
    """

    def peak(state, format, power_of_two):
        found = least_divergence_peak(state, format, thresholds)
        return rounded_peak(found, power_of_two)

    return _histogram_observer(peak, axis, bins)


def _histogram_observer(peak, axis, bins):
    """An observer of counts, which do not depend on the order of the batches."""

    def init(like):
        return empty(peak_shape(like.shape, axis), bins)

    def update(state, x):
        return add(state, gathered(jnp.asarray(x), axis))

    def scale(state, format, power_of_two=True):
        return peak(state, format, power_of_two) / format.span

    return Observer(init, update, scale)


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
        change = largest_magnitude(jnp.asarray(x), axis) - state.peak
        return Average(state.peak + share * change, count)

    def scale(state, format, power_of_two=True):
        return peak_scale(state.peak, format, power_of_two)

    return Observer(init, update, scale)

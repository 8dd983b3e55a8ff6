"""Choice of scale: from the values of an array to the scale of a format.

A format of span s stores magnitudes up to s * scale, so scale = peak / s, and to
choose a scale is to choose a peak: the largest magnitude, a percentile of them, or
the clipping with the least mean square error (after Sung et al., arXiv:1511.06488).
Peaks are rounded up to powers of two by default: fixed-point arithmetic is then
exact, and a shift in hardware ("dynamic fixed point"; Courbariaux et al.,
arXiv:1412.7024).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from jaxnas.numerics.formats import Format
from jaxnas.types import Scale, Values

SMALLEST_PEAK = 2.0**-20
"""Peaks below it count as this much, so that an array of zeros has a positive scale."""

CLIPPING_RATIOS = tuple(2.0 ** (-k / 8) for k in range(64))
"""The peaks that are tried for the least error, in units of the largest magnitude."""

MILLION = 10**6

Axis = int | tuple[int, ...] | None
"""Axes that keep scales of their own (-1: per channel); None: one scalar scale."""

Rounding = bool | Literal["nearest"]
"""Powers of two: True for the one above the peak, "nearest" for that with the ratio
nearest to one (as in Jain et al., arXiv:1903.08066), False for the peak itself."""


def power_of_two(peak: Scale, nearest: bool = False) -> Float32[Array, "..."]:
    """The least power of two that is not below the peak (nor below `SMALLEST_PEAK`).

    nearest: that with the ratio to the peak nearest to one instead, above or below.
    Infinite and NaN peaks stay what they are, so that divergence remains visible.
    """
    return rounded_peak(jnp.asarray(peak, jnp.float32), "nearest" if nearest else True)


def rounded_peak(peak: Scale, power_of_two: Rounding) -> Float32[Array, "..."]:
    """The peak, not below `SMALLEST_PEAK`, rounded as told.

    Raises ValueError for an unknown rounding.
    """
    if power_of_two not in (True, False, "nearest"):
        raise ValueError(
            f"power_of_two={power_of_two!r}; expected True, False or 'nearest'"
        )
    peak = jnp.maximum(jnp.asarray(peak, jnp.float32), SMALLEST_PEAK)  # passes NaN on
    if not power_of_two:
        return peak
    # Adding all ones to the mantissa carries into the exponent unless the mantissa is
    # zero: a ceiling of the binary logarithm without the rounding of a logarithm. For
    # the nearest power, the mantissas above that of sqrt(2), 0x3504F3, carry.
    carry = jnp.uint32(0x00800000 - (0x3504F4 if power_of_two == "nearest" else 1))
    exponent = jnp.uint32(0x7F800000)
    word = jax.lax.bitcast_convert_type(peak, jnp.uint32)
    power = jax.lax.bitcast_convert_type((word + carry) & exponent, jnp.float32)
    return jnp.where(jnp.isfinite(peak), power, peak)


def peak_scale(
    peak: Scale, format: Format, power_of_two: Rounding = True
) -> Float32[Array, "..."]:
    """The scale at which the largest nominal magnitude of `format` is the peak."""
    return rounded_peak(peak, power_of_two) / format.span


def absmax_scale(
    x: Values,
    format: Format,
    axis: Axis = None,
    power_of_two: Rounding = True,
) -> Float32[Array, "..."]:
    """The scale at which `format` just holds the largest magnitude in x.

    axis: the axes that keep scales of their own (-1: per channel); the scale has the
        rank of x, with ones elsewhere. None: one scalar scale.
    power_of_two: round the peak up to a power of two, or to the "nearest".

    In two's complement the peak itself, where positive and a power of two, saturates
    by one step. Raises ValueError for an axis that x does not have.
    """
    return peak_scale(largest_magnitude(jnp.asarray(x), axis), format, power_of_two)


def percentile_scale(
    x: Values,
    format: Format,
    percent: float | int,
    axis: Axis = None,
    power_of_two: Rounding = True,
) -> Float32[Array, "..."]:
    """The scale at which `format` just holds `percent` per cent of the magnitudes.

    The percentile is the nearest rank: the k-th smallest of the n magnitudes that
    share a scale, k = ceil(n * percent / 100); one of them, never interpolated.
    percent: above 0, up to 100, read to four decimals.
    """
    rows = jnp.sort(gathered(jnp.abs(jnp.asarray(x)), axis))
    count = rows.shape[-1]
    rank = count - count * millionths_above(percent) // MILLION
    # NaN is sorted last: so that divergence remains visible, it counts at any rank.
    peak = jnp.where(jnp.isfinite(rows[..., -1]), rows[..., rank - 1], rows[..., -1])
    return peak_scale(peak, format, power_of_two)


def mean_square_error_scale(
    x: Values,
    format: Format,
    axis: Axis = None,
    power_of_two: Rounding = True,
    ratios: tuple[float, ...] = CLIPPING_RATIOS,
) -> Float32[Array, "..."]:
    """The scale at which storing x in `format` costs the least mean square error.

    Tried are the peaks `ratio * absmax`, each rounded as told *before* the comparison,
    so that the result is the best among those that could be returned; of equal ones
    the earliest in `ratios`.
    """
    x = jnp.asarray(x)
    reduced = reduced_axes(x.shape, axis)
    peak = jnp.abs(x).max(reduced, keepdims=True)
    best = least_error_peak(x, 1.0, peak, reduced, format, power_of_two, ratios)
    return (best if axis is not None else best.reshape(())) / format.span


@functools.partial(
    jax.jit, static_argnames=("reduced", "format", "power_of_two", "ratios")
)
def least_error_peak(
    x: Values,
    weight: float | Float32[Array, "..."],
    peak: Float32[Array, "..."],
    reduced: tuple[int, ...],
    format: Format,
    power_of_two: Rounding,
    ratios: tuple[float, ...] = CLIPPING_RATIOS,
) -> Float32[Array, "..."]:
    """The peak of least weighted square error over the `reduced` axes of x.

    `peak` is the largest magnitude, of the rank of x. Where it is not finite no error
    is, and it comes back.
    """
    unit = jnp.maximum(
        peak, SMALLEST_PEAK
    )  # squares of relative errors cannot overflow

    def attempt(best, ratio):
        least, chosen = best
        tried = rounded_peak(peak * ratio, power_of_two)
        error = (x - format.quantize(x, tried / format.span)) / unit
        error = (weight * error**2).sum(reduced, keepdims=True)
        better = error < least
        return (jnp.where(better, error, least), jnp.where(better, tried, chosen)), None

    start = jnp.full_like(peak, jnp.inf), rounded_peak(peak, power_of_two)
    return jax.lax.scan(attempt, start, np.float32(ratios))[0][1]


def largest_magnitude(x: Array, axis: Axis) -> Array:
    """The peak of an array: a scalar, or of its rank with ones for the other axes."""
    reduced = reduced_axes(x.shape, axis)
    return jnp.abs(x).max(reduced, keepdims=axis is not None)


def reduced_axes(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The axes that share a scale: all but those kept.

    Raises ValueError for an axis that the shape does not have.
    """
    rank = len(shape)
    kept = () if axis is None else (axis,) if isinstance(axis, int) else axis
    if not all(-rank <= index < rank for index in kept):
        raise ValueError(f"axis {axis} of an array of shape {shape}: no such axis")
    return tuple(i for i in range(rank) if i not in {index % rank for index in kept})


def peak_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape of the peaks of an array: ones for the axes that share a scale."""
    reduced = reduced_axes(shape, axis)
    if axis is None:
        return ()
    return tuple(1 if i in reduced else size for i, size in enumerate(shape))


def gathered(x: Array, axis: Axis) -> Array:
    """The values that share a scale along one last axis, after those of the peaks."""
    reduced = reduced_axes(x.shape, axis)
    last = jnp.moveaxis(x, reduced, range(-len(reduced), 0))
    return last.reshape(*peak_shape(x.shape, axis), -1)


def millionths_above(percent: float | int) -> int:
    """How many of a million values lie above the percentile.

    Raises ValueError for percent outside (0, 100].
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile of {percent}; expected above 0 and up to 100")
    return min(round((100 - percent) * 10**4), MILLION - 1)


@functools.lru_cache
def unit_bounds(format: Format) -> tuple[float, float]:
    """Smallest and largest number of a format in units of its scale."""
    with jax.ensure_compile_time_eval():
        low, high = format.bounds(1.0)
    return float(low), float(high)


def positive_levels(format: Format) -> int:
    """How many words the numbers from zero up have: half of them beside a sign."""
    return 1 << (format.bits - (unit_bounds(format)[0] < 0))

"""Choice of scale: from the largest magnitude of an array to the scale of a format.

A format of span s stores magnitudes up to s * scale, so scale = peak / s. Peaks are
rounded up to powers of two by default: fixed-point arithmetic is then exact, and a
shift in hardware ("dynamic fixed point"; Courbariaux et al., arXiv:1412.7024).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jaxnas.numerics.formats import Format
from jaxnas.types import Scale, Values

SMALLEST_PEAK = 2.0**-20
"""Peaks below it count as this much, so that an array of zeros has a positive scale."""


def power_of_two(peak: Scale) -> Float32[Array, "..."]:
    """The least power of two that is not below the peak (nor below `SMALLEST_PEAK`).

    Infinite and NaN peaks stay what they are, so that divergence remains visible.
    """
    return _power_of_two_above(_floored(jnp.asarray(peak, jnp.float32)))


def absmax_scale(
    x: Values,
    format: Format,
    axis: int | tuple[int, ...] | None = None,
    power_of_two: bool = True,
) -> Float32[Array, "..."]:
    """The scale at which `format` just holds the largest magnitude in x.

    axis: the axes that keep scales of their own (-1: per channel); the scale has the
        rank of x, with ones elsewhere. None: one scalar scale.
    power_of_two: round the peak up to a power of two.

    In two's complement the peak itself, where positive and a power of two, saturates
    by one step. Raises ValueError for an axis that x does not have.
    """
    peak = _floored(_peak(jnp.asarray(x), axis))
    return (_power_of_two_above(peak) if power_of_two else peak) / format.span


def _peak(x: Array, axis: int | tuple[int, ...] | None) -> Array:
    if axis is None:
        return jnp.abs(x).max()
    axes = (axis,) if isinstance(axis, int) else axis
    if not all(-x.ndim <= kept < x.ndim for kept in axes):
        raise ValueError(f"axis {axis} of an array of shape {x.shape}: no such axis")
    kept = {index % x.ndim for index in axes}
    reduced = tuple(index for index in range(x.ndim) if index not in kept)
    return jnp.abs(x).max(reduced, keepdims=True)


def _floored(peak: Array) -> Array:
    return jnp.maximum(peak, SMALLEST_PEAK)  # passes NaN on


def _power_of_two_above(peak: Array) -> Array:
    # Adding all ones to the mantissa carries into the exponent unless the mantissa is
    # zero: a ceiling of the binary logarithm without the rounding of a logarithm.
    mantissa, exponent = jnp.uint32(0x007FFFFF), jnp.uint32(0x7F800000)
    word = jax.lax.bitcast_convert_type(peak, jnp.uint32)
    above = jax.lax.bitcast_convert_type((word + mantissa) & exponent, jnp.float32)
    return jnp.where(jnp.isfinite(peak), above, peak)

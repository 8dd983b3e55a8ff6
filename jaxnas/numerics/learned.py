"""Scales that training learns, and rounding by chance.

Learned step: Esser et al., "Learned step size quantization", arXiv:1902.08153. Learned
clip: Choi et al., "PACT", arXiv:1805.06085. Stochastic rounding: Gupta et al., "Deep
learning with limited numerical precision", arXiv:1502.02551. Powers of two pass their
derivative straight through, as the thresholds of Jain et al., arXiv:1903.08066.

The learned step and clip are parameters as others; the words stay `quantize` sites.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PyTree

from jaxnas.numerics.calibration import (
    Axis,
    Rounding,
    peak_scale,
    positive_levels,
    reduced_axes,
    unit_bounds,
)
from jaxnas.numerics.formats import Format
from jaxnas.numerics.primitives import quantize
from jaxnas.trees import select
from jaxnas.types import Key, Scale, Values


def learned_step(
    x: Values,
    step: Scale,
    format: Format,
    *,
    power_of_two: Rounding = False,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """x as read back from words whose scale is learned.

    The derivative of the scale is the primitive's, in steps the rounding error inside
    the bounds and the outermost code outside, times 1 / sqrt(N * Q): N numbers share
    the step, of which the largest code is Q. N counts one example: of activations and
    inputs the first axis is the batch, which the loss averages.

    step: a scalar or of the rank of x, as the scale of `quantize`. Optimisers may push
        it to any value: used in its stead is at least `SMALLEST_PEAK / format.span`,
        with the derivative at that scale passed on, so that it can return.
    power_of_two: round the peak, step * span, as `calibration.absmax_scale` does.
    """
    step = jnp.asarray(step, jnp.float32)
    examples = x.shape[0] if stored in ("activation", "input") and x.ndim else 1
    shared = max(x.size // examples // step.size, 1)
    slope = 1 / math.sqrt(shared * _largest_code(format))
    scale = _usable(step, format, power_of_two, slope)
    return quantize(x, scale, format, stored=stored, site=site)


def initial_step(x: Values, format: Format, axis: Axis = None) -> Float32[Array, "..."]:
    """The step to start from: that of a peak of 2 * mean|x| * sqrt(Q).

    For fixed point it is 2 * mean|x| / sqrt(Q), Q the largest code. Not below
    `SMALLEST_PEAK / format.span`. axis: as in `calibration.absmax_scale`.
    """
    x = jnp.asarray(x)
    mean = jnp.abs(x).mean(reduced_axes(x.shape, axis), keepdims=axis is not None)
    peak = 2 * mean * math.sqrt(_largest_code(format))
    nominal = peak * (format.span / unit_bounds(format)[1])
    return peak_scale(nominal, format, power_of_two=False)


def initial_steps(
    params: PyTree, format: Format, pattern: str = "*", axis: Axis = None
) -> PyTree:
    """A warm start from float weights: the `initial_step` of every leaf of a tree.

    pattern: glob of the paths of the leaves that have a step, "*/kernel" as in
        `trees.select`; the others have None, which optimisers pass over. Then

            def stored(w, step):
                return w if step is None else learned_step(w, step, format)

            jax.tree.map(stored, params, steps)

    Raises ValueError when no leaf matches.
    """
    leaves, structure = jax.tree.flatten(params)
    chosen = zip(leaves, select(params, pattern), strict=True)
    steps = [initial_step(x, format, axis) if here else None for x, here in chosen]
    return structure.unflatten(steps)


def learned_clip(
    x: Values,
    clip: Scale,
    format: Format,
    *,
    power_of_two: Rounding = False,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """x, cut off below zero and above a learned level, as read back from its words.

    The largest word stands for the level a (PACT); y = round(min(x, a) / s) * s with
    s = a / Q, Q the largest code. Its derivative takes the rounding for the identity,

        y_a = 1 where x >= a, 0 elsewhere;  y_x = 1 where 0 <= x < a, 0 elsewhere.

    A learned step with s = a / Q, y_a = y_s / Q, has the same y_a outside, but inside
    it keeps the rounding error, (y - x) / a: PACT is that derivative with the error
    held constant. It pushes the level down only by the decay that its loss adds to it,
    which is the caller's to add.

    clip: a scalar or of the rank of x; at least `SMALLEST_PEAK` is used, as in
        `learned_step`.
    power_of_two: round the peak, clip * span / Q, as `calibration.absmax_scale` does.

    Raises ValueError for a format with words below zero.
    """
    lowest, highest = unit_bounds(format)
    if lowest < 0:
        raise ValueError(
            f"a learned clip cuts off below zero, but {format} has negative words; "
            "take an unsigned format or learned_step"
        )
    clip = jnp.asarray(clip, jnp.float32)
    scale = jax.lax.stop_gradient(_usable(clip / highest, format, power_of_two, 1.0))
    # The bound of the format and not the clip itself, which by the rounding of the
    # division may lie above it, where the primitive has no derivative.
    level = _with_derivative_of(format.bounds(scale)[1], clip)
    return quantize(
        jnp.where(x >= level, level, x), scale, format, stored=stored, site=site
    )


def stochastic_quantize(
    key: Key,
    x: Values,
    scale: Scale,
    format: Format,
    *,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """x rounded to one of its two neighbours in the format, by chance, and stored.

    The neighbour above is taken with the probability (x - low) / (high - low), in
    multiples of 2**-23, so that the mean is x inside the bounds; numbers that have a
    word keep it, and those outside saturate. Straight-through derivatives as those of
    `quantize`: of x one inside the bounds and zero outside, of the scale
    (y - x y_x) / s, whose mean is zero inside. Errors as for `quantize`.
    """
    x, scale = jnp.asarray(x), jnp.asarray(scale, jnp.float32)
    drawn = _drawn(jax.random.uniform(key, x.shape), x, scale, format)
    return quantize(
        drawn, jax.lax.stop_gradient(scale), format, stored=stored, site=site
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _drawn(chance, x, scale, format):
    low, high = format.neighbours(x, scale)
    gap = high - low
    above = chance * gap < x - low
    return jnp.where(above, high, low)


@_drawn.defjvp
def _drawn_jvp(format, primals, tangents):
    (chance, x, scale), (_, dx, dscale) = primals, tangents
    y = _drawn(chance, x, scale, format)
    low, high = format.bounds(scale)
    inside = (low <= x) & (x <= high)
    dy = jnp.where(inside, dx, 0)
    if format.scaled:
        dy += (y - jnp.where(inside, x, 0)) / scale * dscale
    return y, dy


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _usable(step, format, power_of_two, slope):
    """The scale that stands for a learned step; its derivative is `slope`."""
    return peak_scale(step * format.span, format, power_of_two)


@_usable.defjvp
def _usable_jvp(format, power_of_two, slope, primals, tangents):
    return _usable(*primals, format, power_of_two, slope), slope * tangents[0]


@jax.custom_jvp
def _with_derivative_of(value, parameter):
    return value


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(primals, tangents):
    return _with_derivative_of(*primals), tangents[1]


def _largest_code(format: Format) -> int:
    """Q: how many words stand for positive numbers, the largest code of fixed point."""
    return max(positive_levels(format) - 1, 1)

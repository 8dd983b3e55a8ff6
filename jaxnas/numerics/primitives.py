"""The `quantize` primitive: a memory word that stays visible in the jaxpr.

Its value is the number that the stored word stands for; its parameters say in which
format the word is, what it stores and where. Fault injection and cost models read
those parameters, and need nothing else from the network.

Straight-through derivative: Bengio et al., arXiv:1308.3432; that of the scale agrees
with Esser et al., "Learned step size quantization", arXiv:1902.08153.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float32, Shaped

from jaxnas.numerics.formats import Format
from jaxnas.types import Scale

Stored = Literal["weight", "bias", "activation", "input", "scale"]

quantize_p = Primitive("quantize")


def quantize(
    x: Shaped[Array | np.ndarray, "*shape"],
    scale: Scale,
    format: Format,
    *,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "*shape"]:
    """x as read back from memory words of `format`: decode(encode(x)).

    scale: scalar, or of the rank of x and broadcastable to it (per channel: ones but
        for the channel axis). Its meaning is the format's. Must be positive; a traced
        one is not looked at, and one on a device is waited for, so that a loop that is
        not jitted does best with scales that are Python or NumPy numbers.
    stored: what the word holds: "weight", "bias", "activation", "input" or "scale" (a
        number that other words are multiplied with, such as a shared exponent).
    site: name by which fault injection and reports find this word.

    Derivatives are straight-through: one for x inside the bounds of the format, zero
    outside. Raises ValueError when x is not float32, the scale does not broadcast to
    it or is not positive, the format is not one, or `stored` is unknown.
    """
    if not isinstance(scale, jax.core.Tracer):
        _check_positive(scale)
    x, scale = jnp.asarray(x), jnp.asarray(scale)
    _check(x, scale, format, stored)
    scale = scale.astype(jnp.float32)
    return quantize_p.bind(x, scale, format=format, stored=stored, site=site)


def _check_positive(scale) -> None:
    wrong = np.asarray(scale)
    wrong = wrong[~((0 < wrong) & (wrong < np.inf))]
    if wrong.size:
        raise ValueError(
            f"a scale of {wrong.flat[0]}; expected positive finite numbers: take "
            "absmax_scale(x, format), which is positive for zeros too"
        )


def _check(x, scale, format, stored) -> None:
    if x.dtype != jnp.float32:
        raise ValueError(f"quantize takes float32, got {x.dtype}; cast x first")
    if not isinstance(format, Format):
        raise ValueError(
            f"{format!r} is not a number Format; take one of jaxnas.numerics, such as "
            "FixedPoint(bits=8)"
        )
    if stored not in get_args(Stored):
        raise ValueError(f"stored={stored!r} is none of {get_args(Stored)}")
    fits = len(scale.shape) == len(x.shape) and all(
        size in (1, full) for size, full in zip(scale.shape, x.shape, strict=True)
    )
    if scale.shape and not fits:
        raise ValueError(
            f"a scale of shape {scale.shape} for values of shape {x.shape}; expected a "
            "scalar or an array of the same rank that broadcasts, as (1, ..., channels)"
        )


@functools.partial(jax.jit, static_argnames="format")
def _value(x, scale, format):
    return format.quantize(x, scale)


def _implementation(x, scale, *, format, stored, site):
    return _value(x, scale, format)


def _abstract_evaluation(x, scale, *, format, stored, site):
    return x.update(weak_type=False)


def _batch(arguments, axes, **parameters):
    """One more leading axis on both operands; an unbatched scalar scale stays one."""
    (x, scale), (x_axis, scale_axis) = arguments, axes
    if x_axis is None:
        x = jnp.broadcast_to(x, (scale.shape[scale_axis], *x.shape))
    else:
        x = jnp.moveaxis(x, x_axis, 0)
    if scale_axis is not None:
        scale = jnp.moveaxis(scale, scale_axis, 0)
        if scale.ndim == 1:
            scale = scale.reshape(-1, *(1,) * (x.ndim - 1))
    elif scale.ndim:
        scale = scale[None]
    return quantize_p.bind(x, scale, **parameters), 0


def _jvp(primals, tangents, *, format, **parameters):
    # Scaled formats are homogeneous of degree one: y(cx, cs) = c y(x, s), c > 0.
    # Straight-through replaces the derivative of the rounding, zero or infinite, by
    #
    #     y_x := 1 inside the bounds, 0 outside,
    #
    # and Euler's identity x y_x + s y_s = y then leaves one choice for the scale,
    #
    #     y_s = (y - x y_x) / s:
    #
    # the rounding error in steps inside, the saturated code outside. Where the value
    # does not depend on the scale (IEEE), y_s = 0.
    (x, scale), (dx, dscale) = primals, tangents
    y = quantize_p.bind(x, scale, format=format, **parameters)
    low, high = format.bounds(scale)
    inside = (low <= x) & (x <= high)
    terms = []
    if type(dx) is not ad.Zero:
        terms.append(jnp.where(inside, dx, 0))  # y_x dx
    if type(dscale) is not ad.Zero and format.scaled:
        terms.append((y - jnp.where(inside, x, 0)) / scale * dscale)  # y_s ds
    return y, functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(y)


quantize_p.def_impl(_implementation)
quantize_p.def_abstract_eval(_abstract_evaluation)
mlir.register_lowering(
    quantize_p, mlir.lower_fun(_implementation, multiple_results=False)
)
batching.primitive_batchers[quantize_p] = _batch
ad.primitive_jvps[quantize_p] = _jvp

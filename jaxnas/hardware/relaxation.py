"""Arithmetics that can be differentiated, so that widths are tuned by gradient.

Costs are staircases: a channel more costs nothing until it starts a fold. The same
formulas get derivatives from another arithmetic:

- `straight_through()` has the exact values, and derivatives as if ceilings were lines.
- `smooth(temperature=t)` replaces a ceiling by its convolution with a Cauchy density of
  half width t (in folds). By the Fourier series of the saw tooth and
  sum r**k sin(k a) / k = atan2(r sin a, 1 - r cos a),

      ceil(x) ~ x + 1/2 + atan2(r sin 2 pi x, 1 - r cos 2 pi x) / pi,
      r = exp(-2 pi t),

  which rises everywhere, is the ceiling as t -> 0 and the line x + 1/2 as t -> inf.
  Of a whole number n, x is (n - 1/2) / d: multiples of d are not on a jump, and the
  line is the mean of ceil(n / d) over whole numbers. Maxima become p-norms:
  (a**p + b**p)**(1/p), which is the sum as p = 1, the maximum as p -> inf, never below
  it, and has the units of its arguments. (Of logarithms it is logsumexp at temperature
  1/p.)

Tables may then hold float32 columns, for instance traced channels. Divisors of groups
and packing, which are whole numbers by their meaning, stay as they are.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnas.arithmetic import FLOAT32, Arithmetic

BELOW = 1 - 2.0**-20
"""Keeps the rounded quotient of a multiple below 2**20 from passing its integer."""


def straight_through() -> Arithmetic:
    """Exact values; the derivative of a ceiling is one."""

    def ceil_divide(dividend, divisor):
        quotient = _float32(dividend) / _float32(divisor)
        exact = lax.stop_gradient(jnp.ceil(quotient * BELOW))
        # Added in this order, what cancels is exactly zero.
        return exact + (quotient - lax.stop_gradient(quotient))

    return _relaxed(ceil_divide, jnp.maximum)


def smooth(*, temperature: float = 0.1, sharpness: float = 8.0) -> Arithmetic:
    """Smooth values; `sharpness` is the p of the norms.

    Raises:
      ValueError: for a temperature that is not positive or a sharpness below one.
    """
    if not temperature > 0:
        raise ValueError(
            f"found temperature={temperature}, expected a positive number: "
            "straight_through() keeps ceilings as they are"
        )
    if not sharpness >= 1:
        raise ValueError(f"found sharpness={sharpness}, expected at least 1")

    def ceil_divide(dividend, divisor):
        return smooth_ceil((_float32(dividend) - 0.5) / _float32(divisor), temperature)

    def maximum(a, b):
        return smooth_maximum(jnp.stack(jnp.broadcast_arrays(a, b)), sharpness)

    return _relaxed(ceil_divide, maximum)


def smooth_ceil(
    x: Float[Array, "*shape"], temperature: float
) -> Float[Array, "*shape"]:
    """The ceiling convolved with a Cauchy density of half width `temperature`."""
    r, angle = math.exp(-2 * math.pi * temperature), 2 * math.pi * x
    tooth = jnp.arctan2(r * jnp.sin(angle), 1 - r * jnp.cos(angle)) / math.pi
    return x + 0.5 + tooth


def smooth_maximum(
    values: Float[Array, "..."], sharpness: float
) -> Float[Array, "..."]:
    """The p-norm over the first axis, p = `sharpness`, of values not negative."""
    largest = jnp.max(values, axis=0)
    scale = lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    norm = jnp.sum((values / scale[None]) ** sharpness, axis=0)
    positive = jnp.where(norm > 0, norm, 1)  # the root has no derivative at zero
    return jnp.where(norm > 0, scale * positive ** (1 / sharpness), 0)


def expected_cost(
    logits: Float[Array, "*slots choices"], costs: Float[Array, "*slots choices"]
) -> Float[Array, ""]:
    """The mean cost of a network whose slots choose independently by softmax.

    Exact for costs that add up over slots, by linearity; not for maxima, for which see
    `smooth_maximum`.
    """
    return jnp.sum(jax.nn.softmax(logits, axis=-1) * costs)


def _relaxed(ceil_divide, maximum) -> Arithmetic:
    def floor_divide(dividend, divisor):
        quotient = _float32(dividend) / _float32(divisor)
        return lax.stop_gradient(jnp.floor(quotient / BELOW))

    return FLOAT32._replace(
        column=_float32,
        ceil_divide=ceil_divide,
        floor_divide=floor_divide,
        exact_divide=lambda dividend, divisor: dividend / divisor,
        maximum=maximum,
    )


def _float32(x):
    return jnp.asarray(x).astype(jnp.float32)

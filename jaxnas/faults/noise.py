"""Faults of values: what is read differs from what the word stands for.

Noise of analogue memories and circuits, and neurons that are silent. These models act
on the numbers behind the words, and know neither bits nor formats.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.faults.masks import bernoulli_positions
from jaxnas.faults.models import FaultModel
from jaxnas.faults.rates import Rate, largest_rate

Unit = Literal["one", "peak", "rms"]


def additive_noise(sigma: Rate, *, unit: str = "one") -> FaultModel:
    """Every value plus an independent Gaussian number of deviation `sigma` units.

    unit: "one", or the largest magnitude ("peak") or the root of the mean square
        ("rms") of the values that are read together; for zeros that is zero.

    Raises ValueError for a negative sigma and an unknown unit.
    """
    _check_sigma("additive_noise", sigma)
    if unit not in get_args(Unit):
        raise ValueError(f"unit={unit!r}; expected one of {get_args(Unit)}")

    def apply(noise, values):
        size = {
            "one": lambda: 1.0,
            "peak": lambda: jnp.max(jnp.abs(values), initial=0.0),
            "rms": lambda: jnp.sqrt(jnp.sum(values**2) / max(values.size, 1)),
        }[unit]()
        return values + (sigma * size * noise).astype(values.dtype)

    return FaultModel(_normal, apply, on="values")


def multiplicative_noise(sigma: Rate) -> FaultModel:
    """Every value times an independent Gaussian number around one.

    sigma: standard deviation of the factor. Zeros stay. Raises ValueError for a
        negative sigma.
    """
    _check_sigma("multiplicative_noise", sigma)

    def apply(noise, values):
        return values * (1 + sigma * noise).astype(values.dtype)

    return FaultModel(_normal, apply, on="values")


def _normal(key, shape, format):
    return jax.random.normal(key, shape)


def _check_sigma(model: str, sigma: Rate) -> None:
    if not isinstance(sigma, jax.Array) and not 0 <= sigma < math.inf:
        raise ValueError(f"{model} got sigma={sigma}; expected a number, 0 or more")


def dead_elements(rate: Rate, *, max_rate: float | None = None) -> FaultModel:
    """Each value reads as zero with probability `rate`, independently.

    max_rate: as for `bit_flips`, and so are nesting and errors.
    """
    largest = largest_rate("dead_elements", rate, max_rate)

    def sample(key, shape, format):
        return bernoulli_positions(key, math.prod(shape), rate, largest)

    def apply(dead, values):
        silent = values.reshape(-1).at[dead].set(0, mode="drop")
        return silent.reshape(values.shape)

    return FaultModel(sample, apply, on="values")


def dead_channels(
    rate: Rate, *, axis: int = -1, max_rate: float | None = None
) -> FaultModel:
    """Each channel reads as zero everywhere with probability `rate`, independently.

    axis: the axis of the channels, by default the last one.
    max_rate: as for `bit_flips`, and so are nesting and errors. Raises ValueError, when
        sampled, for values that do not have the axis.
    """
    largest = largest_rate("dead_channels", rate, max_rate)

    def sample(key, shape, format):
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"dead_channels along axis {axis} of values of shape {shape}; expected "
                "one of their axes"
            )
        return bernoulli_positions(key, shape[axis], rate, largest)

    def apply(dead, values: Float[Array, "..."]):
        before = (slice(None),) * (axis % values.ndim)
        return values.at[(*before, dead)].set(0, mode="drop")

    return FaultModel(sample, apply, on="values")

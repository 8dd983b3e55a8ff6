"""The two fault models of FTT-NAS: biased features and stuck analogue weights.

Ning et al., "FTT-NAS: Discovering fault-tolerant convolutional neural architecture",
ACM TODAES 2021, arXiv:2003.10375. Probabilities are met exactly, where its code rounds
them to one over an integer.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.faults.masks import bernoulli_positions
from jaxnas.faults.models import FaultModel
from jaxnas.faults.rates import Rate, largest_rate


def mac_rate(rate: Rate, macs: int) -> Float[Array, ""]:
    """Probability that at least one of so many operations fails: 1 - (1 - rate)**macs.

    macs: multiply-accumulates behind one feature, channels_in / groups * kernel area.
    """
    return -jnp.expm1(macs * jnp.log1p(-jnp.asarray(rate, jnp.float32)))


def biased_features(
    rate: Rate, macs: int, *, bits: int = 8, max_rate: float | None = None
) -> FaultModel:
    """MAC-independent bit bias (MiBB): features are off by a power of two of steps.

    Each of the `macs` operations behind a feature (see `mac_rate`) fails with
    probability `rate`. A feature with a failed one reads

        clip(x +- 2**b * step, -peak, peak),   step = 2**(ceil(log2 peak) - bits + 1)

    with b uniform on 0 .. bits - 1 and both signs equally likely; the peak is the
    largest magnitude of all features that are read together.

    max_rate: as for `bit_flips`, per operation. Raises ValueError for rates as there,
        and for macs or bits below one.
    """
    largest = largest_rate("biased_features", rate, max_rate)
    if macs < 1 or bits < 1:
        raise ValueError(f"macs={macs} and bits={bits}; expected 1 or more of each")
    bound = -math.expm1(macs * math.log1p(-largest)) if largest < 1 else 1.0

    def sample(key, shape, format):
        key_of_features, key_of_biases = jax.random.split(key)
        own = mac_rate(jnp.minimum(rate, largest), macs)
        feature = bernoulli_positions(
            key_of_features, math.prod(shape), jnp.minimum(own, bound), bound
        )
        draws = jax.random.randint(key_of_biases, feature.shape, 0, 2 * bits)
        return feature, jnp.ldexp(jnp.where(draws & 1, -1.0, 1.0), draws // 2)

    def apply(fault, values):
        feature, bias = fault
        flat = values.reshape(-1)
        peak = jnp.max(jnp.abs(flat), initial=0)
        step = jnp.ldexp(jnp.ones((), flat.dtype), _ceil_log2(peak) - bits + 1)
        wrong = flat.at[feature].get(mode="fill", fill_value=0)
        wrong = jnp.clip(wrong + bias.astype(flat.dtype) * step, -peak, peak)
        return flat.at[feature].set(wrong, mode="drop").reshape(values.shape)

    return FaultModel(sample, apply, on="values")


def _ceil_log2(x: Float[Array, ""]) -> Array:
    fraction, exponent = jnp.frexp(x)
    return exponent - (fraction == 0.5)


def stuck_weights(
    rate: Rate, *, share_high: float = 0.163, max_rate: float | None = None
) -> FaultModel:
    """Arbitrarily distributed stuck-at faults (adSAF) of resistive cells.

    The sign of a weight says in which of two arrays its magnitude is stored. That cell
    is defect with probability `rate`; it then reads the largest magnitude of all
    weights with probability `share_high`, else zero, and the weight keeps its sign.

    max_rate: as for `bit_flips`. Raises ValueError for rates as there, and for a share
        outside [0, 1].
    """
    largest = largest_rate("stuck_weights", rate, max_rate)
    largest_rate("stuck_weights", share_high, None)

    def sample(key, shape, format):
        key_of_cells, key_of_kinds = jax.random.split(key)
        cell = bernoulli_positions(key_of_cells, math.prod(shape), rate, largest)
        return cell, jax.random.uniform(key_of_kinds, cell.shape) < share_high

    def apply(fault, values):
        cell, high = fault
        flat = values.reshape(-1)
        peak = jnp.max(jnp.abs(flat), initial=0)
        sign = jnp.sign(flat.at[cell].get(mode="fill", fill_value=0))
        stuck = jnp.where(high, sign * peak, jnp.zeros_like(sign))
        return flat.at[cell].set(stuck, mode="drop").reshape(values.shape)

    return FaultModel(sample, apply, on="values")

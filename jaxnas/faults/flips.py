"""Flips that choose their bits: by place, field or stored value, by number, by list."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from jaxnas.faults.bits import as_masks, listed, strike_bits
from jaxnas.faults.masks import distinct, flips_to_masks, uniform_positions
from jaxnas.faults.models import FaultModel, NetworkModel
from jaxnas.faults.rates import Rates, largest_rate, rate_per_bit


def selective_flips(rates: Rates, *, max_rate: float | None = None) -> FaultModel:
    """Bits flip independently, each at the rate of its place in the word.

    rates: one for each bit, lowest first, or a mapping from bits or fields of the
        format, as {"exponent": 1e-3, "sign": 1e-4}; bits that it leaves out stay.
    max_rate: as for `bit_flips`; one bound for all bits that are named.

    Equal rates for all bits are `bit_flips`, draw by draw.

    Raises:
      ValueError: as `bit_flips`; for a list whose length is not the width of the word,
        or an unknown bit or field (when sampled, as the format is known then).
    """
    largest_rate("selective_flips", rates, max_rate)

    def sample(key, shape, format):
        return strike_bits(key, shape, format, *rate_per_bit(rates, max_rate, format))

    def apply(struck, words):
        return words ^ as_masks(struck, words)

    return FaultModel(sample, apply)


def directed_flips(
    up: Rates, down: Rates, *, max_rate: float | None = None
) -> FaultModel:
    """Zeros become ones at the rate `up`, ones become zeros at the rate `down`.

    Each as in `selective_flips`, with one `max_rate` for both. Equal rates flip as
    `selective_flips` does, draw by draw.
    """
    for rates in (up, down):
        largest_rate("directed_flips", rates, max_rate)

    def sample(key, shape, format):
        rates, bounds = zip(
            *[rate_per_bit(rates, max_rate, format) for rates in (up, down)],
            strict=True,
        )
        # One draw for each bit, which both directions share: what one bit does must
        # not depend on the draw of another.
        bound = np.maximum(*bounds)
        return tuple(strike_bits(key, shape, format, own, bound) for own in rates)

    def apply(fault, words):
        up, down = (as_masks(struck, words) for struck in fault)
        return words ^ ((up & ~words) | (down & words))

    return FaultModel(sample, apply)


def fixed_flips(count: int) -> FaultModel:
    """Exactly `count` distinct bits of each memory flip; every set is equally likely.

    Raises ValueError for a negative count and, when sampled, for more flips than bits.
    """
    _check(count)

    def sample(key, shape, format):
        total_bits = math.prod(shape) * format.bits
        return listed(uniform_positions(key, total_bits, count), format.bits)

    def apply(flips, words):
        return words ^ flips_to_masks(*flips, words.shape, words.dtype)

    return FaultModel(sample, apply)


def network_flips(count: int) -> NetworkModel:
    """Exactly `count` distinct bits flip out of all that a fault selects.

    Memories are struck in proportion to their bits. Raises ValueError as `fixed_flips`.
    """
    _check(count)
    return NetworkModel(lambda key, total: uniform_positions(key, total, count))


def single_flip() -> NetworkModel:
    """One flip, uniformly over all bits that a fault selects."""
    return network_flips(1)


def _check(count: int) -> None:
    if count < 0:
        raise ValueError(f"{count} flips; expected a number of bits, 0 or more")


def given_flips(
    positions: Shaped[Array | np.ndarray, "..."] | Sequence[int],
) -> NetworkModel:
    """These bits flip, counted over all bits that a fault selects; the key is unused.

    For replay and, with traced positions, for campaigns that try every bit: positions
    beyond the last bit then flip nothing, and one that is repeated flips once.

    Raises:
      ValueError: known positions are no row of integers, repeat, are negative or, when
        sampled, beyond the last bit.
    """
    known = not isinstance(positions, jax.core.Tracer)
    if known:
        positions = _checked(np.asarray(positions))

    def sample(key, total_bits):
        if known and positions.size and positions.max() >= total_bits:
            raise ValueError(
                f"a flip at position {positions.max()}; expected less than the "
                f"{total_bits} bits that the fault selects, counted over all of them"
            )
        limit = jnp.uint32(total_bits)
        row = jnp.where(positions < 0, limit, positions.astype(jnp.uint32))
        return distinct(jnp.minimum(row, limit), total_bits)

    return NetworkModel(sample)


def _checked(positions: np.ndarray) -> np.ndarray:
    if not positions.size:
        return positions.astype(np.uint32)
    if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(
            f"positions of shape {positions.shape} and dtype {positions.dtype}; "
            "expected a row of integers"
        )
    if not 0 <= positions.min() <= positions.max() < 2**32:
        raise ValueError(
            f"flips at positions {positions.min()} to {positions.max()}; expected 0 to "
            "2**32 - 1"
        )
    if np.unique(positions).size < positions.size:
        raise ValueError("positions repeat; expected each bit once, as it flips once")
    return positions.astype(np.uint32)

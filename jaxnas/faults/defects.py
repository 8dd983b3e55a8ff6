"""Cells and words that no longer hold what is written to them.

A defect differs from an upset in that it is there in every use of the memory: sample it
once (`Fault(..., permanent=True)` within loops) and apply it to all that is stored.
"""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt, UInt32

from jaxnas.faults.bits import Struck, as_masks, strike_bits
from jaxnas.faults.masks import bernoulli_positions
from jaxnas.faults.models import FaultModel
from jaxnas.faults.rates import Rate, Rates, is_static, largest_rate, rate_per_bit
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.types import Words

Action = Literal["flip", "zero", "one", "random"]
"""What becomes of struck bits: inverted, zero, one, or random and independent."""


class Stuck(NamedTuple):
    """Cells that always read one, and cells that always read zero."""

    ones: Struck
    zeros: Struck


def stuck_at(
    rate_zero: Rates, rate_one: Rates, *, max_rate: float | None = None
) -> FaultModel:
    """Cells are stuck at zero or at one; none is stuck at both.

    rate_zero, rate_one: probability per cell, for all alike or by place in the word
        as in `selective_flips`.
    max_rate: static bound of the sum of both, as for `bit_flips`. Under one key the
        cells stuck at zero nest in their rate, and so do those at one.

    Reads `(words | ones) & ~zeros`: a second read changes nothing more.

    Raises:
      ValueError: as `selective_flips`; the two rates of a bit sum up to more than
        `max_rate` or one (when sampled).
    """
    for rates in (rate_zero, rate_one):
        largest_rate("stuck_at", rates, max_rate)

    def sample(key, shape, format):
        _check_sum(rate_zero, rate_one, max_rate, format)
        zero, zero_bounds = rate_per_bit(rate_zero, max_rate, format)
        one, one_bounds = rate_per_bit(rate_one, max_rate, format)
        bounds = zero_bounds + one_bounds
        if max_rate is not None:
            bounds = np.maximum(zero_bounds, one_bounds)
        return Stuck(
            ones=strike_bits(key, shape, format, one, bounds),
            zeros=strike_bits(key, shape, format, zero, bounds, far=True),
        )

    def apply(stuck, words):
        ones, zeros = (as_masks(cells, words) for cells in stuck)
        return (words | ones) & ~zeros

    return FaultModel(sample, apply)


def _check_sum(zero: Rates, one: Rates, max_rate: float | None, format: Format):
    if not (is_static(zero) and is_static(one)):
        return
    sums = rate_per_bit(zero, None, format)[1] + rate_per_bit(one, None, format)[1]
    bound = 1.0 if max_rate is None else max_rate
    if sums.max() > bound:
        raise ValueError(
            f"stuck_at got rate_zero={zero} and rate_one={one}; expected a sum of at "
            f"most {bound} for every bit, as no cell is stuck at both"
        )


class StruckWords(NamedTuple):
    """Distinct words by row-major number, those beyond the last being unused slots.

    full: all bits of the format. value: what struck bits become, if that is random.
    """

    word: UInt32[Array, " capacity"]
    value: UInt[Array, " capacity"]
    full: UInt[Array, ""]


def word_faults(
    rate: Rate, action: str = "random", *, max_rate: float | None = None
) -> FaultModel:
    """Whole words are struck, each with probability `rate`, independently.

    action: what becomes of all bits of such a word; by default they are replaced by a
        random word, which may by chance be the same.
    max_rate: as for `bit_flips`.

    Raises ValueError for rates as `bit_flips`, and for an unknown action.
    """
    check_action(action)
    largest = largest_rate("word_faults", rate, max_rate)

    def sample(key, shape, format):
        key_of_words, key_of_values = jax.random.split(key)
        word = bernoulli_positions(key_of_words, math.prod(shape), rate, largest)
        dtype = word_dtype(format.bits)
        full = jnp.asarray((1 << format.bits) - 1, dtype)
        value = jax.random.bits(key_of_values, word.shape, dtype) & full
        return StruckWords(word, value, full)

    def apply(struck, words):
        flat = words.reshape(-1)
        old = flat.at[struck.word].get(mode="fill", fill_value=0)
        full = jnp.broadcast_to(struck.full, old.shape)
        new = act(old, full, action, struck.value)
        return flat.at[struck.word].set(new, mode="drop").reshape(words.shape)

    return FaultModel(sample, apply)


def check_action(action: str) -> None:
    """Raises ValueError for an action that does not exist."""
    if action not in get_args(Action):
        raise ValueError(f"action={action!r}; expected one of {get_args(Action)}")


def act(
    words: Words, masks: Words, action: str, value: Words | None = None
) -> UInt[Array, "..."]:
    """The words after an action on the bits under the masks."""
    if action == "flip":
        return words ^ masks
    if action == "zero":
        return words & ~masks
    if action == "one":
        return words | masks
    return (words & ~masks) | (value & masks)

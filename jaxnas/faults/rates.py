"""Rates of faults: probabilities, one for all bits of a word or one for each.

A rate is static as a number and traced as an array. Shapes need a static bound,
`max_rate`; under one key and one bound the faults at a lower rate are a subset of
those at a higher one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from jaxnas.numerics.formats import Format

Rate = float | np.floating | Float[Array, ""]
"""Probability: static as a number, traced as an array."""

Rates = (
    Rate
    | Sequence[float]
    | Shaped[np.ndarray, " bits"]
    | Float[Array, " bits"]
    | Mapping[str, Rate]
    | Mapping[int, Rate]
)
"""Probability per bit: one for all bits; one for each, lowest bit first; or one for
each named bit or field of the format, {"exponent": 1e-3, "sign": 1e-4}, others zero."""


def is_static(rates: Rates) -> bool:
    """Whether all rates are numbers, known before anything is traced."""
    entries = rates.values() if isinstance(rates, Mapping) else [rates]
    return not any(isinstance(entry, jax.Array) for entry in entries)


def largest_rate(model: str, rates: Rates, max_rate: float | None) -> float:
    """The static bound of rates, checked: `max_rate` or, without it, their largest.

    Raises ValueError, in the name of the model, unless 0 <= rate <= max_rate <= 1 for
    all rates that are numbers; for an array without `max_rate`.
    """
    entries = list(rates.values()) if isinstance(rates, Mapping) else [rates]
    static = [entry for entry in entries if not isinstance(entry, jax.Array)]
    known = np.concatenate([np.zeros(1), *[np.ravel(entry) for entry in static]])
    if max_rate is None:
        if not is_static(rates):
            raise ValueError(
                f"{model} got an array as rate and no max_rate; pass the rate as a "
                "number, or max_rate as the largest rate to come: it fixes all shapes"
            )
        max_rate = float(known.max())
    # Written so that NaN fails.
    if not (np.all(0 <= known) and np.all(known <= max_rate) and max_rate <= 1):
        raise ValueError(
            f"{model} got rate={rates} and max_rate={max_rate}; expected "
            "probabilities, 0 <= rate <= max_rate <= 1"
        )
    return max_rate


def rate_per_bit(
    rates: Rates, max_rate: float | None, format: Format
) -> tuple[Float32[Array, " bits"], Float[np.ndarray, " bits"]]:
    """The rate of every bit of a word, lowest first, and its static bound.

    Bits that no entry names have both zero. Raises ValueError for a list of another
    length than the word; for bits and fields that the format does not have, or that
    are named twice.
    """
    if isinstance(rates, Mapping):
        entries = [(_mask(name, format), rate) for name, rate in rates.items()]
    else:
        _check_length(rates, format)
        entries = [((1 << format.bits) - 1, rates)]
    traced, bounds = jnp.zeros(format.bits), np.zeros(format.bits)
    taken = 0
    for mask, rate in entries:
        if mask & taken:
            raise ValueError(f"{rates} names a bit twice; expected one rate per bit")
        taken |= mask
        chosen = np.array([mask >> bit & 1 for bit in range(format.bits)], bool)
        row = jnp.broadcast_to(jnp.asarray(rate, jnp.float32), (format.bits,))
        traced = jnp.where(chosen, row, traced)
        bound = rate if max_rate is None else max_rate
        bounds = np.where(chosen, np.asarray(bound, float), bounds)
    return traced, bounds


def _check_length(rates: Any, format: Format) -> None:
    shape = np.shape(rates)
    if shape not in ((), (format.bits,)):
        raise ValueError(
            f"rates of shape {shape} for words of {format.bits} bits; expected one "
            f"rate, or {format.bits}, lowest bit first"
        )


def _mask(name: str | int, format: Format) -> int:
    if isinstance(name, str) and name in format.fields:
        return format.fields[name]
    if isinstance(name, int) and 0 <= name < format.bits:
        return 1 << name
    raise ValueError(
        f"{format} has no bit or field {name!r}; its fields are "
        f"{', '.join(map(repr, format.fields))}, its bits 0 to {format.bits - 1}"
    )

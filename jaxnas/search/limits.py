"""Limits on what a network may cost: `weight_bytes<=262144`.

What breaks a limit is never trained, so limits hold for every network of a search. They
are for costs that follow from a genotype alone.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxnas.hardware.accelerators import Hardware
from jaxnas.networks.space import SearchSpace
from jaxnas.search.objectives import CHEAP, cheap_objectives
from jaxnas.types import Genotype


class Limit(NamedTuple):
    """The most that a network may have of one cost, in the unit of that cost."""

    name: str
    most: float


def parse_limits(texts: tuple[str, ...]) -> tuple[Limit, ...]:
    """Limits from texts such as `latency_us<=80`.

    Raises:
      ValueError: a text is no such thing, its cost is not in `CHEAP` or given twice, or
        its number is not positive and finite.
    """
    limits = []
    for text in texts:
        name, sign, most = (part.strip() for part in text.partition("<="))
        try:
            number = float(most)
        except ValueError:
            number = np.nan
        if not sign or name not in CHEAP or not 0 < number < np.inf:
            raise ValueError(
                f"found the limit {text!r}, expected COST<=NUMBER with a positive "
                f"number and one of {', '.join(CHEAP)}; for example {CHEAP[4]}<=262144"
            )
        limits.append(Limit(name, number))
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"found two limits on one cost among {texts}, expected one")
    return tuple(limits)


def within(
    costs: Float[np.ndarray, "networks costs"], limits: tuple[Limit, ...]
) -> Bool[np.ndarray, " networks"]:
    """Which networks keep all limits; columns as in `CHEAP`."""
    kept = [costs[:, CHEAP.index(limit.name)] <= limit.most for limit in limits]
    return np.all(np.stack([*kept, np.ones(len(costs), bool)]), axis=0)


@functools.cache
def limited_objectives(
    space: SearchSpace,
    hardware: Hardware,
    names: tuple[str, ...],
    limits: tuple[Limit, ...],
) -> Callable[[Genotype], Float[Array, " objectives"]]:
    """`cheap_objectives` that are infinite, all of them, where a limit is broken."""
    if not limits:
        return cheap_objectives(space, hardware, names)
    limited = [limit.name for limit in limits]
    columns = names + tuple(name for name in limited if name not in names)
    cheap = cheap_objectives(space, hardware, columns)
    places = np.array([columns.index(name) for name in limited])
    most = np.array([limit.most for limit in limits], np.float32)

    def evaluate(genotype: Genotype) -> Float[Array, " objectives"]:
        costs = cheap(genotype)
        kept = jnp.all(costs[places] <= most)
        return jnp.where(kept, costs[: len(names)], jnp.inf)

    return evaluate

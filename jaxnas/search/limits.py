"""Limits on what a network may cost: `weight_bytes<=262144`.

What breaks a limit is never trained, so limits hold for every network of a search. They
are for costs that follow from a genotype alone.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxnas.hardware.accelerators import Hardware
from jaxnas.networks.space import SearchSpace
from jaxnas.search.objectives import CHEAP, cheap_objectives, of_each
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


Admission = Callable[[Genotype], Bool[Array, ""]]


@functools.cache
def admission(
    space: SearchSpace, hardware: Hardware, limits: tuple[Limit, ...]
) -> Admission | None:
    """Whether a network keeps all limits, as a function; None where there are none.

    Equal arguments give the same function, so that programs made of it are shared.
    """
    if not limits:
        return None
    costs = cheap_objectives(space, hardware, tuple(limit.name for limit in limits))
    most = np.array([limit.most for limit in limits], np.float32)
    return lambda genotype: jnp.all(costs(genotype) <= most)


def admitted(
    admission: Admission, genotypes: Int[Array, "networks genes"]
) -> Bool[np.ndarray, " networks"]:
    """Which of some networks keep the limits."""
    return np.asarray(of_each(admission, genotypes))

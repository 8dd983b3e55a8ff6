"""The networks that a search starts from: another search's front, the trivial network
and random ones, all within the limits."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace
from jaxnas.search.limits import Admission, admitted
from jaxnas.training import Weights, initial_weights
from jaxnas.types import Key


class Ancestors(NamedTuple):
    """Networks that a search starts from, and what they have learned."""

    genotypes: Int[Array, "networks genes"]
    weights: Weights


DRAWS = 32
"""How often random networks are drawn before a space counts as too small."""


def founders(
    key: Key,
    space: SearchSpace,
    count: int,
    admission: Admission | None,
    ancestors: Ancestors | None,
) -> Int[Array, "networks genes"]:
    """Ancestors, the trivial network, then distinct random ones; all admitted.

    Raises:
      ValueError: the space has too few networks within the limits.
    """
    candidates = np.asarray(spaces.smallest(space))[None]
    if ancestors is not None:
        candidates = np.concatenate([np.asarray(ancestors.genotypes), candidates])
    for draw in range(DRAWS):
        again = jax.random.fold_in(key, draw) if draw else key
        drawn = _sample_group(space, jax.random.split(again, 8 * count))
        candidates = np.concatenate([candidates, np.asarray(drawn)])
        if admission is not None:
            candidates = candidates[admitted(admission, jnp.asarray(candidates))]
        _, first = np.unique(candidates, axis=0, return_index=True)
        candidates = candidates[np.sort(first)]
        if len(candidates) >= count:
            return jnp.asarray(candidates[:count])
    within_limits = " within the limits" if admission is not None else ""
    raise ValueError(
        f"the space gave only {len(candidates)} distinct networks{within_limits} for "
        f"an initial population of {count}: enlarge the space, raise the limits or "
        "lower evolution.initial"
    )


def first_weights(
    keys: Array,
    space: SearchSpace,
    genotypes: Int[Array, "networks genes"],
    ancestors: Ancestors | None,
) -> Weights:
    """Random weights, but for ancestors, which keep theirs."""
    weights = _random_group(space, keys)
    if ancestors is None:
        return weights
    genotypes, old = np.asarray(genotypes), np.asarray(ancestors.genotypes)
    same = np.all(genotypes[:, None] == old[None], axis=2)
    known, row = same.any(axis=1), same.argmax(axis=1)

    def chosen(fresh, old):
        mask = known.reshape(-1, *[1] * (fresh.ndim - 1))
        return jnp.where(mask, jnp.asarray(old)[row], fresh)

    return jax.tree.map(chosen, weights, ancestors.weights)


@functools.partial(jax.jit, static_argnames="space")
def _sample_group(space, keys):
    return jax.vmap(lambda key: spaces.sample(key, space))(keys)


@functools.partial(jax.jit, static_argnames="space")
def _random_group(space, keys):
    return jax.lax.map(lambda key: initial_weights(key, space), keys)

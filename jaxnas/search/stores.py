"""Where the weights of living networks lie: each once, in slots that are used again.

A search owns one store. Populations and archives hold numbers of slots, so that what
both keep is there once, survivors are chosen without touching a weight, and children
are written over the dead.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxnas.networks.space import SearchSpace
from jaxnas.search.ordering import partitioned
from jaxnas.search.strikes import Tally, no_tally
from jaxnas.training import Weights, initial_weights


class Members(NamedTuple):
    """Networks, a row of every array for each.

    Individuals are numbered in the order of their evaluation.
    """

    weights: Weights
    identity: Int[Array, " networks"]
    tally: Tally


class Store(NamedTuple):
    """Slots, and which of them the rows of a population and of an archive have.

    Rows that are not in use name any slot.
    """

    slots: Members
    population: Int[Array, " population"]
    archive: Int[Array, " archive"]


def empty_store(space: SearchSpace, population: int, archive: int, born: int) -> Store:
    """Slots for all rows in use and for as many children as are born at once."""
    count = population + archive + born
    like = jax.eval_shape(lambda: initial_weights(jax.random.key(0), space))
    weights = jax.tree.map(
        lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), like
    )
    return Store(
        slots=Members(weights, jnp.zeros(count, jnp.int32), no_tally(count)),
        population=jnp.zeros(population, jnp.int32),
        archive=jnp.zeros(archive, jnp.int32),
    )


@jax.jit
def taken(store: Store, slots: Int[Array, "*rows"]) -> Members:
    """A copy of what lies in some slots."""
    return jax.tree.map(lambda leaf: leaf[slots], store.slots)


def counted(store: Store, slots: Int[Array, " rows"], fresh: Tally) -> Store:
    """The store after more trials of the networks in some slots."""
    add = lambda tally, new: tally.at[slots].add(new)  # noqa: E731
    tally = jax.tree.map(add, store.slots.tally, fresh)
    return store._replace(slots=store.slots._replace(tally=tally))


def settled(
    store: Store,
    living: tuple[Bool[Array, " population"], Bool[Array, " archive"]],
    born: Members,
    survivors: tuple[Int[Array, " after"], Int[Array, " archive"]],
) -> Store:
    """The store after a selection among who lived and who was born.

    The memory of the slots goes on in what is returned: `store` is used up, as are all
    arrays of its `slots`.

    Args:
      living: which rows of the population and of the archive are in use.
      born: at most as many as are said to be born at once, or as are not in use.
      survivors: who has the rows from now on, as rows of the population and then of
        those born, and of the archive and then of those born.
    """
    size, count = store.slots.identity.size, born.identity.size
    free, *rows = _housed(store[1:], living, survivors, size, count)
    return Store(_written(store.slots, born, free), *rows)


@functools.partial(jax.jit, static_argnames=("size", "count"))
def _housed(rows, living, survivors, size, count):
    """Slots for those born, and the slots of all rows afterwards."""
    used = jnp.zeros(size, bool)
    for slots, mask in zip(rows, living, strict=True):
        used = used.at[jnp.where(mask, slots, size)].set(True, mode="drop")
    free = partitioned(~used)[:count]
    homes = zip(rows, survivors, strict=True)
    return free, *(jnp.append(slots, free)[kept] for slots, kept in homes)


@functools.partial(jax.jit, donate_argnames="slots")
def _written(slots, born, free):
    return jax.tree.map(lambda leaf, new: leaf.at[free].set(new), slots, born)

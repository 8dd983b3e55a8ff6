"""Islands: populations that evolve apart and send each other their best.

The ring of Whitley, Rana and Heckendorn, "The island model genetic algorithm" (1999).
Islands meet only between epochs, so that they are parted over the devices and need no
other communication; what they find does not depend on how many devices there are.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxnas.devices import map_over_devices
from jaxnas.types import Key

from .cheap import Cost, advanced, begun
from .generations import GenerationalAlgorithm
from .pareto import nondominated
from .repeats import first_of_equals, hashes
from .states import Params, PopulationInState


class Guests(NamedTuple):
    """Rows that are on their way to another island."""

    population: Any  # a pytree of leaves [migrants, ...]
    scores: Any  # float32 [migrants, objectives + constraints]
    mask: Any  # bool [migrants]


def island_search(
    key: Key,
    algorithm: GenerationalAlgorithm,
    cost: Cost,
    params: Params,
    *,
    islands: int,
    epochs: int,
    generations: int,
    migrants: int,
) -> PopulationInState:
    """The states of all islands, `[islands, ...]`, after the last migration.

    Args:
      cost: as in `cheap_search`.
      islands: populations, each of `algorithm.population_size` rows.
      epochs: how often the islands evolve for `generations` and then migrate.
      migrants: the rows of an island, by front and crowding, that are copied to the
        next; 0 for islands that never meet.

    Raises:
      ValueError: no island, or more migrants than rows.
    """
    if islands < 1 or not 0 <= migrants <= algorithm.population_size:
        raise ValueError(
            f"found {islands=}, {migrants=}, expected at least one island and 0 to "
            f"{algorithm.population_size} migrants, the rows of an island"
        )
    numbers = jnp.arange(islands)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = fold(jax.random.fold_in(key, 0), numbers)
    states = map_over_devices(_beginner(algorithm, cost), keys, params)
    for epoch in range(1, epochs + 1):
        keys = fold(jax.random.fold_in(key, epoch), numbers)
        walk = _walker(algorithm, cost, generations)
        states = map_over_devices(walk, (keys, states), params)
        if migrants:
            states = migrated(keys, algorithm, states, params, migrants)
    return states


@functools.partial(jax.jit, static_argnames=("algorithm", "migrants"))
def migrated(
    keys: Array,
    algorithm: GenerationalAlgorithm,
    states: PopulationInState,
    params: Params,
    migrants: int,
) -> PopulationInState:
    """The states after every island selected among its own rows and its guests.

    Guests are copies of the best rows of the island before, the last being before the
    first. Those which an island has already change nothing.
    """
    leave = functools.partial(_best, algorithm, migrants)
    guests = jax.tree.map(
        lambda leaf: jnp.roll(leaf, 1, axis=0), jax.vmap(leave)(states)
    )

    def settle(key, state, guests):
        join = lambda own, new: jnp.concatenate([own, new])  # noqa: E731
        own = state.population, algorithm._scores(state, state.fitness), state.mask
        union, scores, mask = jax.tree.map(join, own, tuple(guests))
        mask = first_of_equals(hashes(union), mask)
        return algorithm._selected(key, state, union, scores, mask, params)

    return jax.vmap(settle)(keys, states, guests)


@jax.jit
def merged(
    states: PopulationInState,
) -> tuple[Any, Float[Array, "rows objectives"], Bool[Array, " rows"]]:
    """All islands in one: genomes, fitness, and which rows nobody dominates."""
    flat = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])  # noqa: E731
    population = jax.tree.map(flat, states.population)
    fitness = flat(states.fitness)
    feasible = flat(states.mask & (states.violation <= 0))
    mask = first_of_equals(hashes(population), feasible)
    return population, fitness, nondominated(fitness, mask)


def _best(algorithm, migrants, state) -> Guests:
    rows = jnp.lexsort((-state.crowding, state.rank, ~state.mask))[:migrants]
    scores = algorithm._scores(state, state.fitness)
    guests = state.population, scores, state.mask
    return Guests(*jax.tree.map(lambda leaf: leaf[rows], guests))


@functools.cache
def _beginner(algorithm, cost):
    return lambda key, params: begun(key, algorithm, cost, params)


@functools.cache
def _walker(algorithm, cost, generations):
    def walk(island, params):
        return advanced(island[0], algorithm, cost, params, island[1], generations)[0]

    return walk

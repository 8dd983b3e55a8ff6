"""The state and the parameters of algorithms with a whole population."""

from typing import Any, TypeAlias

import jax.numpy as jnp
from evosax.algorithms.population_based.base import Params as PopulationParams
from evosax.algorithms.population_based.base import State as PopulationState
from evosax.types import Fitness, Metrics, Population
from flax import struct
from jaxtyping import Array

# Transformations rebuild a state around leaves that are no arrays, and restored ones
# hold NumPy arrays: no type is narrow enough to be checked.
Leaf: TypeAlias = Any


@struct.dataclass
class Params(PopulationParams):
    """What may change between calls, and between instances, without compiling anew."""

    variables: Leaf  # one Real, Integer or Categorical per leaf of a genome
    rates: Leaf  # Rates
    extra: Leaf = ()  # what an algorithm adds


@struct.dataclass
class PopulationInState(PopulationState):
    """A population of fixed capacity and the children asked for.

    Rows in use stand before empty ones, whose fitness is +inf.
    """

    population: Leaf  # a pytree of leaves [population, ...]
    fitness: Leaf  # float32 [population, objectives]
    violation: Leaf  # float32 [population]: what is above 0 of all constraints, summed
    mask: Leaf  # bool [population]: rows in use
    rank: Leaf  # int32 [population]: fronts, as the algorithm saw them
    crowding: Leaf  # float32 [population]: zero where the algorithm uses none
    parents: Leaf  # int32 [accepted], after ask: rows of population, -1 for none
    mates: Leaf  # int32 [accepted]: the other parents, -1 for none
    children_mask: Leaf  # bool [accepted], after ask: rows that hold a new genome
    survivors: Leaf  # int32 [population], after tell: rows of population ++ children
    archive: Leaf  # Archive: the feasible front of all that was ever told
    memory: Leaf  # uint32 [memory, 2]: ring of the hashes evaluated last
    evaluated: Leaf  # int32 []: how many genomes were ever evaluated
    generation_counter: Leaf  # int32 []: how often tell was called
    best_fitness: Leaf  # float32 [objectives]: the least feasible value ever seen
    best_solution: Leaf  # a pytree of leaves [objectives, ...]: genomes that reached it
    extra: Leaf = ()  # what an algorithm adds


def population_metrics(
    key: Array, population: Population, fitness: Fitness, state: Any, params: Params
) -> Metrics:
    """Numbers that describe the state after a `tell`."""
    first = state.mask & (state.rank == 0) & (state.violation <= 0)
    return {
        "generation_counter": state.generation_counter,
        "evaluated": state.evaluated,
        "front_size": jnp.sum(first),
        "best_fitness": state.best_fitness,
    }

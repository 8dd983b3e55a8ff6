"""A whole search over objectives that cost nothing, as one compiled program.

No network is trained: every generation proposes, costs, ranks and selects on the
device, and nothing leaves it before the last.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxnas.types import Key

from .generations import GenerationalAlgorithm
from .genomes import sample
from .states import Params, PopulationInState

Cost = Callable[[Any], Float[Array, " columns"]]
"""The objectives and then the constraints of one genome."""


@partial(jax.jit, static_argnames=("algorithm", "cost", "generations"))
def cheap_search(
    key: Key,
    algorithm: GenerationalAlgorithm,
    cost: Cost,
    params: Params,
    *,
    generations: int,
) -> tuple[PopulationInState, dict[str, Array]]:
    """The state after a search that starts from random genomes, and all its metrics.

    Args:
      cost: such as `objectives.cheap_objectives` makes; vmapped over the population.
      params: those of the algorithm, `algorithm.default_params` unless changed.
      generations: how often children are asked for; the first population comes before.

    Returns:
      The last state, and the metrics of `tell` with a leading axis `[generations]`.
    """
    key_start, key_loop = jax.random.split(key)
    state = begun(key_start, algorithm, cost, params)
    return advanced(key_loop, algorithm, cost, params, state, generations)


def begun(
    key: Key, algorithm: GenerationalAlgorithm, cost: Cost, params: Params
) -> PopulationInState:
    """The state of a population of random genomes."""
    key_sample, key_init = jax.random.split(key)
    rows = algorithm.population_size
    population = sample(key_sample, params.variables, algorithm.solution, rows)
    if algorithm.repair is not None:
        population = jax.vmap(algorithm.repair)(population)
    return algorithm.init(key_init, population, jax.vmap(cost)(population), params)


def advanced(
    key: Key,
    algorithm: GenerationalAlgorithm,
    cost: Cost,
    params: Params,
    state: PopulationInState,
    generations: int,
) -> tuple[PopulationInState, dict[str, Array]]:
    """The state after so many generations, and their metrics."""

    def generation(state, key):
        key_ask, key_tell = jax.random.split(key)
        children, state = algorithm.ask(key_ask, state, params)
        fitness = jax.vmap(cost)(children)
        return algorithm.tell(key_tell, children, fitness, state, params)

    return jax.lax.scan(generation, state, jax.random.split(key, generations))

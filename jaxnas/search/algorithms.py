"""What every multi-objective algorithm shares: the state, its seed and its selection.

The interface is evosax's `init`, `ask` and `tell`, with a fitness of one row per
genotype and one column per objective, all minimised. Weights never enter the state:
whoever keeps them, one row per population row, follows two sets of row numbers.

    population, state = algorithm.ask(key, state, params)
    children = train(morph(store[state.parents], population))
    state, metrics = algorithm.tell(key, population, fitness, state, params)
    store = concatenate([store, children])[state.survivors]
"""

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import Params, PopulationBasedAlgorithm
from evosax.algorithms.population_based.base import State as PopulationState
from evosax.types import Fitness, Metrics, Population, Solution
from flax import struct
from jaxtyping import Array, Bool, Float, Int32

from .crowding import thin
from .identity import Configured
from .pareto import nondominated

# Transformations rebuild a state around leaves that are no arrays, and restored ones
# hold NumPy arrays: no type is narrow enough to be checked.
Leaf: TypeAlias = Any


@struct.dataclass
class State(PopulationState):
    """A Pareto front of fixed capacity, the children asked for, and all ever evaluated.

    Empty rows have a False mask and +inf fitness, and hold any genotype.
    """

    population: Leaf  # int32 [population, genes]
    fitness: Leaf  # float32 [population, objectives]
    mask: Leaf  # bool [population]: rows in use, which do not dominate each other
    parents: Leaf  # int32 [accepted], after ask: rows of population, -1 for none
    children_mask: Leaf  # bool [accepted], after ask: rows that hold a new genotype
    survivors: Leaf  # int32 [population], after tell: rows of population ++ children
    archive: Leaf  # int32 [memory, genes]: ring of the latest genotypes evaluated
    evaluated: Leaf  # int32 []: how many genotypes were ever evaluated
    generation_counter: Leaf  # int32 []: how often tell was called
    best_fitness: Leaf  # float32 [objectives]: the least value ever seen of each
    best_solution: Leaf  # int32 [objectives, genes]: the genotypes that reached it


class MultiObjectiveAlgorithm(Configured, PopulationBasedAlgorithm):
    """Keeps the Pareto front of all it was told, thinned to `population_size` rows.

    Subclasses propose: `_ask` returns genotypes and a state with `parents` and
    `children_mask`. Stock evosax accepts a fitness matrix and silently corrupts its
    state, so `init` and `tell` are replaced as a whole.

    Instances of equal configuration, the same functions included, are equal and share
    their compiled programs.

    Args:
      population_size: capacity of the front; the best of every objective survive any
        thinning if it is at least twice `num_objectives`.
      solution: a genotype, int32 `[genes]`; only its length matters.
      num_objectives: columns of the fitness.
      proposals: genotypes proposed per ask.
      accepted: how many of them ask returns, at most.
      memory: genotypes remembered, beside the population, as evaluated; 0 for none.

    Raises:
      ValueError: an argument is out of range.
    """

    _default_params = Params()

    def __init__(
        self,
        population_size: int,
        solution: Solution,
        *,
        num_objectives: int,
        proposals: int,
        accepted: int,
        memory: int,
    ):
        solution = jnp.asarray(solution)
        if solution.ndim != 1 or solution.dtype != jnp.int32:
            raise ValueError(
                f"solution is {solution.dtype}{list(solution.shape)}, expected a "
                "genotype of type int32[genes]; encode it as one integer vector"
            )
        counts = dict(
            population_size=population_size,
            num_objectives=num_objectives,
            accepted=accepted,
        )
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} is {count}, expected at least 1")
        if proposals < accepted:
            raise ValueError(
                f"proposals is {proposals}, expected at least {accepted=}; "
                "children are chosen among the proposals"
            )
        if memory and memory < max(population_size, accepted):
            raise ValueError(
                f"memory is {memory}, expected 0 or at least {population_size=} and "
                f"{accepted=}; the genotypes of one call must fit"
            )
        super().__init__(population_size, solution, metrics_fn=front_metrics)
        self.num_objectives = num_objectives
        self.proposals = proposals
        self.accepted = accepted
        self.memory = memory

    @partial(jax.jit, static_argnames=("self",))
    def init(
        self, key: Array, population: Population, fitness: Fitness, params: Params
    ) -> State:
        """The state of an evaluated population of 1 to `population_size` genotypes.

        Rows keep their place; those that failed, repeat an earlier row or are dominated
        are masked out, and missing ones are empty. `survivors` are rows of the given
        population.

        Raises:
          ValueError: population or fitness have a wrong shape or type.
        """
        state = self._init(key, params)
        population, fitness = self._checked(
            population, fitness, range(1, self.population_size + 1)
        )
        given = population.shape[0]
        state = self._evaluated(state, population, fitness, jnp.ones(given, bool))
        mask = first_occurrences(population, succeeded(fitness))
        mask = nondominated(fitness, mask)
        fitness = jnp.where(mask[:, None], fitness, jnp.inf)
        return state.replace(
            population=state.population.at[:given].set(population),
            fitness=state.fitness.at[:given].set(fitness),
            mask=state.mask.at[:given].set(mask),
            survivors=state.survivors.at[:given].set(jnp.arange(given)),
        )

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self,
        key: Array,
        population: Population,
        fitness: Fitness,
        state: State,
        params: Params,
    ) -> tuple[State, Metrics]:
        """The Pareto front of the state's population and the children just evaluated.

        A child whose fitness is not finite in every objective has failed: it is
        remembered as evaluated but never survives. Survivors keep their order, old rows
        before new ones, and fill the state from the top.

        Args:
          population: the genotypes returned by `ask`, in the same order.
          fitness: one row for each of them; rows outside `children_mask` are ignored.

        Raises:
          ValueError: population or fitness have a wrong shape or type.
        """
        genotypes, scores = self._checked(population, fitness, [self.accepted])
        state = self._evaluated(state, genotypes, scores, state.children_mask)
        state = self._tell(key, genotypes, scores, state, params)
        state = state.replace(generation_counter=state.generation_counter + 1)
        return state, self.metrics_fn(key, genotypes, scores, state, params)

    def get_best_solution(self, state: State) -> Solution:
        """The best genotype of every objective, int32 `[objectives, genes]`."""
        return state.best_solution

    def _init(self, key, params):
        rows, genes = self.population_size, self.num_dims
        objectives = self.num_objectives
        return State(
            population=jnp.zeros((rows, genes), jnp.int32),
            fitness=jnp.full((rows, objectives), jnp.inf, jnp.float32),
            mask=jnp.zeros(rows, bool),
            parents=jnp.full(self.accepted, -1, jnp.int32),
            children_mask=jnp.zeros(self.accepted, bool),
            survivors=jnp.zeros(rows, jnp.int32),
            archive=jnp.zeros((self.memory, genes), jnp.int32),
            evaluated=jnp.int32(0),
            generation_counter=jnp.int32(0),
            best_fitness=jnp.full(objectives, jnp.inf, jnp.float32),
            best_solution=jnp.zeros((objectives, genes), jnp.int32),
        )

    def _tell(self, key, population, fitness, state, params):
        population = jnp.concatenate([state.population, population])
        fitness = jnp.concatenate([state.fitness, fitness])
        mask = jnp.concatenate([state.mask, state.children_mask])
        front = nondominated(fitness, mask & succeeded(fitness))
        keep = thin(fitness, self.population_size, front)
        survivors = jnp.argsort(~keep, stable=True)[: self.population_size]
        kept = keep[survivors]
        return state.replace(
            population=population[survivors],
            fitness=jnp.where(kept[:, None], fitness[survivors], jnp.inf),
            mask=kept,
            survivors=survivors,
        )

    def _evaluated(self, state, population, fitness, mask):
        """The state with new genotypes in its archive, its count and its bests."""
        order = state.evaluated + jnp.cumsum(mask) - 1
        slot = jnp.where(mask, order % max(self.memory, 1), self.memory)
        valid = (mask & succeeded(fitness))[:, None]
        fitness = jnp.where(valid, fitness, jnp.inf)
        best, row = jnp.min(fitness, axis=0), jnp.argmin(fitness, axis=0)
        better = best < state.best_fitness
        return state.replace(
            archive=state.archive.at[slot].set(population, mode="drop"),
            evaluated=state.evaluated + jnp.sum(mask),
            best_fitness=jnp.where(better, best, state.best_fitness),
            best_solution=jnp.where(
                better[:, None], population[row], state.best_solution
            ),
        )

    def _unseen(self, state, proposals):
        """Which proposals are known neither as evaluated nor from an earlier row."""
        expected = (self.proposals, self.num_dims)
        if proposals.shape != expected or proposals.dtype != jnp.int32:
            raise ValueError(
                f"proposals are {proposals.dtype}{list(proposals.shape)}, expected "
                f"int32{list(expected)}; whatever makes them must return a genotype "
                "like `solution`"
            )
        remembered = jnp.arange(self.memory) < state.evaluated
        rows = jnp.concatenate([state.population, state.archive, proposals])
        valid = jnp.ones(proposals.shape[0], bool)
        mask = jnp.concatenate([state.mask, remembered, valid])
        return first_occurrences(rows, mask)[-proposals.shape[0] :]

    def _checked(self, population, fitness, rows):
        """Genotypes, as many as one of `rows`, and their fitness as float32."""
        population, fitness = jnp.asarray(population), jnp.asarray(fitness)
        shapes = [(n, self.num_dims) for n in rows]
        if population.shape not in shapes or population.dtype != jnp.int32:
            some = f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
            raise ValueError(
                f"population is {population.dtype}{list(population.shape)}, expected "
                f"int32[{some}, {self.num_dims}]: one genotype per row"
            )
        expected = (population.shape[0], self.num_objectives)
        if fitness.shape != expected:
            raise ValueError(
                f"fitness has shape {fitness.shape}, expected {expected}: one row per "
                "genotype and one column per objective; stack objectives on the last "
                "axis"
            )
        return population, fitness.astype(jnp.float32)

    def _configuration(self):
        return (
            type(self),
            self.population_size,
            self.num_dims,
            self.num_objectives,
            self.proposals,
            self.accepted,
            self.memory,
        )


def front_metrics(
    key: Array, population: Population, fitness: Fitness, state: State, params: Params
) -> Metrics:
    """Numbers that describe the state after a `tell`."""
    return {
        "generation_counter": state.generation_counter,
        "evaluated": state.evaluated,
        "front_size": jnp.sum(state.mask),
        "best_fitness": state.best_fitness,
    }


def succeeded(fitness: Float[Array, "rows objectives"]) -> Bool[Array, " rows"]:
    """Which rows are finite in every objective: one failed objective fails the row."""
    return jnp.all(jnp.isfinite(fitness), axis=1)


def first_occurrences(
    rows: Int32[Array, "rows genes"], mask: Bool[Array, " rows"]
) -> Bool[Array, " rows"]:
    """Which rows take part and equal no earlier row that does.

    Exact: a stable sort per column, from the last to the first, orders the rows
    lexicographically and equal ones by number, so that equal rows become neighbours.
    Hashes would need one sort but could part equal rows.
    """
    columns = jnp.concatenate([mask[None].astype(jnp.int32), rows.T])
    last = columns.shape[0] - 1

    def refine(step, order):
        return order[jnp.argsort(columns[last - step][order], stable=True)]

    order = jnp.arange(mask.size, dtype=jnp.int32)
    order = jax.lax.fori_loop(0, last + 1, refine, order)
    ordered = columns[:, order]
    repeats = jnp.all(ordered[:, 1:] == ordered[:, :-1], axis=0)
    first = jnp.append(jnp.ones(1, bool), ~repeats)
    return mask & jnp.zeros(mask.size, bool).at[order].set(first)

"""What algorithms with a whole population share: mating, repetitions and lineage.

The interface is evosax's `init`, `ask` and `tell`. Genomes are pytrees of genes of any
kind (see `genomes`); the fitness has one column per objective, all minimised, and after
them one per constraint, kept where it is at most 0. Weights never enter the state:
whoever keeps them, one row per population row, follows two sets of row numbers.

    children, state = algorithm.ask(key, state, params)
    trained = train(store[state.parents], children)
    state, metrics = algorithm.tell(key, children, fitness, state, params)
    kept = concatenate([archived, trained])[state.archive.survivors]
    store = concatenate([store, trained])[state.survivors]
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from evosax.algorithms.population_based.base import PopulationBasedAlgorithm
from evosax.types import Fitness, Metrics, Population, Solution
from jaxtyping import Array

from .archives import empty_archive, offered
from .genomes import Rates, fitted, vary
from .identity import Configured
from .ordering import partitioned
from .repeats import first_of_equals, hashes
from .states import Params, PopulationInState, population_metrics


class GenerationalAlgorithm(Configured, PopulationBasedAlgorithm):
    """Mates the population, proposes what is new and lets the subclass select.

    Instances of equal configuration, the same functions included, are equal and share
    their compiled programs; bounds and rates are parameters and may differ.

    A row whose fitness or constraints are not finite has failed: it counts as evaluated
    but never survives.

    Args:
      population_size: rows of the population, at least 2.
      solution: a genome; only the structure, shapes and dtypes of its arrays matter.
      variables: a `Real`, `Integer` or `Categorical` for all leaves or for each.
      num_objectives: columns of the fitness that are objectives.
      num_constraints: columns that follow them.
      accepted: children that ask returns, at most; by default `population_size`.
      proposals: children made per ask, of which the first `accepted` new ones are
        returned: an even number, a quarter more than `accepted` by default.
      memory: hashes remembered, beside the population, as evaluated; 0 for none.
      archive_size: rows of the front that is kept of everything; 0 for none.
      repair: `repair(genome) -> genome`, applied to every child; None for none.
      admit: `admit(genome) -> bool`; children for which it is False, as they break what
        is known without an evaluation, are never returned. None admits all.
      variation: `variation(key, first, second, params) -> children`; one row of
        children per row of `first`. The second half of the pairs is the first half with
        its parents exchanged. By default crossover and mutation by `params.rates`.

    Raises:
      ValueError: an argument is out of range, or variables do not fit the solution.
    """

    def __init__(
        self,
        population_size: int,
        solution: Solution,
        *,
        variables: Any,
        num_objectives: int,
        num_constraints: int = 0,
        accepted: int | None = None,
        proposals: int | None = None,
        memory: int = 0,
        archive_size: int = 0,
        repair: Callable | None = None,
        admit: Callable | None = None,
        variation: Callable | None = None,
    ):
        solution = jax.tree.map(jnp.asarray, solution)
        accepted = population_size if accepted is None else accepted
        if proposals is None:
            proposals = accepted + accepted // 4
            proposals += proposals % 2
        for name, count, least in (
            ("population_size", population_size, 2),
            ("num_objectives", num_objectives, 1),
            ("num_constraints", num_constraints, 0),
            ("accepted", accepted, 1),
            ("proposals", proposals, accepted),
            ("archive_size", archive_size, 0),
        ):
            if count < least:
                raise ValueError(f"found {name}={count}, expected at least {least}")
        if proposals % 2:
            raise ValueError(
                f"found {proposals=}, expected an even number: pairs have two children"
            )
        if memory and memory < max(population_size, accepted):
            raise ValueError(
                f"found {memory=}, expected 0 or at least {population_size=} and "
                f"{accepted=}: the genomes of one call must fit"
            )
        fields = fitted(variables, solution)
        super().__init__(population_size, solution, metrics_fn=population_metrics)
        self.num_objectives = num_objectives
        self.num_constraints = num_constraints
        self.accepted = accepted
        self.proposals = proposals
        self.memory = memory
        self.archive_size = archive_size
        self.repair = repair
        self.admit = admit
        self.variation = variation
        rates = Rates(mutation_rate=1.0 / self.num_dims)
        rates = jax.tree.map(lambda rate: jnp.float32(rate), rates)
        self._default_params = Params(variables=fields, rates=rates)

    @partial(jax.jit, static_argnames=("self",))
    def init(
        self, key: Array, population: Population, fitness: Fitness, params: Params
    ) -> PopulationInState:
        """The state of an evaluated population of 1 to `population_size` genomes.

        Rows that failed or repeat an earlier one are left out. `survivors` are rows of
        the given population.

        Raises:
          ValueError: population or fitness have a wrong structure, shape or type.
        """
        most = self.population_size
        given = _rows(population)
        population, fitness = self._checked(population, fitness, range(1, most + 1))
        pad = lambda x, value: jnp.pad(  # noqa: E731
            x, [(0, most - given)] + [(0, 0)] * (x.ndim - 1), constant_values=value
        )
        population = jax.tree.map(lambda leaf: pad(leaf, 0), population)
        fitness, mask = pad(fitness, jnp.inf), jnp.arange(most) < given
        state = self._init(key, params)
        keys = hashes(population)
        state = self._evaluated(state, population, keys, fitness, mask)
        return self._selected(
            key, state, population, fitness, first_of_equals(keys, mask), params
        )

    @partial(jax.jit, static_argnames=("self",))
    def ask(
        self, key: Array, state: PopulationInState, params: Params
    ) -> tuple[Population, PopulationInState]:
        """Children to evaluate, a pytree of leaves `[accepted, ...]`, and their origin.

        Rows outside `children_mask` need no evaluation: too few proposals were new and
        admitted.
        """
        return self._ask(key, state, params)

    @partial(jax.jit, static_argnames=("self",))
    def tell(
        self,
        key: Array,
        population: Population,
        fitness: Fitness,
        state: PopulationInState,
        params: Params,
    ) -> tuple[PopulationInState, Metrics]:
        """Select among the state's population and the children just evaluated.

        Args:
          population: the genomes returned by `ask`, in the same order.
          fitness: objectives, then constraints; rows outside `children_mask` are
            ignored.

        Raises:
          ValueError: population or fitness have a wrong structure, shape or type.
        """
        children, scores = self._checked(population, fitness, [self.accepted])
        new = state.children_mask
        state = self._evaluated(state, children, hashes(children), scores, new)
        join = lambda old, new: jnp.concatenate([old, new])  # noqa: E731
        union = jax.tree.map(join, state.population, children)
        scores_of_all = join(self._scores(state, state.fitness), scores)
        mask = join(state.mask, new)
        state = self._selected(key, state, union, scores_of_all, mask, params)
        state = state.replace(generation_counter=state.generation_counter + 1)
        return state, self.metrics_fn(key, children, scores, state, params)

    @partial(jax.jit, static_argnames=("self",))
    def revise(
        self, key: Array, state: PopulationInState, fitness: Array, params: Params
    ) -> PopulationInState:
        """The state whose population was measured again: others may survive.

        Args:
          fitness: objectives, `[population, objectives]`; rows outside the mask are
            ignored. Constraints, the archive, the best and all counts stay.

        `survivors` are rows of the population as it was.
        """
        scores = self._scores(state, jnp.asarray(fitness, jnp.float32))
        return self._selected(key, state, state.population, scores, state.mask, params)

    def get_population(self, state: PopulationInState) -> Population:
        """All rows, a pytree of leaves `[population, ...]`; see `state.mask`."""
        return state.population

    def get_best_solution(self, state: PopulationInState) -> Solution:
        """The best feasible genome of every objective, leaves `[objectives, ...]`."""
        return state.best_solution

    def _init(self, key, params):
        rows, objectives = self.population_size, self.num_objectives
        zeros = lambda n: jax.tree.map(  # noqa: E731
            lambda leaf: jnp.zeros((n, *leaf.shape), leaf.dtype), self.solution
        )
        nobody = jnp.full(self.accepted, -1, jnp.int32)
        return PopulationInState(
            population=zeros(rows),
            fitness=jnp.full((rows, objectives), jnp.inf, jnp.float32),
            violation=jnp.zeros(rows, jnp.float32),
            mask=jnp.zeros(rows, bool),
            rank=jnp.zeros(rows, jnp.int32),
            crowding=jnp.zeros(rows, jnp.float32),
            parents=nobody,
            mates=nobody,
            children_mask=jnp.zeros(self.accepted, bool),
            survivors=jnp.zeros(rows, jnp.int32),
            archive=empty_archive(self.solution, self.archive_size, objectives),
            memory=jnp.zeros((self.memory, 2), jnp.uint32),
            evaluated=jnp.int32(0),
            generation_counter=jnp.int32(0),
            best_fitness=jnp.full(objectives, jnp.inf, jnp.float32),
            best_solution=zeros(objectives),
        )

    def _ask(self, key, state, params):
        key_mate, key_vary, key_choose = jax.random.split(key, 3)
        parents, mates = self._matings(key_mate, state)
        gather = lambda rows: jax.tree.map(lambda x: x[rows], state.population)  # noqa: E731
        children = self._children(key_vary, gather(parents), gather(mates), params)
        if self.repair is not None:
            children = jax.vmap(self.repair)(children)
        self._check_genomes(children, [self.proposals], "children are")
        new = self._new(state, children, parents)
        chosen, mask = self._chosen(key_choose, state, children, new)
        state = state.replace(
            parents=parents[chosen], mates=mates[chosen], children_mask=mask
        )
        return jax.tree.map(lambda leaf: leaf[chosen], children), state

    def _children(self, key, first, second, params):
        """One child per row of its parents, which are None for a child of nobody."""
        if self.variation is not None:
            return self.variation(key, first, second, params)
        half = self.proposals // 2
        first, second = (
            jax.tree.map(lambda leaf: leaf[:half], one) for one in (first, second)
        )
        return vary(key, first, second, params.variables, params.rates)

    def _new(self, state, children, parents):
        """Which children are known neither as evaluated nor from an earlier row, and
        are admitted."""
        known = jnp.arange(self.memory) < state.evaluated
        keys = [hashes(state.population), state.memory, hashes(children)]
        mask = [state.mask, known, jnp.ones(self.proposals, bool)]
        new = first_of_equals(jnp.concatenate(keys), jnp.concatenate(mask))
        new = new[-self.proposals :] & (jnp.any(state.mask) | (parents < 0))
        return new if self.admit is None else new & jax.vmap(self.admit)(children)

    def _chosen(self, key, state, children, new):
        """Rows of the children that are returned, and which of them are new.

        Both children of a pair come together: they share out the genes of their
        parents, of which one alone would lose half.
        """
        numbers = jnp.arange(self.proposals, dtype=jnp.int32)
        pairs = numbers.reshape(2, self.proposals // 2).T.reshape(self.proposals)
        chosen = pairs[partitioned(new[pairs])][: self.accepted]
        return chosen, new[chosen]

    def _scores(self, state, fitness):
        """Objectives and constraints of the population, as columns."""
        # What rows violate is known as a sum only, which the first constraint takes.
        missing = max(self.num_constraints - 1, 0)
        columns = [fitness, state.violation[:, None][:, : self.num_constraints]]
        return jnp.pad(jnp.concatenate(columns, axis=1), ((0, 0), (0, missing)))

    def _selected(self, key, state, population, fitness, mask, params):
        """The state with the rows that the subclass lets survive."""
        fitness, constraints = jnp.split(fitness, [self.num_objectives], axis=1)
        violation = jnp.sum(jnp.maximum(constraints, 0.0), axis=1)
        mask &= jnp.all(jnp.isfinite(fitness), axis=1) & jnp.isfinite(violation)
        fitness = jnp.where(mask[:, None], fitness, jnp.inf)
        rows, rank, crowding, extra = self._survivors(
            key, state, fitness, violation, mask, params
        )
        kept = (rows >= 0) & mask[rows]
        rows = jnp.maximum(rows, 0)
        return state.replace(
            population=jax.tree.map(lambda leaf: leaf[rows], population),
            fitness=jnp.where(kept[:, None], fitness[rows], jnp.inf),
            violation=jnp.where(kept, violation[rows], 0.0),
            mask=kept,
            rank=rank[rows],
            crowding=crowding[rows],
            survivors=rows,
            extra=extra,
        )

    def _matings(self, key, state):
        """Rows of the parents and of the mates, int32 `[proposals]` each."""
        raise NotImplementedError

    def _survivors(self, key, state, fitness, violation, mask, params):
        """Rows that survive, in order, and -1 for none; ranks and crowding of all; the
        extra state."""
        raise NotImplementedError

    def _evaluated(self, state, population, keys, fitness, mask):
        """The state with new genomes in its memory, archive, count and bests."""
        order = state.evaluated + jnp.cumsum(mask) - 1
        slot = jnp.where(mask, order % max(self.memory, 1), self.memory)
        fitness, constraints = jnp.split(fitness, [self.num_objectives], axis=1)
        good = mask & jnp.all(jnp.isfinite(fitness), axis=1)
        good &= jnp.all(constraints <= 0, axis=1)
        fitness = jnp.where(good[:, None], fitness, jnp.inf)
        best, row = jnp.min(fitness, axis=0), jnp.argmin(fitness, axis=0)
        better = best < state.best_fitness

        def champions(new, old):
            wide = better.reshape(-1, *[1] * (new.ndim - 1))
            return jnp.where(wide, new[row], old)

        return state.replace(
            memory=state.memory.at[slot].set(keys, mode="drop"),
            archive=offered(state.archive, population, fitness, good),
            evaluated=state.evaluated + jnp.sum(mask, dtype=jnp.int32),
            best_fitness=jnp.where(better, best, state.best_fitness),
            best_solution=jax.tree.map(champions, population, state.best_solution),
        )

    def _checked(self, population, fitness, rows):
        """Genomes, as many as one of `rows`, and their fitness as float32."""
        population = jax.tree.map(jnp.asarray, population)
        fitness = jnp.asarray(fitness)
        self._check_genomes(population, rows, "population is")
        columns = self.num_objectives + self.num_constraints
        expected = _rows(population), columns
        if fitness.shape != expected:
            raise ValueError(
                f"fitness has shape {fitness.shape}, expected {expected}: one row per "
                f"genome, {self.num_objectives} objectives and then "
                f"{self.num_constraints} constraints on the last axis"
            )
        return population, fitness.astype(jnp.float32)

    def _check_genomes(self, population, rows, subject):
        describe = lambda tree: str(  # noqa: E731
            jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree)
        )
        alike = lambda n: jax.tree.map(  # noqa: E731
            lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), self.solution
        )
        found = describe(population)
        if found not in [describe(alike(n)) for n in rows]:
            some = f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
            raise ValueError(
                f"{subject} {found}, expected {describe(alike(rows[-1]))} with {some} "
                "rows: one genome like the solution per row"
            )

    def _configuration(self):
        leaves, structure = jax.tree.flatten(self.solution)
        return (
            type(self),
            self.population_size,
            structure,
            tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves),
            tuple(type(one) for one in self._default_params.variables),
            self.num_objectives,
            self.num_constraints,
            self.accepted,
            self.proposals,
            self.memory,
            self.archive_size,
            self.repair,
            self.admit,
            self.variation,
        )


def _rows(population):
    return jax.tree.leaves(population)[0].shape[0]

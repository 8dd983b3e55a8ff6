"""The generation loop: propose, inherit, train, measure, select.

One generation is a function of the problem, a key and the state before it; the state is
a pytree of arrays, so it can be checkpointed between any two generations and the search
goes on from it bit for bit. Weights lie beside the algorithm, in the slots of a store,
and follow its `parents` and `survivors`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxnas.search.evaluation import (
    Problem,
    Trained,
    columns,
    joined,
    struck_group,
    train_group,
)
from jaxnas.search.founders import Ancestors, first_weights, founders
from jaxnas.search.morphisms import inherit
from jaxnas.search.objectives import STRUCK
from jaxnas.search.screening import (
    History,
    no_history,
    remembered,
    screened,
    screens,
)
from jaxnas.search.states import PopulationInState
from jaxnas.search.stores import (
    Members,
    Store,
    counted,
    empty_store,
    settled,
    taken,
)
from jaxnas.search.strikes import upper_error
from jaxnas.training import Weights, groups_of, initial_weights, taught_labels
from jaxnas.types import Key


class Evolution(NamedTuple):
    """The state of a search between two generations; all leaves are arrays."""

    algorithm: PopulationInState
    store: Store
    history: History
    evaluated: Int[Array, ""]

    @property
    def population(self) -> Members:
        """A copy of what is kept of the algorithm's population, row by row."""
        return taken(self.store, self.store.population)


class Front(NamedTuple):
    """The best networks so far: rows of the mask, none of which dominates another."""

    genotypes: Int[Array, "rows genes"]
    fitness: Float[Array, "rows objectives"]
    mask: Bool[Array, " rows"]
    weights: Weights
    identity: Int[Array, " rows"]


class Individual(NamedTuple):
    """What is recorded of an evaluated network."""

    id: int
    parents: tuple[int, ...]
    genotype: tuple[int, ...]
    objectives: dict[str, float]


def front_of(evolution: Evolution) -> Front:
    """The archive, where the algorithm keeps one, and else the population's front."""
    state = evolution.algorithm
    if state.archive.mask.size:
        kept, mask, slots = state.archive, state.archive.mask, evolution.store.archive
    else:
        kept, slots = state, evolution.store.population
        mask = state.mask & (state.rank == 0) & (state.violation <= 0)
    found = taken(evolution.store, slots)
    return Front(kept.population, kept.fitness, mask, found.weights, found.identity)


def start(
    key: Key, problem: Problem, ancestors: Ancestors | None = None
) -> tuple[Evolution, list[Individual]]:
    """Train and measure the initial networks: ancestors, the trivial one, random ones.

    Raises:
      ValueError: the space has too few networks within the limits.
    """
    return begin(key, problem, train_founders(key, problem, ancestors))


def train_founders(
    key: Key, problem: Problem, ancestors: Ancestors | None = None
) -> Trained:
    """The networks of `start`, which are the same for every algorithm."""
    sampling, training, _ = jax.random.split(key, 3)
    space, count = problem.space, problem.initial
    admit = problem.algorithm.admit
    genotypes = founders(sampling, space, count, admit, ancestors)
    parts = []
    for rows in groups_of(count, problem.group):
        key = jax.random.fold_in(training, rows[0])
        keys = jax.random.split(key, problem.group)
        weights = first_weights(keys, space, genotypes[rows], ancestors)
        recipe = problem.initial_recipe
        parts.append(train_group(key, problem, weights, genotypes[rows], recipe, 0))
    return joined(parts, count)


def begin(
    key: Key, problem: Problem, trained: Trained
) -> tuple[Evolution, list[Individual]]:
    """The state of a search that starts from trained networks."""
    telling = jax.random.split(key, 3)[2]
    algorithm, count = problem.algorithm, trained.genotypes.shape[0]
    fitness = columns(trained.objectives, problem.objectives)
    params = algorithm.default_params
    state = algorithm.init(telling, trained.genotypes, fitness, params)
    empty = empty_evolution(problem, key)
    # Founders are chosen among themselves only: there is no population before them.
    store = empty.store._replace(population=empty.store.population[:0])
    living = state.mask[:0], empty.algorithm.archive.mask
    born = _born(trained, np.arange(count))
    evolution = Evolution(
        algorithm=state,
        store=settled(store, living, born, _survivors(state)),
        history=remembered(problem, empty.history, trained, np.ones(count, bool)),
        evaluated=jnp.int32(count),
    )
    return evolution, _individuals(np.arange(count), [()] * count, trained)


def generation(
    key: Key, problem: Problem, before: Evolution
) -> tuple[Evolution, list[Individual]]:
    """One generation: the state after it and the children that were evaluated.

    The weights in `before` are used up: their memory goes on in the state after it.
    """
    asking, inheriting, training, telling, *others = jax.random.split(key, 6)
    screening, revising = others
    algorithm, params = problem.algorithm, problem.algorithm.default_params
    number = int(before.algorithm.generation_counter) + 1
    before = _struck_again(revising, problem, before, number)
    children, state = algorithm.ask(asking, before.algorithm, params)
    if screens(problem):
        children, state = screened(screening, problem, before.history, children, state)
    trained = _raised(inheriting, training, problem, before, children, state, number)
    fitness = columns(trained.objectives, problem.objectives)
    rest = algorithm.accepted - problem.group
    fitness = jnp.pad(fitness, ((0, rest), (0, 0)), constant_values=jnp.inf)
    after, _ = algorithm.tell(telling, children, fitness, state, params)

    new = np.asarray(state.children_mask)[: problem.group]
    numbers = int(before.evaluated) + np.cumsum(new) - 1
    individuals = _individuals(numbers, _parents(before, state), trained)
    living = state.mask, state.archive.mask
    born = _born(trained, numbers)
    evolution = Evolution(
        algorithm=after,
        store=settled(before.store, living, born, _survivors(after)),
        history=remembered(problem, before.history, trained, new),
        evaluated=before.evaluated + jnp.int32(new.sum()),
    )
    return evolution, [one for one, keep in zip(individuals, new, strict=True) if keep]


def empty_evolution(problem: Problem, key: Key) -> Evolution:
    """A state of the shapes and types that a search of the problem has."""
    algorithm = problem.algorithm
    rows = algorithm.population_size, algorithm.archive_size, problem.group
    return Evolution(
        algorithm=algorithm._init(key, algorithm.default_params),
        store=empty_store(problem.space, *rows),
        history=no_history(problem),
        evaluated=jnp.int32(0),
    )


def _struck_again(key, problem, before, number) -> Evolution:
    """The population after more trials: who had been lucky may no longer survive.

    An archive keeps what it was told.
    """
    if problem.strikes is None:
        return before
    state, store = before.algorithm, before.store
    used = int(np.sum(state.mask))  # rows in use stand before all others
    parts = []
    for rows in groups_of(used, problem.group):
        weights = taken(store, store.population[rows]).weights
        parts.append(struck_group(problem, weights, state.population[rows], number))
    fresh = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:used], *parts)
    store = counted(store, store.population[:used], fresh)
    tally = taken(store, store.population).tally
    error = jnp.asarray(upper_error(tally, problem.strikes.images))
    fitness = state.fitness.at[:, problem.objectives.index(STRUCK)].set(error)
    params = problem.algorithm.default_params
    revised = problem.algorithm.revise(key, state, fitness, params)
    store = store._replace(population=store.population[revised.survivors])
    return before._replace(algorithm=revised, store=store)


def _raised(inheriting, training, problem, before, children, state, number) -> Trained:
    """The group of children that is trained, with what it inherits."""
    children, parents = (x[: problem.group] for x in (children, state.parents))
    weights = _inherit_group(
        problem.space,
        jax.random.split(inheriting, problem.group),
        before.algorithm.population,
        before.store,
        parents,
        children,
    )
    taught = _taught(problem, before, parents)
    recipe = problem.child_recipe
    return train_group(training, problem, weights, children, recipe, number, taught)


def _taught(problem, before, parents):
    """Labels of a group of children, to which their parents contribute a share."""
    if not problem.distillation:
        return None
    rows = jnp.maximum(parents, 0)
    teachers = taken(before.store, before.store.population[rows]).weights
    genotypes = before.algorithm.population[rows]
    images, labels = problem.train_images, problem.train_labels
    data = images, labels, problem.distillation
    taught = taught_labels(problem.space, teachers, genotypes, *data)
    true = jax.nn.one_hot(labels, problem.space.classes)
    return jnp.where((parents < 0)[:, None, None], true[None], taught)


def _survivors(state):
    return state.survivors, state.archive.survivors


def _parents(before: Evolution, state: PopulationInState) -> list[tuple[int, ...]]:
    """The numbers of every child's parent and mate, where it has them, each once."""
    store = before.store
    identity = np.asarray(store.slots.identity)[store.population]
    rows = np.stack([state.parents, state.mates], axis=1)
    known = [[int(identity[row]) for row in pair if row >= 0] for pair in rows]
    return [tuple(dict.fromkeys(pair)) for pair in known]


def _individuals(numbers, parents, trained: Trained) -> list[Individual]:
    genotypes = np.asarray(trained.genotypes).tolist()
    return [
        Individual(
            id=int(number),
            parents=parents[row],
            genotype=tuple(genotypes[row]),
            objectives={
                name: float(column[row]) for name, column in trained.objectives.items()
            },
        )
        for row, number in enumerate(numbers)
    ]


def _born(trained: Trained, numbers: np.ndarray) -> Members:
    identity = jnp.asarray(numbers, jnp.int32)
    return Members(trained.weights, identity, trained.tally)


@functools.partial(jax.jit, static_argnames="space")
def _inherit_group(space, keys, population, store, parents, children):
    """The children's starting weights; those without a parent start at random."""

    def one(member):
        key, row, child = member
        at = jnp.maximum(row, 0)
        weights = taken(store, store.population[at]).weights
        inherited = inherit(key, space, population[at], child, weights)
        fresh = initial_weights(key, space)
        return jax.tree.map(lambda a, b: jnp.where(row < 0, b, a), inherited, fresh)

    return jax.lax.map(one, (keys, parents, children))

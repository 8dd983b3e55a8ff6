"""The generation loop: propose, inherit, train, measure, select.

One generation is a function of the problem, a key and the state before it; the state is
a pytree of arrays, so it can be checkpointed between any two generations and the search
goes on from it bit for bit. Weights live beside the algorithm, one row per population
row, and follow its `parents` and `survivors`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace
from jaxnas.search.algorithms import MultiObjectiveAlgorithm, State
from jaxnas.search.limits import Limit, within
from jaxnas.search.morphisms import inherit
from jaxnas.search.objectives import CHEAP, EXPENSIVE
from jaxnas.training import (
    Images,
    Labels,
    Recipe,
    Weights,
    evaluate_group,
    fit_group,
    initial_weights,
    taught_labels,
)
from jaxnas.types import Key


class Problem(NamedTuple):
    """What is searched and how; static but for the images."""

    space: SearchSpace
    algorithm: MultiObjectiveAlgorithm
    cheap: Callable
    objectives: tuple[str, ...]
    initial: int
    initial_recipe: Recipe
    child_recipe: Recipe
    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    limits: tuple[Limit, ...] = ()
    distillation: float = 0.0


class Ancestors(NamedTuple):
    """Networks that a search starts from, and what they have learned."""

    genotypes: Int[Array, "networks genes"]
    weights: Weights


class Evolution(NamedTuple):
    """The state of a search between two generations; all leaves are arrays.

    `ids` numbers the individuals in the order of their evaluation, `identity[row]` is
    that of a population row.
    """

    algorithm: State
    weights: Weights
    identity: Int[Array, " population"]
    evaluated: Int[Array, ""]


class Individual(NamedTuple):
    """What is recorded of an evaluated network."""

    id: int
    parents: tuple[int, ...]
    genotype: tuple[int, ...]
    objectives: dict[str, float]


def start(
    key: Key, problem: Problem, ancestors: Ancestors | None = None
) -> tuple[Evolution, list[Individual]]:
    """Train and measure the initial networks: ancestors, the trivial one, random ones.

    Raises:
      ValueError: the space has too few networks within the limits.
    """
    sampling, training, telling = jax.random.split(key, 3)
    genotypes = _initial_genotypes(problem, ancestors, sampling)
    group = problem.algorithm.accepted
    parts = []
    for first in range(0, problem.initial, group):
        chunk = genotypes[np.arange(first, first + group).clip(max=problem.initial - 1)]
        key = jax.random.fold_in(training, first)
        weights = _random_group(problem.space, jax.random.split(key, group))
        weights = _with_ancestors(weights, ancestors, chunk)
        weights, error = _train(problem, key, weights, chunk, problem.initial_recipe)
        parts.append((weights, error))
    weights, error = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves)[: problem.initial], *parts
    )
    objectives = measured(problem, genotypes, error)
    fitness = _columns(objectives, problem.objectives)
    algorithm = problem.algorithm
    state = algorithm.init(telling, genotypes, fitness, algorithm.default_params)
    rows = state.survivors
    evolution = Evolution(
        algorithm=state,
        weights=jax.tree.map(lambda leaf: leaf[rows], weights),
        identity=rows.astype(jnp.int32),
        evaluated=jnp.int32(problem.initial),
    )
    individuals = _individuals(
        range(problem.initial), [()] * problem.initial, genotypes, objectives
    )
    return evolution, individuals


def generation(
    key: Key, problem: Problem, before: Evolution
) -> tuple[Evolution, list[Individual]]:
    """One generation: the state after it and the children that were evaluated."""
    asking, inheriting, training, telling = jax.random.split(key, 4)
    algorithm, params = problem.algorithm, problem.algorithm.default_params
    children, state = algorithm.ask(asking, before.algorithm, params)
    keys = jax.random.split(inheriting, algorithm.accepted)
    weights = _inherit_group(
        problem.space,
        keys,
        before.algorithm.population,
        before.weights,
        state.parents,
        children,
    )
    taught = _taught(problem, before, state.parents)
    weights, error = _train(
        problem, training, weights, children, problem.child_recipe, taught
    )
    objectives = measured(problem, children, error)
    fitness = _columns(objectives, problem.objectives)
    after, _ = algorithm.tell(telling, children, fitness, state, params)

    new = np.asarray(state.children_mask)
    numbers = int(before.evaluated) + np.cumsum(new) - 1
    identity = np.asarray(before.identity)
    parents = [(int(identity[row]),) if row >= 0 else () for row in state.parents]
    individuals = _individuals(numbers, parents, children, objectives)
    evolution = Evolution(
        algorithm=after,
        weights=_survive(before.weights, weights, after.survivors),
        identity=jnp.asarray(np.append(identity, numbers)[after.survivors], jnp.int32),
        evaluated=before.evaluated + jnp.int32(new.sum()),
    )
    return evolution, [one for one, keep in zip(individuals, new, strict=True) if keep]


def measured(
    problem: Problem,
    genotypes: Int[Array, "networks genes"],
    error: Float[Array, " networks"],
) -> dict[str, np.ndarray]:
    """All objectives of some networks, float32 `[networks]` under each name."""
    costs = np.asarray(_cost_group(problem.cheap, genotypes))
    return {EXPENSIVE: np.asarray(error), **dict(zip(CHEAP, costs.T, strict=True))}


def _columns(objectives, names):
    return jnp.stack([jnp.asarray(objectives[name]) for name in names], axis=1)


DRAWS = 32
"""How often random networks are drawn before a space counts as too small."""


def _initial_genotypes(problem, ancestors, key):
    """Ancestors, the trivial network, then distinct random ones; all within limits."""
    space, count = problem.space, problem.initial
    candidates = np.asarray(spaces.smallest(space))[None]
    if ancestors is not None:
        candidates = np.concatenate([np.asarray(ancestors.genotypes), candidates])
    for draw in range(DRAWS):
        again = jax.random.fold_in(key, draw) if draw else key
        drawn = _sample_group(space, jax.random.split(again, 8 * count))
        candidates = np.concatenate([candidates, np.asarray(drawn)])
        if problem.limits:
            costs = np.asarray(_cost_group(problem.cheap, jnp.asarray(candidates)))
            candidates = candidates[within(costs, problem.limits)]
        _, first = np.unique(candidates, axis=0, return_index=True)
        candidates = candidates[np.sort(first)]
        if len(candidates) >= count:
            return jnp.asarray(candidates[:count])
    within_limits = " within the limits" if problem.limits else ""
    raise ValueError(
        f"the space gave only {len(candidates)} distinct networks{within_limits} for "
        f"an initial population of {count}: enlarge the space, raise the limits or "
        "lower evolution.initial"
    )


def _with_ancestors(weights, ancestors, genotypes):
    """A group's weights with those of ancestors in place of random ones."""
    if ancestors is None:
        return weights
    genotypes, old = np.asarray(genotypes), np.asarray(ancestors.genotypes)
    same = np.all(genotypes[:, None] == old[None], axis=2)
    known, row = same.any(axis=1), same.argmax(axis=1)

    def chosen(fresh, old):
        mask = known.reshape(-1, *[1] * (fresh.ndim - 1))
        return jnp.where(mask, jnp.asarray(old)[row], fresh)

    return jax.tree.map(chosen, weights, ancestors.weights)


def _taught(problem, before, parents):
    """Labels of a group of children, to which their parents contribute a share."""
    if not problem.distillation:
        return None
    rows = jnp.maximum(parents, 0)
    teachers = jax.tree.map(lambda leaf: leaf[rows], before.weights)
    genotypes = before.algorithm.population[rows]
    images, labels = problem.train_images, problem.train_labels
    data = images, labels, problem.distillation
    taught = taught_labels(problem.space, teachers, genotypes, *data)
    true = jax.nn.one_hot(labels, problem.space.classes)
    return jnp.where((parents < 0)[:, None, None], true[None], taught)


def _train(problem, key, weights, genotypes, recipe, taught=None):
    """Train a group and measure its validation error."""
    keys = jax.random.split(key, genotypes.shape[0])
    images, labels = problem.train_images, problem.train_labels
    space = problem.space
    members = keys, space, weights, genotypes
    weights = fit_group(*members, images, labels, recipe, taught=taught)
    images, labels = problem.validation_images, problem.validation_labels
    return weights, evaluate_group(space, weights, genotypes, images, labels)


def _individuals(numbers, parents, genotypes, objectives):
    return [
        Individual(
            id=int(number),
            parents=parents[row],
            genotype=tuple(int(gene) for gene in np.asarray(genotypes[row])),
            objectives={
                name: float(column[row]) for name, column in objectives.items()
            },
        )
        for row, number in enumerate(numbers)
    ]


@functools.partial(jax.jit, static_argnames="space")
def _sample_group(space, keys):
    return jax.vmap(lambda key: spaces.sample(key, space))(keys)


@functools.partial(jax.jit, static_argnames="cheap")
def _cost_group(cheap, genotypes):
    return jax.vmap(cheap)(genotypes)


@functools.partial(jax.jit, static_argnames="space")
def _random_group(space, keys):
    return jax.lax.map(lambda key: initial_weights(key, space), keys)


@functools.partial(jax.jit, static_argnames="space")
def _inherit_group(space, keys, population, store, parents, children):
    """The children's starting weights; those without a parent start at random."""

    def one(member):
        key, row, child = member
        at = jnp.maximum(row, 0)
        weights = jax.tree.map(lambda leaf: leaf[at], store)
        inherited = inherit(key, space, population[at], child, weights)
        fresh = initial_weights(key, space)
        return jax.tree.map(lambda a, b: jnp.where(row < 0, b, a), inherited, fresh)

    return jax.lax.map(one, (keys, parents, children))


@jax.jit
def _survive(old, new, survivors):
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[survivors], old, new)

"""What a search does to networks: they are trained, measured and struck, in groups.

All groups have the same size, so that every program is compiled once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.networks.space import SearchSpace
from jaxnas.search.generations import GenerationalAlgorithm
from jaxnas.search.objectives import CHEAP, EXPENSIVE, STRUCK, of_each
from jaxnas.search.strikes import Strikes, Tally, no_tally, strike, upper_error
from jaxnas.training import (
    Images,
    Labels,
    Recipe,
    Weights,
    evaluate_group,
    fit_group,
)
from jaxnas.types import Key


class Problem(NamedTuple):
    """What is searched and how; static but for the images.

    `group` networks are trained together, and as many children in a generation; where
    the algorithm is asked for more, a surrogate picks them.
    """

    space: SearchSpace
    algorithm: GenerationalAlgorithm
    cheap: Callable
    objectives: tuple[str, ...]
    initial: int
    group: int
    initial_recipe: Recipe
    child_recipe: Recipe
    train_images: Images
    train_labels: Labels
    validation_images: Images
    validation_labels: Labels
    distillation: float = 0.0
    strikes: Strikes | None = None


class Trained(NamedTuple):
    """Networks that were trained and measured; a row of every array for each."""

    genotypes: Int[Array, "networks genes"]
    weights: Weights
    tally: Tally
    objectives: dict[str, np.ndarray]


def train_group(
    key: Key,
    problem: Problem,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    recipe: Recipe,
    generation: int,
    taught: Float[Array, "networks images classes"] | None = None,
) -> Trained:
    """Train a group, and measure it as a search does in this generation."""
    keys = jax.random.split(key, genotypes.shape[0])
    images, labels = problem.train_images, problem.train_labels
    space = problem.space
    members = keys, space, weights, genotypes
    weights = fit_group(*members, images, labels, recipe, taught=taught)
    data = problem.validation_images, problem.validation_labels
    error = evaluate_group(space, weights, genotypes, *data)
    tally = struck_group(problem, weights, genotypes, generation)
    return Trained(
        genotypes, weights, tally, measured(problem, genotypes, error, tally)
    )


def struck_group(
    problem: Problem,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    generation: int,
) -> Tally:
    """The trials of a generation, where the problem has any."""
    if problem.strikes is None:
        return no_tally(genotypes.shape[0])
    data = problem.validation_images, problem.validation_labels
    how = problem.strikes, generation
    return strike(problem.space, weights, genotypes, *data, *how)


def measured(
    problem: Problem,
    genotypes: Int[Array, "networks genes"],
    error: Float[Array, " networks"],
    tally: Tally,
) -> dict[str, np.ndarray]:
    """All objectives of some networks, float32 `[networks]` under each name."""
    costs = np.asarray(of_each(problem.cheap, genotypes))
    found = {EXPENSIVE: np.asarray(error), **dict(zip(CHEAP, costs.T, strict=True))}
    if problem.strikes is not None:
        found[STRUCK] = upper_error(tally, problem.strikes.images)
    return found


def columns(
    objectives: dict[str, np.ndarray], names: tuple[str, ...]
) -> Float[Array, "networks objectives"]:
    """The fitness of an algorithm, of these objectives."""
    return jnp.stack([jnp.asarray(objectives[name]) for name in names], axis=1)


def joined(parts: list[Trained], count: int) -> Trained:
    """Groups behind each other, without what fills the last."""
    return Trained(
        *jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves)[:count],
            *[part[:3] for part in parts],
        ),
        {
            name: np.concatenate([part.objectives[name] for part in parts])[:count]
            for name in parts[0].objectives
        },
    )

"""A configuration made into what an experiment works with: images, problem and keys.

Everything that can be wrong with a configuration shows here, before any training.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.config import SearchConfig
from jaxnas.data import ImageData, load_images
from jaxnas.measurement import Evaluation
from jaxnas.networks.space import SearchSpace
from jaxnas.search.catalogue import network_search
from jaxnas.search.evaluation import Problem
from jaxnas.search.limits import parse_limits
from jaxnas.search.objectives import STRUCK, cheap_objectives
from jaxnas.search.strikes import Strikes
from jaxnas.training import NO_LABEL, Recipe
from jaxnas.types import Key

START, GENERATION, FINAL, FAULTS, SENSITIVITY = range(5)


class Stage(NamedTuple):
    """What every stage of one experiment needs."""

    config: SearchConfig
    images: ImageData
    problem: Problem
    evaluation: Evaluation
    out: Path

    def key(self, stage: int, number: int = 0) -> Key:
        """The key of one step of a stage: a function of the seed and these numbers."""
        root = jax.random.key(self.config.seed)
        return jax.random.fold_in(jax.random.fold_in(root, stage), number)


def prepare(config: SearchConfig, out: Path) -> Stage:
    """Load the images and set up the problem; nothing is written or trained."""
    images = _images(config)
    problem = _problem(config, _space(config, images), images)
    return Stage(config, images, problem, _evaluation(images), out)


def search_space(config: SearchConfig) -> SearchSpace:
    """What is searched; image size and classes are those of the data, which is read."""
    return _space(config, _images(config))


def _images(config: SearchConfig) -> ImageData:
    data = config.data
    return load_images(
        data.path,
        validation_share=data.validation_share,
        test_share=data.test_share,
        seed=config.seed,
        limit=data.limit,
    )


def _space(config: SearchConfig, images: ImageData) -> SearchSpace:
    return SearchSpace(
        image=images.train_images.shape[1:],
        classes=images.classes,
        stages=config.space.stages,
        kernels=config.space.kernels,
        expansions=config.space.expansions,
        word_bits=config.space.word_bits,
    )


def _problem(config: SearchConfig, space: SearchSpace, images: ImageData) -> Problem:
    evolution, training = config.evolution, config.training
    evaluation = _evaluation(images)
    first = recipe(config, training.initial_steps, training.learning_rate)
    later = {"steps": training.child_steps, "warmup": training.child_warmup}
    algorithm = network_search(
        evolution.algorithm,
        space,
        config.hardware,
        evolution.objectives,
        population=evolution.population,
        children=evolution.candidates,
        proposals=evolution.proposals,
        limits=parse_limits(evolution.limits),
    )
    return Problem(
        space=space,
        algorithm=algorithm,
        cheap=cheap_objectives(space, config.hardware),
        objectives=evolution.objectives,
        initial=evolution.initial,
        group=evolution.children,
        initial_recipe=first,
        child_recipe=first._replace(**later),
        train_images=jnp.asarray(images.train_images),
        train_labels=jnp.asarray(images.train_labels),
        validation_images=evaluation.validation_images,
        validation_labels=evaluation.validation_labels,
        distillation=training.distillation,
        strikes=_strikes(config),
    )


def _strikes(config: SearchConfig) -> Strikes | None:
    """The trials of the search, where their outcome is an objective."""
    evolution = config.evolution
    if STRUCK not in evolution.objectives:
        return None
    counts = evolution.strike_trials, config.faults.images
    return Strikes(config.seed, evolution.strike_rate, *counts)


def recipe(config: SearchConfig, steps: int, learning_rate: float) -> Recipe:
    training = config.training
    return Recipe(
        steps=steps,
        learning_rate=learning_rate,
        batch=training.batch,
        weight_decay=training.weight_decay,
        shift=training.shift,
        flip=training.flip,
    )


def _evaluation(images: ImageData) -> Evaluation:
    """Validation and test images padded to one length, to share compiled programs."""
    length = max(len(images.validation_labels), len(images.test_labels))

    def padded(pictures, labels):
        missing = length - len(labels)
        pictures = np.pad(pictures, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(labels, (0, missing), constant_values=NO_LABEL)
        return jnp.asarray(pictures), jnp.asarray(labels)

    return Evaluation(
        *padded(images.validation_images, images.validation_labels),
        *padded(images.test_images, images.test_labels),
    )

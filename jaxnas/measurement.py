"""The networks of a final front: trained to the end, and measured under bit faults.

Both number schemes are treated alike: from the weights that the search left, each is
trained for the same number of steps with its own words, tested, and struck by faults in
the stored weights or the stored activations. Images, biases and logits are not struck.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.faults.injection import inject
from jaxnas.faults.models import Fault, bit_flips
from jaxnas.faults.statistics import clustered_wilson_interval, design_effect
from jaxnas.faults.trials import count_correct, run_trials
from jaxnas.networks import supernet
from jaxnas.networks.space import SearchSpace, widest_words
from jaxnas.training import (
    Images,
    Labels,
    Recipe,
    Weights,
    evaluate_group,
    fit_group,
)
from jaxnas.types import Genotype, Key

TARGETS = ("weight", "activation")


class Finalists(NamedTuple):
    """Networks trained to the end in one scheme, `[networks]` leading every array.

    `widest_test_error` is that of the same weights when every word has the greatest
    width of the space.
    """

    weights: Weights
    validation_error: Float[Array, " networks"]
    test_error: Float[Array, " networks"]
    widest_test_error: Float[Array, " networks"]


class Evaluation(NamedTuple):
    """Image sets of equal length, padded with images that have no label."""

    validation_images: Images
    validation_labels: Labels
    test_images: Images
    test_labels: Labels


def train_finalists(
    key: Key,
    space: SearchSpace,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    images: Images,
    labels: Labels,
    evaluation: Evaluation,
    recipe: Recipe,
    *,
    scheme: int,
    group: int,
    advance: Callable[[int], None] = lambda networks: None,
) -> Finalists:
    """Train every network in groups of `group`, one compiled program for all groups."""
    count = genotypes.shape[0]
    keys = jax.random.split(key, count)
    parts = []
    for first in range(0, count, group):
        rows = np.arange(first, first + group).clip(max=count - 1)
        members = jax.tree.map(lambda leaf: leaf[rows], weights)  # noqa: B023
        chunk = genotypes[rows]
        trained = fit_group(
            keys[rows], space, members, chunk, images, labels, recipe, scheme=scheme
        )
        wide = _widest_group(space, chunk)
        measured = (
            (chunk, *evaluation[:2]),
            (chunk, *evaluation[2:]),
            (wide, *evaluation[2:]),
        )
        errors = [
            evaluate_group(space, trained, *part, scheme=scheme) for part in measured
        ]
        parts.append(Finalists(trained, *errors))
        jax.block_until_ready(parts[-1])
        advance(min(group, count - first))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)


@functools.partial(jax.jit, static_argnames="space")
def _widest_group(space, genotypes):
    return jax.vmap(lambda genotype: widest_words(space, genotype))(genotypes)


class Faults(NamedTuple):
    """What a network is measured under; trial i meets the same draws everywhere."""

    rates: tuple[float, ...]
    trials: int
    images: int


def measure_faults(
    key: Key,
    space: SearchSpace,
    weights: Weights,
    genotype: Genotype,
    images: Images,
    labels: Labels,
    faults: Faults,
    *,
    scheme: int,
    advance: Callable[[int], None] = lambda trials: None,
) -> list[dict]:
    """Accuracy under faults of one network, one record per target and rate.

    The interval is Wilson's at 95 % for outcomes that share the faults of their trial;
    `effective_trials` is how many independent outcomes the measurement is worth.
    """
    trial = _trial(space, faults)
    numbers = jnp.arange(faults.trials)
    operands = weights, genotype, jnp.int32(scheme), images, labels
    records = []
    for target in TARGETS:
        for rate in faults.rates:
            rates = [jnp.float32(rate if target == one else 0.0) for one in TARGETS]
            counts = np.asarray(run_trials(trial, key, numbers, rates, *operands))
            records.append({"target": target, **summary(counts, rate, faults.images)})
            advance(faults.trials)
    return records


def summary(counts: Int[np.ndarray, " trials"], rate: float, images: int) -> dict:
    """The record of one measurement: numbers right per trial of `images` images."""
    low, high = clustered_wilson_interval(counts, images)
    outcomes = counts.size * images
    return {
        "rate": rate,
        "trials": int(counts.size),
        "images_per_trial": images,
        "accuracy": float(counts.sum() / outcomes),
        "low": float(low),
        "high": float(high),
        "effective_trials": float(outcomes / design_effect(counts, images)),
    }


@functools.cache
def _trial(space, faults):
    """Correct images of one trial; rates are traced, so one program serves them all."""

    def trial(key, rates, weights, genotype, scheme, images, labels):
        def network(batch):
            return supernet.apply(space, *weights, genotype, batch, scheme=scheme)[0]

        models = [bit_flips(rate, max_rate=max(faults.rates)) for rate in rates]
        struck = [
            Fault(model, stored=(target,))
            for model, target in zip(models, TARGETS, strict=True)
        ]
        faulty = inject(network, *struck)
        return count_correct(faulty, key, images, labels, faults.images)

    return trial

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

from jaxnas.devices import map_over_devices
from jaxnas.faults.injection import inject
from jaxnas.faults.kinds import KINDS
from jaxnas.faults.means import moments_of
from jaxnas.faults.models import Fault
from jaxnas.faults.sequential import share_rule
from jaxnas.faults.statistics import clustered_wilson_interval, design_effect
from jaxnas.faults.trials import count_outcomes, run_trials, run_until
from jaxnas.networks import supernet
from jaxnas.networks.space import SearchSpace, widest_words
from jaxnas.training import (
    Images,
    Labels,
    Recipe,
    Weights,
    evaluate_group,
    fit_group,
    groups_of,
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
    for rows in groups_of(count, group):
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
        advance(len(np.unique(rows)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)


@functools.partial(jax.jit, static_argnames="space")
def _widest_group(space, genotypes):
    return jax.vmap(lambda genotype: widest_words(space, genotype))(genotypes)


class Faults(NamedTuple):
    """What a network is measured under; trial i meets the same draws everywhere.

    trials: how many, or with a `half_width` at most.
    half_width: of the interval of the accuracy, as a share, at which a measurement
        ends; 0 for all trials.
    kind: of `KINDS`. stored: the kinds of words that are struck, one after the other.
    """

    rates: tuple[float, ...]
    trials: int
    images: int
    half_width: float = 0.0
    kind: str = "bit_flips"
    stored: tuple[str, ...] = TARGETS


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
    `effective_trials` is how many independent outcomes the measurement is worth;
    `sdc1` and `due` are shares of the images, as the metrics of `faults.outcomes`.
    """
    largest = max(faults.rates)
    trial = _trial(space, faults.kind, faults.stored, largest, faults.images)
    network = weights, genotype, jnp.int32(scheme)
    golden = _predictions(space, network, images)
    records = []
    for target in faults.stored:
        for rate in faults.rates:
            rates = [jnp.float32(rate if target == t else 0.0) for t in faults.stored]
            operands = rates, *network, images, labels, golden
            counts = _count(trial, key, faults, operands)
            right, sdc1, due = counts.T
            records.append(
                {
                    "target": target,
                    "fault": faults.kind,
                    **summary(right, rate, faults.images),
                    "sdc1": float(sdc1.mean() / faults.images),
                    "due": float(due.mean() / faults.images),
                }
            )
            advance(faults.trials)
    return records


def _count(trial, key, faults, operands) -> Int[np.ndarray, "trials outcomes"]:
    if not faults.half_width:
        return np.asarray(run_trials(trial, key, jnp.arange(faults.trials), *operands))
    rule = share_rule(faults.half_width, size=faults.images)

    def done(counts):
        return rule.done(moments_of(counts[:, 0] / faults.images))

    return run_until(trial, key, done, faults.trials, *operands)


def _predictions(space, network, images) -> Int[Array, " images"]:
    """The class of every image without faults."""
    count = images.shape[0]
    rows = np.arange(count + -count % BATCH).clip(max=count - 1).reshape(-1, BATCH)
    found = map_over_devices(_predict(space), rows, *network, images)
    return found.reshape(-1)[:count]


BATCH = 128


@functools.cache
def _predict(space):
    def one(rows, weights, genotype, scheme, images):
        batch = images[rows]
        logits = supernet.apply(space, *weights, genotype, batch, scheme=scheme)[0]
        return jnp.argmax(logits, axis=1)

    return one


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
def _trial(space, kind, stored, largest, size):
    """Outcomes of one trial; rates are traced, so one program serves them all."""

    def trial(key, rates, weights, genotype, scheme, images, labels, golden):
        def network(batch):
            return supernet.apply(space, *weights, genotype, batch, scheme=scheme)[0]

        struck = [
            Fault(KINDS[kind](rate, largest), stored=(target,))
            for rate, target in zip(rates, stored, strict=True)
        ]
        faulty = inject(network, *struck)
        found = count_outcomes(faulty, key, images, labels, golden, size)
        return jnp.stack(found)

    return trial

"""Quantisation-aware training and evaluation of genotypes, a whole group in one call.

A group is a leading axis over networks, parted over all devices of all processes (those
of `jax.distributed`, which then make every call alike). Each device runs its share one
after another in one compiled program, since a batched index would make every switch of
the supernet run all its branches. The number of steps is traced, so short and long
trainings share a program. Network k of a group depends on its own key, weights and
genotype only.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, UInt8
from jaxtyping import Key as Keys

from jaxnas.data import augment
from jaxnas.devices import map_over_processes
from jaxnas.networks import supernet
from jaxnas.networks.extents import Network
from jaxnas.networks.layers import SCHEMES
from jaxnas.networks.space import SearchSpace
from jaxnas.types import Genotype, Key

Images = UInt8[Array, "images height width channels"]
Labels = Int[Array, " images"]
SoftLabels = Float[Array, "images classes"]
"""Shares of all classes, as a teacher gives them."""

NO_LABEL = -1
"""The label of an image that does not count; no prediction equals it."""

FROZEN = 0.25
"""Share of the steps, the last ones, in which normalisation statistics are frozen.

Until then they follow the batches, and with them the folded kernels jump between their
words: a narrow network of 4-bit words may come to rest at any of several accuracies
(batch-norm freezing, Krishnamoorthi 2018, arXiv 1806.08342)."""


class Weights(NamedTuple):
    """What a network has learned: parameters and normalisation statistics."""

    params: Network
    statistics: Network


class Recipe(NamedTuple):
    """How to train; steps, learning rate and warm-up may be traced, the rest may not.

    In the first `warmup * steps` steps the learning rate also rises linearly.
    """

    steps: int | Int[Array, ""]
    learning_rate: float | Float[Array, ""]
    batch: int = 64
    weight_decay: float = 1e-4
    shift: int = 1
    flip: bool = False
    warmup: float | Float[Array, ""] = 0.0


def initial_weights(key: Key, space: SearchSpace) -> Weights:
    """Random parameters and neutral statistics for one network."""
    return Weights(*supernet.init(key, space))


def groups_of(count: int, size: int) -> Iterator[np.ndarray]:
    """Numbers below the count in groups of one size; the last number fills the last."""
    for first in range(0, count, size):
        yield np.arange(first, first + size).clip(max=count - 1)


def fit(
    key: Key,
    space: SearchSpace,
    weights: Weights,
    genotype: Genotype,
    scheme: Int[Array, ""],
    images: Images,
    labels: Labels | SoftLabels,
    recipe: Recipe,
    schemes: tuple[str, ...] = SCHEMES,
) -> Weights:
    """The weights after `recipe.steps` steps of AdamW, warm-up and cosine decay to 0.

    In the last quarter of the steps (`FROZEN`) normalisation statistics stay.
    `scheme` indexes `schemes`, the number schemes among which the program can choose.
    """
    loss = functools.partial(_loss, schemes=schemes)
    optimizer = optax.scale_by_adam()

    def step(number, carry):
        weights, state = carry
        batch = _draw_batch(jax.random.fold_in(key, number), images, labels, recipe)
        frozen = number >= (1 - FROZEN) * recipe.steps
        gradients, statistics = jax.grad(loss, has_aux=True)(
            *weights, space, genotype, scheme, *batch, frozen
        )
        direction, state = optimizer.update(gradients, state)
        rate = _rate(number, recipe)
        params = jax.tree.map(
            lambda p, d: p - rate * (d + recipe.weight_decay * p),
            weights.params,
            direction,
        )
        return Weights(params, statistics), state

    start = weights, optimizer.init(weights.params)
    return lax.fori_loop(0, recipe.steps, step, start)[0]


def _rate(step, recipe):
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * step / recipe.steps))
    rising = jnp.minimum(1.0, (step + 1) / jnp.maximum(recipe.warmup * recipe.steps, 1))
    return rising * cosine * recipe.learning_rate


def _draw_batch(key, images, labels, recipe):
    draw, change = jax.random.split(key)
    chosen = jax.random.randint(draw, (recipe.batch,), 0, images.shape[0])
    batch = augment(change, images[chosen], shift=recipe.shift, flip=recipe.flip)
    return batch, labels[chosen]


def _loss(
    params, statistics, space, genotype, scheme, images, labels, frozen, *, schemes
):
    logits, moved = supernet.apply(
        space,
        params,
        statistics,
        genotype,
        images,
        scheme=scheme,
        schemes=schemes,
        train=True,
        frozen=frozen,
    )
    if labels.ndim == 1:
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    else:
        loss = optax.softmax_cross_entropy(logits, labels)
    return jnp.mean(loss), moved


def correct(
    space: SearchSpace,
    weights: Weights,
    genotype: Genotype,
    scheme: Int[Array, ""],
    images: Images,
    labels: Labels,
    schemes: tuple[str, ...] = SCHEMES,
) -> Int[Array, ""]:
    """Number of images whose largest logit is the label's; a NaN logit is an error."""
    logits, _ = supernet.apply(
        space, *weights, genotype, images, scheme=scheme, schemes=schemes, train=False
    )
    finite = jnp.all(jnp.isfinite(logits), axis=1)
    return jnp.sum(finite & (jnp.argmax(logits, axis=1) == labels))


@functools.cache
def _fitter(space, schemes, batch, weight_decay, shift, flip):
    """`fit` for one member of a group; one function object for the same options."""

    def one(member, scheme, images, labels, steps, rate, warmup):
        recipe = Recipe(steps, rate, batch, weight_decay, shift, flip, warmup)
        key, weights, genotype, taught = member
        data = scheme, images, labels if taught is None else taught
        return fit(key, space, weights, genotype, *data, recipe, schemes)

    return one


def fit_group(
    keys: Keys[Array, " networks"],
    space: SearchSpace,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    images: Images,
    labels: Labels,
    recipe: Recipe,
    *,
    taught: Float[Array, "networks images classes"] | None = None,
    scheme: int = 0,
    schemes: tuple[str, ...] = SCHEMES,
) -> Weights:
    """Train every network of a group in one compiled call; leading axis `networks`.

    `taught` are labels for each network, from `taught_labels`, in place of those that
    all share. The program serves all `schemes`, of which `scheme` is an index; one that
    serves fewer compiles sooner.
    """
    options = recipe._asdict()
    steps, rate = options.pop("steps"), options.pop("learning_rate")
    warmup = options.pop("warmup")
    return map_over_processes(
        _fitter(space, schemes, **options),
        (keys, weights, genotypes, taught),
        jnp.int32(scheme),
        images,
        labels,
        jnp.int32(steps),
        jnp.float32(rate),
        jnp.float32(warmup),
    )


def taught_labels(
    space: SearchSpace,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    images: Images,
    labels: Labels,
    share: float,
    *,
    scheme: int = 0,
    schemes: tuple[str, ...] = SCHEMES,
    batch: int = 128,
) -> Float[Array, "networks images classes"]:
    """What each of some teachers makes of the images, mixed with the true labels.

    Distillation (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural
    network", 2015) at temperature one: cross-entropy with `share` times the teacher's
    probabilities and the rest true labels. Teachers see the images as they are, and of
    those that they take for another class only the true labels count.

    Raises:
      ValueError: the share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"found share={share}, expected 0 to 1")
    members, options = (weights, genotypes), (jnp.int32(scheme), images)
    answers = map_over_processes(_teacher(space, schemes, batch), members, *options)
    true = jax.nn.one_hot(labels, space.classes)[None]
    right = (jnp.argmax(answers, axis=2) == labels[None])[:, :, None]
    return jnp.where(right, share * answers + (1 - share) * true, true)


@functools.cache
def _teacher(space, schemes, batch):
    """Probabilities of one member of a group, image batch after image batch."""

    def one(member, scheme, images):
        def answer(part):
            options = {"scheme": scheme, "schemes": schemes, "train": False}
            logits, _ = supernet.apply(space, *member[0], member[1], part, **options)
            return jax.nn.softmax(logits)

        parts = lax.map(answer, _in_batches(images, batch))
        return parts.reshape(-1, parts.shape[-1])[: images.shape[0]]

    return one


def _in_batches(images, batch):
    missing = -images.shape[0] % batch
    images = jnp.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return images.reshape(-1, batch, *images.shape[1:])


@functools.cache
def _evaluator(space, schemes, batch):
    """The error of one member of a group, image batch after image batch."""

    def one(member, scheme, images, labels):
        missing = -images.shape[0] % batch
        labels = jnp.pad(labels, (0, missing), constant_values=NO_LABEL)
        parts = _in_batches(images, batch), labels.reshape(-1, batch)

        def count(part):
            return correct(space, *member, scheme, *part, schemes)

        counts = lax.map(count, parts)
        return 1 - jnp.sum(counts) / jnp.sum(labels != NO_LABEL)

    return one


def evaluate_group(
    space: SearchSpace,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    images: Images,
    labels: Labels,
    *,
    scheme: int = 0,
    schemes: tuple[str, ...] = SCHEMES,
    batch: int = 128,
) -> Float[Array, " networks"]:
    """Error of every network of a group: the share of labelled images misclassified.

    Images labelled `NO_LABEL` are padding, so that sets of several sizes can share one
    compiled program.
    """
    evaluator = _evaluator(space, schemes, batch)
    members = weights, genotypes
    return map_over_processes(evaluator, members, jnp.int32(scheme), images, labels)

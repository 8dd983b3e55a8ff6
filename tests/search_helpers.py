"""One tiny search that all tests of training, evolution and experiments share.

Everything keeps one shape, and what costs is computed once, so that every program of
the supernet is compiled once for all of these files.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.config import (
    DataConfig,
    EvolutionConfig,
    FaultConfig,
    SearchConfig,
    SpaceConfig,
    TrainingConfig,
)
from jaxnas.networks import space as spaces
from jaxnas.networks import supernet
from jaxnas.networks.space import BLOCK_GENES, CONVOLUTION, INVERTED, SEPARABLE
from jaxnas.networks.space import Stage as SpaceStage
from jaxnas.preparation import prepare
from jaxnas.search.evolution import generation
from jaxnas.training import Weights, fit_group, initial_weights

CONFIG = SearchConfig(
    data=DataConfig(path="digits", limit=160),
    space=SpaceConfig(
        stages=(SpaceStage(widths=(2, 4), blocks=1),), kernels=(3,), expansions=(2,)
    ),
    evolution=EvolutionConfig(
        objectives=("validation_error", "activation_fragility", "weight_bytes"),
        generations=2,
        initial=6,
        population=16,
        finalists=6,
        proposals=64,
        children=4,
        screening=0,
    ),
    training=TrainingConfig(
        initial_steps=20, child_steps=10, final_steps=20, batch=16, weight_decay=1e-2
    ),
    faults=FaultConfig(rates=(1e-9, 1e-3, 3e-2), trials=16, images=16),
)
GROUP = CONFIG.evolution.children


@functools.cache
def stage():
    """Images, problem and keys of `CONFIG`; nothing is written to its folder."""
    return prepare(CONFIG, Path("never-written"))


def space():
    return stage().problem.space


def following(key, problem, before):
    """A generation after a state that stays as it is, to be looked at later."""
    return generation(key, problem, jax.tree.map(jnp.copy, before))


def train_set():
    return stage().problem.train_images, stage().problem.train_labels


def report_set():
    images = stage().images
    return jnp.asarray(images.test_images), jnp.asarray(images.test_labels)


def genotype_of(space, *blocks, stem=(0, 1, 1), head=1):
    """One genotype in full: per slot None or the genes by name, zero if not named."""
    rows = np.zeros((space.slots, len(BLOCK_GENES)), np.int32)
    for row, block in zip(rows, blocks, strict=True):
        if block is not None:
            row[:] = [({"present": 1} | block).get(name, 0) for name in BLOCK_GENES]
    one = spaces.join(jnp.array(stem), jnp.asarray(rows), jnp.array([head]))
    assert np.array_equal(one, spaces.canonical(space, one)), "a gene has no effect"
    return one


@functools.cache
def genotypes():
    """The trivial network and one of every operation, `[GROUP, genes]`.

    The separable one has some words of four bits, all others have eight.
    """
    words = {"weight_bits": 1, "activation_bits": 1}
    blocks = [
        None,
        {"operation": CONVOLUTION, "width": 1, "residual": 1} | words,
        {"operation": SEPARABLE, "width": 1, "activation_bits": 1},
        {"operation": INVERTED, "width": 1, "residual": 1} | words,
    ]
    return jnp.stack([genotype_of(space(), block, stem=(1, 1, 1)) for block in blocks])


@functools.cache
def fresh():
    """Random weights of a group."""
    keys = jax.random.split(jax.random.key(1), GROUP)
    draw = jax.jit(
        lambda keys: jax.lax.map(lambda k: initial_weights(k, space()), keys)
    )
    return draw(keys)


def recipe(**changes):
    return stage().problem.initial_recipe._replace(**changes)


@functools.cache
def trained():
    """The group after a proper training, some hundred steps."""
    keys = jax.random.split(jax.random.key(2), GROUP)
    long = recipe(steps=400)
    return fit_group(keys, space(), fresh(), genotypes(), *train_set(), long)


def member(tree, row):
    return jax.tree.map(lambda leaf: leaf[row], tree)


@functools.partial(jax.jit, static_argnames="space")
def _logits(space, weights, genotype, images, scheme):
    return supernet.apply(space, *weights, genotype, images, scheme=scheme)[0]


def logits(weights: Weights, genotype, images, *, scheme=0, space=None):
    """What one network answers, `[images, classes]`."""
    space = stage().problem.space if space is None else space
    return np.asarray(_logits(space, weights, genotype, images, scheme))


def assert_same(found, expected):
    """Two trees of arrays are equal, bit for bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

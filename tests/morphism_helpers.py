"""A space for tests of mutation and inheritance, its networks, and weights in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from search_helpers import genotype_of

from jaxnas.networks import space as spaces
from jaxnas.networks.layers import HeadParams, LayerParams, LayerStatistics
from jaxnas.networks.space import (
    BLOCK_GENES,
    CONVOLUTION,
    INVERTED,
    SEPARABLE,
    STEM_GENES,
    SearchSpace,
    Stage,
)
from jaxnas.search.morphisms import inherit, mutate
from jaxnas.training import initial_weights

SPACE = SearchSpace(
    image=(8, 8, 1),
    classes=10,
    stages=(Stage(widths=(2, 4, 6), blocks=2), Stage(widths=(4, 6), blocks=1)),
)
KEY = jax.random.key(11)
COUNTS = spaces.cardinalities(SPACE)
NAMES = [*STEM_GENES, *BLOCK_GENES * SPACE.slots, "weight_bits"]
WIDE = {"weight_bits": 1, "activation_bits": 1}
FULL = genotype_of(
    SPACE,
    {"operation": INVERTED, "width": 1, "residual": 1, "expansion": 1} | WIDE,
    {"operation": CONVOLUTION, "kernel": 1, "width": 0, "weight_bits": 1},
    {"operation": SEPARABLE, "width": 1, "residual": 1} | WIDE,
)
EMPTY = spaces.smallest(SPACE)


@functools.cache
def sampled(count=200):
    keys = jax.random.split(KEY, count)
    draw = jax.jit(jax.vmap(lambda key: spaces.sample(key, SPACE)))
    return np.asarray(draw(keys))


@jax.jit
@jax.vmap
def canonical(genotypes):
    return spaces.canonical(SPACE, genotypes)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0))
def mutants(key, genotype):
    return mutate(key, SPACE, genotype)


@functools.cache
def weights():
    """What a training may leave, in used and in unused entries alike."""
    rng = np.random.default_rng(0)

    def normal(like, scale):
        return jnp.asarray(scale * rng.normal(size=like.shape), jnp.float32)

    def uniform(like):
        return jnp.asarray(rng.uniform(0.3, 2, like.shape), jnp.float32)

    def leave(layer):
        if isinstance(layer, HeadParams):
            return layer._replace(bias=normal(layer.bias, 0.3))
        if isinstance(layer, LayerStatistics):
            return LayerStatistics(normal(layer.mean, 0.5), uniform(layer.variance))
        gain = uniform(layer.gain) * jnp.sign(normal(layer.gain, 1))
        return layer._replace(gain=gain, offset=normal(layer.offset, 0.5))

    return jax.tree.map(leave, initial_weights(KEY, SPACE), is_leaf=is_layer)


def is_layer(node):
    return isinstance(node, HeadParams | LayerParams | LayerStatistics)


def layers(tree):
    """The layers of a supernet tree, one per block slot, the head left out."""
    yield tree.stem
    for block in tree.stages:
        for layer in block:
            for slot in range(layer[0].shape[0]):
                yield jax.tree.map(lambda leaf: leaf[slot], layer)  # noqa: B023


def replaced(genotype, slot, **genes):
    changed = np.array(genotype)
    row = len(STEM_GENES) + slot * len(BLOCK_GENES)
    for name, value in genes.items():
        changed[row + BLOCK_GENES.index(name)] = value
    return changed


@jax.jit
def child_weights(key, parent, child, weights):
    return inherit(key, SPACE, parent, child, weights)

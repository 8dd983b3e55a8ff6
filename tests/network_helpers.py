"""One small space, images and random weights for all tests of whole networks.

The widths are few so that the operations of compact networks, run one by one, compile
for few shapes; they are shared by all files that use this space.
"""

import contextlib
import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxnas.networks import layers, supernet
from jaxnas.networks import space as spaces
from jaxnas.networks.convolutions import convolution
from jaxnas.networks.extents import extents
from jaxnas.networks.layers import (
    HeadParams,
    Layer,
    LayerParams,
    LayerStatistics,
    StoredMap,
    word_formats,
)
from jaxnas.networks.space import SearchSpace, Stage
from jaxnas.numerics.primitives import quantize

SPACE = SearchSpace(
    image=(8, 8, 1),
    classes=3,
    stages=(Stage(widths=(2, 4), blocks=2), Stage(widths=(8,), blocks=1)),
    kernels=(1, 3),
    expansions=(2,),
)
FIXED = word_formats((4, 8), ("fixed_point",))
FINE = word_formats((16,), ("fixed_point",))
SCHEMES = ("fixed_point", "logarithmic")
NODES = (LayerParams, LayerStatistics, HeadParams)


@functools.cache
def digits(count=8):
    """Handwritten digits as 8-bit words, `[count, 8, 8, 1]`."""
    images = np.round(load_digits().images[:count] * 255 / 16)
    return jnp.asarray(images[..., None], jnp.uint8)


@functools.cache
def genotypes(count, seed=0, space=SPACE):
    """Random canonical genotypes `[count, genes]`."""
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(lambda key: spaces.sample(key, space)))(keys)


def is_node(tree):
    return isinstance(tree, NODES)


@functools.cache
def random_weights(seed=0, space=SPACE):
    """Parameters and statistics as training leaves them: nothing neutral or zero."""
    rng = np.random.default_rng(seed)

    def normal(scale, like):
        return jnp.asarray(rng.normal(size=like.shape) * scale, jnp.float32)

    def uniform(low, high, like):
        return jnp.asarray(rng.uniform(low, high, like.shape), jnp.float32)

    def change(node):
        if isinstance(node, HeadParams):
            return node._replace(bias=normal(0.3, node.bias))
        if isinstance(node, LayerStatistics):
            return LayerStatistics(
                mean=normal(0.5, node.mean), variance=uniform(0.1, 3, node.variance)
            )
        signs = jnp.asarray(rng.choice([-1.0, 1.0], node.gain.shape), jnp.float32)
        return node._replace(
            gain=signs * uniform(0.3, 2, node.gain), offset=normal(0.5, node.offset)
        )

    weights = supernet.init(jax.random.key(seed), space)
    return tuple(jax.tree.map(change, tree, is_leaf=is_node) for tree in weights)


class Word(NamedTuple):
    """One call of `quantize`: what was stored, how, and what is read back."""

    site: str
    stored: str
    format: object
    x: np.ndarray
    scale: np.ndarray
    value: np.ndarray


WORDS = []


def _quantize_padded(x, scale, format, **names):
    """Word for word the same in one of few sizes, as each of them is compiled."""
    size = next(size for size in (2**6, 2**10, 2**12, 2**16) if size >= x.size)
    scale = np.broadcast_to(scale, x.shape).ravel()
    flat = (np.resize(array, size) for array in (x.ravel(), scale))
    return np.asarray(quantize(*flat, format, **names))[: x.size].reshape(x.shape)


def _recording_quantize(x, scale, format, *, stored, site):
    def record(*arrays):
        arrays = [np.array(array) for array in arrays]
        WORDS.append(Word(site, stored, format, *arrays))
        return arrays[-1]

    if not isinstance(x, jax.core.Tracer):
        value = _quantize_padded(np.asarray(x), scale, format, stored=stored, site=site)
        return jnp.asarray(record(x, scale, value))
    value = quantize(x, scale, format, stored=stored, site=site)
    shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
    return jax.pure_callback(record, shape, x, scale, value)


@contextlib.contextmanager
def recorded():
    """Yields the list of all words that networks store meanwhile.

    Compiled programs record them through callbacks: those of one site in the order in
    which they run, those of different sites in any order.
    """
    WORDS.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "quantize", _recording_quantize)
        yield WORDS


@functools.cache
def _compiled_supernet():
    def apply(weights, genotype, images, scheme):
        return supernet.apply(SPACE, *weights, genotype, images, scheme=scheme)[0]

    arguments = random_weights(), genotypes(1)[0], digits(), jnp.int32(0)
    with recorded():
        return jax.jit(apply).lower(*arguments).compile()


def run_supernet(weights, genotype, scheme=0):
    """Logits of the digits and the words stored on the way, in `SPACE`, compiled."""
    run = _compiled_supernet()
    with recorded() as words:
        logits = np.asarray(run(weights, genotype, digits(), jnp.int32(scheme)))
        return logits, words[:]


def by_site(words):
    """Words by the name that their site has in the supernet, in order of execution."""
    sites = {}
    for word in words:
        sites.setdefault(re.sub(r"_block\d+", "", word.site), []).append(word)
    return sites


def active_masks(genotype, params, space=SPACE):
    """A tree like `params`: which entries the genotype uses."""

    def mask(node, extent):
        if isinstance(node, HeadParams):
            rows = jnp.arange(node.kernel.shape[0]) < extent.in_width
            used = jnp.broadcast_to(rows[:, None], node.kernel.shape)
            return HeadParams(used, jnp.ones(node.bias.shape, bool))
        if extent.used.ndim:
            return jax.vmap(mask)(node, extent)
        height, width, inputs, outputs = node.kernel.shape
        margin = (height - extent.side) // 2

        def inside(size):
            taps = jnp.arange(size)
            return (margin <= taps) & (taps < size - margin)

        filters = extent.used & (jnp.arange(outputs) < extent.out_width)
        kernel = (
            inside(height)[:, None, None, None]
            & inside(width)[None, :, None, None]
            & (jnp.arange(inputs) < extent.in_width)[None, None, :, None]
            & filters[None, None, None, :]
        )
        return LayerParams(kernel, filters, filters)

    active = extents(space, genotype)
    return jax.tree.map(mask, params, active, is_leaf=is_node)


def naive_convolution(x, kernel, depthwise=False):
    """The sum over taps in float64; stride 1, zeros outside the map."""
    x, kernel = np.float64(x), np.float64(kernel)
    batch, height, width, _ = x.shape
    side, outputs = kernel.shape[0], kernel.shape[-1]
    result = np.zeros((batch, height, width, outputs))
    for row, column, i, j in np.ndindex(height, width, side, side):
        r, c = row + i - side // 2, column + j - side // 2
        if 0 <= r < height and 0 <= c < width:
            pixel, tap = x[:, r, c], kernel[i, j]
            result[:, row, column] += pixel * tap[0] if depthwise else pixel @ tap
    return result


def layer(formats=FINE, bits=(0, 0), **options):
    convolve = options.pop("convolve", convolution)
    return Layer(formats, *bits, site="here", convolve=convolve, **options)


def random_words(seed, shape=(6, 5, 5, 2)):
    """A map as it is read back from eight-bit words."""
    words = np.random.default_rng(seed).integers(0, 256, shape)
    return StoredMap(jnp.asarray(words / 64, jnp.float32), jnp.float32(1 / 64))

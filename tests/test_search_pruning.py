"""The filters that stay where a map narrows are the most salient ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from morphism_helpers import EMPTY, FULL, SPACE, replaced, weights
from search_helpers import assert_same

from jaxnas.networks.layers import VARIANCE_FLOOR
from jaxnas.networks.space import CONVOLUTION, INVERTED, SEPARABLE
from jaxnas.search.pruning import salient_first


@jax.jit
def reordered(parent, child):
    return salient_first(SPACE, parent, child, weights())


def member(tree, slot):
    return jax.tree.map(lambda leaf: np.asarray(leaf[slot]), tree)


def norms(layer, inputs):
    """By the textbook: of the weights, as they are normalised, on every input."""
    params = member(getattr(weights().params.stages[0], layer), 0)
    statistics = member(getattr(weights().statistics.stages[0], layer), 0)
    scaled = params.kernel * params.gain / np.sqrt(statistics.variance + VARIANCE_FLOOR)
    return [np.linalg.norm(scaled[:, :, channel]) for channel in range(inputs)]


def stem_of_six(**block):
    """Without a shortcut behind a stem of 6 channels, all inputs of which are read."""
    wide = np.asarray(EMPTY).copy()
    wide[0] = 2
    genes = {"present": 1, "kernel": 1, "width": 2, "expansion": 0} | block
    return replaced(wide, 0, **genes)


def narrower(parent):
    child = np.array(parent)
    child[0] -= 1
    return child


def test_a_channel_matters_by_its_gain_and_its_reader():
    parent = stem_of_six(operation=CONVOLUTION)
    gain = np.asarray(weights().params.stem.gain)
    saliency = np.abs(gain[:6]) * norms("spatial", 6)
    order = np.argsort(-saliency)
    assert not np.array_equal(order, np.arange(6))
    moved = reordered(parent, narrower(parent))
    np.testing.assert_array_equal(moved.params.stem.gain[:6], gain[order])
    kernel = weights().params.stages[0].spatial.kernel[0, :, :, order]
    found = moved.params.stages[0].spatial.kernel[0, :, :, :6]
    np.testing.assert_array_equal(found, np.moveaxis(np.asarray(kernel), 0, 2))


def test_a_separable_block_reads_with_its_filters():
    """And they follow the channels that they filter."""
    parent = stem_of_six(operation=SEPARABLE)
    gain = np.asarray(weights().params.stem.gain)
    inner = np.asarray(weights().params.stages[0].depthwise.gain)[0]
    order = np.argsort(-np.abs(gain[:6] * inner[:6]) * norms("project", 6))
    assert not np.array_equal(order, np.arange(6))
    moved = reordered(parent, narrower(parent)).params
    np.testing.assert_array_equal(moved.stem.gain[:6], gain[order])
    np.testing.assert_array_equal(
        moved.stages[0].depthwise.gain[0, :6], inner[:6][order]
    )


def test_an_expansion_keeps_its_most_salient_filters():
    parent = stem_of_six(operation=INVERTED, expansion=1)
    child = replaced(parent, 0, expansion=0)
    old = weights().params.stages[0]
    inner = np.asarray(old.depthwise.gain)[0]
    order = np.argsort(-np.abs(inner[:18]) * norms("project", 18))
    new = reordered(parent, child).params
    np.testing.assert_array_equal(new.stages[0].depthwise.gain[0, :18], inner[order])
    np.testing.assert_array_equal(
        new.stages[0].project.kernel[0, 0, 0, :18], old.project.kernel[0, 0, 0][order]
    )
    np.testing.assert_array_equal(new.stem.kernel, weights().params.stem.kernel)


@pytest.mark.parametrize("parent", [EMPTY, FULL], ids=["empty", "full"])
def test_nothing_moves_where_no_map_narrows(parent):
    parent = jnp.asarray(parent)
    assert_same(reordered(parent, parent), weights())

"""Who a search starts with: ancestors, the trivial network, distinct random ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, genotypes

from jaxnas.networks import space as spaces
from jaxnas.search.founders import Ancestors, first_weights, founders
from jaxnas.training import initial_weights

KEY = jax.random.key(4)


@functools.cache
def ancestors():
    """Five networks, each with weights of its own number throughout."""
    like = jax.eval_shape(lambda: initial_weights(KEY, SPACE))
    weights = jax.tree.map(
        lambda leaf: np.stack([np.full(leaf.shape, n, leaf.dtype) for n in range(5)]),
        like,
    )
    return Ancestors(genotypes(5), weights)


def test_founders_begin_with_ancestors_and_the_trivial_network():
    alone = np.asarray(founders(KEY, SPACE, 8, None, None))
    np.testing.assert_array_equal(alone[0], spaces.smallest(SPACE))
    after = np.asarray(founders(KEY, SPACE, 12, None, ancestors()))
    np.testing.assert_array_equal(after[:5], ancestors().genotypes)
    np.testing.assert_array_equal(after[5], spaces.smallest(SPACE))
    for found in (alone, after):
        assert len(np.unique(found, axis=0)) == len(found)


def test_founders_are_admitted_and_too_few_are_refused():
    few = lambda one: one[0] + one[3] == 0  # noqa: E731
    found = np.asarray(founders(KEY, SPACE, 8, few, ancestors()))
    assert (found[:, 0] + found[:, 3] == 0).all()
    with pytest.raises(ValueError, match="only 0 distinct networks within the limits"):
        founders(KEY, SPACE, 8, lambda one: one[0] < 0, None)


def test_ancestors_keep_their_weights_and_others_start_at_random():
    chosen = jnp.stack([genotypes(6)[5], genotypes(5)[3], genotypes(5)[1]])
    keys = jax.random.split(KEY, 3)
    found = first_weights(keys, SPACE, chosen, ancestors())
    fresh = first_weights(keys, SPACE, chosen, None)
    assert (np.asarray(genotypes(6)[5]) != np.asarray(genotypes(5))).any(axis=1).all()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert (one[1] == 3).all() and (one[2] == 1).all()

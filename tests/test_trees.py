"""Leaves have names, keys and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxnas.trees import leaf_keys, leaf_paths, select, size_in_bits

TREE = {
    "head": {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2, jnp.bfloat16)},
    "blocks": [{"kernel": jnp.zeros(5, jnp.uint8)}, ()],
}


def test_paths_name_the_leaves_in_order():
    assert leaf_paths(TREE) == ["blocks/0/kernel", "head/bias", "head/kernel"]
    assert leaf_paths(jnp.zeros(3)) == [""]
    linear = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    assert leaf_paths(nnx.state(linear)) == ["bias/value", "kernel/value"]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("*", [True, True, True]),
        ("*/kernel", [True, False, True]),
        ("head/*", [False, True, True]),
        ("blocks/0/kernel", [True, False, False]),
        ("*/bia?", [False, True, False]),
    ],
)
def test_globs_select_by_path(pattern, expected):
    assert select(TREE, pattern) == expected


def test_a_glob_without_a_match_lists_the_paths():
    with pytest.raises(ValueError, match="'kernel'.*blocks/0/kernel, head/bias"):
        select(TREE, "kernel")
    with pytest.raises(ValueError, match="no leaves"):
        select({})


def test_the_key_of_a_leaf_is_its_number_folded_in():
    key = jax.random.key(3)
    keys = leaf_keys(key, TREE)
    assert jax.tree.structure(keys) == jax.tree.structure(TREE)
    for number, leaf_key in enumerate(jax.tree.leaves(keys)):
        expected = jax.random.key_data(jax.random.fold_in(key, number))
        np.testing.assert_array_equal(jax.random.key_data(leaf_key), expected)


def test_size_counts_the_bits_of_arrays_and_of_their_specifications():
    assert size_in_bits(TREE) == 6 * 32 + 2 * 16 + 5 * 8
    assert size_in_bits(jax.eval_shape(lambda: TREE)) == size_in_bits(TREE)

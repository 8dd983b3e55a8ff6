"""Corrupted parameters: the right leaves, the right words, the right types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.corruption import corrupt
from jaxnas.faults.models import FaultModel, bit_flips
from jaxnas.numerics import FixedPoint, absmax_scale

KEY = jax.random.key(0)
FLIPS = bit_flips(0.03)
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)


def parameters():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
    return {
        "a": {"kernel": values, "bias": values[0].astype(jnp.bfloat16)},
        "b": {"kernel": values[:2].astype(jnp.float16), "steps": jnp.arange(3)},
    }


def words_of(leaf):
    return np.asarray(leaf).view(f"u{leaf.dtype.itemsize}")


FLOATS = [("a", "kernel"), ("a", "bias"), ("b", "kernel")]


def changed_bits(before, after):
    return [
        int((words_of(before[a][b]) ^ words_of(after[a][b])).any()) for a, b in FLOATS
    ]


def test_corruption_keeps_dtypes_and_touches_selected_leaves_only():
    params = parameters()
    found = corrupt(KEY, params, SCRAMBLE, site="*/kernel")
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(t)] for t in (found, params)]
    assert dtypes[0] == dtypes[1]
    assert changed_bits(params, found) == [1, 0, 1]
    np.testing.assert_array_equal(found["b"]["steps"], params["b"]["steps"])


def test_all_floats_are_corrupted_by_default_and_twice_is_never():
    params = parameters()
    params["a"]["kernel"] = params["a"]["kernel"].at[0].set(jnp.nan)
    once = corrupt(KEY, params, bit_flips(0.1))
    assert changed_bits(params, once) == [1, 1, 1]
    twice = corrupt(KEY, once, bit_flips(0.1))
    assert changed_bits(params, twice) == [0, 0, 0]
    assert changed_bits(params, corrupt(KEY, params, bit_flips(0.0))) == [0, 0, 0]


def test_every_leaf_draws_from_its_own_number():
    params = parameters()
    everything = corrupt(KEY, params, SCRAMBLE)
    alone = corrupt(KEY, params, SCRAMBLE, site="b/kernel")
    assert changed_bits(everything, alone) == [1, 1, 0]
    first, second = corrupt(KEY, [jnp.ones(5), jnp.ones(5)], SCRAMBLE)
    assert (first != second).any()


def test_corruption_in_a_format_is_that_of_its_words():
    format, params = FixedPoint(bits=4), parameters()
    found = corrupt(KEY, params, FLIPS, format=format, site="b/kernel")["b"]["kernel"]
    values = params["b"]["kernel"].astype(jnp.float32)
    scale = absmax_scale(values, format)
    number = 2  # after a/bias and a/kernel
    fault = FLIPS.sample(jax.random.fold_in(KEY, number), values.shape, format)
    words = FLIPS.apply(fault, format.encode(values, scale))
    expected = format.decode(words, scale).astype(jnp.float16)
    np.testing.assert_array_equal(found, expected)


def test_corruption_is_the_same_compiled_and_batched():
    params, keys = parameters(), jax.random.split(KEY, 3)
    batched = jax.jit(jax.vmap(lambda key: corrupt(key, params, SCRAMBLE)))(keys)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert changed_bits(one, corrupt(key, params, SCRAMBLE)) == [0, 0, 0]


@pytest.mark.parametrize(
    "params, site, message",
    [
        ({"w": jnp.ones(2)}, "kernel", "'kernel'.*paths: w"),
        ({"n": jnp.arange(2)}, "*", "floating-point.*n"),
        ({"w": jnp.ones(2, jnp.float8_e4m3fn)}, "*", "float8"),
    ],
)
def test_leaves_that_cannot_be_corrupted_are_refused(params, site, message):
    with pytest.raises(ValueError, match=message):
        corrupt(KEY, params, FLIPS, site=site)

"""Orders made of sorts of single words, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.search.ordering import ascending, partitioned, sortable


@pytest.mark.parametrize("rows", [1, 2, 37, 3000])
def test_keys_rise_and_equal_ones_keep_the_order_given(rows):
    rng = np.random.default_rng(rows)
    keys = rng.integers(0, 2**32, rows, dtype=np.uint32)
    minor = keys >> 28  # full of ties

    def orders(keys, minor):
        first = ascending(minor, 4)
        return first, ascending(keys), ascending(minor, 4, after=ascending(keys))

    expected = (
        np.argsort(minor, kind="stable"),
        np.argsort(keys, kind="stable"),
        np.lexsort((keys, minor)),
    )
    for found, wanted in zip(jax.jit(orders)(keys, minor), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.uint32])
def test_words_have_the_order_of_numbers(dtype):
    if dtype == np.float32:
        values = np.array([-np.inf, -1e30, -1.5, -2e-38, 0, 2e-38, 2, np.inf], dtype)
    else:
        kind = np.iinfo(dtype)
        values = np.array([kind.min, kind.min + 1, kind.max // 2, kind.max], dtype)
    words = np.asarray(sortable(jnp.asarray(values))).astype(np.int64)
    assert (np.diff(words) > 0).all()


def test_zeros_are_equal():
    zeros = sortable(jnp.array([-0.0, 0.0]))
    assert zeros[0] == zeros[1]


def test_rows_of_the_mask_come_first():
    mask = np.random.default_rng(0).random((8, 21)) < 0.4
    found = jax.jit(jax.vmap(partitioned))(mask)
    np.testing.assert_array_equal(found, np.argsort(~mask, axis=1, kind="stable"))

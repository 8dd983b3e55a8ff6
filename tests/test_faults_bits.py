"""Bits with rates of their own: each at its rate, none aware of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.bits import Flips, as_masks, listed, strike_bits
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=5)
WORDS = jnp.zeros(1_000_000, jnp.uint8)
SPARSE = np.array([0.0, 1e-4, 0.02, 0.03, 0.1])
DENSE = np.array([0.0, 1e-3, 0.3, 1.0, 0.5])


def struck(rates, **end):
    rates = jnp.asarray(rates, jnp.float32)
    return strike_bits(KEY, WORDS.shape, FORMAT, rates, np.asarray(rates, float), **end)


@pytest.mark.parametrize("rates", [SPARSE, DENSE], ids=["listed", "dense"])
def test_every_bit_is_struck_at_its_own_rate(rates):
    masks = np.asarray(as_masks(struck(rates), WORDS))
    assert (masks.shape, masks.dtype) == (WORDS.shape, WORDS.dtype)
    assert masks.max() < 32
    for bit, rate in enumerate(rates):
        count = int((masks >> bit & 1).sum())
        assert stats.binomtest(count, masks.size, rate).pvalue > 1e-4


def test_bits_of_one_word_are_independent_within_and_across_samplers():
    masks = np.asarray(as_masks(struck(SPARSE), WORDS)).astype(int)
    for low, high in ((2, 3), (2, 4), (3, 4)):
        both = int((masks >> low & masks >> high & 1).sum())
        rate = SPARSE[low] * SPARSE[high]
        assert stats.binomtest(both, masks.size, rate).pvalue > 1e-4


def test_a_frequent_bit_does_not_make_rare_ones_expensive():
    flips = struck(np.array([1e-6, 1e-6, 1e-6, 1e-6, 0.05]))
    assert isinstance(flips, Flips)
    assert flips.word.size < 3 * 0.05 * WORDS.size
    assert struck(np.zeros(5)).word.size == 0


def test_positions_become_words_and_bits():
    flips = listed(jnp.arange(15, dtype=jnp.uint32), 5)
    np.testing.assert_array_equal(flips.word, np.repeat(np.arange(3), 5))
    np.testing.assert_array_equal(flips.bit, np.tile(np.arange(5), 3))

"""Defects: stuck cells by their rates and for good, struck words as wholes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.defects import act, stuck_at, word_faults
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=5)
WORDS = jax.random.bits(jax.random.key(1), (200_000,), jnp.uint8) & 31


def faulted(model, words=WORDS, key=KEY):
    return np.asarray(model.apply(model.sample(key, words.shape, FORMAT), words))


@pytest.mark.parametrize("zero, one", [(0.05, 0.01), (0.3, 0.7)])
def test_cells_stick_at_their_rates_and_reads_repeat(zero, one):
    stuck = jax.jit(lambda words: faulted_words(stuck_at(zero, one), words))
    from_zeros, from_ones = stuck(WORDS * 0), stuck(WORDS * 0 + 31)
    for bit in range(5):
        for changed, rate in ((from_zeros, one), (31 ^ from_ones, zero)):
            count = int((changed >> bit & 1).sum())
            assert stats.binomtest(count, WORDS.size, rate).pvalue > 1e-4
    once = stuck(WORDS)
    np.testing.assert_array_equal(once, (WORDS | from_zeros) & from_ones)
    np.testing.assert_array_equal(stuck(once), once)
    # Stuck at both, a cell would read the same from zeros and ones, and count as one.
    assert not (from_zeros & ~from_ones).any()


def faulted_words(model, words):
    return model.apply(model.sample(KEY, words.shape, FORMAT), words)


def test_cells_of_either_kind_nest_in_their_own_rate():
    @jax.jit
    def stuck(zero, one):
        model = stuck_at(zero, {"sign": one}, max_rate=0.1)
        words = jnp.zeros(5000, jnp.uint8)
        return faulted_words(model, words), 31 ^ faulted_words(model, words + 31)

    fewer, more = stuck(0.02, 0.01), stuck(0.06, 0.04)
    for few, many in zip(fewer, more, strict=True):
        assert few.any() and not (few & ~many).any() and (few != many).any()
    assert not (more[0] & 15).any()
    assert not any(masks.any() for masks in stuck(0.0, 0.0))


@pytest.mark.parametrize("rate, max_rate", [(0.02, None), (0.02, 0.1), (1.0, None)])
def test_words_become_uniform_random_ones_at_the_rate(rate, max_rate):
    found = faulted(word_faults(rate, max_rate=max_rate))
    changed = found != WORDS
    # One in 32 random words is the one that stood there.
    law = stats.binomtest(int(changed.sum()), changed.size, rate * 31 / 32)
    assert law.pvalue > 1e-4
    words = np.bincount(found[changed], minlength=32)
    assert words.size == 32 and stats.chisquare(words).pvalue > 1e-4


def test_struck_words_lie_anywhere():
    found = faulted(word_faults(0.02, "flip")) ^ np.asarray(WORDS)
    assert set(np.unique(found)) == {0, 31}
    blocks = (found > 0).reshape(100, -1).sum(1)
    assert stats.chisquare(blocks).pvalue > 1e-4


def test_actions_on_bits():
    words, masks = jnp.uint8(0b1100_1010), jnp.uint8(0b0000_1111)
    value = jnp.uint8(0b0101_0110)
    expected = {"flip": 0b0101, "zero": 0, "one": 0b1111, "random": 0b0110}
    for action, low in expected.items():
        assert int(act(words, masks, action, value)) == 0b1100_0000 | low


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: stuck_at(1.5, 0.0), "0 <= rate"),
        (lambda: faulted(stuck_at(0.6, 0.6)), "at most 1.0 for every bit"),
        (lambda: faulted(stuck_at(0.06, [0.0, 0.05] * 2 + [0.0], max_rate=0.1)), "0.1"),
        (lambda: word_faults(-0.1), "0 <= rate"),
        (lambda: word_faults(0.1, "invert"), "action='invert'"),
    ],
)
def test_impossible_defects_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

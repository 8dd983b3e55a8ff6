"""Upsets of several bits: how often, which, and where words end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.models import bit_flips
from jaxnas.faults.upsets import bursts, upsets
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=8)
WORDS = jnp.zeros(300_000, jnp.uint8)
PATTERNS = {(0,): 0.7, (0, 1): 0.2, (0, 2): 0.0, (0, 1, 3): 0.1}


def masks(model, words=WORDS, key=KEY):
    return np.asarray(model.apply(model.sample(key, words.shape, FORMAT), words))


def test_a_bit_flips_if_any_burst_covers_it():
    # Fewer bursts reach the lowest bits: those that start below them in their word.
    found = masks(bursts(0.01, 3))
    for bit, starts in enumerate([1, 2, 3, 3, 3, 3, 3, 3]):
        count = int((found >> bit & 1).sum())
        law = stats.binomtest(count, found.size, 1 - 0.99**starts)
        assert law.pvalue > 1e-4


def test_bursts_go_on_in_the_next_word_only_across_words():
    everywhere = masks(bursts(1e-4, 4, across_words=True))
    flat = np.unpackbits(everywhere, bitorder="little")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    starts, lengths = edges[::2], np.diff(edges)[::2]
    # Runs are shorter only at the end of memory, longer where bursts meet.
    assert (lengths[:-1] >= 4).all() and (lengths == 4).mean() > 0.99
    law = stats.binomtest(starts.size, flat.size, 1e-4 * (1 - 4e-4))
    assert law.pvalue > 1e-4
    crossing = (starts % 8 > 4).mean()
    assert (
        stats.binomtest(int(crossing * starts.size), starts.size, 3 / 8).pvalue > 1e-4
    )
    within = np.unpackbits(masks(bursts(1e-4, 4)), bitorder="little").reshape(-1, 8)
    cut = np.bitwise_count(np.packbits(within[within[:, 7] == 1], axis=1))
    assert set(np.unique(cut)) >= {1, 2, 3, 4}


def test_patterns_occur_in_proportion():
    found = masks(upsets(1e-3, PATTERNS)).astype(int)
    # Of words whose lowest struck bit is 0, nearly all had one event, there.
    heads = found[found & 1 == 1]
    observed = [int((heads == mask).sum()) for mask in (0b1, 0b11, 0b101, 0b1011)]
    assert sum(observed) > 0.98 * heads.size and observed[2] == 0
    kept = np.array(observed)[[0, 1, 3]]
    assert stats.chisquare(kept, kept.sum() * np.array([0.7, 0.2, 0.1])).pvalue > 1e-4


def test_single_bits_are_independent_flips():
    found = masks(upsets(0.02, {(0,): 1.0}))
    expected = masks(bit_flips(0.02), key=jax.random.split(KEY)[0])
    np.testing.assert_array_equal(found, expected)


def test_overlapping_bursts_flip_each_bit_once_and_nest():
    words = jnp.zeros(50, jnp.uint8)

    @jax.jit
    def flips(rate):
        model = bursts(rate, 3, across_words=True, max_rate=0.9)
        return model.apply(model.sample(KEY, words.shape, FORMAT), words)

    none, fewer, more = (np.asarray(flips(rate)) for rate in (0.0, 0.2, 0.9))
    assert not none.any() and fewer.any() and not (fewer & ~more).any()
    # At 0.9 nearly all bursts overlap: sums instead of unions would carry and wrap.
    assert np.bitwise_count(more).sum() > 390


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: bursts(0.1, 0), "bursts of 0 bits"),
        (lambda: bursts(1.1, 2), "0 <= rate"),
        (lambda: masks(bursts(0.1, 9)), "reaches 8 bits up, beyond words of 8"),
        (lambda: upsets(0.1, {(0,): 0.5, (0, 1): 0.4}), "sum up to 1, not 0.9"),
        (lambda: upsets(0.1, {(0,): 1.5, (0, 1): -0.5}), "0 or more"),
        (lambda: upsets(0.1, {}), "not 0"),
        (lambda: upsets(0.1, {(0, 0): 1.0}), "distinct offsets"),
        (lambda: upsets(0.1, {(-1, 0): 1.0}), "0 or more"),
        (lambda: upsets(0.1, {(): 1.0}), "distinct offsets"),
    ],
)
def test_impossible_upsets_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

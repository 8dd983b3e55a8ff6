"""Words of the counter's hash: uniform, and independent between keys."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxnas.search.noise import random_words

WORDS = 20_000


def drawn(seeds):
    draw = jax.jit(jax.vmap(lambda key: random_words(key, (WORDS,))))
    return np.asarray(draw(jax.vmap(jax.random.key)(jnp.array(seeds))))


def test_every_byte_is_uniform():
    for shift in (0, 8, 16, 24):
        counts = np.bincount(drawn([0])[0] >> shift & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 0.001


def test_neighbours_and_neighbouring_keys_are_uncorrelated():
    words = drawn(range(5)) / 2.0**32 - 0.5
    sigma = 1 / 12 / WORDS**0.5
    for lag in (1, 2, 30):
        products = np.mean(words[:, lag:] * words[:, :-lag], axis=1)
        assert np.abs(products).max() < 5 * sigma
    between = words @ words.T / WORDS
    assert np.abs(between[~np.eye(5, dtype=bool)]).max() < 5 * sigma

"""What holds for every fault model; and defects of other tools, which would not pass.

Each known defect is rebuilt from its description and must fail the judgement that the
sampler here passes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas import faults
from jaxnas.numerics import FixedPoint

pytestmark = pytest.mark.usefixtures("compiled_fully")

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=5)
# The three bits above the word are at random too, and nothing may depend on them.
WORDS = jax.random.bits(jax.random.key(1), (6, 7), jnp.uint8)
VALUES = jax.random.normal(jax.random.key(2), (6, 7))
MEMORY = faults.AddressMap(words_per_row=4, banks=2, interleaved=True)
PATTERNS = {(0,): 0.9, (0, 1): 0.08, (0, 1, 2): 0.02}


# Every model as a function of one rate, traced, of at most 0.25.
MODELS = {
    "bit flips": lambda rate: faults.bit_flips(rate, max_rate=0.1),
    "selective": lambda rate: faults.selective_flips({"sign": rate}, max_rate=0.1),
    "directed": lambda rate: faults.directed_flips(rate, {0: rate}, max_rate=0.25),
    "upsets": lambda rate: faults.upsets(
        rate, PATTERNS, across_words=True, max_rate=0.25
    ),
    "stuck": lambda rate: faults.stuck_at(rate / 2, rate / 2, max_rate=0.1),
    "words": lambda rate: faults.word_faults(rate, max_rate=0.25),
    "rows": lambda rate: faults.unit_faults("row", rate, MEMORY, "one", max_rate=0.25),
    "columns": lambda rate: faults.unit_faults(
        "column", rate, MEMORY, "random", max_rate=0.25
    ),
    "noise": faults.additive_noise,
    "factors": faults.multiplicative_noise,
    "elements": lambda rate: faults.dead_elements(rate, max_rate=0.25),
    "channels": lambda rate: faults.dead_channels(rate, max_rate=0.25),
    "biased": lambda rate: faults.biased_features(rate, 9, max_rate=0.25),
    "weights": lambda rate: faults.stuck_weights(rate, max_rate=0.25),
}


def faulted(model, stored, key=KEY):
    return model.apply(model.sample(key, stored.shape, FORMAT), stored)


def assert_same(found, expected):
    # Values may be contracted to fused multiply-adds, words may not differ at all.
    exact = np.issubdtype(found.dtype, np.integer)
    np.testing.assert_allclose(found, expected, 0 if exact else 1e-6, 0)


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name):
    build = MODELS[name]
    stored = WORDS if build(0.0).on == "words" else VALUES
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def one(key, rate):
        return faulted(build(rate), stored, key)

    @jax.jit
    def kept(keys, rate):
        sample = jax.vmap(lambda key: build(rate).sample(key, stored.shape, FORMAT))
        return jax.vmap(build(rate).apply, (0, None))(sample(keys), stored)

    batch = np.asarray(kept(keys, 0.25))
    assert (batch.dtype, batch.shape[1:]) == (stored.dtype, stored.shape)
    assert (batch != np.asarray(stored)).any() and (batch[0] != batch[1]).any()
    for key, found in zip(keys, batch, strict=True):
        assert_same(found, one(key, 0.25))
    np.testing.assert_array_equal(one(KEY, 0.0), stored)
    if stored is WORDS:
        assert not (batch >> 5 ^ np.asarray(WORDS >> 5)).any()


@pytest.mark.parametrize("name", ["directed", "columns"])
def test_nothing_depends_on_compilation(name):
    model = MODELS[name](0.2)
    stored = WORDS if model.on == "words" else VALUES
    assert_same(faulted(model, stored), jax.jit(lambda: faulted(model, stored))())


TRIALS, SIZE, BITS, RATE = 4000, 25, 8, 0.003


def judge(words, rate=RATE):
    """Which laws of independent flips the words (trials, SIZE), zero before, break."""
    planes = words[..., None] >> np.arange(BITS) & 1
    counts = planes.sum((1, 2))
    law = stats.binom(SIZE * BITS, rate)
    observed = np.bincount(np.minimum(counts, 4), minlength=5)
    expected = TRIALS * np.append(law.pmf(range(4)), law.sf(3))
    per_word = planes.sum(2)
    pairs = int((per_word > 1).sum())
    two = stats.binom(BITS, rate).sf(1)
    pvalues = {
        "mean": stats.binomtest(int(counts.sum()), planes.size, rate).pvalue,
        "counts": stats.chisquare(observed, expected).pvalue,
        "words": stats.chisquare(planes.sum((0, 2)) + 1e-9).pvalue,
        "bits": stats.chisquare(planes.sum((0, 1)) + 1e-9).pvalue,
        "pairs": stats.binomtest(pairs, per_word.size, two).pvalue,
    }
    return {name for name, pvalue in pvalues.items() if not pvalue > 1e-4}


def ours():
    model, zeros = faults.bit_flips(RATE), jnp.zeros(SIZE, jnp.uint8)
    flip = jax.jit(
        jax.vmap(
            lambda key: model.apply(
                model.sample(key, zeros.shape, FixedPoint(bits=BITS)), zeros
            )
        )
    )
    return np.asarray(flip(jax.random.split(KEY, TRIALS)))


RNG = np.random.default_rng(0)


def bernoulli(rate):
    return RNG.random((TRIALS, SIZE, BITS)) < rate


def packed(planes):
    return np.packbits(planes, axis=-1, bitorder="little")[..., 0]


def power_of_two_rate():
    """mase-triton: the probability is rounded down to a power of two."""
    return packed(bernoulli(2.0 ** np.floor(np.log2(RATE))))


def fixed_count():
    """FKeras: int(bits * rate) flips in every trial, none at a low rate."""
    count = int(SIZE * BITS * RATE)
    orders = RNG.permuted(np.tile(np.arange(SIZE * BITS), (TRIALS, 1)), axis=1)
    return packed((orders < count).reshape(TRIALS, SIZE, BITS))


def one_flip_per_element():
    """MRFI: an element is hit at a rate per element, and then one of its bits flips."""
    hit = RNG.random((TRIALS, SIZE, 1)) < RATE * BITS
    return packed(hit & (RNG.integers(BITS, size=(TRIALS, SIZE, 1)) == np.arange(BITS)))


def divided_rate():
    """MRFI: the rate per bit is taken for one per element, and divided again."""
    hit = RNG.random((TRIALS, SIZE, 1)) < RATE
    return packed(hit & (RNG.integers(BITS, size=(TRIALS, SIZE, 1)) == np.arange(BITS)))


def first_words():
    """Ares: so many words as were drawn, but always the first ones."""
    return packed(-np.sort(-bernoulli(RATE).astype(int), axis=1))


def last_word_left_out():
    """TensorFI 2: the last variable is never struck."""
    planes = bernoulli(RATE)
    planes[:, -1] = False
    return packed(planes)


def carries():
    """Positions with replacement whose masks are added: a repeated one carries."""
    count = RNG.binomial(SIZE * BITS, RATE, TRIALS)
    words = np.zeros((TRIALS, SIZE), np.uint8)
    for row, flips in zip(words, count, strict=True):
        # Few positions, so that repeats are frequent enough to be seen.
        for place in RNG.integers(2, size=flips):
            row[place] += 1
    return words


@pytest.mark.parametrize(
    "defect, broken",
    [
        (power_of_two_rate, "mean"),
        (fixed_count, "counts"),
        (divided_rate, "mean"),
        (one_flip_per_element, "pairs"),
        (first_words, "words"),
        (last_word_left_out, "words"),
        (carries, "bits"),
    ],
)
def test_defects_of_other_tools_would_be_found(defect, broken):
    assert broken in judge(defect())


def test_independent_flips_here_break_no_law():
    assert not judge(ours())
    assert not judge(packed(bernoulli(RATE)))


def test_rates_below_one_flip_per_memory_still_flip():
    # int(40 * 0.001) is no flip at all, ever.
    model, words = faults.bit_flips(0.001), jnp.zeros(8, jnp.uint8)
    flip = jax.jit(jax.vmap(lambda key: faulted(model, words, key).any()))
    struck = int(flip(jax.random.split(KEY, 20_000)).sum())
    assert stats.binomtest(struck, 20_000, 1 - 0.999**40).pvalue > 1e-4

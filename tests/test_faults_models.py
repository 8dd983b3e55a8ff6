"""Laws of fault models: identity, involution, nesting, composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.bits import DENSE_RATE
from jaxnas.faults.models import (
    Fault,
    FaultModel,
    bit_flips,
    chain,
)
from jaxnas.numerics import IEEE, FixedPoint, Logarithmic, word_dtype

KEY = jax.random.key(0)
FORMATS = [
    FixedPoint(bits=4),
    FixedPoint(bits=8),
    Logarithmic(bits=12, base=1.01),
    IEEE(name="bfloat16"),
    IEEE(name="float32"),
]
MODELS = {
    "listed": bit_flips(0.05),
    "dense": bit_flips(0.3),
    "chained": chain(bit_flips(0.02), bit_flips(0.2)),
}


def random_words(format, shape=(40, 25)):
    words = jax.random.bits(jax.random.key(9), shape, jnp.uint32)
    return (words >> (32 - format.bits)).astype(word_dtype(format.bits))


def faulted(model, words, format, key=KEY):
    return model.apply(model.sample(key, words.shape, format), words)


@pytest.mark.parametrize(
    "name, format",
    [("listed", format) for format in FORMATS]
    + [("dense", FORMATS[0]), ("dense", FORMATS[4]), ("chained", FORMATS[2])],
)
def test_words_keep_type_and_width_and_flipping_twice_restores_them(name, format):
    model, words = MODELS[name], random_words(format)
    fault = model.sample(KEY, words.shape, format)
    once = model.apply(fault, words)
    assert (once.shape, once.dtype) == (words.shape, words.dtype)
    assert int(once.max()) < 2**format.bits
    assert (once != words).any()
    np.testing.assert_array_equal(model.apply(fault, once), words)


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.3])
def test_every_bit_of_a_word_flips_at_the_rate(rate):
    words = jnp.zeros(300_000, jnp.uint8)
    found = np.asarray(faulted(bit_flips(rate), words, FixedPoint(bits=5)))
    for position in range(5):
        flips = int(((found >> position) & 1).sum())
        assert stats.binomtest(flips, words.size, rate).pvalue > 1e-4


@pytest.mark.parametrize("max_rate", [0.01, 2 * DENSE_RATE])
def test_rate_zero_is_the_identity(max_rate):
    words = random_words(FORMATS[1])
    for model in (bit_flips(0.0), bit_flips(0.0, max_rate=max_rate), chain()):
        np.testing.assert_array_equal(faulted(model, words, FORMATS[1]), words)


@pytest.mark.parametrize("max_rate", [0.1, 2 * DENSE_RATE])
def test_one_program_serves_all_rates_and_nests_their_flips(max_rate):
    words, traces = jnp.zeros(5000, jnp.uint8), []

    @jax.jit
    def flip(rate):
        traces.append(rate)
        return faulted(bit_flips(rate, max_rate=max_rate), words, FORMATS[1])

    flips = [flip(jnp.float32(share * max_rate)) for share in (0, 0.01, 0.3, 1)]
    assert len(traces) == 1
    assert not flips[0].any()
    for fewer, more in zip(flips, flips[1:], strict=False):
        assert not (fewer & ~more).any() and (fewer != more).any()
    static = faulted(bit_flips(0.3 * max_rate, max_rate=max_rate), words, FORMATS[1])
    np.testing.assert_array_equal(static, flips[2])


@pytest.mark.parametrize("name", MODELS)
def test_batches_of_keys_are_loops_and_faults_can_be_kept(name):
    model, words, format = MODELS[name], random_words(FORMATS[0]), FORMATS[0]
    keys = jax.random.split(KEY, 3)
    kept = jax.vmap(lambda key: model.sample(key, words.shape, format))(keys)
    found = jax.vmap(model.apply, (0, None))(kept, words)
    expected = jnp.stack([faulted(model, words, format, key) for key in keys])
    np.testing.assert_array_equal(found, expected)
    assert (found[0] != found[1]).any()


def test_chained_models_act_with_keys_of_their_own():
    words, format = random_words(FORMATS[1]), FORMATS[1]
    first, second = bit_flips(0.02), bit_flips(0.03)
    expected = faulted(first, words, format, jax.random.fold_in(KEY, 0))
    expected = faulted(second, expected, format, jax.random.fold_in(KEY, 1))
    found = faulted(chain(first, second), words, format)
    np.testing.assert_array_equal(found, expected)


def test_a_fault_strikes_everything_unless_told_otherwise():
    assert Fault(chain())[1:] == (None, "*", None, None, False)


VALUES = FaultModel(lambda *_: (), lambda fault, values: -values, on="values")


def test_a_chain_acts_where_its_models_act():
    assert chain(VALUES, VALUES).on == "values"
    assert chain().on == chain(bit_flips(0.1)).on == "words"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: chain(VALUES, bit_flips(0.1)), "Fault of its own"),
        (lambda: bit_flips(jnp.float32(0.1)), "give|max_rate as the largest"),
        (lambda: bit_flips(-0.1), "rate=-0.1"),
        (lambda: bit_flips(float("nan")), "0 <= rate"),
        (lambda: bit_flips(0.2, max_rate=0.1), "rate=0.2 and max_rate=0.1"),
        (lambda: bit_flips(jnp.float32(0.1), max_rate=1.5), "max_rate=1.5"),
    ],
)
def test_impossible_rates_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Chosen flips: by field and value at their rates, by number exactly, by list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.flips import (
    directed_flips,
    fixed_flips,
    given_flips,
    network_flips,
    selective_flips,
    single_flip,
)
from jaxnas.faults.models import bit_flips
from jaxnas.numerics import IEEE, FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=5)
SHAPE = (300_000,)
ZEROS, ONES = jnp.zeros(SHAPE, jnp.uint8), jnp.full(SHAPE, 31, jnp.uint8)


def faulted(model, words, format=FORMAT, key=KEY):
    return model.apply(model.sample(key, words.shape, format), words)


def assert_rates(masks, rates):
    for bit, rate in enumerate(rates):
        count = int((masks >> bit & 1).sum())
        assert stats.binomtest(count, masks.size, rate).pvalue > 1e-4


def test_fields_flip_at_their_rates_and_other_bits_never():
    words = jnp.zeros(SHAPE, jnp.uint16)
    model = selective_flips({"exponent": 0.01, "sign": 0.002})
    found = np.asarray(faulted(model, words, IEEE(name="float16")))
    assert_rates(found, [0.0] * 10 + [0.01] * 5 + [0.002])


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_equal_rates_are_plain_flips_draw_by_draw(rate):
    expected = faulted(bit_flips(rate), ONES)
    for model in (
        selective_flips([rate] * 5),
        directed_flips(rate, rate),
        directed_flips(rate, [rate] * 5),
    ):
        np.testing.assert_array_equal(faulted(model, ONES), expected)


def test_each_direction_has_its_own_rate():
    model = directed_flips(0.01, {"sign": 0.05})
    assert_rates(faulted(model, ZEROS), [0.01] * 5)
    assert_rates(31 ^ faulted(model, ONES), [0.0] * 4 + [0.05])


def test_flips_of_opposite_directions_are_independent():
    # With bit 0 zero and bit 1 one, each listens to another of the two rates.
    found = faulted(directed_flips({0: 0.05}, {1: 0.05}), jnp.full(SHAPE, 2, jnp.uint8))
    both = int((found == 1).sum())
    assert stats.binomtest(both, found.size, 0.05**2).pvalue > 1e-4
    assert_rates(found ^ 2, [0.05, 0.05, 0.0])


def test_traced_rates_nest_in_one_program():
    words = jax.random.bits(KEY, (4000,), jnp.uint8) & 31

    @jax.jit
    def flips(rates):
        model = directed_flips(rates, {"sign": rates[0]}, max_rate=0.1)
        return faulted(model, words) ^ words

    rates = jnp.array([0.01, 0.0, 0.02, 0.03, 0.1])
    masks = [flips(share * rates) for share in (0.0, 0.3, 1.0)]
    assert not masks[0].any()
    assert not (masks[1] & ~masks[2]).any() and (masks[1] != masks[2]).any()
    assert not (masks[2] & 2).any()


def test_fixed_counts_are_met_by_every_key():
    keys = jax.random.split(KEY, 400)
    words = jnp.zeros((4, 3), jnp.uint8)
    flip = jax.vmap(lambda key: faulted(fixed_flips(3), words, key=key))
    masks = np.asarray(jax.jit(flip)(keys)).reshape(400, 12)
    np.testing.assert_array_equal(np.bitwise_count(masks).sum(1), 3)
    assert masks.max() < 32
    planes = masks[..., None] >> np.arange(5) & 1
    assert stats.chisquare(planes.sum(0).ravel()).pvalue > 1e-4
    np.testing.assert_array_equal(faulted(fixed_flips(60), words), 31)


def test_the_network_is_struck_so_many_times_uniformly():
    keys = jax.random.split(KEY, 4000)
    single = jax.jit(jax.vmap(lambda key: single_flip().sample(key, 50)))(keys)
    assert single.shape == (4000, 1)
    assert stats.chisquare(np.bincount(single[:, 0], minlength=50)).pvalue > 1e-4
    found = np.asarray(network_flips(7).sample(KEY, 50))
    assert np.unique(found).size == 7 and found.max() < 50


def test_given_flips_are_replayed_and_may_be_traced():
    for positions in ([3, 0, 11], np.array([11, 3, 0]), jnp.array([0, 11, 3])):
        found = given_flips(positions).sample(KEY, 12)
        np.testing.assert_array_equal(found, [0, 3, 11])
    assert given_flips([]).sample(KEY, 12).shape == (0,)
    every = jax.jit(jax.vmap(lambda p: given_flips(p[None]).sample(KEY, 12)))
    np.testing.assert_array_equal(every(jnp.arange(12))[:, 0], np.arange(12))
    traced = jax.jit(lambda p: given_flips(p).sample(KEY, 12))
    np.testing.assert_array_equal(traced(jnp.array([5, -1, 5, 40])), [5, 12, 12, 12])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: selective_flips({"sign": 1.5}), "0 <= rate"),
        (lambda: directed_flips(0.1, -0.1), "0 <= rate"),
        (lambda: faulted(selective_flips([0.1] * 4), ZEROS), "words of 5 bits"),
        (lambda: faulted(selective_flips({"mantissa": 0.1}), ZEROS), "'sign'"),
        (lambda: fixed_flips(-1), "-1 flips"),
        (lambda: network_flips(-2), "-2 flips"),
        (lambda: faulted(fixed_flips(6), jnp.zeros(1, jnp.uint8)), "6 distinct.*in 5"),
        (lambda: single_flip().sample(KEY, 0), "1 distinct flips in 0 bits"),
        (lambda: given_flips([12]).sample(KEY, 12), "position 12; expected less"),
        (lambda: given_flips([1, -3]), "positions -3 to 1"),
        (lambda: given_flips([4, 4]), "repeat"),
        (lambda: given_flips(np.zeros((2, 2), int)), r"shape \(2, 2\)"),
    ],
)
def test_impossible_flips_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Flipped bits follow their law: number, place, independence, nesting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.masks import (
    SMALLEST_MAX_RATE,
    _sums_by_loop,
    _sums_by_tree,
    bernoulli_masks,
    bernoulli_positions,
    capacity,
    distinct,
    flips_to_masks,
    uniform_positions,
)

KEY = jax.random.key(0)
ALPHA = 1e-4  # of every test of a law below; the keys are fixed


def used(positions, total_bits):
    positions = np.asarray(positions)
    return positions[positions < total_bits]


def masks_of(positions, shape, bits):
    dtype = np.uint8 if bits <= 8 else np.uint16
    bit = (positions % bits).astype(jnp.uint8)
    return np.asarray(flips_to_masks(positions // bits, bit, shape, dtype))


@pytest.mark.parametrize(
    "rate, max_rate", [(1e-2, 1e-2), (1e-3, 1e-2), (1e-5, 1e-2), (1e-7, 1e-7)]
)
def test_number_of_flips_is_binomial(rate, max_rate):
    total_bits = 2**30 + 7 if rate < 1e-6 else 8 * 1_000_000 + 3
    positions = bernoulli_positions(KEY, total_bits, rate, max_rate)
    flips = used(positions, total_bits).size
    assert stats.binomtest(flips, total_bits, rate).pvalue > ALPHA


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_number_of_dense_flips_is_binomial_in_every_plane(rate):
    masks = bernoulli_masks(KEY, (1000, 1001), 5, rate, np.uint8)
    assert not np.any(masks >> 5)
    for bit in range(5):
        flips = int(((masks >> bit) & 1).sum())
        assert stats.binomtest(flips, masks.size, rate).pvalue > ALPHA


def test_counts_of_many_keys_have_binomial_mean_and_variance():
    def count(key):
        return (bernoulli_positions(key, 4000, 0.004, 0.01) < 4000).sum()

    counts = jax.vmap(count)(jax.random.split(KEY, 20_000))
    observed = np.bincount(counts, minlength=41)[:41]
    expected = stats.binom(4000, 0.004).pmf(np.arange(41)) * 20_000
    common = expected > 5
    observed = [*observed[common], observed[~common].sum()]
    expected = [*expected[common], 20_000 - expected[common].sum()]
    assert stats.chisquare(observed, expected).pvalue > ALPHA


def test_positions_ascend_and_are_uniform():
    total_bits = 8_000_000
    positions = used(bernoulli_positions(KEY, total_bits, 0.005, 0.01), total_bits)
    assert (np.diff(positions.astype(np.int64)) > 0).all()
    coarse = np.bincount(positions // (total_bits // 100), minlength=100)
    assert stats.chisquare(coarse).pvalue > ALPHA
    assert stats.chisquare(np.bincount(positions % 32, minlength=32)).pvalue > ALPHA


def test_rare_flips_favour_no_bit_of_a_word():
    total_bits = 2**31 - 1
    positions = bernoulli_positions(KEY, total_bits, 1e-6, 1e-6)
    bits = np.bincount(used(positions, total_bits) % 8, minlength=8)
    assert stats.chisquare(bits).pvalue > ALPHA


def test_gaps_between_flips_are_geometric():
    rate, total_bits = 0.02, 8_000_000
    positions = used(bernoulli_positions(KEY, total_bits, rate, rate), total_bits)
    gaps = np.bincount(np.minimum(np.diff(positions), 201), minlength=202)[1:]
    expected = rate * (1 - rate) ** np.arange(201)
    expected[-1] = (1 - rate) ** 200
    assert stats.chisquare(gaps, expected * gaps.sum()).pvalue > ALPHA


@pytest.mark.parametrize("bits", [4, 8])
def test_flips_per_word_are_those_of_independent_bits(bits):
    rate, words = 0.05, 1_000_000
    positions = bernoulli_positions(KEY, words * bits, rate, rate)
    masks = masks_of(positions, (words,), bits)
    counts = np.bincount(np.bitwise_count(masks), minlength=bits + 1)
    expected = stats.binom(bits, rate).pmf(np.arange(bits + 1)) * words
    common = expected > 5
    observed = [*counts[common], counts[~common].sum()]
    expected = [*expected[common], words - expected[common].sum()]
    assert stats.chisquare(observed, expected).pvalue > ALPHA


def test_first_and_last_bit_flip_as_often_as_others():
    def ends(key):
        positions = bernoulli_positions(key, 50, 0.1, 0.1)
        return (positions == 0).any(), (positions == 49).any(), (positions < 50).sum()

    first, last, count = jax.vmap(ends)(jax.random.split(KEY, 100_000))
    assert stats.binomtest(int(first.sum()), 100_000, 0.1).pvalue > ALPHA
    assert stats.binomtest(int(last.sum()), 100_000, 0.1).pvalue > ALPHA
    assert stats.binomtest(int(count.sum()), 50 * 100_000, 0.1).pvalue > ALPHA


def test_lower_rates_flip_subsets_under_one_key():
    def flipped(rate):
        return set(used(bernoulli_positions(KEY, 100_000, rate, 0.1), 100_000).tolist())

    rates = [0.0, 1e-4, 1e-3, 0.01, 0.0999, 0.1]
    sets = [flipped(rate) for rate in rates]
    for fewer, more in zip(sets, sets[1:], strict=False):
        assert fewer < more
    dense = [bernoulli_masks(KEY, (4000,), 8, rate, np.uint8) for rate in rates]
    for fewer, more in zip(dense, dense[1:], strict=False):
        assert not np.any(fewer & ~more) and np.any(fewer != more)


def test_rate_zero_flips_nothing_and_rate_one_everything():
    assert not used(bernoulli_positions(KEY, 1000, 0.0, 0.1), 1000).size
    assert bernoulli_positions(KEY, 1000, 0.0, 0.0).size == 0
    everything = used(bernoulli_positions(KEY, 1000, 1.0, 1.0), 1000)
    np.testing.assert_array_equal(everything, np.arange(1000))


def test_vmap_map_and_loop_agree():
    def sample(key, rate):
        return bernoulli_positions(key, 1000, rate, 0.05)

    keys, rates = jax.random.split(KEY, 5), jnp.linspace(0, 0.05, 5)
    loop = np.stack([sample(k, r) for k, r in zip(keys, rates, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(sample))(keys, rates), loop)
    mapped = jax.jit(lambda *xs: jax.lax.map(lambda x: sample(*x), xs))(keys, rates)
    np.testing.assert_array_equal(mapped, loop)


@pytest.mark.parametrize("limit", [5000, 2**31 - 1])
def test_running_sums_stop_at_the_limit_on_every_platform(limit):
    gaps = np.random.default_rng(0).integers(0, min(limit, 2**30), 60, np.uint32)
    sums = np.minimum(np.cumsum(gaps.astype(np.uint64)), limit)
    for implementation in (_sums_by_loop, _sums_by_tree):
        found = implementation(jnp.asarray(gaps), jnp.uint32(limit))
        np.testing.assert_array_equal(found, sums)


def test_flips_become_masks_by_a_loop_over_bits():
    rng = np.random.default_rng(0)
    positions = rng.choice(60, 25, replace=False).astype(np.uint32)
    expected = np.zeros(12, np.uint8)
    for position in positions:
        expected[position // 5] ^= 1 << (position % 5)
    padded = jnp.append(jnp.asarray(positions), jnp.uint32([60, 60]))
    np.testing.assert_array_equal(masks_of(padded, (4, 3), 5), expected.reshape(4, 3))


def test_rates_take_turns_and_far_flips_are_none_of_the_near_ones():
    total_bits, near_rates = 3_000_000, np.array([0.0, 0.01, 0.03], np.float32)
    far_rates = 0.05 - near_rates

    def sample(rates, **end):
        flips = bernoulli_positions(KEY, total_bits, jnp.asarray(rates), 0.05, **end)
        return used(flips, total_bits)

    near, far = sample(near_rates), sample(far_rates, far=True)
    for kept, rates in ((near, near_rates), (far, far_rates)):
        for turn, rate in enumerate(rates):
            flips = int((kept % 3 == turn).sum())
            assert stats.binomtest(flips, total_bits // 3, rate).pvalue > ALPHA
    everything = used(bernoulli_positions(KEY, total_bits, 0.05, 0.05), total_bits)
    np.testing.assert_array_equal(np.union1d(near, far), everything)
    assert near.size + far.size == everything.size


def test_dense_near_and_far_bits_are_disjoint_at_rates_of_their_own():
    rates = jnp.array([0.0, 0.2, 0.5])
    near = bernoulli_masks(KEY, (200_000,), 3, rates, np.uint8)
    far = bernoulli_masks(KEY, (200_000,), 3, 1 - rates, np.uint8, far=True)
    np.testing.assert_array_equal(near ^ far, 7)
    for bit, rate in enumerate(rates):
        flips = int((near >> bit & 1).sum())
        assert stats.binomtest(flips, near.size, float(rate)).pvalue > ALPHA


@pytest.mark.parametrize("count", [2, 4])
def test_all_sets_of_so_many_positions_are_equally_likely(count):
    # Four of six are chosen by leaving out two, which is another way through the code.
    keys = jax.random.split(KEY, 15_000)
    found = jax.jit(jax.vmap(lambda key: uniform_positions(key, 6, count)))(keys)
    assert (np.diff(found.astype(np.int32)) > 0).all() and found.max() < 6
    sets = np.bincount((1 << np.asarray(found)).sum(1), minlength=64)
    possible = np.bitwise_count(np.arange(64)) == count
    assert not sets[~possible].any()
    assert stats.chisquare(sets[possible]).pvalue > ALPHA


@pytest.mark.parametrize("count, total_bits", [(1000, 2000), (1900, 2000)])
def test_many_of_few_positions_are_distinct(count, total_bits):
    found = np.asarray(uniform_positions(KEY, total_bits, count), np.int64)
    assert found.shape == (count,)
    assert (np.diff(found) > 0).all() and 0 <= found[0] and found[-1] < total_bits


def test_few_of_very_many_positions_reach_everywhere():
    found = np.asarray(uniform_positions(KEY, 2**32 - 1, 4000), np.int64)
    assert stats.kstest(found / 2**32, "uniform").pvalue > ALPHA
    assert stats.chisquare(np.bincount(found % 8, minlength=8)).pvalue > ALPHA


def test_none_and_all_positions():
    assert uniform_positions(KEY, 9, 0).size == 0
    np.testing.assert_array_equal(uniform_positions(KEY, 9, 9), np.arange(9))
    for count, total_bits in ((-1, 9), (10, 9), (1, 2**32)):
        with pytest.raises(ValueError, match=f"{count} distinct flips in {total_bits}"):
            uniform_positions(KEY, total_bits, count)


def test_repeated_positions_are_listed_once():
    rng = np.random.default_rng(0)
    positions = rng.integers(0, 30, 40).astype(np.uint32)
    found = np.asarray(distinct(jnp.asarray(positions), 30))
    np.testing.assert_array_equal(found[found < 30], np.unique(positions))


def test_room_suffices_for_all_but_a_negligible_share():
    for bits in (10, 1000, 10**6, 2**31 - 1):
        for rate in (1e-9, 1e-6, 1e-3, 0.1, 0.9):
            law = stats.binom(bits, max(rate, SMALLEST_MAX_RATE))
            room = capacity(bits, rate)
            assert law.sf(room) < 1e-14


@pytest.mark.parametrize(
    "bits, rate, message", [(2**31, 0.1, "split it"), (8, 1.5, r"max_rate=1\.5")]
)
def test_impossible_requests_say_what_is_possible(bits, rate, message):
    with pytest.raises(ValueError, match=message):
        bernoulli_positions(KEY, bits, rate, rate)

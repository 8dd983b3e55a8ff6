"""Stratified campaigns against the census of all bits of a tiny network."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults import outcomes
from jaxnas.faults.campaigns import exhaustive
from jaxnas.faults.exhaustion import flip_each
from jaxnas.faults.sampling_plans import (
    neyman_allocation,
    proportional_allocation,
    second_phase,
)
from jaxnas.faults.strata import bit_strata, draw_strata, stratified_campaign
from jaxnas.faults.stratified import stratified_share
from jaxnas.numerics import FixedPoint, quantize

KEY = jax.random.key(3)
FORMAT = FixedPoint(bits=6)
RNG = np.random.default_rng(4)
WEIGHTS = (
    RNG.integers(-4, 5, (5, 8)).astype(np.float32),
    RNG.integers(-4, 5, (8, 6)).astype(np.float32),
)
X = np.abs(RNG.integers(-9, 10, (1, 5))).astype(np.float32)


def network(weights, x):
    first, second = (
        quantize(w, 1, FORMAT, stored="weight", site=f"dense_{n}")
        for n, w in enumerate(weights)
    )
    return jax.nn.relu(x @ first) @ second


ARGS = (WEIGHTS, X)
TRIAL, BITS = flip_each(network, ARGS)
STRATA = bit_strata(BITS)
OPTIONS = {
    "metrics": (outcomes.sdc1, outcomes.output_distance),
    "golden": np.maximum(X @ WEIGHTS[0], 0) @ WEIGHTS[1],
}


@pytest.fixture(scope="module")
def census():
    return exhaustive(TRIAL, ARGS, positions=BITS.total, **OPTIONS).columns


@pytest.fixture(scope="module")
def allocations(census):
    """Of 180 of 528 flips; Neyman's by the true deviations."""
    group = stratum_of(np.arange(BITS.total))
    shares = np.bincount(group, census["sdc1"]) / STRATA.populations
    deviations = np.sqrt(shares * (1 - shares))
    return {
        "proportional": proportional_allocation(180, STRATA.populations),
        "neyman": neyman_allocation(180, STRATA.populations, deviations, minimum=4),
    }


def test_strata_are_the_bit_positions_of_the_sites():
    assert BITS.total == STRATA.populations.sum() == (40 + 48) * 6
    names = [(f"dense_{n}", bit) for n in range(2) for bit in range(6)]
    assert list(zip(STRATA.site, STRATA.bit, strict=True)) == names
    np.testing.assert_array_equal(STRATA.populations, [40] * 6 + [48] * 6)


def stratum_of(positions):
    where = BITS.locate(positions)
    return where.number * 6 + where.bit


def test_draws_are_distinct_in_their_strata_and_follow_from_their_numbers():
    allocation = np.arange(12) * 3
    found = draw_strata(KEY, BITS, allocation)
    assert np.unique(found).size == found.size == allocation.sum()
    np.testing.assert_array_equal(stratum_of(found), np.arange(12).repeat(allocation))
    # A census is the same sequence, continued, and leaves nothing out.
    whole = draw_strata(KEY, BITS, STRATA.populations)
    np.testing.assert_array_equal(np.sort(whole), np.arange(BITS.total))
    rest = draw_strata(KEY, BITS, STRATA.populations - allocation, allocation)
    for h in range(12):
        parts = [rows[stratum_of(rows) == h] for rows in (found, rest)]
        expected = whole[stratum_of(whole) == h]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_every_bit_of_a_stratum_is_drawn_equally_often():
    allocation = np.zeros(12, int)
    allocation[7] = 12
    counts = np.zeros(BITS.total)
    for key in jax.random.split(KEY, 200):
        counts[draw_strata(key, BITS, allocation)] += 1
    (members,) = np.nonzero(stratum_of(np.arange(BITS.total)) == 7)
    assert counts[members].sum() == counts.sum() == 2400
    # Drawn without replacement, counts vary less than those of a chi-square test.
    spread = np.sum((counts[members] - 50) ** 2) / 50 / (1 - 12 / 48) * 47 / 48
    assert 1e-4 < stats.chi2.sf(spread, 47) < 1 - 1e-4


@pytest.mark.parametrize("name", ["proportional", "neyman"])
def test_a_campaign_finds_what_the_census_holds(census, allocations, name):
    found = stratified_campaign(
        TRIAL, ARGS, BITS, key=KEY, allocation=allocations[name], **OPTIONS
    )
    for metric, column in census.items():
        np.testing.assert_array_equal(found.columns[metric], column[found.position])
    drawn = draw_strata(KEY, BITS, allocations[name])
    np.testing.assert_array_equal(found.position, drawn)
    np.testing.assert_array_equal(found.stratum, stratum_of(drawn))
    np.testing.assert_array_equal(found.trials, allocations[name])
    hits = census["sdc1"][drawn]
    successes = [int(hits[found.stratum == h].sum()) for h in range(12)]
    np.testing.assert_array_equal(found.successes("sdc1"), successes)
    share = found.share("sdc1", 0.9)
    populations = STRATA.populations
    assert share == stratified_share(
        np.array(successes), allocations[name], populations, 0.9
    )
    distance = census["output_distance"][drawn]
    means = [distance[found.stratum == h].mean() for h in range(12)]
    weights = populations / populations.sum()
    estimate = found.mean("output_distance", 0.999)
    assert estimate.value == pytest.approx(weights @ means)
    assert estimate.low < census["output_distance"].mean() < estimate.high


@pytest.mark.parametrize("name", ["proportional", "neyman"])
def test_intervals_cover_the_census(census, allocations, name):
    """Outcomes looked up, as the test above shows that a campaign would find them."""
    truth, allocation = census["sdc1"].mean(), allocations[name]
    assert 0.1 < truth < 0.9
    keys = jax.random.split(jax.random.fold_in(KEY, 1), 200)
    drawn = np.stack([draw_strata(key, BITS, allocation) for key in keys])
    first = np.cumsum([0, *allocation[:-1]])
    successes = np.add.reduceat(census["sdc1"][drawn].astype(int), first, axis=1)
    found = stratified_share(successes, allocation, STRATA.populations)
    covered = np.mean((found.low <= truth) & (truth <= found.high))
    assert 0.91 <= covered <= 0.99
    error = found.value - truth
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(200)
    # The exact spread of means of distinct members of finite strata.
    group = stratum_of(np.arange(BITS.total))
    shares = np.bincount(group, census["sdc1"]) / STRATA.populations
    left = (STRATA.populations - allocation) / (STRATA.populations - 1)
    weights = STRATA.populations / BITS.total
    variance = np.sum(weights**2 * shares * (1 - shares) / allocation * left)
    assert error.std() == pytest.approx(np.sqrt(variance), rel=0.2)


def test_a_second_phase_goes_on_where_the_pilot_ended(census):
    options = {"key": KEY, **OPTIONS}
    pilot = proportional_allocation(36, STRATA.populations)
    first = stratified_campaign(TRIAL, ARGS, BITS, allocation=pilot, **options)
    more = second_phase(180, STRATA.populations, first.successes("sdc1"), pilot)
    both = stratified_campaign(
        TRIAL, ARGS, BITS, allocation=more, pilot=first, **options
    )
    np.testing.assert_array_equal(both.trials, pilot + more)
    whole = draw_strata(KEY, BITS, pilot + more)
    np.testing.assert_array_equal(np.sort(both.position), np.sort(whole))
    np.testing.assert_array_equal(both.stratum, stratum_of(both.position))
    np.testing.assert_array_equal(both.columns["sdc1"], census["sdc1"][both.position])


def test_impossible_allocations_and_pilots_are_refused():
    few = np.full(12, 2)

    def start(trial=TRIAL, **options):
        options = {"key": KEY, "allocation": few, **OPTIONS} | options
        return stratified_campaign(trial, ARGS, BITS, **options)

    def never(position, *args):
        raise AssertionError("work began")

    pilot = start()
    for options, message in (
        ({"allocation": few[1:]}, "to 12 strata"),
        ({"allocation": -few}, "0 or more"),
        ({"allocation": few * 21}, "42 trials in bit 0 of 'dense_0'.*40 words"),
        ({"allocation": few * 20, "pilot": pilot}, "42 trials in bit 0"),
        ({"pilot": pilot, "metrics": (outcomes.sdc1,)}, "columns"),
        ({"pilot": pilot, "key": jax.random.key(4)}, "this key does not draw"),
    ):
        with pytest.raises(ValueError, match=message):
            start(never, **options)
    crowd = dataclasses.replace(pilot, inputs=2)
    with pytest.raises(ValueError, match="of 2 inputs"):
        crowd.share("sdc1")
    with pytest.raises(ValueError, match="not the share"):
        pilot.share("output_distance")

"""Sample sizes are the published ones; allocations are the best within their bounds."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.sampling_plans import (
    margin_of_error,
    neyman_allocation,
    proportional_allocation,
    sample_size,
    second_phase,
)

# Faults per layer, and in all, of ResNet-20, with the sizes that were published for
# t = 2.58, e = 1 %, p = 0.5 (tables of the exhaustive stuck-at campaign of Ruospo and
# others, DATE 2023).
PUBLISHED = {
    864: 821,
    4_608: 3_609,
    27_648: 10_389,
    40_960: 11_834,
    147_456: 14_954,
    294_912: 15_752,
    589_824: 16_184,
    1_179_648: 16_410,
    2_359_296: 16_524,
    17_174_144: 16_625,
}


def test_sample_sizes_are_the_published_ones():
    found = sample_size(np.array(list(PUBLISHED)), 0.01)
    assert found.tolist() == list(PUBLISHED.values())


def test_margin_is_the_inverse_of_the_size_and_the_hypergeometric_deviation():
    populations, sizes = np.array(list(PUBLISHED.items())).T
    margins = margin_of_error(sizes, populations)
    np.testing.assert_allclose(margins, 0.01, rtol=1e-2)
    for population, margin, size in zip(populations, margins, sizes, strict=True):
        assert sample_size(population, float(margin)) == size
    deviation = stats.hypergeom(1000, 300, 80).std() / 80
    assert margin_of_error(80, 1000, 1.96, 0.3) == pytest.approx(1.96 * deviation)
    assert margin_of_error(50, 50) == 0
    assert sample_size(1, 0.2) == 1


def variance(allocation, populations, deviations):
    return np.sum((populations * deviations) ** 2 / allocation)


@pytest.mark.parametrize("seed", range(8))
def test_neyman_allocation_is_near_the_best_of_all(seed):
    """Rounding costs little against every allocation that there is."""
    rng = np.random.default_rng(seed)
    populations, total = rng.integers(7, 30, 4), 24
    deviations = rng.random(4)
    found = neyman_allocation(total, populations, deviations, minimum=2)
    ranges = [range(2, population + 1) for population in populations]
    every = np.array([a for a in itertools.product(*ranges) if sum(a) == total])
    best = min(variance(a, populations, deviations) for a in every)
    assert any(np.array_equal(found, a) for a in every)
    assert variance(found, populations, deviations) <= 1.03 * best


def test_neyman_allocation_is_in_proportion_where_no_bound_holds():
    found = neyman_allocation(600, np.array([1000, 2000, 1000]), np.array([1, 1, 3.0]))
    assert found.tolist() == [100, 200, 300]


def test_allocations_keep_their_bounds_and_their_sum():
    rng = np.random.default_rng(3)
    for _ in range(200):
        populations = np.maximum(rng.lognormal(3, 3, 12).astype(int), 1)
        least = np.minimum(2, populations)
        total = int(rng.integers(least.sum(), populations.sum() + 1))
        deviations = rng.random(12) * (rng.random(12) < 0.5)
        for found in (
            proportional_allocation(total, populations),
            neyman_allocation(total, populations, deviations),
        ):
            assert found.sum() == total
            assert np.all((least <= found) & (found <= populations))


def test_proportional_allocation_rounds_by_the_largest_remainders():
    found = proportional_allocation(10, np.array([520, 250, 230]), minimum=0)
    assert found.tolist() == [5, 3, 2]  # 5.2, 2.5, 2.3
    even = np.full(4, 100)
    np.testing.assert_array_equal(
        neyman_allocation(41, even, np.zeros(4)), proportional_allocation(41, even)
    )


def test_second_phase_completes_the_pilot():
    populations = np.full(4, 10_000)
    pilot, successes = np.array([50, 50, 50, 50]), np.array([0, 25, 5, 50])
    rest = second_phase(1000, populations, successes, pilot)
    assert rest.sum() == 800 and rest.min() >= 0
    shares = (successes + 1) / 52
    due = neyman_allocation(
        1000, populations, np.sqrt(shares * (1 - shares)), minimum=50
    )
    np.testing.assert_array_equal(rest + pilot, due)
    assert rest[1] > rest[2] > rest[3]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sample_size(0, 0.01), "population=0"),
        (lambda: sample_size(9, 1.5), "margin=1.5"),
        (lambda: sample_size(9, 0.1, quantile=-1.0), "quantile"),
        (lambda: sample_size(9, 0.1, share=1.0), "share"),
        (lambda: margin_of_error(10, 9), "no more than the population"),
        (lambda: proportional_allocation(5, np.array([0, 3])), "leave out the empty"),
        (lambda: proportional_allocation(3, np.array([5, 5])), "between 4"),
        (lambda: proportional_allocation(11, np.array([5, 5])), "and 10"),
        (
            lambda: neyman_allocation(5, np.array([5, 5]), np.array([1.0, -1.0])),
            "not below 0",
        ),
        (
            lambda: neyman_allocation(5, np.array([5, 5]), np.array([1.0])),
            "one for each stratum",
        ),
        (
            lambda: second_phase(
                9, np.array([5, 5]), np.array([0, 0]), np.array([6, 2])
            ),
            "a pilot of",
        ),
    ],
)
def test_impossible_plans_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

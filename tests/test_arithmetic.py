"""Divisions on the device are those of integers on the host."""

import jax
import numpy as np
import pytest

from jaxnas.arithmetic import FLOAT32, INT64

LARGEST_QUOTIENT = 2**22 - 1


@pytest.fixture(scope="module")
def pairs():
    """Dividends and divisors: random ones, and all around multiples."""
    rng = np.random.default_rng(0)
    divisors = rng.integers(1, 2**9, 20_000)
    multiples = divisors * rng.integers(0, LARGEST_QUOTIENT, 20_000)
    dividends = np.maximum(multiples + rng.integers(-1, 2, 20_000), 0)
    return dividends.astype(np.int32), divisors.astype(np.int32)


@pytest.mark.parametrize("name", ["floor_divide", "ceil_divide"])
def test_quotients_are_rounded_as_integers_are(name, pairs):
    found = jax.jit(getattr(FLOAT32, name))(*pairs)
    np.testing.assert_array_equal(found, getattr(INT64, name)(*pairs))


def test_multiples_are_divided_without_remainder(pairs):
    _, divisors = pairs
    factors = np.arange(1, 1 + divisors.size, dtype=np.int32) * 64
    multiples = divisors.astype(np.int64) * factors
    kept = multiples < 2**31
    multiples, divisors = multiples[kept].astype(np.int32), divisors[kept]
    found = jax.jit(FLOAT32.exact_divide)(multiples, divisors)
    np.testing.assert_array_equal(found, factors[kept])
    np.testing.assert_array_equal(
        INT64.exact_divide(multiples, divisors), factors[kept]
    )


def test_host_integers_are_exact_beyond_floats():
    large = np.int64(2**53 + 1)
    assert INT64.number(large) * 3 == 3 * (2**53 + 1)
    assert FLOAT32.number(np.int32(2**24)) == 2**24

"""Rates by bit and field: where they go, and which are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.rates import is_static, largest_rate, rate_per_bit
from jaxnas.numerics import IEEE, FixedPoint

HALF = IEEE(name="float16")  # 10 mantissa bits, 5 of the exponent, the sign


def by_field(sign=0.0, exponent=0.0, mantissa=0.0):
    return np.repeat(np.float32([mantissa, exponent, sign]), [10, 5, 1])


@pytest.mark.parametrize(
    "rates, expected",
    [
        (0.25, np.full(16, 0.25)),
        ({"exponent": 1e-3, "sign": 1e-4}, by_field(1e-4, 1e-3)),
        ({"mantissa": jnp.float32(0.5)}, by_field(mantissa=0.5)),
        ({15: 0.5}, by_field(sign=0.5)),
        (np.linspace(0, 1, 16), np.linspace(0, 1, 16)),
        (jnp.linspace(0, 1, 16), np.linspace(0, 1, 16)),
    ],
)
def test_rates_reach_their_bits(rates, expected):
    found, bounds = rate_per_bit(rates, 1.0, HALF)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        bounds, expected > 0 if isinstance(rates, dict) else 1
    )
    if is_static(rates):
        np.testing.assert_allclose(rate_per_bit(rates, None, HALF)[1], expected)


@pytest.mark.parametrize(
    "rates, message",
    [
        ([0.1] * 15, r"shape \(15,\) for words of 16 bits"),
        ({"exponant": 0.1}, "no bit or field 'exponant'.* 'sign', 'exponent'"),
        ({16: 0.1}, "no bit or field 16.*bits 0 to 15"),
        ({-1: 0.1}, "no bit or field -1"),
        ({"sign": 0.1, 15: 0.1}, "names a bit twice"),
    ],
)
def test_bits_that_do_not_exist_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        rate_per_bit(rates, None, HALF)


@pytest.mark.parametrize(
    "rates, max_rate",
    [
        (1.1, None),
        (-0.1, None),
        (float("nan"), None),
        ([0.1, 1.2], None),
        ({"sign": -0.1}, None),
        (0.2, 0.1),
        ({"sign": 0.2}, 0.1),
        (jnp.float32(0.1), 1.5),
        (jnp.float32(0.1), float("nan")),
    ],
)
def test_rates_are_probabilities_up_to_their_bound(rates, max_rate):
    with pytest.raises(ValueError, match="0 <= rate <= max_rate <= 1"):
        largest_rate("model", rates, max_rate)


def test_the_bound_is_the_largest_rate_and_needed_for_arrays():
    assert largest_rate("model", {"sign": 0.1, "integer": 0.3}, None) == 0.3
    assert largest_rate("model", [0.1, 0.2], 0.4) == 0.4
    assert largest_rate("model", jnp.ones(3), 0.4) == 0.4
    with pytest.raises(ValueError, match="model got an array as rate and no max_rate"):
        largest_rate("model", {"sign": 0.1, "integer": jnp.float32(0.3)}, None)


def test_fields_cover_words_of_other_formats():
    fields = FixedPoint(bits=5).fields
    found, _ = rate_per_bit(dict.fromkeys(fields, 0.5), None, FixedPoint(bits=5))
    np.testing.assert_array_equal(found, 0.5)

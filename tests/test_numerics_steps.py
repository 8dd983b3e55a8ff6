"""Codes in another step, against exact fractions."""

import fractions

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.steps import Scaled, Step, in_steps, least, multiplied, shifted
from jaxnas.numerics.steps import step_of as as_step

NUMBERS = np.r_[-70:70, [2**k + d for k in range(7, 30) for d in (-1, 0, 1)]]
CODES = np.r_[NUMBERS, -NUMBERS]


@pytest.mark.parametrize("left", range(-34, 18))
def test_shifts_round_half_to_even_and_saturate(left):
    exact = [round(int(code) * fractions.Fraction(2) ** left) for code in CODES]
    found = shifted(jnp.asarray(CODES, jnp.int32), jnp.int32(left))
    found = np.asarray(found, np.int64)
    exact = np.array(exact, np.int64)
    inside = (np.abs(exact) < 2**16) | (left <= 0)
    np.testing.assert_array_equal(found[inside], exact[inside])
    assert (found[~inside] * np.sign(exact[~inside]) >= 2**16).all()


@pytest.mark.parametrize("left", [-70, -33, -32, -31, -30, -3, -2, -1, 0, 1, 2, 9, 40])
@pytest.mark.parametrize("ratio", [0.5, 0.75, 1.0, 1.3, 1.9999999])
def test_multipliers_round_half_to_even_and_saturate(ratio, left):
    ratio = np.float32(ratio)
    multiplier = round(float(ratio) * 2**30)
    factor = multiplier * fractions.Fraction(2) ** (left - 30)
    exact = [round(int(code) * factor) for code in CODES]
    codes = jnp.asarray(CODES, jnp.int32)
    found = multiplied(codes, jnp.float32(ratio), jnp.int32(left))
    np.testing.assert_array_equal(found, np.clip(exact, -(2**30), 2**30))


def test_steps_multiply_divide_and_compare_as_their_numbers():
    rng = np.random.default_rng(0)
    a, b = (np.float32(2.0 ** rng.uniform(-20, 20, (5, 1))) for _ in range(2))
    x, y = (as_step(one, "a", real=True) for one in (a, b))

    def number(step):
        return np.float64(step.factor) * 2.0 ** np.float64(step.exponent)

    np.testing.assert_array_equal(number(x), a)
    np.testing.assert_allclose(number(x.times(y)), np.float64(a) * b, rtol=2e-7)
    np.testing.assert_allclose(number(x.inverse()), 1 / np.float64(a), rtol=2e-7)
    np.testing.assert_array_equal(number(least([x, y])), np.minimum(a, b))
    for step in (x.times(y), x.inverse()):
        assert ((1 <= step.factor) & (step.factor < 2)).all()


def test_powers_of_two_have_no_factor_and_shift():
    step = as_step(np.float32([0.25, 8.0]), "a", real=False)
    assert step.factor is None
    np.testing.assert_array_equal(step.exponent, [-2, 3])
    x = Scaled(jnp.array([5, 5]), Step(jnp.zeros(2, jnp.int32)))
    np.testing.assert_array_equal(in_steps(x, step), [20, 1])


def test_a_known_scale_that_is_no_power_of_two_is_named():
    with pytest.raises(ValueError, match="the unit is 0.3.*scales=.real"):
        as_step(0.3, "the unit", real=False)

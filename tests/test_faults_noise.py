"""Faults of values: their distributions, their units, what is silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.noise import (
    additive_noise,
    dead_channels,
    dead_elements,
    multiplicative_noise,
)
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=8)
VALUES = jax.random.normal(jax.random.key(1), (100, 50, 4)) + 0.5


def faulted(model, values=VALUES):
    assert model.on == "values"
    return np.asarray(model.apply(model.sample(KEY, values.shape, FORMAT), values))


@pytest.mark.parametrize(
    "unit, size",
    [
        ("one", lambda x: 1.0),
        ("peak", lambda x: np.abs(x).max()),
        ("rms", lambda x: np.sqrt(np.mean(x**2))),
    ],
)
def test_additive_noise_is_normal_in_its_unit(unit, size):
    noise = (faulted(additive_noise(0.2, unit=unit)) - VALUES) / (0.2 * size(VALUES))
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    silence = faulted(additive_noise(0.0, unit=unit))
    np.testing.assert_array_equal(silence, VALUES)
    if unit != "one":
        assert not faulted(additive_noise(0.2, unit=unit), VALUES * 0).any()


def test_multiplicative_noise_is_normal_around_one():
    factors = faulted(multiplicative_noise(0.1)) / VALUES
    assert stats.kstest((factors.ravel() - 1) / 0.1, "norm").pvalue > 1e-4
    np.testing.assert_array_equal(faulted(multiplicative_noise(0.0)), VALUES)


def test_noise_keeps_narrow_floats_and_takes_traced_deviations():
    values = VALUES.astype(jnp.bfloat16)
    for model in (additive_noise, multiplicative_noise):
        found = jax.jit(lambda sigma, model=model: faulted_by(model(sigma), values))
        assert found(jnp.float32(0.1)).dtype == jnp.bfloat16


def faulted_by(model, values):
    return model.apply(model.sample(KEY, values.shape, FORMAT), values)


def test_elements_are_silent_at_the_rate_and_others_untouched():
    found = faulted(dead_elements(0.1))
    dead = found == 0
    assert stats.binomtest(int(dead.sum()), dead.size, 0.1).pvalue > 1e-4
    np.testing.assert_array_equal(found[~dead], VALUES[~dead])
    np.testing.assert_array_equal(faulted(dead_elements(0.0)), VALUES)


@pytest.mark.parametrize("axis", [0, 1, -2, -1])
def test_channels_are_silent_as_wholes(axis):
    found = np.moveaxis(faulted(dead_channels(0.3, axis=axis)), axis, 0)
    dead = (found == 0).all(tuple(range(1, found.ndim)))
    np.testing.assert_array_equal(found[~dead], np.moveaxis(VALUES, axis, 0)[~dead])
    assert stats.binomtest(int(dead.sum()), dead.size, 0.3).pvalue > 1e-4
    assert not (found[dead]).any()


def test_more_channels_die_at_higher_rates():
    @jax.jit
    def dead(rate):
        model = dead_channels(rate, axis=0, max_rate=0.9)
        return (faulted_by(model, VALUES[:, 0]) == 0).all(1)

    few, many = dead(0.2), dead(0.9)
    assert 0 < few.sum() < many.sum() and not (few & ~many).any()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: additive_noise(-0.1), "sigma=-0.1"),
        (lambda: multiplicative_noise(float("nan")), "sigma=nan"),
        (lambda: additive_noise(0.1, unit="scale"), "unit='scale'"),
        (lambda: dead_elements(1.1), "0 <= rate"),
        (lambda: dead_channels(-0.1), "0 <= rate"),
        (lambda: faulted(dead_channels(0.1, axis=3)), r"axis 3.*\(100, 50, 4\)"),
    ],
)
def test_impossible_noise_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

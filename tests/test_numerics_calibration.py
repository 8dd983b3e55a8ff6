"""Scales: exact powers of two, one per channel, never zero."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.calibration import SMALLEST_PEAK, absmax_scale, power_of_two
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.logarithmic import Logarithmic

FORMATS = [
    FixedPoint(bits=8),
    FixedPoint(bits=5, code="sign_magnitude"),
    FixedPoint(bits=8, code="unsigned"),
    Logarithmic(bits=8, base=2**0.125),
]


def test_power_of_two_is_the_least_one_above():
    """At every power of two, and one unit in the last place to both sides of it."""
    powers = (2.0 ** np.arange(-19, 127)).astype(np.float32)
    peaks = np.stack([np.nextafter(powers, 0), powers, np.nextafter(powers, np.inf)])
    mantissa, exponent = np.frexp(peaks.astype(np.float64))
    expected = 2.0 ** np.where(mantissa == 0.5, exponent - 1, exponent)
    np.testing.assert_array_equal(power_of_two(peaks), expected)
    np.testing.assert_array_equal(jax.vmap(jax.jit(power_of_two))(peaks), expected)


def test_power_of_two_has_a_floor_and_shows_divergence():
    tiny = power_of_two(np.float32([0, 1e-30, SMALLEST_PEAK / 2, SMALLEST_PEAK]))
    np.testing.assert_array_equal(tiny, SMALLEST_PEAK)
    assert power_of_two(math.inf) == math.inf
    assert jnp.isnan(power_of_two(math.nan))


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("rounded", [True, False])
def test_absmax_scale_just_holds_the_peak(format, rounded):
    x = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    scale = absmax_scale(x, format, power_of_two=rounded)
    assert scale.shape == () and scale.dtype == jnp.float32
    nominal = float(scale) * format.span
    peak = float(np.abs(x).max())
    assert nominal == (2.0 ** math.ceil(math.log2(peak)) if rounded else peak)
    held = float(format.quantize(np.float32([peak]), scale)[0])
    saturation = 0 if isinstance(format, Logarithmic) else float(scale)
    assert peak - saturation <= held * format_slack(format)


def format_slack(format):
    """Largest ratio between a number inside the range and its nearest word."""
    return math.sqrt(format.base) if isinstance(format, Logarithmic) else 1 + 1e-6


@pytest.mark.parametrize("axis", [-1, 3, (0, -1), (2, 1)])
def test_scales_of_kept_axes_are_those_of_their_slices(axis):
    format = FixedPoint(bits=8)
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5)).astype(np.float32)
    scale = np.asarray(absmax_scale(x, format, axis, power_of_two=False))
    kept = {index % 4 for index in np.atleast_1d(axis)}
    assert scale.shape == tuple(n if i in kept else 1 for i, n in enumerate(x.shape))
    for index in np.ndindex(scale.shape):
        block = x[tuple(index[i] if i in kept else slice(None) for i in range(4))]
        assert scale[index] == absmax_scale(block, format, power_of_two=False)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_zeros_have_a_scale_and_stay_zero_and_divergence_shows(format):
    x = np.zeros((3, 2), np.float32)
    scale = absmax_scale(x, format, -1)
    assert (scale == SMALLEST_PEAK / format.span).all()
    np.testing.assert_array_equal(format.quantize(x, scale), x)

    x[1, 0] = np.nan
    scale = absmax_scale(x, format, -1)
    stored = np.asarray(format.quantize(x, scale))
    assert np.isnan(stored[:, 0]).all() and (stored[:, 1] == 0).all()


def test_missing_axis_is_named():
    with pytest.raises(ValueError, match=r"axis 2 of an array of shape \(3, 2\)"):
        absmax_scale(np.zeros((3, 2), np.float32), FORMATS[0], 2)

"""Scales: exact powers of two, one per channel, never zero."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.calibration import (
    CLIPPING_RATIOS,
    SMALLEST_PEAK,
    absmax_scale,
    mean_square_error_scale,
    percentile_scale,
    positive_levels,
    power_of_two,
    unit_bounds,
)
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


def test_nearest_power_of_two_is_nearest_in_the_ratio():
    """One unit in the last place to both sides of the square roots between powers."""
    roots = 2.0 ** (np.arange(-19, 126) + 0.5)
    near = roots.astype(np.float32)
    peaks = np.stack([np.nextafter(near, 0), near, np.nextafter(near, np.inf)])
    octaves = np.floor(np.log2(roots))
    expected = 2.0 ** np.where(peaks.astype(np.float64) < roots, octaves, octaves + 1)
    np.testing.assert_array_equal(power_of_two(peaks, nearest=True), expected)
    assert power_of_two(math.inf, nearest=True) == math.inf


@pytest.mark.parametrize("percent", [0.01, 30, 50, 99.9, 99.95, 100])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_percentile_is_the_nearest_rank(percent, size):
    x = np.random.default_rng(2).normal(size=size).astype(np.float32)
    rank = math.ceil(Fraction(str(percent)) * size / 100)
    expected = np.sort(np.abs(x))[rank - 1]
    scale = percentile_scale(x, FORMATS[0], percent, power_of_two=False)
    assert scale.shape == () and scale * FORMATS[0].span == expected


def cheapest(x, format, peaks):
    """Brute force: the first peak of least square error, in float64."""
    errors = []
    for peak in peaks:
        stored = format.quantize(x, np.float32(peak / format.span))
        errors.append(((x - np.asarray(stored, np.float64)) ** 2).sum())
    return peaks[int(np.argmin(errors))]


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("rounded", [False, True, "nearest"])
def test_least_error_is_that_of_brute_force(format, rounded):
    x = np.random.default_rng(3).standard_t(2, size=500).astype(np.float32)
    peaks = np.abs(x).max() * np.float32(CLIPPING_RATIOS)
    if rounded:
        peaks = np.asarray(power_of_two(peaks, nearest=rounded == "nearest"))
    scale = mean_square_error_scale(x, format, power_of_two=rounded)
    assert scale * format.span == cheapest(x, format, peaks)
    assert not rounded or math.frexp(scale * format.span)[0] == 0.5


def test_coarser_words_are_clipped_more():
    x = np.random.default_rng(4).laplace(size=4000).astype(np.float32)
    peaks = []
    for bits in (3, 4, 8, 16):
        word = FixedPoint(bits=bits)
        scale = mean_square_error_scale(x, word, power_of_two=False)
        peaks.append(float(scale) * word.span)
    assert peaks == sorted(peaks) and peaks[0] < 0.7 * peaks[-1]


CHOICES = {
    "percentile": functools.partial(percentile_scale, percent=90),
    "mean_square_error": mean_square_error_scale,
}
choices = pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)


@choices
@pytest.mark.parametrize("axis", [-1, (0, 2)])
def test_other_scales_of_kept_axes_are_those_of_their_slices(choose, axis):
    format = FixedPoint(bits=4)
    x = np.random.default_rng(1).normal(size=(2, 30, 3)).astype(np.float32)
    scale = np.asarray(choose(x, format, axis=axis, power_of_two=False))
    kept = {index % 3 for index in np.atleast_1d(axis)}
    assert scale.shape == tuple(n if i in kept else 1 for i, n in enumerate(x.shape))
    for index in np.ndindex(scale.shape):
        block = x[tuple(index[i] if i in kept else slice(None) for i in range(3))]
        alone = choose(block.reshape(-1), format, power_of_two=False)
        assert scale[index] == alone


@choices
def test_other_scales_are_the_same_jitted_and_mapped(choose):
    format = FixedPoint(bits=4)
    x = np.random.default_rng(5).normal(size=(3, 40)).astype(np.float32)
    eager = np.stack([choose(row, format) for row in x])
    mapped = jax.jit(jax.vmap(lambda row: choose(row, format)))(x)
    np.testing.assert_array_equal(mapped, eager)


@choices
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_other_scales_show_divergence_and_have_a_floor(choose, value):
    format = FixedPoint(bits=4)
    least = SMALLEST_PEAK / format.span
    x = np.zeros((20, 2), np.float32)
    assert (choose(x, format, axis=-1) == least).all()
    x[3, 0] = value
    scale = choose(x, format, axis=-1).reshape(-1)
    np.testing.assert_array_equal(scale, [value, least])


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_levels_and_bounds_of_a_unit_are_those_of_the_words(format):
    words = np.arange(1 << format.bits, dtype=np.uint32)
    numbers = np.asarray(format.decode(words, 1.0))
    assert unit_bounds(format) == (numbers.min(), numbers.max())
    assert positive_levels(format) == np.sum(numbers > 0) + 1
    unit_bounds.cache_clear()
    assert jax.jit(lambda: positive_levels(format))() == positive_levels(format)


def test_bad_choices_are_named():
    x = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="percentile of 0; expected above 0"):
        percentile_scale(x, FORMATS[0], 0)
    with pytest.raises((ValueError, TypeError), match="power_of_two"):
        absmax_scale(x, FORMATS[0], power_of_two="down")

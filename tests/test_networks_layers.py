"""What layers store: words on their grids, and logits that are exact sums of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import FINE, FIXED, layer, random_words

from jaxnas.networks import layers
from jaxnas.networks.layers import (
    FRACTION,
    HeadParams,
    LayerParams,
    LayerStatistics,
    StoredMap,
    word_formats,
)
from jaxnas.numerics.fixed_point import FixedPoint

BOTH = word_formats((3, 8), ("fixed_point", "logarithmic"))


def is_power_of_two(x):
    mantissa, _ = np.frexp(np.asarray(x))
    return (mantissa == 0.5).all()


def random_kernel(seed, shape=(3, 3, 2, 5)):
    """Channels of very different peaks, one of zeros, one whose peak is a power."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape) * 2.0 ** rng.integers(-9, 5, shape[-1])
    kernel[..., 0] = 0
    kernel[..., 1] *= 0.5 / np.abs(kernel[..., 1]).max()
    return jnp.asarray(kernel, jnp.float32)


# Words


@pytest.mark.parametrize("scheme", [0, 1])
def test_formats_are_listed_by_scheme_and_then_by_width(scheme):
    bits = (3, 4, 8, 16) if scheme == 0 else (3, 4, 8)
    formats = word_formats(bits, ("fixed_point", "logarithmic"))
    for kind in formats:
        assert [format.bits for format in kind] == [*bits, *bits]
        part = kind[scheme * len(bits) : (scheme + 1) * len(bits)]
        assert all(isinstance(one, FixedPoint) == (scheme == 0) for one in part)
        alone = word_formats(bits, (("fixed_point", "logarithmic")[scheme],))
        assert part == alone[formats.index(kind)]


def test_rectified_maps_spend_no_bit_on_a_sign():
    for kind in ("weight", "rectified", "linear"):
        for format in getattr(BOTH, kind):
            low, high = format.bounds(jnp.float32(1))
            assert (float(low) < 0) == (kind != "rectified")
            assert float(high) > 0


@pytest.mark.parametrize("bits", range(2, 13))
def test_logarithmic_bases_are_whole_steps_an_octave(bits):
    for kind in word_formats((bits,), ("logarithmic",)):
        (format,) = kind
        steps = 1 / math.log2(format.base)
        assert round(math.log2(round(steps))) == math.log2(round(steps))
        assert steps == pytest.approx(round(steps)) and round(steps) >= 2
        words = 2 ** (bits - 1 if format.signed else bits) - 1
        # As many octaves as the fraction resolves: with fewer steps they were too many.
        octaves = words / round(steps)
        assert octaves <= FRACTION and (2 * octaves > FRACTION or round(steps) == 2)
        assert format.fraction == FRACTION + (not format.signed)


@pytest.mark.parametrize("schemes", [("ternary",), (), ("fixed_point", "float")])
def test_unknown_schemes_are_refused(schemes):
    with pytest.raises(ValueError, match="unknown number schemes.*fixed_point"):
        word_formats((8,), schemes)


@pytest.mark.parametrize(("choice", "bits"), [(0, 4), (1, 8)])
def test_stored_kernels_are_the_nearest_words_of_their_channel(choice, bits):
    kernel = random_kernel(bits)
    stored, step = layers.store_kernel(kernel, FIXED, choice, "here")
    assert step.shape == (1, 1, 1, 5)
    assert is_power_of_two(step)
    exact, step = np.float64(kernel), np.float64(step)
    codes = np.float64(stored) / step
    span = 2 ** (bits - 1)
    np.testing.assert_array_equal(codes, np.round(codes))
    np.testing.assert_array_equal(
        codes, np.clip(np.round(exact / step), -span, span - 1)
    )
    peak = np.abs(exact).max((0, 1, 2), keepdims=True)
    used = peak[..., 1:] > 0
    assert used.all()
    ratio = (peak / (step * span))[..., 1:]
    assert ((ratio > 0.5) & (ratio <= 1)).all()
    assert (np.abs(codes).max((0, 1, 2))[1:] >= span // 2).all()


def test_logarithmic_kernels_are_zeros_and_powers():
    kernel = random_kernel(3)
    stored, step = layers.store_kernel(kernel, BOTH, 2, "here")
    assert is_power_of_two(step)
    codes = (np.abs(np.float64(stored)) / np.float64(step))[..., 1:]
    powers = np.rint(2.0 ** (FRACTION - np.arange(3) / 2))  # three bits: base 2**(1/2)
    assert set(np.unique(codes)) == {0, *powers}
    exact, stored = np.float64(kernel)[..., 1:], np.float64(stored)[..., 1:]
    assert (np.sign(stored) * np.sign(exact) >= 0).all()
    magnitudes = np.abs(exact) / 2.0 ** np.ceil(
        np.log2(np.abs(exact).max((0, 1, 2), keepdims=True))
    )
    # The smallest of the three magnitudes is half the peak's power of two.
    assert (stored[magnitudes < 0.5 * 2**-0.26] == 0).all()
    kept = (magnitudes > 0.5 * 2**-0.24) & (magnitudes < 1)
    error = np.abs(np.log2(np.abs(stored[kept]) / np.abs(exact[kept])))
    assert kept.any() and (error <= 0.25 + 1e-5).all()


def test_traced_choices_are_static_choices():
    kernel = random_kernel(5)
    traced = jax.jit(lambda choice: layers.store_kernel(kernel, BOTH, choice, "here"))
    for choice in range(4):
        expected = layers.store_kernel(kernel, BOTH, choice, "here")
        for found, value in zip(traced(choice), expected, strict=True):
            np.testing.assert_array_equal(found, value)


def test_biases_lie_on_the_grid_of_the_accumulator():
    rng = np.random.default_rng(0)
    bias = jnp.asarray(rng.normal(size=64) * 3, jnp.float32)
    step = jnp.asarray(2.0 ** rng.integers(-24, -3, 64), jnp.float32)
    stored = np.float64(layers.store_bias(bias, step, "here"))
    step = np.float64(step)
    multiples = stored / step
    np.testing.assert_array_equal(multiples, np.round(multiples))
    grid = np.maximum(step, 2.0 ** np.ceil(np.log2(np.abs(bias).max())) / 2**15)
    np.testing.assert_array_equal(stored / grid, np.round(stored / grid))
    assert (np.abs(stored / grid) <= 2**15).all()
    assert (np.abs(stored - np.float64(bias)) <= grid / 2).all()
    assert (grid > step).any() and (grid == step).any()


def test_images_are_words_of_a_256th():
    images = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    read = layers.read_image(images)
    np.testing.assert_array_equal(np.float64(read.values) * 256, np.float64(images))
    assert float(read.step) == 2**-8


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(("choice", "bits"), [(0, 4), (1, 8)])
def test_stored_maps_are_the_nearest_words_below_four(rectify, choice, bits):
    rng = np.random.default_rng(1)
    maps = jnp.asarray(rng.normal(size=(2, 5, 4, 3)) * 3, jnp.float32)
    kernel = jnp.eye(3)[None, None]
    # An identity: gain cancels the deviation, in sixteen-bit words.
    params = LayerParams(kernel * 0.5, jnp.full(3, 2.0), jnp.zeros(3))
    statistics = LayerStatistics(jnp.zeros(3), jnp.full(3, 1 - layers.VARIANCE_FLOOR))
    formats = FINE._replace(rectified=FIXED.rectified, linear=FIXED.linear)
    one = layer(formats, (0, choice), rectify=rectify)
    # The step of the input only sets the bias' grid; the bias is zero.
    stored, _ = layers.apply_layer(
        one, params, statistics, StoredMap(maps, jnp.float32(2**-8))
    )
    # The largest of sixteen-bit words is one step below the peak.
    x = np.float64(maps) * (1 - 2.0**-15)
    low, high = (
        (0, 2**bits - 1) if rectify else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    step = 4 / 2**bits if rectify else 4 / 2 ** (bits - 1)
    codes = np.float64(stored.values) / step
    assert float(stored.step) == step
    np.testing.assert_array_equal(codes, np.round(codes))
    assert codes.min() == low and codes.max() == high
    unsaturated = (x > low * step) & (x < high * step)
    error = np.abs(np.float64(stored.values) - x)[unsaturated]
    assert (error <= step / 2 + 1e-4).all()


# The head


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (5, 5)])
@pytest.mark.parametrize("choice", [0, 1])
def test_logits_are_integers_times_one_step(height, width, choice):
    rng = np.random.default_rng(height)
    x = random_words(8, (7, height, width, 6))
    kernel = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    params = HeadParams(kernel, jnp.asarray(rng.normal(size=3), jnp.float32))
    found = layers.apply_head(params, x, FIXED, choice)
    stored, step = layers.store_kernel(kernel, FIXED, choice, "head")
    assert step.shape == (1, 3)
    area = height * width
    shift = 1 / 2 ** math.ceil(math.log2(area))
    accumulator = np.float64(step[0]) / 64 * shift
    words = np.int64(np.float64(x.values) * 64).sum((1, 2))
    codes = np.int64(np.float64(stored) / np.float64(step))
    bias = layers.store_bias(params.bias, jnp.float32(accumulator), "head/bias")
    bias_words = np.float64(bias) / accumulator
    np.testing.assert_array_equal(bias_words, np.round(bias_words))
    totals = words @ codes + np.int64(bias_words)
    assert np.abs(totals).max() < 2**24
    np.testing.assert_array_equal(np.float64(found), totals * accumulator)


def test_head_is_a_dense_layer_on_about_the_mean():
    rng = np.random.default_rng(9)
    x = random_words(9, (4, 4, 4, 6))
    params = HeadParams(
        jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=3), jnp.float32),
    )
    found = layers.apply_head(params, x, FINE, 0)
    expected = np.float64(x.values).mean((1, 2)) @ np.float64(params.kernel)
    np.testing.assert_allclose(found, expected + np.float64(params.bias), atol=5e-3)

"""Layers against arithmetic: words on their grids, folding, exact accumulation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import naive_convolution, recorded

from jaxnas.networks import layers
from jaxnas.networks.convolutions import convolution
from jaxnas.networks.layers import (
    HeadParams,
    Layer,
    LayerParams,
    LayerStatistics,
    StoredMap,
    word_formats,
)
from jaxnas.numerics.formats import FixedPoint

FIXED = word_formats((4, 8), ("fixed_point",))
FINE = word_formats((16,), ("fixed_point",))
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


def layer(formats=FINE, bits=(0, 0), **options):
    convolve = options.pop("convolve", convolution)
    return Layer(formats, *bits, site="here", convolve=convolve, **options)


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
        octaves = words / round(steps)
        # About twelve octaves: halving the step would leave eleven or less.
        assert octaves <= 22 and (octaves > 11 or round(steps) == 2)


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
    np.testing.assert_array_equal(step, np.zeros((1, 1, 1, 5)))
    exact, stored = np.float64(kernel)[..., 1:], np.float64(stored)[..., 1:]
    exponents = 2 * np.log2(np.abs(stored[stored != 0]))  # three bits: base 2**(1/2)
    np.testing.assert_allclose(exponents, np.round(exponents), atol=1e-5)
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


# Normalisation and folding


def trained_like(seed, inputs=2, outputs=4):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, inputs, outputs)) * 0.4
    gain = rng.uniform(0.3, 2, outputs) * rng.choice([-1, 1], outputs)
    offset = rng.normal(size=outputs) * 0.5
    mean = rng.normal(size=outputs)
    variance = rng.uniform(0.1, 3, outputs)
    arrays = (
        jnp.asarray(a, jnp.float32) for a in (kernel, gain, offset, mean, variance)
    )
    kernel, gain, offset, mean, variance = arrays
    return LayerParams(kernel, gain, offset), LayerStatistics(mean, variance)


def random_words(seed, shape=(6, 5, 5, 2)):
    """A map as it is read back from eight-bit words."""
    words = np.random.default_rng(seed).integers(0, 256, shape)
    return StoredMap(jnp.asarray(words / 64, jnp.float32), jnp.float32(1 / 64))


def test_inference_is_convolution_and_normalisation():
    """Against float64; only sixteen-bit words and the store lie between the two."""
    params, statistics = trained_like(0)
    x = random_words(0)
    y = naive_convolution(x.values, params.kernel)
    mean, variance, gain, offset = (
        np.float64(v) for v in (*statistics, params.gain, params.offset)
    )
    y = (y - mean) / np.sqrt(variance + layers.VARIANCE_FLOOR) * gain + offset
    for rectify in (True, False):
        stored, kept = layers.apply_layer(layer(rectify=rectify), params, statistics, x)
        expected = np.clip(y, 0 if rectify else -4, 4)
        np.testing.assert_allclose(stored.values, expected, rtol=0, atol=4e-3)
        assert kept is statistics
        assert 0.2 < np.mean((expected > -4) & (expected != 0) & (expected < 4))


def test_shortcuts_are_added_before_rectifier_and_store():
    params, statistics = trained_like(1)
    x = random_words(1)
    shortcut = random_words(2, (6, 5, 5, 4)).values - 2
    linear = layer(FINE, rectify=False)
    plain = layers.apply_layer(linear, params, statistics, x)[0].values
    for rectify in (True, False):
        one = layer(rectify=rectify)
        found, _ = layers.apply_layer(one, params, statistics, x, shortcut)
        low = 0 if rectify else -4
        inside = np.abs(plain) < 4 - 1e-3
        expected = np.clip(plain + shortcut, low, 4)
        error = np.abs(found.values - expected)[inside]
        assert (error <= 4 * 2.0**-15).all() and inside.mean() > 0.5


def self_consistent(bits, x, seed=2):
    """A layer whose running statistics are its batch's own, with words and all.

    Kernel words k give the map u = x * k. With the deviation of u as slope, the kernel
    k / slope folds to the words k and gives u / slope: variance one.
    """
    rng = np.random.default_rng(seed)
    largest = 2 ** (bits - 1) - 1
    words = np.rint(np.clip(rng.normal(size=(3, 3, 2, 4)) / 3, -1, 1) * largest)
    words[0, 0, 0] = largest
    words *= 2.0 ** (-bits - rng.integers(0, 3, 4))
    u = naive_convolution(x.values, words)
    slope = u.std((0, 1, 2)) * [1, -1, 1, -1]
    params = words / slope, slope * np.sqrt(1 + layers.VARIANCE_FLOOR)
    params = *params, rng.normal(size=4) * 0.5
    arrays = *params, u.mean((0, 1, 2)) / slope, np.ones(4)
    arrays = [jnp.asarray(array, jnp.float32) for array in arrays]
    return LayerParams(*arrays[:3]), LayerStatistics(*arrays[3:]), words


@pytest.mark.xfail(reason="compilers fuse the fold's operations and round differently")
def test_stored_words_do_not_depend_on_compilation():
    """Many folds, by one operation at a time and compiled as a whole."""
    rng = np.random.default_rng(11)
    channels = 2**16

    def random(low, high):
        return jnp.asarray(rng.uniform(low, high, channels), jnp.float32)

    kernel = random(0.5, 1).reshape(1, 1, 1, channels)
    params = LayerParams(kernel, gain=random(0.5, 1), offset=random(-1, 1))
    statistics = LayerStatistics(mean=random(-1, 1), variance=random(0.5, 2))
    x = StoredMap(jnp.ones((1, 1, 1, channels)), jnp.float32(2**-8))
    one = layer(FIXED, (1, 1), convolve=lambda x, kernel: x * kernel)

    def stored(run):
        with recorded() as words:
            jax.block_until_ready(run(params, statistics, x))
            return {word.site: word.value for word in words}

    def run(*operands):
        return layers.apply_layer(one, *operands)[0].values

    eager, compiled = stored(run), stored(jax.jit(run))
    assert eager.keys() == {"here/kernel", "here/bias", "here/output"}
    for site, words in eager.items():
        np.testing.assert_array_equal(words, compiled[site], err_msg=site)


@pytest.mark.parametrize(("choice", "bits"), [(0, 4), (1, 8)])
@pytest.mark.parametrize("rectify", [True, False])
def test_training_with_the_batch_as_running_statistics_is_inference(
    choice, bits, rectify
):
    """The bias' word and the store's rounding lie between them, and nothing else."""
    x = random_words(3)
    params, statistics, words = self_consistent(bits, x)
    train = layer(
        word_formats((4, 8, 16), ("fixed_point",)),
        (choice, 2),
        rectify=rectify,
        train=True,
    )
    slope = params.gain / np.sqrt(1 + layers.VARIANCE_FLOOR)
    folded = params.kernel * layers.per_channel(slope)
    kernel, _ = layers.store_kernel(folded, train.formats, choice, "")
    np.testing.assert_array_equal(kernel, words)
    trained, moved = layers.apply_layer(train, params, statistics, x)
    np.testing.assert_allclose(moved.mean, statistics.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved.variance, statistics.variance, rtol=1e-5)
    infer = train._replace(train=False)
    inferred, _ = layers.apply_layer(infer, params, statistics, x)
    step = 4 / (2**16 if rectify else 2**15)
    bias = np.abs(params.offset - statistics.mean * slope).max()
    bias_step = np.maximum(bias * 2 / 2**15, np.abs(words).max() * 2 / 2**bits / 32)
    tolerance = bias_step / 2 + 2 * step
    difference = np.abs(trained.values - inferred.values)
    assert difference.max() <= tolerance < 0.03
    assert np.std(inferred.values) > 0.1


def test_training_moves_the_running_statistics_a_tenth_of_the_way():
    params, statistics = trained_like(4)
    x = random_words(4)
    train = layer(train=True)
    _, moved = layers.apply_layer(train, params, statistics, x)
    y = naive_convolution(x.values, params.kernel)
    mean = 0.9 * np.float64(statistics.mean) + 0.1 * y.mean((0, 1, 2))
    variance = 0.9 * np.float64(statistics.variance) + 0.1 * y.var((0, 1, 2))
    np.testing.assert_allclose(moved.mean, mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(moved.variance, variance, rtol=1e-3)


def test_training_normalises_by_the_batch():
    params, statistics = trained_like(5)
    formats = word_formats((16,), ("fixed_point",))
    one = layer(formats, train=True, rectify=False)
    small = params._replace(gain=params.gain * 0.3)
    y, _ = layers.apply_layer(one, small, statistics, random_words(5))
    np.testing.assert_allclose(y.values.mean((0, 1, 2)), small.offset, atol=2e-2)
    np.testing.assert_allclose(y.values.std((0, 1, 2)), np.abs(small.gain), rtol=3e-2)


def test_training_gradient_is_that_of_float_normalisation():
    """In sixteen-bit words, straight-through is the derivative of the plain layer."""
    params, statistics = trained_like(6)
    params = params._replace(gain=params.gain * 0.3)
    x = random_words(6)
    weights = jnp.asarray(
        np.random.default_rng(6).normal(size=(6, 5, 5, 4)), jnp.float32
    )

    def quantised(params):
        y, _ = layers.apply_layer(layer(train=True), params, statistics, x)
        return jnp.mean(y.values * weights)

    def plain(params):
        y = convolution(x.values, params.kernel)
        mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2))
        scale = params.gain / jnp.sqrt(variance + layers.VARIANCE_FLOOR)
        y = (y - layers.per_channel(mean)) * layers.per_channel(scale)
        y = jnp.maximum(y + layers.per_channel(params.offset), 0)
        return jnp.mean(jnp.minimum(y, layers.ACTIVATION_PEAK) * weights)

    found, expected = jax.grad(quantised)(params), jax.grad(plain)(params)
    for name, one, other in zip(params._fields, found, expected, strict=True):
        peak = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=0.02 * peak, err_msg=name)
        assert peak > 1e-4


@pytest.mark.parametrize("gain", [0.0, 1e-7, -1e-30])
def test_vanished_gains_train_on(gain):
    params, statistics = trained_like(7)
    gains, offsets = params.gain.at[1].set(gain), params.offset.at[1].set(0.7)
    params = params._replace(gain=gains, offset=offsets)
    weights = np.random.default_rng(7).normal(size=(6, 5, 5, 4)).astype(np.float32)

    def value(params):
        one = layer(FIXED, (0, 1), train=True)
        y, moved = layers.apply_layer(one, params, statistics, random_words(7))
        return jnp.mean(y.values * weights), (y.values, moved)

    gradient, (y, moved) = jax.grad(value, has_aux=True)(params)
    for leaf in jax.tree.leaves((gradient, moved)):
        assert np.isfinite(leaf).all()
    assert np.abs(gradient.gain[1]) > 1e-3
    np.testing.assert_allclose(y[..., 1], 0.7, atol=4 / 2**8)


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


def test_layers_name_their_sites():
    params, statistics = trained_like(10)
    run = functools.partial(layers.apply_layer, layer(), params, statistics)
    text = str(jax.make_jaxpr(run)(random_words(10)))
    for name in ("here/kernel", "here/bias", "here/output"):
        assert f"site={name}" in text

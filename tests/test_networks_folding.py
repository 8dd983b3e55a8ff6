"""Normalisation: folded into words, trained as it is folded, the same compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import (
    FINE,
    FIXED,
    layer,
    naive_convolution,
    random_words,
    recorded,
)

from jaxnas.networks import layers
from jaxnas.networks.convolutions import convolution
from jaxnas.networks.layers import (
    LayerParams,
    LayerStatistics,
    StoredMap,
    word_formats,
)


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


@pytest.mark.parametrize("rectify", [True, False])
def test_training_with_frozen_statistics_is_inference_and_leaves_them(rectify):
    """Whatever the statistics; the bias' word and the store's rounding remain."""
    params, statistics = trained_like(9)
    x = random_words(9)
    train = layer(rectify=rectify, train=True)
    inferred, _ = layers.apply_layer(train._replace(train=False), params, statistics, x)

    @jax.jit
    def run(frozen):
        one = train._replace(frozen=frozen)
        return layers.apply_layer(one, params, statistics, x)

    trained, kept = run(True)
    np.testing.assert_allclose(trained.values, inferred.values, rtol=0, atol=1e-3)
    assert np.std(inferred.values) > 0.1
    for before, after in zip(statistics, kept, strict=True):
        np.testing.assert_array_equal(before, after)
    free, moved = run(False)
    assert np.abs(free.values - inferred.values).max() > 0.1
    assert np.all(moved.mean != statistics.mean)


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


def test_layers_name_their_sites():
    params, statistics = trained_like(10)
    run = functools.partial(layers.apply_layer, layer(), params, statistics)
    text = str(jax.make_jaxpr(run)(random_words(10)))
    for name in ("here/kernel", "here/bias", "here/output"):
        assert f"site={name}" in text

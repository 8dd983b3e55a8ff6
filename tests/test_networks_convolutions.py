"""All convolutions are one sum over taps, and of words the same sum bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import naive_convolution

from jaxnas.networks.convolutions import (
    convolution,
    depthwise_convolution,
    gathered_convolution,
    max_pool,
    pointwise,
    shifted_depthwise,
)

RNG = np.random.default_rng(0)
MAPS = jnp.asarray(RNG.normal(size=(2, 4, 5, 3)), jnp.float32)
WORDS = jnp.asarray(RNG.integers(0, 256, (2, 4, 5, 3)), jnp.float32)


@pytest.mark.parametrize("convolve", [convolution, gathered_convolution])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_full_convolutions_are_sums_over_taps(convolve, side):
    kernel = jnp.asarray(RNG.normal(size=(side, side, 3, 4)), jnp.float32)
    expected = naive_convolution(MAPS, kernel)
    np.testing.assert_allclose(convolve(MAPS, kernel), expected, rtol=0, atol=1e-5)
    words = jnp.asarray(RNG.integers(-128, 128, kernel.shape), jnp.float32)
    expected = naive_convolution(WORDS, words)
    np.testing.assert_array_equal(convolve(WORDS, words), expected)


@pytest.mark.parametrize("convolve", [depthwise_convolution, shifted_depthwise])
@pytest.mark.parametrize("side", [1, 3, 5])
def test_depthwise_convolutions_are_sums_over_taps(convolve, side):
    kernel = jnp.asarray(RNG.normal(size=(side, side, 1, 3)), jnp.float32)
    expected = naive_convolution(MAPS, kernel, depthwise=True)
    np.testing.assert_allclose(convolve(MAPS, kernel), expected, rtol=0, atol=1e-5)
    words = jnp.asarray(RNG.integers(-128, 128, kernel.shape), jnp.float32)
    expected = naive_convolution(WORDS, words, depthwise=True)
    np.testing.assert_array_equal(convolve(WORDS, words), expected)


def test_pointwise_is_a_convolution_of_side_one():
    words = jnp.asarray(RNG.integers(-128, 128, (1, 1, 3, 4)), jnp.float32)
    expected = naive_convolution(WORDS, words)
    np.testing.assert_array_equal(pointwise(WORDS, words), expected)


def test_only_the_first_two_are_single_equations():
    """What tracing reads: a convolution with its groups, and nothing around it."""
    kernel, depth = jnp.ones((3, 3, 3, 4)), jnp.ones((3, 3, 1, 3))
    for convolve, weights, groups in [
        (convolution, kernel, 1),
        (depthwise_convolution, depth, 3),
    ]:
        (eqn,) = jax.make_jaxpr(convolve)(MAPS, weights).eqns
        assert eqn.primitive.name == "conv_general_dilated"
        assert eqn.params["feature_group_count"] == groups


@pytest.mark.parametrize(("height", "width"), [(5, 4), (2, 3), (4, 4)])
def test_max_pool_drops_the_odd_row_and_column(height, width):
    x = RNG.normal(size=(2, height, width, 3)).astype(np.float32) - 10
    found = np.asarray(max_pool(jnp.asarray(x)))
    assert found.shape == (2, height // 2, width // 2, 3)
    for row, column in np.ndindex(height // 2, width // 2):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(found[:, row, column], window.max((1, 2)))

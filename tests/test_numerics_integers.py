"""Integer arithmetic computes what the simulated network computes, bit for bit."""

import integer_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SCHEMES, SPACE, digits, genotypes, random_weights

from jaxnas.networks.compact import WordSpec
from jaxnas.networks.materialize import materialize
from jaxnas.networks.references import ResNet
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.integers import integer
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.primitives import quantize

BYTE = FixedPoint(bits=8)
PIXEL = FixedPoint(bits=8, code="unsigned")
WIDE = FixedPoint(bits=16)
LOGARITHM = Logarithmic(bits=6, base=2**0.25, signed=False, fraction=9)


def same(fun, *args):
    simulated, integers = fun(*args), integer(fun)(*args)
    jax.tree.map(np.testing.assert_array_equal, simulated, integers)
    return simulated


@pytest.mark.parametrize("scheme", SCHEMES)
def test_compact_networks_are_integer_arithmetic(scheme):
    """Simulated in float32, in int32 by `integer`, and in NumPy without the library."""
    seen, sums, different = set(), [], set()
    for index, genotype in enumerate(genotypes(8)):
        weights = jax.tree.map(np.asarray, random_weights(index % 4))
        module, variables = materialize(SPACE, genotype, *weights, scheme=scheme)
        arrays = jax.tree.map(np.asarray, variables)
        variables = jax.tree.map(jnp.asarray, variables)
        simulated, computed = (
            np.asarray(jax.jit(fun)(variables, digits()))
            for fun in (module.apply, integer(module.apply))
        )
        np.testing.assert_array_equal(simulated, computed)
        images = np.asarray(digits())
        words = reference.logits(module.spec, arrays, images, sums)
        exact = np.ldexp(np.float64(words.words), words.exponent)
        np.testing.assert_array_equal(np.float64(simulated), exact)
        different.add(tuple(simulated.ravel()))
        for block in (block for stage in module.spec.stages for block in stage):
            seen.add((block.operation, block.residual))
            seen.add((block.words.weight, block.words.activation))
    # Accumulators below 2**24 are what exact float32 sums ask for; they are long too.
    assert 2**16 < max(np.abs(total).max() for total in sums) < 2**24
    assert len(different) > 5
    operations = ("convolution", "separable", "inverted")
    words = {(weight, activation) for weight in (4, 8) for activation in (4, 8)}
    assert seen == words | {(one, skip) for one in operations for skip in (True, False)}


def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def residual_network():
    """Statistics settled on the images, so that maps are neither 0 nor full."""
    module, images = ResNet(blocks=2), jnp.asarray(pixels())

    @jax.jit
    def settled(key):
        start = module.init(key, images)
        options = {"train": True, "mutable": ["batch_stats"]}

        def step(_, statistics):
            variables = start | {"batch_stats": statistics}
            return module.apply(variables, images, **options)[1]["batch_stats"]

        statistics = jax.lax.fori_loop(0, 20, step, start["batch_stats"])
        return start | {"batch_stats": statistics}

    return settled(jax.random.key(0))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_residual_network_is_integer_arithmetic_jitted_and_in_numpy(
    scheme, residual_network
):
    """Strides, shortcuts and shortcuts between widths: ResNet-14."""
    module = ResNet(blocks=2, words=WordSpec(weight=8, activation=8), scheme=scheme)
    variables, images = residual_network, jnp.asarray(pixels())
    simulated = jax.jit(module.apply)(variables, images)
    computed = jax.jit(integer(module.apply))
    np.testing.assert_array_equal(simulated, computed(variables, images))
    arrays = jax.tree.map(np.asarray, variables)
    sums = []
    words = reference.resnet_logits(module, arrays, pixels(), sums)
    exact = np.ldexp(np.float64(words.words), words.exponent)
    np.testing.assert_array_equal(np.float64(simulated), exact)
    assert len(np.unique(simulated)) > 20
    assert 2**10 < max(np.abs(total).max() for total in sums) < 2**24


def layer(x, kernel, scales, out_scale):
    x = quantize(x, 1 / 16, PIXEL, stored="input")
    kernel = quantize(kernel, scales, BYTE, stored="weight")
    y = jnp.einsum("bhc,cd->bhd", x, kernel, precision="highest")
    return quantize(jax.nn.relu(y), out_scale, PIXEL)


def operands(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 8, (3, 4, 5)).astype(np.float32)
    kernel = rng.normal(size=(5, 6)).astype(np.float32)
    scales = np.float32(2.0) ** -rng.integers(3, 7, (1, 6))
    return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(scales, jnp.float32)


SHAPES = {
    "transpose": lambda y: y.transpose(2, 0, 1),
    "channels become rows": lambda y: y.reshape(6, 12),
    "flip and slice": lambda y: y[:, ::-1, 1:],
    "joined": lambda y: jnp.concatenate([y, 2.0 * y[:, :1], jnp.zeros_like(y)], 1),
    "padded": lambda y: jnp.pad(y, ((0, 0), (1, 2), (0, 0))),
    "sum": lambda y: y.sum((1, 2)),
    "sum of channels": lambda y: y.sum(2),
    "means": lambda y: y.mean(1),
    "maximum": lambda y: y.max(2),
    "difference": lambda y: -y + y[:, :1] / 4,
    "squares": lambda y: y * y,
    "selected": lambda y: jnp.where(y > y[:, :1], y, 0.0),
    "best": lambda y: jnp.argmax(y, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_operations_move_codes_and_exponents_alike(name):
    """On products of kernels with a step of their own for every channel."""

    def fun(x, kernel, scales):
        x = quantize(x, 1 / 16, PIXEL, stored="input")
        kernel = quantize(kernel, scales, BYTE, stored="weight")
        return SHAPES[name](jnp.einsum("bhc,cd->bhd", x, kernel, precision="highest"))

    x, kernel, scales = operands()
    assert len(np.unique(same(fun, x, kernel, scales))) > 2


def test_stored_maps_are_requantised_by_shifts():
    for out_scale in (2.0**-9, 0.25, 8.0, 2.0**40):
        same(layer, *operands(), out_scale)


def test_calls_are_followed_and_the_result_may_be_jitted_and_mapped():
    x, kernel, scales = operands()

    def fun(x):
        inner = jax.checkpoint(lambda x: layer(x, kernel, scales, 0.25))
        return jax.jit(inner)(x)

    expected = np.asarray(fun(x))
    np.testing.assert_array_equal(jax.jit(integer(fun))(x), expected)
    mapped = jax.vmap(integer(fun))(jnp.stack([x, x[::-1]]))
    np.testing.assert_array_equal(mapped, np.stack([expected, expected[::-1]]))


def test_integer_arguments_are_codes():
    def fun(images):
        return quantize(images.astype(jnp.float32) / 256, 1 / 16, BYTE)

    same(fun, jnp.arange(256, dtype=jnp.uint8))


@pytest.mark.parametrize("format", [PIXEL, LOGARITHM], ids=["fixed", "logarithmic"])
def test_real_scales_are_multipliers(format):
    """The words of the simulation, but for sums that lie next to half-way."""
    x, kernel, _ = operands()
    scales = jnp.asarray(np.linspace(0.01, 0.03, 6)[None], jnp.float32)

    def fun(x, kernel):
        x = quantize(x, 0.037, PIXEL, stored="input")
        kernel = quantize(kernel, scales, BYTE, stored="weight")
        bias = quantize(jnp.arange(6.0)[None, None] / 3, 0.037 * scales[None], WIDE)
        y = jnp.einsum("bhc,cd->bhd", x, kernel, precision="highest") + bias
        y = quantize(jax.nn.relu(y), 0.3 if format is PIXEL else 9.7, format)
        shortcut = quantize(y.mean(2, keepdims=True), 0.11, PIXEL)
        return y, y * 0.7 + shortcut

    (y, sums), (codes, total) = fun(x, kernel), integer(fun, scales="real")(x, kernel)
    same = np.isclose(y, codes, rtol=1e-6)
    assert same.mean() > 0.98 and len(np.unique(y)) > 8
    # Terms of a sum are rounded to the finer of their steps, 0.11.
    np.testing.assert_array_less(np.abs(sums - total)[same], 0.056)


def logarithmic(x):
    return quantize(x, 1.0, Logarithmic(bits=4, base=2**0.5), site="log") + 0


REFUSED = {
    "site 'log': not all numbers of Logarithmic.*fraction": logarithmic,
    "the scale of site '' is 0.3.*power_of_two=True": lambda x: quantize(x, 0.3, BYTE),
    "'exp' reads words": lambda x: jnp.exp(quantize(x, 0.5, BYTE)),
    "a float that is not a word": lambda x: quantize(x, 0.5, BYTE) + x,
    "a factor of words is 3.0": lambda x: quantize(x, 0.5, BYTE) * 3,
    "multiplies words with floats": lambda x: quantize(x, 0.5, BYTE) @ x.T,
    "converted to int32": lambda x: quantize(x, 0.5, BYTE).astype(jnp.int32),
}


def test_unknown_scales_are_named():
    with pytest.raises(ValueError, match="scales='any'; expected"):
        integer(layer, scales="any")


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_integer_form_is_named(message):
    with pytest.raises(ValueError, match=message):
        integer(REFUSED[message])(jnp.ones((2, 3)))

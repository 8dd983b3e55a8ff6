"""The quantize primitive under every transformation, and its derivative."""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE, MiniFloat
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.posits import Posit
from jaxnas.numerics.primitives import quantize, quantize_p
from jaxnas.numerics.two_terms import TwoTermLogarithmic

pytestmark = pytest.mark.usefixtures("compiled_fully")

FORMATS = [
    FixedPoint(bits=6),
    Logarithmic(bits=6, base=2**0.25),
    IEEE(name="bfloat16"),
    Posit(bits=6, exponent_bits=1),
    TwoTermLogarithmic(bits=7, base=2.0),
]
MINI = MiniFloat(exponent=3, mantissa=2, subnormals=False)
SCALED = [*FORMATS[:2], MINI, FixedPoint(bits=5, code="unsigned")]
formats = pytest.mark.parametrize("format", FORMATS, ids=str)
scaled = pytest.mark.parametrize("format", SCALED, ids=str)


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scales(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.02, 1, shape).astype(np.float32)


def assert_same_bits(a, b):
    np.testing.assert_array_equal(
        np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32)
    )


def looped(function, *arguments):
    return np.stack([function(*each) for each in zip(*arguments, strict=True)])


@formats
def test_value_is_the_same_eagerly_jitted_scanned_mapped_and_rematerialised(format):
    x, scale = values(4, 3, 5), 0.3
    read = functools.partial(quantize, format=format, site="here")
    expected = format.decode(format.encode(x, scale), scale)
    assert_same_bits(read(x, scale), expected)
    assert_same_bits(jax.jit(read)(x, scale), expected)
    assert_same_bits(jax.jit(lambda x: read(x, scale))(x), expected)
    assert_same_bits(jax.checkpoint(read)(x, scale), expected)
    assert_same_bits(looped(lambda x: read(x, scale), x), expected)
    assert_same_bits(jax.lax.map(lambda x: read(x, scale), x), expected)
    scanned = jax.lax.scan(lambda s, x: (s, read(x, s)), jnp.float32(scale), x)[1]
    assert_same_bits(scanned, expected)


@formats
@pytest.mark.parametrize("scale_shape", [(), (1, 5), (3, 1), (3, 5)])
def test_vmap_is_the_loop_over_values_over_scales_and_over_both(format, scale_shape):
    x, scale = values(4, 3, 5), scales(4, *scale_shape)
    read = functools.partial(quantize, format=format)
    over_x = jax.vmap(read, (0, None))(x, scale[0])
    assert_same_bits(over_x, looped(lambda x: read(x, scale[0]), x))
    over_scale = jax.vmap(read, (None, 0))(x[0], scale)
    assert_same_bits(over_scale, looped(lambda s: read(x[0], s), scale))
    over_both = jax.vmap(read)(x, scale)
    assert_same_bits(over_both, looped(read, x, scale))


@formats
def test_nested_vmap_is_the_nested_loop(format):
    x, scale = values(2, 3, 4), scales(5, 1)
    read = functools.partial(quantize, format=format)
    table = jax.jit(jax.vmap(jax.vmap(read, (None, 0)), (0, None)))(x, scale[:, 0])
    assert table.shape == (2, 5, 3, 4)
    for i, j in itertools.product(range(2), range(5)):
        assert_same_bits(table[i, j], read(x[i], scale[j, 0]))


@formats
def test_vmap_over_any_axis(format):
    x, scale = values(3, 5, 4), scales(1, 4, 5)
    read = functools.partial(quantize, format=format)
    mapped = jax.vmap(read, (2, 1), 1)(x, scale)
    for i in range(4):
        assert_same_bits(mapped[:, i], read(x[:, :, i], scale[:, i]))


@formats
def test_one_scale_per_channel_is_one_call_per_channel(format):
    x, scale = values(2, 3, 3, 4), scales(1, 1, 1, 4)
    together = quantize(x, scale, format, stored="weight")
    for channel in range(4):
        alone = quantize(x[..., channel], scale[0, 0, 0, channel], format)
        assert_same_bits(together[..., channel], alone)


def straight_through(x, scale, format):
    """The same derivative from the chain rule, the rounding error held constant."""
    low, high = format.bounds(jnp.ones_like(scale))
    code = jnp.clip(x / scale, low, high)
    stored = format.quantize(x, scale) / scale
    return scale * (code + jax.lax.stop_gradient(stored - code))


@scaled
@pytest.mark.parametrize("scale_shape", [(), (1, 5)])
def test_derivative_is_that_of_the_straight_through_composition(format, scale_shape):
    # Powers of two: elsewhere the division of the oracle rounds at its own bounds.
    scale = 2.0 ** np.round(4 * scales(*scale_shape) - 4).astype(np.float32)
    x, weight = values(7, 5), values(7, 5, seed=1)

    def loss(quantizer, x, scale):
        return (weight * quantizer(x, scale, format) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)
    ours, oracle = gradient(quantize, x, scale), gradient(straight_through, x, scale)
    for mine, expected in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


@scaled
def test_derivatives_satisfy_the_identity_of_euler(format):
    x, scale = values(64), jnp.float32(0.05)
    read = functools.partial(quantize, format=format)
    y, along_both = jax.jit(lambda *at: jax.jvp(read, at, at))(x, scale)
    np.testing.assert_allclose(along_both, y, rtol=1e-5, atol=1e-6)


@formats
def test_derivative_is_one_inside_the_bounds_and_zero_outside(format):
    scale = jnp.float32(0.5)
    low, high = format.bounds(scale)
    low, high = float(low), float(high)
    edges = np.float32([low, low / 2, 0, high / 2, high])
    slope = jax.jit(jax.grad(lambda x: quantize(x, scale, format).sum()))
    np.testing.assert_array_equal(slope(edges), np.ones(5))
    outside = np.float32([-np.inf, low * 1.001, high * 1.001, np.inf, np.nan])
    np.testing.assert_array_equal(slope(outside), np.zeros(5))


@formats
def test_saturated_and_infinite_values_have_a_finite_scale_derivative(format):
    most = 1e30 if isinstance(format, Posit) else np.inf  # NaR stands for infinities
    x = np.float32([-most, -1e9, 1e9, most])
    read = functools.partial(quantize, format=format)
    slope = jax.jit(jax.jacfwd(read, 1))(x, np.float32(0.5))
    low, high = format.bounds(1.0)
    expected = [low, low, high, high] if format.scaled else np.zeros(4)
    np.testing.assert_array_equal(slope, expected)


@formats
@pytest.mark.parametrize("scale_shape", [(), (1, 3)])
def test_forward_and_reverse_mode_agree(format, scale_shape):
    x, scale = values(2, 3), scales(*scale_shape)
    read = functools.partial(quantize, format=format)
    modes = jax.jacfwd(read, (0, 1)), jax.jacrev(read, (0, 1))
    forward, reverse = jax.jit(lambda *at: [mode(*at) for mode in modes])(x, scale)
    for one, other in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@formats
def test_gradient_is_the_same_mapped_looped_rematerialised_and_scanned(format):
    x, scale = values(4, 3, 5), scales(4)

    def loss(x, scale):
        return (quantize(x, scale, format) ** 2).sum()

    def chained(x, scale):
        return jax.lax.scan(lambda sum, a: (sum + loss(*a), None), 0.0, (x, scale))[0]

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    each = [gradient(a, s) for a, s in zip(x, scale, strict=True)]
    for function in (
        jax.vmap(gradient),
        jax.grad(lambda x, s: jax.vmap(loss)(x, s).sum(), (0, 1)),
        jax.vmap(jax.grad(jax.checkpoint(loss), (0, 1))),
        jax.grad(chained, (0, 1)),
    ):
        other = jax.jit(function)(x, scale)
        for k in range(2):
            expected = np.stack([gradients[k] for gradients in each])
            np.testing.assert_allclose(other[k], expected, rtol=1e-5, atol=1e-5)


@formats
def test_sharded_value_and_gradient_are_those_of_one_device(format):
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("batch",))
    x, scale = values(2 * mesh.size, 3), jnp.float32(0.3)
    rows, whole = jax.sharding.PartitionSpec("batch"), jax.sharding.PartitionSpec()
    read = functools.partial(quantize, format=format)
    split = jax.shard_map(read, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert_same_bits(jax.jit(split)(x, scale), read(x, scale))

    def slope(function):
        return jax.jit(jax.grad(lambda x, s: (function(x, s) ** 2).sum(), (0, 1)))

    for mine, expected in zip(
        slope(split)(x, scale), slope(read)(x, scale), strict=True
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


@formats
def test_functions_with_a_derivative_of_their_own_may_quantize(format):
    """In the function and in its rule, the latter with the primitive's derivative."""

    @jax.custom_jvp
    def doubled(x, scale):
        return 2 * quantize(x, scale, format)

    @doubled.defjvp
    def rule(primals, tangents):
        y, dy = jax.jvp(functools.partial(quantize, format=format), primals, tangents)
        return 2 * y, 2 * dy

    x, scale = values(4, 3), scales(4)
    plain = lambda x, s: 2 * quantize(x, s, format)  # noqa: E731
    mapped = jax.jit(jax.vmap(doubled))(x, scale)
    assert_same_bits(mapped, looped(plain, x, scale))
    slopes = [
        jax.jit(jax.vmap(jax.grad(lambda x, s: f(x, s).sum(), (0, 1))))(x, scale)  # noqa: B023
        for f in (doubled, plain)
    ]
    for mine, expected in zip(*slopes, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-6)


@scaled
def test_second_derivatives_are_those_of_a_homogeneous_map(format):
    """Straight-through is piecewise linear: along (x, s) nothing curves."""
    x, scale = values(6), jnp.float32(0.1)

    def along(t):
        return quantize(x * (1 + t), scale * (1 + t), format)

    curvature = jax.jit(jax.jacfwd(jax.jacfwd(along)))(0.0)
    np.testing.assert_allclose(curvature, np.zeros(6), atol=1e-5)


@formats
def test_parameters_stand_in_the_jaxpr_after_every_transformation(format):
    def read(x):
        return quantize(x, 0.5, format, stored="weight", site="block/kernel")

    x = values(3, 4)
    for function in (read, jax.vmap(read), jax.grad(lambda x: read(x).sum())):
        equations = jax.make_jaxpr(function)(x).jaxpr.eqns
        (site,) = [e for e in equations if e.primitive is quantize_p]
        assert site.params == {
            "format": format,
            "stored": "weight",
            "site": "block/kernel",
        }
        assert site.outvars[0].aval.shape == x.shape
        assert site.outvars[0].aval.dtype == jnp.float32


@dataclass(frozen=True, kw_only=True)
class Traced(FixedPoint):
    """A format from outside the package that counts how often it is traced."""

    count: list

    def __hash__(self):
        return id(self.count)

    def quantize(self, x, scale):
        self.count.append(x.shape)
        return super().quantize(x, scale)


def test_repeated_calls_share_one_trace():
    format = Traced(bits=8, count=[])
    jitted = jax.jit(functools.partial(quantize, format=format))
    for call in (functools.partial(quantize, format=format), jitted):
        call(values(3, 7), np.float32(0.1))
        assert (3, 7) in format.count
        traces = len(format.count)
        for step in range(4):
            call(values(3, 7, seed=step), np.float32(0.2 + step))
        assert len(format.count) == traces


def test_sites_share_the_trace_of_their_format():
    format = Traced(bits=8, count=[])
    for step in range(5):
        quantize(values(3, 7), 0.1, format, stored="weight", site=f"layer {step}")
    assert format.count == [(3, 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.ones((2, 3), np.float16)}, "takes float32, got float16; cast"),
        ({"x": np.ones((2, 3), np.int32)}, "takes float32, got int32; cast"),
        ({"scale": np.ones(3, np.float32)}, r"scale of shape \(3,\) for values of sh"),
        ({"scale": np.ones((1, 2), np.float32)}, r"expected a scalar or an array of"),
        ({"stored": "bais"}, "stored='bais' is none of .*'weight', 'bias'"),
        ({"scale": 0.0}, "a scale of 0.0; expected positive .*absmax_scale"),
        ({"scale": np.float32(-0.5)}, "a scale of -0.5; expected positive"),
        ({"scale": np.float32([[1, np.nan, 2]])}, "a scale of nan; expected positive"),
        ({"scale": jnp.float32(jnp.inf)}, "a scale of inf; expected positive finite"),
    ],
)
def test_errors_name_what_was_found_and_the_cure(arguments, message):
    valid = {"x": np.ones((2, 3), np.float32), "scale": 1.0, "format": FORMATS[0]}
    with pytest.raises(ValueError, match=message):
        quantize(**valid | arguments)


def test_a_traced_scale_is_not_looked_at():
    read = jax.jit(functools.partial(quantize, format=FORMATS[0]))
    np.testing.assert_array_equal(read(np.ones(2, np.float32), 0.0), np.zeros(2))


def test_something_else_than_a_format_is_refused():
    # With the annotation hook the annotation speaks first, without it the check does.
    with pytest.raises((ValueError, TypeError), match="Format"):
        quantize(np.ones(2, np.float32), 1.0, "int8")

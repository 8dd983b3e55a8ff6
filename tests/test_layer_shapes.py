"""The shapes of layers and vector operations in all spellings."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p
from table_helpers import assert_columns, conv, spec, table

from jaxnas import topology
from jaxnas.jaxprs import equations
from jaxnas.layer_shapes import convolution_shape, dense_shape, vector_shape


def traced(product, image, kernel):
    """The table of one layer, from its equation alone."""
    closed = jax.make_jaxpr(product)(spec(*image), spec(*kernel))
    layers = conv_general_dilated_p, dot_general_p
    (eqn,) = [eqn for eqn in equations(closed) if eqn.primitive in layers]
    if eqn.primitive is conv_general_dilated_p:
        return table(convolution_shape(eqn))
    # Products may be written down with their factors exchanged.
    kernel_left = eqn.invars[0].aval.shape == kernel
    return table(dense_shape(eqn, kernel_left=kernel_left))


CONVOLUTIONS = {
    "strided": ((1, 9, 8, 3), (3, 2, 3, 5), dict(stride=2)),
    "dilated": ((1, 9, 8, 3), (3, 2, 3, 5), dict(rhs_dilation=(2, 3))),
    "grouped": ((1, 5, 4, 6), (3, 2, 2, 9), dict(feature_group_count=3)),
    "depthwise": ((1, 5, 4, 6), (3, 2, 1, 12), dict(feature_group_count=6)),
    "channels first": (
        (1, 3, 9, 8),
        (5, 3, 3, 2),
        dict(dimension_numbers=("NCHW", "OIHW", "NCHW")),
    ),
    "one axis": (
        (1, 9, 3),
        (4, 3, 5),
        dict(dimension_numbers=("NHC", "HIO", "NHC")),
    ),
}


VOLUME = dict(dimension_numbers=("NHWDC", "HWDIO", "NHWDC"))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_ones_sum_to_the_products_of_a_convolution(name):
    image, kernel, options = CONVOLUTIONS[name]
    layer = partial(conv, padding="VALID", **options)
    found = traced(layer, image, kernel)
    result = layer(jnp.ones(image), jnp.ones(kernel))
    assert topology.macs(found) == jnp.sum(result)
    assert topology.fan_in(found) == jnp.max(result)
    assert topology.weights(found) == np.prod(kernel)
    assert topology.output_elements(found) == result.size


def test_padding_belongs_to_neither_map():
    layer = partial(conv, stride=2, padding=((0, 3), (2, 1)))
    assert_columns(
        traced(layer, (1, 7, 8, 2), (3, 2, 2, 5)),
        in_height=7,
        in_width=8,
        out_height=4,
        out_width=5,
        stride_height=2,
        stride_width=2,
    )


@pytest.mark.parametrize(
    ("layer", "image", "kernel", "message"),
    [
        (conv, (3, 4, 4, 2), (1, 1, 2, 2), "batch of 3.*single image"),
        (partial(conv, **VOLUME), (1, 4, 4, 4, 2), (1, 1, 1, 2, 2), "over 3 axes"),
        (partial(conv, batch_group_count=2), (2, 4, 4, 2), (1, 1, 2, 2), "2 groups"),
    ],
)
def test_convolutions_that_have_no_row_are_refused(layer, image, kernel, message):
    with pytest.raises(ValueError, match=message):
        traced(layer, image, kernel)


PRODUCTS = {
    "rows": (operator.matmul, (1, 6), (6, 4), (1, 1, 1, 6, 4)),
    "vector": (operator.matmul, (6,), (6, 4), (1, 1, 1, 6, 4)),
    "kernel first": (lambda x, w: w @ x, (6,), (4, 6), (1, 1, 1, 6, 4)),
    "tokens": (operator.matmul, (1, 7, 6), (6, 4), (7, 1, 1, 6, 4)),
    "pixels": (operator.matmul, (1, 5, 3, 6), (6, 4), (5, 3, 1, 6, 4)),
    "several axes": (
        partial(jnp.tensordot, axes=3),
        (1, 2, 3, 4),
        (2, 3, 4, 5, 2),
        (1, 1, 1, 24, 10),
    ),
    "groups": (
        partial(jnp.einsum, "bgi,gio->bgo"),
        (1, 3, 4),
        (3, 4, 5),
        (1, 1, 3, 12, 15),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_dense_layers_in_all_spellings(name):
    product, image, kernel, expected = PRODUCTS[name]
    height, width, groups, inputs, outputs = expected
    found = traced(product, image, kernel)
    assert_columns(
        found,
        in_height=height,
        in_width=width,
        in_channels=inputs,
        out_height=height,
        out_width=width,
        out_channels=outputs,
        kernel_height=1,
        kernel_width=1,
        stride_height=1,
        stride_width=1,
        groups=groups,
    )
    ones = product(jnp.ones(image), jnp.ones(kernel))
    assert topology.macs(found) == jnp.sum(ones)
    assert topology.weights(found) == np.prod(kernel)


VECTORS = {
    "relu": (jax.nn.relu, (1, 4, 5, 6), (topology.ELEMENTWISE, 4, 5, 6, 1, 1)),
    "sum": (lambda x: x + x, (7, 6), (topology.ELEMENTWISE, 7, 1, 6, 1, 1)),
    "concatenation": (
        lambda x: jnp.concatenate([x, x], axis=-1),
        (1, 4, 5, 6),
        (topology.CONCATENATION, 4, 5, 12, 1, 1),
    ),
    "global mean": (
        lambda x: jnp.sum(x, axis=(1, 2)),
        (1, 4, 5, 6),
        (topology.POOLING, 1, 1, 6, 4, 5),
    ),
    "sum of channels": (
        lambda x: jnp.sum(x, axis=-1),
        (1, 4, 5, 6),
        (topology.POOLING, 1, 1, 20, 6, 1),
    ),
    "window": (
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 1, 1), "VALID"
        ),
        (1, 7, 5, 6),
        (topology.POOLING, 3, 4, 6, 3, 2),
    ),
    "window, channels first": (
        lambda x: lax.reduce_window(
            x, 0.0, lax.add, (1, 1, 3, 2), (1, 1, 2, 1), "VALID"
        ),
        (1, 6, 7, 5),
        (topology.POOLING, 3, 4, 6, 3, 2),
    ),
    "move": (lambda x: x[:, ::2].transpose(0, 2, 1, 3), (1, 4, 5, 6), None),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vector_operations_in_all_spellings(name):
    fun, shape, expected = VECTORS[name]
    eqns = equations(jax.make_jaxpr(fun)(spec(*shape)))
    found = [row for row in map(vector_shape, eqns) if row and row["out_channels"] > 1]
    if expected is None:
        assert not found
        return
    kind, height, width, channels, *window = expected
    row = found[-1]  # calls come before what they call
    assert row["kind"] == kind and row["groups"] == row["in_channels"] == channels
    assert [row["out_height"], row["out_width"]] == [height, width]
    assert [row["out_channels"], row["kernel_height"], row["kernel_width"]] == [
        channels,
        *window,
    ]
    counted = table(row)
    elements = {topology.POOLING: np.prod(window), topology.CONCATENATION: 0}
    each = elements.get(kind, 1)
    assert topology.vector_operations(counted) == height * width * channels * each
    assert topology.macs(counted) == topology.parameters(counted) == 0


NO_PADDING = ((0, 0), (0, 0))


def test_dilated_and_upsampled_operands_have_columns():
    layer = partial(conv, rhs_dilation=(2, 3))
    dilated = traced(layer, (1, 9, 8, 3), (3, 2, 3, 5))
    assert_columns(dilated, dilation_height=2, dilation_width=3, kind=topology.LAYER)
    layer = partial(conv, lhs_dilation=(2, 1), padding=NO_PADDING)
    upsampled = traced(layer, (1, 9, 8, 3), (3, 2, 3, 5))
    assert_columns(upsampled, upsampling_height=2, upsampling_width=1)
    assert_columns(upsampled, kind=topology.TRANSPOSED, out_height=15)


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_a_transposed_convolution_multiplies_every_pixel_with_every_weight(strides):
    def layer(x, kernel):
        return lax.conv_transpose(x, kernel, strides, "VALID")

    image, kernel = (1, 4, 5, 2), (3, 3, 2, 6)
    found = traced(layer, image, kernel)
    ones = layer(jnp.ones(image), jnp.ones(kernel))
    assert topology.weights(found) == np.prod(kernel)
    if strides != (1, 1):  # else the padding is multiplied, as in any convolution
        assert topology.macs(found) == jnp.sum(ones) == 4 * 5 * np.prod(kernel)


def test_an_upsampled_and_strided_convolution_counts_its_zeros():
    layer = partial(conv, stride=2, lhs_dilation=(3, 3), padding=NO_PADDING)
    found = traced(layer, (1, 5, 5, 2), (3, 3, 2, 4))
    assert_columns(found, kind=topology.LAYER, out_height=6)
    assert topology.macs(found) == 6 * 6 * 3 * 3 * 2 * 4

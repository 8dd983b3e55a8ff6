"""Laws of the layer table's arithmetic, and the shapes of layers in all spellings."""

import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core.primitives import conv_general_dilated_p, dot_general_p
from table_helpers import assert_columns, conv, spec, table

from jaxnas import topology
from jaxnas.jaxprs import equations
from jaxnas.topology import LayerTable

COUNTS = [
    topology.fan_in,
    topology.weights,
    topology.parameters,
    topology.output_elements,
    topology.macs,
]


DEPTHWISE = dict(
    in_channels=6,
    out_channels=12,
    groups=6,
    kernel_height=3,
    kernel_width=5,
    out_height=4,
    out_width=7,
    bias_bits=16,
)
DENSE = dict(in_channels=12, out_channels=10, bias_bits=0)
MASKED = dict(mask=0, in_channels=2**31 - 1, out_channels=2**31 - 1, groups=0)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (topology.fan_in, [15, 12, 0]),
        (topology.weights, [15 * 12, 12 * 10, 0]),
        (topology.parameters, [15 * 12 + 12, 12 * 10, 0]),
        (topology.output_elements, [4 * 7 * 12, 10, 0]),
        (topology.macs, [15 * 4 * 7 * 12, 120, 0]),
    ],
)
def test_counts_of_depthwise_dense_and_masked_rows(count, expected):
    found = count(table(DEPTHWISE, DENSE, MASKED))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", COUNTS)
def test_counts_are_the_same_eager_jitted_vmapped_and_with_leading_axes(count):
    one, other = table(DEPTHWISE, DENSE, MASKED), table(DENSE, MASKED, DEPTHWISE)
    both = topology.stack([one, other])
    expected = np.stack([count(one), count(other)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(count))(both), expected)
    np.testing.assert_array_equal(count(both), expected)


def test_macs_beyond_the_range_of_int32_are_right_to_float32():
    large = dict(in_channels=4093, out_channels=4093, out_height=1021, out_width=1021)
    exact = 4093**2 * 1021**2
    assert exact > 2**31
    np.testing.assert_allclose(topology.macs(table(large)), exact, rtol=2**-22)


def test_compress_drops_masked_rows_only():
    full = table(MASKED, DEPTHWISE, MASKED, DENSE)
    for column, expected in zip(
        topology.compress(full), table(DEPTHWISE, DENSE), strict=True
    ):
        assert isinstance(column, np.ndarray)
        np.testing.assert_array_equal(column, expected)


def test_compress_of_a_stacked_table_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 1\).*index the leading axes"):
        topology.compress(topology.stack([table(DENSE), table(DENSE)]))


def test_stack_pads_with_masked_zero_rows_that_compress_removes():
    short, long = table(DENSE), table(DEPTHWISE, DENSE, DEPTHWISE)
    both = topology.stack([short, long])
    assert not both.mask[0, 1:].any()
    assert all(column[0, 1:].sum() == 0 for column in both)
    for i, original in enumerate((short, long)):
        restored = topology.compress(LayerTable(*(column[i] for column in both)))
        for column, expected in zip(restored, original, strict=True):
            assert column.dtype == expected.dtype
            np.testing.assert_array_equal(column, expected)


def test_stack_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one table"):
        topology.stack([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(depth=3), r"columns \['depth'\] missing or unknown"),
        (dict(live_bits=2**31), "2147483648 in column live_bits"),
    ],
)
def test_rows_that_fit_no_table_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        topology.from_rows([dict.fromkeys(LayerTable._fields[1:], 1) | change])


def traced(product, image, kernel):
    """The table of one layer, from its equation alone."""
    closed = jax.make_jaxpr(product)(spec(*image), spec(*kernel))
    layers = conv_general_dilated_p, dot_general_p
    (eqn,) = [eqn for eqn in equations(closed) if eqn.primitive in layers]
    if eqn.primitive is conv_general_dilated_p:
        return table(topology.convolution_shape(eqn))
    # Products may be written down with their factors exchanged.
    kernel_left = eqn.invars[0].aval.shape == kernel
    return table(topology.dense_shape(eqn, kernel_left=kernel_left))


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

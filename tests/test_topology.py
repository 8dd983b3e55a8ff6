"""Laws of the layer table's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table_helpers import table

from jaxnas import topology
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


# Weights, parameters, multiply-accumulates and vector operations of ten channels.
KINDS = {
    topology.LAYER: (90, 100, 90, 0),
    topology.TRANSPOSED: (90, 100, 4 * 90, 0),
    topology.MAP_PRODUCT: (0, 10, 90, 0),
    topology.POOLING: (0, 0, 0, 90),
    topology.ELEMENTWISE: (0, 0, 0, 90),
    topology.CONCATENATION: (0, 0, 0, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_rows_of_each_kind_count(kind):
    # One window of nine over ten channels each, from 2x2 pixels to one.
    shape = dict(in_height=2, in_width=2, kernel_height=3, kernel_width=3)
    channels = dict(in_channels=10, out_channels=10, groups=10)
    one = table(shape | channels | dict(kind=kind), MASKED | dict(kind=kind))
    counts = [topology.weights, topology.parameters, topology.macs]
    found = [count(one) for count in (*counts, topology.vector_operations)]
    np.testing.assert_array_equal(found, [[count, 0] for count in KINDS[kind]])


def test_products_and_layers_mask_the_other_kinds():
    kinds = range(1, len(topology.KINDS))
    rows = table(*(dict(kind=kind) for kind in kinds), MASKED)
    named = [topology.KINDS[k] for k in rows.kind[topology.products(rows).mask]]
    assert named == ["layer", "transposed convolution", "product of two maps"]
    assert topology.layers(rows).mask.tolist() == [True, True, *[False] * 5]


def test_exact_counts_are_those_of_python_integers_however_large():
    # Two layers of VGG-16 and one beyond 2**53, which no float counts.
    rows = [
        dict(in_channels=64, out_channels=64, out_height=224, out_width=224),
        dict(in_channels=512, out_channels=512, out_height=28, out_width=28),
        dict(in_channels=2**20 + 1, out_channels=2**17 + 1, out_height=2**10 + 1),
    ]
    rows = [row | dict(kernel_height=3, kernel_width=3) for row in rows]
    each = [
        9 * row["in_channels"] * row["out_channels"] * row["out_height"]
        * row.get("out_width", 1)
        for row in rows
    ]  # fmt: skip
    found = table(*rows, MASKED)
    counts = topology.exact_counts(found)
    assert counts.macs.tolist() == [*each, 0] and each[2] > 2**50
    assert topology.exact_macs(found) == sum(each)
    kernels = [9 * row["in_channels"] * row["out_channels"] for row in rows]
    assert counts.weights.tolist() == [*kernels, 0]
    biases = sum(row["out_channels"] for row in rows)
    assert topology.exact_parameters(found) == sum(kernels) + biases


def test_exact_counts_are_the_float_ones_where_those_are_exact():
    draw = np.random.default_rng(0).integers(1, 7, (200, len(LayerTable._fields)))
    rows = [dict(zip(LayerTable._fields, map(int, row), strict=True)) for row in draw]
    for row in rows:  # channels come in whole groups
        row |= dict(kind=row["kind"] % 7, mask=row["mask"] % 2)
        row["in_channels"] *= row["groups"]
    found = table(*rows)
    for name, exact in topology.exact_counts(found)._asdict().items():
        assert exact.dtype == np.int64
        np.testing.assert_array_equal(getattr(topology, name)(found), exact)


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

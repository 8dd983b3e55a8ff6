"""Blocks that share a scale word: against plain NumPy, and with faults in that word."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnas.faults import Fault, inject
from jaxnas.faults.injection import sites
from jaxnas.faults.models import FaultModel
from jaxnas.numerics import (
    IEEE,
    FixedPoint,
    Logarithmic,
    MiniFloat,
    PowerOfTwo,
    quantize,
)
from jaxnas.numerics.blocks import (
    adaptive_float,
    block_floating_point,
    microscaling,
    quantize_blocks,
    shared_scale,
)
from jaxnas.tracing import trace_topology

KEY = jax.random.key(0)
E4M3 = MiniFloat(exponent=4, mantissa=3, specials="nan_only")


def values(*shape, seed=0):
    rng = np.random.default_rng(seed)
    magnitudes = np.exp2(rng.uniform(-8, 8, shape))
    return (rng.normal(size=shape) * magnitudes).astype(np.float32)


def blockwise(function, x, block):
    """`function` on every run of up to `block` elements of the last axis."""
    result = np.empty(x.shape, np.float64)
    for row in np.ndindex(x.shape[:-1]):
        for start in range(0, x.shape[-1], block):
            piece = np.s_[(*row, slice(start, start + block))]
            result[piece] = function(x[piece].astype(np.float64))
    return result


def test_block_floating_point_is_that_of_numpy():
    x = values(3, 21)

    def reference(piece):
        step = 2.0 ** (np.floor(np.log2(np.abs(piece).max())) - 5 + 2)
        return np.clip(np.rint(piece / step), -15, 15) * step

    y = block_floating_point(x, bits=5, block=8)
    np.testing.assert_array_equal(y, blockwise(reference, x, 8))


@pytest.mark.parametrize(
    ("element", "cast", "largest", "exponent"),
    [
        (MiniFloat(exponent=2, mantissa=1, specials="finite"), "float4_e2m1fn", 6, 2),
        (MiniFloat(exponent=3, mantissa=2, specials="finite"), "float6_e3m2fn", 28, 4),
        (E4M3, "float8_e4m3fn", 448, 8),
        (MiniFloat(exponent=5, mantissa=2), "float8_e5m2", 57344, 15),
    ],
)
def test_microscaling_is_that_of_ml_dtypes(element, cast, largest, exponent):
    x = values(2, 70)

    def reference(piece):
        scale = 2.0 ** (np.floor(np.log2(np.abs(piece).max())) - exponent)
        units = np.clip(piece / scale, -largest, largest).astype(np.float32)
        return units.astype(getattr(ml_dtypes, cast)).astype(np.float64) * scale

    y = microscaling(x, element=element)
    np.testing.assert_array_equal(y, blockwise(reference, x, 32))


@pytest.mark.parametrize(("exponent", "mantissa"), [(2, 1), (3, 4), (4, 3)])
def test_adaptive_floats_are_those_of_the_paper(exponent, mantissa):
    x = values(4, 50)
    bias = np.floor(np.log2(np.abs(x).max())) - (2**exponent - 1)
    least = 2.0**bias * (1 + 2.0**-mantissa)
    largest = 2.0 ** (bias + 2**exponent - 1) * (2 - 2.0**-mantissa)
    size = np.abs(x).astype(np.float64)
    step = 2.0 ** (np.floor(np.log2(np.maximum(size, least))) - mantissa)
    expected = np.minimum(np.rint(size / step) * step, largest)
    expected = np.where(size < least, np.where(size > least / 2, least, 0), expected)
    y = adaptive_float(x, exponent=exponent, mantissa=mantissa)
    np.testing.assert_array_equal(y, np.sign(x) * expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_blocks_lie_along_any_axis(axis):
    x = values(5, 7, 6)
    y = quantize_blocks(x, FixedPoint(bits=5), axis=axis, block=4)
    moved = quantize_blocks(np.moveaxis(x, axis, -1), FixedPoint(bits=5), block=4)
    np.testing.assert_array_equal(y, np.moveaxis(np.asarray(moved), -1, axis))


def test_whole_rows_and_whole_arrays_are_blocks():
    x, format = values(4, 6), Logarithmic(bits=6, base=2**0.5)
    rows = quantize_blocks(x, format)
    alone = np.stack([quantize_blocks(row, format, axis=None) for row in x])
    np.testing.assert_array_equal(rows, alone)
    whole = quantize_blocks(x, format, axis=None)
    np.testing.assert_array_equal(
        whole.reshape(-1), quantize_blocks(x.reshape(-1), format, block=24)
    )


def test_value_is_the_same_eagerly_jitted_and_mapped():
    x = values(3, 2, 21)
    read = functools.partial(microscaling, block=8)
    expected = np.asarray(read(x))
    np.testing.assert_array_equal(jax.jit(read)(x), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(read))(x), expected)


def test_real_scales_are_words_too():
    """Scales of four by three bits with a unit of their own, as per-vector scales."""
    x, unit = values(2, 32), np.float32(0.01)
    y = quantize_blocks(x, FixedPoint(bits=6), block=16, shared=E4M3, unit=unit)
    peaks = np.abs(x).reshape(2, 2, 16).max(-1)
    scale = np.asarray(E4M3.quantize(peaks / 32, unit)).repeat(16, -1)
    np.testing.assert_array_equal(y, FixedPoint(bits=6).quantize(x, scale))


def flip_bit(k):
    """A model that inverts bit k of every word."""
    return FaultModel(
        sample=lambda key, shape, format: jnp.uint8(1 << k),
        apply=lambda mask, words: words ^ mask.astype(words.dtype),
    )


@pytest.mark.parametrize("k", range(6))
def test_a_flipped_bit_of_the_shared_word_rescales_its_block_by_a_power(k):
    x = values(2, 21)
    read = functools.partial(quantize_blocks, format=FixedPoint(bits=6), block=8)
    peaks = [np.abs(x[:, i : i + 8]).max(1) for i in (0, 8, 16)]
    scale = shared_scale(np.stack(peaks, 1), FixedPoint(bits=6))
    words = np.asarray(PowerOfTwo().encode(scale, 1.0)).repeat(8, 1)[:, :21]
    faulty = inject(read, Fault(flip_bit(k), stored=("scale",)))
    factor = 2.0 ** np.where((words >> k) & 1, -(2.0**k), 2.0**k)
    np.testing.assert_array_equal(faulty(KEY, x), np.asarray(read(x)) * factor)


def test_a_flipped_bit_of_an_element_changes_no_other_and_no_scale():
    x = np.float32([[3.0, -1.0, 0.5, 0.25]])
    read = functools.partial(block_floating_point, bits=5, block=4, site="map")
    faulty = inject(read, Fault(flip_bit(4), stored=("activation",)))
    np.testing.assert_array_equal(faulty(KEY, x), -np.asarray(read(x)))
    names = [(site.name, site.stored, site.shape) for site in sites(read, x)]
    expected = [("map/scale", "scale", (1, 1)), ("map", "activation", (1, 4))]
    assert sorted(names) == sorted(expected)


def test_blocks_of_zeros_and_blocks_with_nan():
    x = np.float32([[0, 0, 1, np.nan, 1, 2]])
    y = np.asarray(microscaling(x, block=2))
    np.testing.assert_array_equal(y, [[0, 0, np.nan, np.nan, 1, 2]])


def test_derivatives_are_straight_through():
    x = values(3, 8)

    def total(x):
        return (jnp.arange(24.0).reshape(3, 8) * quantize_blocks(x, E4M3)).sum()

    low, high = (bound * shared_scale(np.abs(x).max(1), E4M3) for bound in (-448, 448))
    inside = (low[:, None] <= x) & (x <= high[:, None])
    expected = np.where(inside, np.arange(24.0).reshape(3, 8), 0)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(x), expected, rtol=1e-6)


def test_the_layer_table_does_not_see_the_shared_words():
    """The same network with one scale for all gives the same table."""

    def network(store, w, x):
        x = store(x, stored="input")
        hidden = jax.nn.relu(jnp.dot(x, store(w[0], stored="weight")))
        return jnp.dot(store(hidden, stored="activation"), store(w[1], stored="weight"))

    def plain(x, stored):
        return quantize(x, 0.5, FixedPoint(bits=5), stored=stored)

    def blocks(x, stored):
        return quantize_blocks(x, FixedPoint(bits=5), block=4, stored=stored)

    arguments = [values(8, 6), values(6, 3)], values(1, 8)
    tables = [
        trace_topology(functools.partial(network, store), *arguments)
        for store in (plain, blocks)
    ]
    jax.tree.map(np.testing.assert_array_equal, *tables)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axis": 2}, r"axis 2 of an array of shape \(2, 4\): no such axis; take one"),
        ({"block": 0}, "blocks of 0 elements; expected at least 1"),
        ({"block": 2, "axis": None}, "along axis None; give the axis"),
        ({"format": IEEE()}, "does not depend on a scale"),
        ({"stored": "bais"}, "stored='bais' is none of"),
        ({"unit": 0.0}, "a scale of 0.0; expected positive"),
    ],
)
def test_errors_name_the_cure(arguments, message):
    valid = {"x": values(2, 4), "format": FixedPoint(bits=4)}
    with pytest.raises(ValueError, match=message):
        quantize_blocks(**valid | arguments)

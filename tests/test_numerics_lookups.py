"""Lookups: the nearest value against a search of all, however crowded they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from format_laws import random_floats

from jaxnas.numerics.lookups import tabulate


def steps(start, count):
    """So many consecutive float32 numbers."""
    bits = np.float32(start).view(np.int32) + np.arange(count, dtype=np.int32)
    return bits.view(np.float32)


NORMAL = np.random.default_rng(0).normal(size=256).astype(np.float32)
TABLES = {
    "few": NORMAL[:9],
    "many": NORMAL,
    "negative": -np.abs(NORMAL[:40]) - 1,
    "zero_and_one_sign": np.append(0, np.exp2(np.arange(-50.0, 0))),
    "all_magnitudes": np.exp2(np.arange(-120.0, 120)) * np.tile([1, -1], 120),
    "few_crowded": steps(2 - 2**-20, 16),
    "crowded": np.append(steps(2 - 2**-17, 256), -steps(3, 50)),
    "repeated": np.tile(NORMAL[:40], 2),
}
every_table = pytest.mark.parametrize("name", TABLES)
SIZE = 1 << 13


def numbers(values):
    """At, beside and between the values, and of all magnitudes."""
    middle = np.float32((values[1:].astype(np.float64) + values[:-1]) / 2)
    ends = np.float32([0, -0.0, np.inf, -np.inf])
    x = np.concatenate([values, middle, -middle, ends])
    beside = [np.nextafter(x, np.float32(way)) for way in (-np.inf, np.inf)]
    x = np.concatenate([x, *beside, random_floats(SIZE)])[:SIZE]
    return x[~np.isnan(x) & ((x == 0) | (np.abs(x) > 1e-37))]


def brute_force(values, x):
    """The nearest of all, of two the one of smaller magnitude, of +-v the positive."""
    order = np.lexsort([-values, np.abs(values)])
    values, beyond = values[order].astype(np.float64), 2 * values[order[-1]]
    inside = np.clip(x, -abs(beyond), abs(beyond)).astype(np.float64)
    far = np.abs(inside[:, None] - values)
    return values[far.argmin(axis=1)]


@every_table
def test_the_nearest_of_all_is_found(name):
    table = tabulate(TABLES[name].astype(np.float64))
    x = numbers(np.unique(TABLES[name].astype(np.float32)))
    expected = brute_force(table.values, x)
    for scale in np.float32([1, 0.25]):
        y = np.asarray(jax.jit(table.quantize)(x * scale, scale))
        np.testing.assert_array_equal(y / scale, expected)
    words = np.asarray(jax.jit(table.encode)(x, jnp.float32(1)))
    np.testing.assert_array_equal(table.decoded[words], expected)
    first = [np.flatnonzero(table.decoded == table.decoded[word])[0] for word in words]
    np.testing.assert_array_equal(words, first)


@pytest.mark.parametrize("name", ["few_crowded", "crowded"])
@pytest.mark.parametrize("scale", [1.3, 1.0000001, 0.7])
def test_crowded_numbers_come_back_and_keep_their_order(name, scale):
    table, scale = tabulate(TABLES[name].astype(np.float64)), np.float32(scale)
    scaled = np.unique(table.values * scale)
    x = np.unique(np.concatenate([scaled, numbers(scaled)]))
    x = np.pad(x, (0, SIZE - len(x)), mode="edge")
    y, (low, high) = jax.jit(
        lambda x, scale: (table.quantize(x, scale), table.neighbours(x, scale))
    )(x, scale)
    assert (np.diff(y) >= 0).all()
    at = np.isin(x, scaled)
    assert at.sum() >= len(scaled)
    np.testing.assert_array_equal(np.asarray(y)[at], x[at])
    last, inside = len(scaled) - 1, np.clip(x, scaled[0], scaled[-1])
    below = np.clip(np.searchsorted(scaled, inside, side="right") - 1, 0, last)
    np.testing.assert_array_equal(low, scaled[below])
    np.testing.assert_array_equal(high, scaled[np.searchsorted(scaled, inside)])


@pytest.mark.parametrize("name", ["few", "many", "zero_and_one_sign"])
def test_one_pass_over_memory(name):
    table = tabulate(TABLES[name].astype(np.float64))
    x = jax.ShapeDtypeStruct((1 << 20,), jnp.float32)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    program = jax.jit(table.quantize).lower(x, scale).compile()
    accessed = program.cost_analysis()["bytes accessed"]
    assert accessed < 1.1 * 2 * x.size * x.dtype.itemsize  # a read and a write


def test_nan_counts_as_zero():
    table = tabulate(np.float64([-3, 1, 5]))
    x = np.float32([np.nan, np.inf])
    np.testing.assert_array_equal(table.encode(x, jnp.float32(2)), [1, 2])


@every_table
def test_a_table_made_while_a_program_is_traced_is_the_same(name):
    """It holds nothing of that program, and serves others."""
    made = []

    @jax.jit
    def traced(x):
        made.append(tabulate(TABLES[name].astype(np.float64)))
        return made[0].quantize(x, jnp.float32(1))

    x = jnp.asarray(TABLES[name][:3], jnp.float32)
    other = tabulate(TABLES[name].astype(np.float64))
    np.testing.assert_array_equal(traced(x), other.quantize(x, jnp.float32(1)))
    for one, two in zip(jax.tree.leaves(made[0]), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one, two)

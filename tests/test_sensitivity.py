"""Shares by layer and bit position, against flips of every bit of a tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics import FixedPoint, quantize
from jaxnas.sensitivity import cells, measure_sensitivity

IMAGES = jnp.asarray(
    np.random.default_rng(0).integers(0, 256, (12, 2, 1, 1)), jnp.uint8
)
KERNEL = jnp.array([[0.5, -0.25, 0.25], [-0.5, 0.25, 0.5]])
BIAS = jnp.array([0.0, 0.125, -0.25])
WIDE, NARROW = FixedPoint(bits=4), FixedPoint(bits=3)
TRIALS = 600


def network(variables, images):
    kernel, bias = variables
    x = images.reshape(-1, 2) / 256.0
    kernel = quantize(kernel, 0.125, WIDE, stored="weight", site="first/kernel")
    y = jnp.dot(x, kernel, precision="highest")
    bias = quantize(bias, 0.125, NARROW, stored="weight", site="last/kernel")
    return quantize(y, 0.125, WIDE, stored="activation", site="y/output") + bias[None]


@pytest.fixture(scope="module")
def found():
    told = []
    rows = measure_sensitivity(
        jax.random.key(0),
        network,
        (KERNEL, BIAS),
        IMAGES,
        stored=("weight",),
        trials=TRIALS,
        advance=told.append,
    )
    assert told == [TRIALS] * len(rows)
    return {(row["site"], row["bit"]): row for row in rows}


def classes(kernel, bias):
    """The network in NumPy: half-to-even rounding to steps of 1/8, limits of 4 bits."""
    y = np.asarray(IMAGES, np.float64).reshape(-1, 2) / 256 @ kernel
    return np.argmax(np.clip(np.rint(8 * y), -8, 7) / 8 + bias, axis=1)


def flipped(values, index, bit, bits):
    words = np.rint(np.asarray(values, np.float64) * 8).astype(int).ravel()
    word = (words[index] & (2**bits - 1)) ^ (1 << bit)
    words[index] = word - 2**bits * (word >> (bits - 1))
    return words.reshape(values.shape) / 8


def test_shares_are_those_of_all_flips(found):
    clean = classes(np.asarray(KERNEL), np.asarray(BIAS))
    shares = []
    for (site, bit), row in found.items():
        bits, values = (4, KERNEL) if site == "first/kernel" else (3, BIAS)
        changed = []
        for index in range(values.size):
            other = flipped(values, index, bit, bits)
            struck = (other, BIAS) if bits == 4 else (KERNEL, other)
            changed.append(classes(*map(np.asarray, struck)) != clean)
        share = np.mean(changed)
        deviation = np.sqrt(share * (1 - share) / TRIALS)
        assert abs(row["sdc1"] - share) <= 4 * deviation + 1e-6, (site, bit)
        assert row["low"] <= row["sdc1"] <= row["high"]
        assert row["trials"] == TRIALS and row["stored"] == "weight"
        shares.append(share)
    assert min(shares) < 0.15 and max(shares) > 0.3, "bits differ"


def test_there_is_a_row_for_every_bit_of_the_kinds_asked_for(found):
    expected = [("first/kernel", bit) for bit in (3, 2, 1, 0)]
    assert list(found) == expected + [("last/kernel", bit) for bit in (2, 1, 0)]


def test_cells_start_where_the_bits_before_them_end():
    from jaxnas.faults.injection import sites

    found = sites(network, (KERNEL, BIAS), IMAGES[:1])
    firsts = {(c.site.name, c.bit): c.first for c in cells(found)}
    assert firsts["first/kernel", 0] == 0 and firsts["first/kernel", 3] == 3
    assert firsts["last/kernel", 0] == 6 * 4
    assert firsts["y/output", 2] == 6 * 4 + 3 * 3 + 2


def test_loops_and_missing_words_are_refused():
    def looped(variables, images):
        def body(x, _):
            return network(variables, images) + x, None

        return jax.lax.scan(body, jnp.zeros((1, 3)), None, length=2)[0]

    given = jax.random.key(0), looped, (KERNEL, BIAS), IMAGES
    with pytest.raises(ValueError, match="some lie in loops; unroll them"):
        measure_sensitivity(*given, stored=("weight",), trials=2)
    with pytest.raises(ValueError, match="stores nothing of the kinds"):
        measure_sensitivity(*given, stored=("bias",), trials=2)

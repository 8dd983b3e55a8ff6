"""Words as bits, against Python's own integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.words import (
    all_words,
    bit_planes,
    field,
    flip,
    from_planes,
    population_count,
)


@pytest.mark.parametrize("bits", [1, 8, 9])
def test_planes_are_binary_digits_and_turn_back(bits):
    words = all_words(bits)
    planes = bit_planes(words, bits)
    digits = [[digit == "1" for digit in f"{w:0{bits}b}"[::-1]] for w in range(2**bits)]
    np.testing.assert_array_equal(planes, digits)
    back = from_planes(planes)
    assert back.dtype == words.dtype
    np.testing.assert_array_equal(back, words)


def test_planes_of_wide_words_in_any_shape():
    words = jnp.asarray([[0, 1, 2**31], [2**32 - 1, 0xDEADBEEF, 77]], jnp.uint32)
    planes = bit_planes(words, 32)
    assert planes.shape == (2, 3, 32)
    np.testing.assert_array_equal(from_planes(planes), words)
    np.testing.assert_array_equal(jax.vmap(jax.jit(from_planes))(planes), words)


def test_population_count_is_the_number_of_ones():
    words = all_words(10)
    counted = population_count(words)
    np.testing.assert_array_equal(counted, [w.bit_count() for w in range(1024)])
    np.testing.assert_array_equal(counted, bit_planes(words, 10).sum(-1))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_flip_changes_one_bit_and_undoes_itself(bits):
    words = np.random.default_rng(0).integers(0, 2**bits, 64, dtype=f"uint{bits}")
    position = np.arange(64, dtype=np.int32) % bits
    flipped = flip(words, position)
    assert flipped.dtype == words.dtype
    expected = [int(w) ^ (1 << int(k)) for w, k in zip(words, position, strict=True)]
    np.testing.assert_array_equal(flipped, expected)
    np.testing.assert_array_equal(flip(flipped, position), words)
    np.testing.assert_array_equal(jax.vmap(flip)(words, position), flipped)
    np.testing.assert_array_equal(flip(words, 5), words ^ words.dtype.type(32))


@pytest.mark.parametrize(
    "format",
    [FixedPoint(bits=6), Logarithmic(bits=9, base=1.1), IEEE(name="bfloat16")],
)
def test_fields_put_the_word_together_again(format):
    words = np.asarray(all_words(format.bits)).astype(np.uint32)
    total = np.zeros_like(words)
    for mask in format.fields.values():
        total += np.asarray(field(words, mask)) * np.uint32(mask & -mask)
    np.testing.assert_array_equal(total, words)


def test_exponent_field_of_a_float():
    words = IEEE().encode(np.float32([1, -2, 0.375]), 1.0)
    exponent = field(words, IEEE().fields["exponent"])
    np.testing.assert_array_equal(exponent, [127, 128, 125])


def test_all_words_are_meant_to_be_few():
    with pytest.raises(ValueError, match="all words of 17 bits; expected 1 to 16"):
        all_words(17)

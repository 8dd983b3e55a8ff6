"""What formats share: the protocol, the width of words, the bits around them."""

import jax
import numpy as np
import pytest
from format_laws import bits_of, name_of

from jaxnas.numerics import (
    IEEE,
    Binary,
    Codebook,
    FixedPoint,
    Logarithmic,
    MiniFloat,
    Posit,
    PowerOfTwo,
    Ternary,
    TwoTermLogarithmic,
)
from jaxnas.numerics.formats import Format, bracket, word_dtype

FORMATS = [
    FixedPoint(bits=8),
    Logarithmic(bits=8, base=2**0.125),
    TwoTermLogarithmic(bits=7, base=2.0),
    IEEE(name="bfloat16"),
    MiniFloat(exponent=4, mantissa=3),
    PowerOfTwo(bits=5, bias=20),
    Codebook(values=(0.0, 1.0, -1.0, 3.0)),
    Ternary(),
    Binary(),
    Posit(bits=8),
]


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_every_family_is_a_format_of_one_shape_and_type(format):
    assert isinstance(format, Format) and format == type(format)(**vars(format))
    x, scale = np.ones((2, 3), np.float32), np.float32([[0.5, 1, 2]])
    words = format.encode(x, scale)
    assert (words.shape, words.dtype) == (x.shape, word_dtype(format.bits))
    found = [format.decode(words, scale), format.quantize(x, scale)]
    for values in (*found, *format.neighbours(x, scale)):
        assert (values.shape, values.dtype) == (x.shape, np.float32)
    assert format.span > 0


def test_the_compiler_cannot_merge_neighbouring_scales():
    """(code * 0.3) * (1 / 0.7) with the constants multiplied first rounds otherwise."""
    first, second = FixedPoint(bits=16), Logarithmic(bits=16, base=1.001)

    def chain(x):
        return second.quantize(first.quantize(x, 0.3), 0.7)

    x = np.random.default_rng(0).normal(size=1 << 14).astype(np.float32) * 1000
    np.testing.assert_array_equal(bits_of(jax.jit(chain)(x)), bits_of(chain(x)))


def test_bracket_takes_the_two_that_hold_x():
    x = np.float32([0.9, 1.0, 1.1, np.nan])
    low, high = bracket(x, *(np.full(4, v, np.float32) for v in (1, 0, 2)))
    np.testing.assert_array_equal(low, [0, 1, 1, 1])
    np.testing.assert_array_equal(high, [1, 1, 2, 1])


@pytest.mark.parametrize(
    ("bits", "dtype"), [(1, "uint8"), (9, "uint16"), (32, "uint32")]
)
def test_words_have_the_smallest_dtype(bits, dtype):
    assert word_dtype(bits) == dtype


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="a word of 33 bits; expected 1 to 32"):
        word_dtype(33)

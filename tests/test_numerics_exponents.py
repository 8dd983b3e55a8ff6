"""Powers of two as words."""

import ml_dtypes
import numpy as np
import pytest
from format_laws import (
    check_bounds_and_fields,
    check_nearest,
    check_neighbours,
    check_quantize,
    check_words,
    name_of,
)

from jaxnas.numerics.exponents import PowerOfTwo
from jaxnas.numerics.words import all_words, flip

FORMATS = [
    PowerOfTwo(),
    PowerOfTwo(bits=5, bias=20, nan=False),
    PowerOfTwo(bits=4, bias=-30),
    PowerOfTwo(bits=2, bias=2, nan=False),
]
every_format = pytest.mark.parametrize("format", FORMATS, ids=name_of)


def by_hand(format, words):
    values = 2.0 ** (np.maximum(words.astype(int) - format.bias, -126))
    return np.where(format.nan & (words == 2**format.bits - 1), np.nan, values)


def never_zero_at_bias_127(format, words):
    return np.where((words == 0) & (format.bias == 127), 1, words)


def upwards(low, high, low_word, high_word):
    return np.full(low.shape, True)


@every_format
def test_every_word_decodes_and_encodes_back(format):
    check_words(format, by_hand, never_zero_at_bias_127)


@every_format
def test_nearest_power_is_taken_and_of_two_the_larger(format):
    check_nearest(format, by_hand, upwards)


@pytest.mark.parametrize("format", FORMATS[2:], ids=name_of)
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format)


@every_format
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


def test_quantize_is_decode_of_encode():
    check_quantize(PowerOfTwo())


def test_eight_bits_are_those_of_ml_dtypes():
    x = np.exp2(np.random.default_rng(0).uniform(-125, 126, 4096)).astype(np.float32)
    expected = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    np.testing.assert_array_equal(PowerOfTwo().encode(x, 1.0), expected)


def test_zero_negative_and_unknown_numbers():
    x = np.float32([0, -3, -np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(PowerOfTwo().encode(x, 1.0), [1, 1, 1, 254, 255])
    without = PowerOfTwo(bits=4, bias=8, nan=False)
    np.testing.assert_array_equal(without.encode(x, 1.0), [0, 0, 0, 15, 0])


def test_flipping_bit_k_multiplies_by_its_power():
    format, words = PowerOfTwo(bits=5, bias=16, nan=False), all_words(5)
    value = np.asarray(format.decode(words, 1.0))
    for k in range(5):
        up = np.where((np.asarray(words) >> k) & 1, -1.0, 1.0)
        flipped = format.decode(flip(words, k), 1.0)
        np.testing.assert_array_equal(flipped, value * 2.0 ** (up * 2**k))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PowerOfTwo(bits=9), "PowerOfTwo words of 9 bits; expected 2 to 8"),
        (lambda: PowerOfTwo(bias=128), "take a bias between 127 and 127"),
        (lambda: PowerOfTwo(nan=False), "and nan=True"),
        (lambda: PowerOfTwo(bits=4, bias=-120), "a bias between -113 and 127"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()

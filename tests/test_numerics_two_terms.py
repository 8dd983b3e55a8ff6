"""Two-term logarithmic words: every pair of terms, near sums, aliases, ties."""

import numpy as np
import pytest
from format_laws import (
    ALL,
    check_bounds_and_fields,
    check_nearest,
    check_neighbours,
    check_quantize,
    check_words,
    name_of,
    own,
    smaller_magnitude,
)

from jaxnas.numerics.two_terms import TwoTermLogarithmic

TWO_TERMS = [
    TwoTermLogarithmic(bits=bits, base=base, signed=bits % 2 == 1)
    for bits in (5, 8, 10, 11, 15)
    for base in (2.0, 2**0.5)
] + [
    TwoTermLogarithmic(bits=2, base=1.9, signed=False),
    TwoTermLogarithmic(bits=11, base=1.3),
]
every_format = pytest.mark.parametrize("format", TWO_TERMS, ids=name_of)


def by_hand(format, words):
    sign = 1 << (format.bits - 1) if format.signed else 1 << format.bits
    width = (format.bits - format.signed) // 2
    largest = (1 << width) - 1
    powers = np.float64(format.base) ** (np.arange(largest + 1) - largest)
    powers[0] = 0
    rest = words.astype(np.int64) % sign
    magnitude = powers[rest >> width] + powers[rest % (1 << width)]
    magnitude = magnitude.astype(np.float32).astype(np.float64)  # what can be read
    return np.where((words >= sign) & (magnitude != 0), -magnitude, magnitude)


def smallest_alias(format, words):
    """Of all words that read the same, the smallest."""
    values = by_hand(format, np.arange(1 << format.bits))
    _, first, number = np.unique(values, return_index=True, return_inverse=True)
    return first[number][words]


@every_format
def test_every_pair_of_terms_decodes_and_encodes_back(format):
    check_words(format, by_hand, smallest_alias, scale=4.0)


@every_format
def test_every_number_comes_back_at_any_scale(format):
    values = np.asarray(format.decode(ALL, 1.3))
    expected = by_hand(format, own(format)).astype(np.float32) * np.float32(1.3)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(format.quantize(values, 1.3), values)


def test_two_equal_terms_and_exchanged_fields_are_written_as_one_word():
    format = TwoTermLogarithmic(bits=7, base=2.0)
    words = np.uint8([0b0_011_101, 0b0_101_011, 0b0_101_101, 0b0_110_000, 0b1_000_000])
    back = format.encode(format.decode(words, 1.0), 1.0)
    expected = [0b0_011_101, 0b0_011_101, 0b0_000_110, 0b0_000_110, 0]
    np.testing.assert_array_equal(back, expected)


def test_a_second_term_counts_as_long_as_float32_can_hold_the_sum():
    format = TwoTermLogarithmic(bits=11, base=2.0)
    words = ((31 - np.arange(1, 31)) << 5 | 31).astype(np.uint16)
    value = np.asarray(format.decode(words, 1.0))
    assert (value[:23] > 1).all() and (value[23:] == 1).all()
    back = format.encode(value, 1.0)
    np.testing.assert_array_equal(back, np.where(value > 1, words, 31))


@every_format
def test_nearest_sum_is_taken_and_of_two_the_smaller(format):
    check_nearest(format, by_hand, smaller_magnitude)


@pytest.mark.parametrize("format", TWO_TERMS[::3], ids=name_of)
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format, scale=4.3)


@every_format
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


def test_quantize_is_decode_of_encode():
    check_quantize(TwoTermLogarithmic(bits=11, base=2.0))


def test_span_is_the_peak_in_scales():
    format = TwoTermLogarithmic(bits=7, base=2**0.5)
    peak = np.float32(8)
    assert format.quantize(np.float32([1e9]), peak / format.span) == peak


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TwoTermLogarithmic(bits=8, base=2.0), "take an odd number of bits"),
        (lambda: TwoTermLogarithmic(bits=5, base=2.0, signed=False), "take an even"),
        (lambda: TwoTermLogarithmic(bits=17, base=2.0), "words of 17 bits; expected 2"),
        (lambda: TwoTermLogarithmic(bits=15, base=9.0), "fewer bits or a base up to 2"),
        (lambda: TwoTermLogarithmic(bits=9, base=1.0), "finite number above 1"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()

"""Codebooks: every word, every tie, against a search of all values."""

import math

import numpy as np
import pytest
from format_laws import (
    check_bounds_and_fields,
    check_nearest,
    check_neighbours,
    check_quantize,
    check_words,
    smaller_magnitude,
)

from jaxnas.numerics.codebooks import Binary, Codebook, Ternary
from jaxnas.numerics.words import all_words, flip

RNG = np.random.default_rng(0)
SYMMETRIC = (-3.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 3.0)
FORMATS = [
    Codebook(values=(0.0, 1.0)),
    Codebook(values=SYMMETRIC),
    Codebook(values=(5.0, -2.0, 0.0, 5.0)),
    Codebook(values=tuple((np.round(RNG.normal(size=16) * 512) / 512).tolist())),
    Codebook(values=tuple((RNG.permutation(1024) - 300.0).tolist())),
    Codebook(values=tuple((RNG.permutation(1 << 16) - 30000.0).tolist())),
    Ternary(),
    Binary(),
]


def short_name(format):
    return f"{type(format).__name__}{format.bits}"


every_format = pytest.mark.parametrize("format", FORMATS, ids=short_name)


def by_hand(format, words):
    if isinstance(format, Codebook):
        return np.float64(format.values)[words]
    return np.float64([1, -1] if isinstance(format, Binary) else [0, 1, 0, -1])[words]


def first_word(format, words):
    values = by_hand(format, np.arange(1 << format.bits))
    first = np.array([np.flatnonzero(values == value)[0] for value in values])
    return first[words]


@every_format
def test_every_word_decodes_and_encodes_back(format):
    distinct = format.bits >= 10
    check_words(format, by_hand, None if distinct else first_word)


@every_format
def test_nearest_value_is_taken_and_of_two_the_smaller(format):
    check_nearest(format, by_hand, smaller_magnitude)


@every_format
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format)


@every_format
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


@pytest.mark.parametrize("format", FORMATS[1:4:2] + FORMATS[6:], ids=short_name)
def test_quantize_is_decode_of_encode(format):
    check_quantize(format)


def test_the_first_of_repeated_values_is_written():
    format = Codebook(values=(1.0, -2.0, 1.0 + 2.0**-22, 1.0))
    np.testing.assert_array_equal(format.encode(np.float32([1, -2]), 1.0), [0, 1])
    assert format.decode(np.uint8([2]), 1.0) == np.float32(1 + 2.0**-22)


def test_ternary_words_and_threshold():
    x = np.float32([0.7, 0.69, -0.7, -0.71, 2, np.nan, np.inf, -np.inf]) * 0.5
    format = Ternary(threshold=0.7)
    np.testing.assert_array_equal(format.encode(x, 0.5), [0, 0, 0, 3, 1, 0, 1, 3])
    assert format.neighbours(np.float32([0.3]), 0.5) == (0, 0.5)


def test_binary_words_are_signs():
    x = np.float32([1, -1e-3, 0, -0.0, np.nan, np.inf, -np.inf])
    words = Binary().encode(x, 0.5)
    np.testing.assert_array_equal(words, [0, 1, 0, 0, 0, 0, 1])
    negated = Binary().decode(flip(words, 0), 0.5)
    np.testing.assert_array_equal(negated, -Binary().decode(words, 0.5))


def test_flipping_the_sign_of_a_ternary_word_negates():
    words = all_words(2)
    negated = Ternary().decode(flip(words, 1), 0.5)
    np.testing.assert_array_equal(negated, -Ternary().decode(words, 0.5))


@pytest.mark.parametrize("format", FORMATS, ids=short_name)
def test_span_is_the_largest_magnitude(format):
    largest = np.abs(by_hand(format, np.asarray(all_words(format.bits)))).max()
    assert format.span == np.float32(largest)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Codebook(values=(0.0, 1.0, 2.0)), "of 3 values; .* repeat a value"),
        (lambda: Codebook(values=(0.0,)), "of 1 values; expected a power of two"),
        (lambda: Codebook(values=(0.0, math.nan)), "no normal float32 numbers"),
        (lambda: Codebook(values=(0.0, math.inf)), "take finite ones"),
        (lambda: Codebook(values=(0.0, 1e-40)), "no normal float32 numbers"),
        (lambda: Codebook(values=(2.0, 2.0)), "expected at least two"),
        (lambda: Ternary(threshold=0.0), "a number between 0 and 1"),
        (lambda: Ternary(threshold=1.0), "a number between 0 and 1"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()

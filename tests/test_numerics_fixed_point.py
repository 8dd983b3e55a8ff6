"""Fixed point: every word, every tie, every flipped bit."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from format_laws import (
    check_bounds_and_fields,
    check_nearest,
    check_neighbours,
    check_quantize,
    check_words,
    even_word,
    name_of,
)

from jaxnas.numerics.fixed_point import FixedPoint, q_format
from jaxnas.numerics.words import all_words, flip

CODES = ("twos_complement", "sign_magnitude", "offset_binary", "unsigned")
FORMATS = [FixedPoint(bits=bits, code=code) for bits in range(2, 17) for code in CODES]
SOME = [
    FixedPoint(bits=8),
    FixedPoint(bits=5, code="sign_magnitude"),
    FixedPoint(bits=6, code="offset_binary"),
    FixedPoint(bits=16, code="unsigned"),
]
every_format = pytest.mark.parametrize("format", FORMATS, ids=name_of)
some_formats = pytest.mark.parametrize("format", SOME, ids=name_of)


def by_hand(format, words):
    word, sign = words.astype(np.int64), np.int64(1 << (format.bits - 1))
    return {
        "twos_complement": np.where(word < sign, word, word - 2 * sign),
        "sign_magnitude": np.where(word < sign, word, sign - word),
        "offset_binary": word - sign,
        "unsigned": word,
    }[format.code].astype(np.float64)


def without_negative_zero(format, words):
    if format.code != "sign_magnitude":
        return words
    return np.where(words == 1 << (format.bits - 1), 0, words)


@every_format
def test_every_word_decodes_and_encodes_back(format):
    check_words(format, by_hand, without_negative_zero)


@every_format
def test_nearest_code_is_taken_and_of_two_the_even_one(format):
    check_nearest(format, by_hand, even_word)


@every_format
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format)


@every_format
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


@some_formats
def test_quantize_is_decode_of_encode(format):
    check_quantize(format)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", [2, 7, 8, 16])
def test_flipping_bit_k_moves_by_its_weight(bits, code):
    format, step = FixedPoint(bits=bits, code=code), 2.0**-5
    words = all_words(bits)
    value = np.asarray(format.decode(words, step))
    for k in range(bits):
        flipped = np.asarray(format.decode(flip(words, k), step))
        upwards = np.where((np.asarray(words) >> k) & 1, -(2**k), 2**k) * step
        sign = "sign" in format.fields and k == bits - 1
        if code == "sign_magnitude":
            negative = np.where(np.asarray(words) >> (bits - 1), -1, 1)
            expected = -value if sign else value + negative * upwards
        else:
            expected = value - upwards if sign else value + upwards
        np.testing.assert_array_equal(flipped, expected)


def test_bounds_follow_the_shape_of_the_scale():
    scale = np.float32([[0.5, 0.25]])
    low, high = FixedPoint(bits=4).bounds(scale)
    np.testing.assert_array_equal(low, [[-4, -2]])
    np.testing.assert_array_equal(high, [[3.5, 1.75]])


@some_formats
def test_span_is_the_nominal_peak_in_scales(format):
    peak = 8.0
    scale = peak / format.span
    assert format.quantize(np.float32([1e9]), scale) == peak - scale


def test_words_to_check_by_eye():
    x = np.float32([1, -1, -2, 0.25, -0.25, np.nan, np.inf, -np.inf])
    cases = {
        "twos_complement": [2, 14, 12, 0, 0, 0, 7, 8],
        "sign_magnitude": [2, 10, 12, 0, 0, 0, 7, 15],
        "offset_binary": [10, 6, 4, 8, 8, 8, 15, 0],
        "unsigned": [2, 0, 0, 0, 0, 0, 15, 0],
    }
    for code, words in cases.items():
        format = FixedPoint(bits=4, code=code)
        np.testing.assert_array_equal(format.encode(x, 0.5), words)


def test_q_formats_have_their_fraction_bits_below_the_point():
    format, scale = q_format(3, 4)
    assert (format, scale) == (FixedPoint(bits=8), 0.0625)
    low, high = format.bounds(scale)
    assert (low, high) == (-(2.0**3), 2.0**3 - scale)

    format, scale = q_format(0, 8, signed=False)
    assert (format, scale) == (FixedPoint(bits=8, code="unsigned"), 2.0**-8)
    assert format.quantize(np.float32([1.0]), scale) == 1 - scale

    format, scale = q_format(-2, 9)
    assert format.bits == 8 and format.bounds(scale)[0] == -0.25


def test_formats_are_values():
    assert FixedPoint(bits=8) == FixedPoint(bits=8, code="twos_complement")
    assert len({*SOME, *(dataclasses.replace(format) for format in SOME)}) == len(SOME)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SOME[0].bits = 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedPoint(bits=1), "FixedPoint words of 1 bits; expected 2 to 16"),
        (lambda: FixedPoint(bits=17), "FixedPoint words of 17 bits; expected 2 to 16"),
        (lambda: q_format(8, 8), "Q8.8 with signed=True has 17 bits; expected 2 to 16"),
        (lambda: q_format(-120, 130), "Q-120.130 has a step .* leaves float32; take"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_codes_are_refused():
    # With the annotation hook the annotation speaks first, without it the format does.
    with pytest.raises((ValueError, TypeError), match="code"):
        FixedPoint(bits=8, code="gray")


def test_nan_has_no_neighbour_but_zero():
    low, high = FixedPoint(bits=8).neighbours(jnp.float32([np.nan]), 0.1)
    assert (low, high) == (0, 0)

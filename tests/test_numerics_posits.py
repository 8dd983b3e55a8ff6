"""Posits against the standard, in fractions: every word, every threshold."""

from fractions import Fraction

import numpy as np
import pytest
from format_laws import (
    ALL,
    check_bounds_and_fields,
    check_neighbours,
    check_quantize,
    check_words,
    name_of,
    padded,
)

from jaxnas.numerics.posits import Posit
from jaxnas.numerics.words import all_words, flip

FORMATS = [
    *[Posit(bits=bits) for bits in range(3, 17)],
    *[Posit(bits=bits, exponent_bits=0) for bits in (3, 8, 16)],
    *[Posit(bits=bits, exponent_bits=1) for bits in (4, 16)],
    Posit(bits=16, exponent_bits=3),
    Posit(bits=6, exponent_bits=4),
    Posit(bits=3, exponent_bits=6),
]
every_format = pytest.mark.parametrize("format", FORMATS, ids=name_of)


def standard(word, bits, es):
    """The value of a word by the formula of the standard, which reads a negative word
    as it stands: ((1 - 3s) + f) * 2**((1 - 2s) * (2**es r + e + s))."""
    if word == 0:
        return Fraction(0)
    if word == 1 << (bits - 1):
        return None
    text = format(word, f"0{bits}b")
    sign, body = int(text[0]), text[1:]
    run = len(body) - len(body.lstrip(body[0]))
    regime = run - 1 if body[0] == "1" else -run
    rest = body[run + 1 :]
    exponent = int(rest[:es].ljust(es, "0") or "0", 2)
    digits = rest[es:]
    fraction = Fraction(int(digits or "0", 2), 1 << len(digits))
    power = (1 - 2 * sign) * ((regime << es) + exponent + sign)
    return (1 - 3 * sign + fraction) * Fraction(2) ** power


def values_of(bits, es, words):
    values = [standard(int(word), bits, es) for word in words]
    return np.array([np.nan if value is None else float(value) for value in values])


def by_hand(format, words):
    inside = range(1 << format.bits)
    return values_of(format.bits, format.exponent_bits, inside)[words]


@every_format
def test_every_word_decodes_and_encodes_back(format):
    check_words(format, by_hand)


@every_format
def test_thresholds_are_the_posits_of_one_more_bit_and_ties_are_even(format):
    bits, es = format.bits, format.exponent_bits
    lower = np.arange(1, (1 << (bits - 1)) - 1)
    threshold = values_of(bits + 1, es, 2 * lower + 1).astype(np.float32)
    below = np.nextafter(threshold, np.float32(0))
    above = np.nextafter(threshold, np.float32(np.inf))
    x = np.concatenate([below, threshold, above])
    words = np.concatenate([lower, lower + lower % 2, lower + 1])
    x, words = padded(x, 1 << 17), padded(words, 1 << 17)
    np.testing.assert_array_equal(format.encode(x, 1.0), words)
    np.testing.assert_array_equal(format.encode(-x, 1.0), (1 << bits) - words)


@every_format
def test_neighbours_hold_the_number_between_them(format):
    if format.bits * 2**format.exponent_bits < 100:  # elsewhere 0.3 leaves float32
        check_neighbours(format)
    check_neighbours(format, 1.0)


@every_format
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


@pytest.mark.parametrize("format", [FORMATS[5], FORMATS[13]], ids=name_of)
def test_quantize_is_decode_of_encode(format):
    check_quantize(format)


@every_format
def test_words_are_ordered_as_signed_integers(format):
    words = np.asarray(all_words(format.bits)).astype(int)
    half = 1 << (format.bits - 1)
    signed = np.argsort(words + np.where(words >= half, -2 * half, 0))
    values = np.asarray(format.decode(ALL, 1.0))[signed]
    assert np.isnan(values[0]) and (np.diff(values[1:]) > 0).all()


@every_format
def test_nothing_finite_becomes_zero_or_nar_and_infinities_become_nar(format):
    largest = 2.0 ** ((format.bits - 2) * 2**format.exponent_bits)
    x = np.float32([3e38, -3e38, 2e-38, -2e-38, 0, -0.0])
    expected = [largest, -largest, 1 / largest, -1 / largest, 0, 0]
    np.testing.assert_array_equal(format.quantize(x, 1.0), expected)
    nar = format.encode(np.float32([np.inf, -np.inf, np.nan]), 1.0)
    np.testing.assert_array_equal(nar, np.full(3, 1 << (format.bits - 1)))


def test_flipping_the_last_bit_moves_to_a_neighbour():
    format = Posit(bits=8)
    words = np.delete(np.asarray(all_words(8)), [0, 1, 128, 129])
    value = np.asarray(format.decode(words, 1.0))
    flipped = np.asarray(format.decode(flip(words, 0), 1.0))
    middle = (value + flipped) / 2
    low, high = map(np.asarray, format.neighbours(middle, 1.0))
    np.testing.assert_array_equal(low, np.minimum(value, flipped))
    np.testing.assert_array_equal(high, np.maximum(value, flipped))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Posit(bits=2), "Posit words of 2 bits; expected 3 to 16"),
        (lambda: Posit(bits=17), "Posit words of 17 bits; expected 3 to 16"),
        (lambda: Posit(bits=16, exponent_bits=4), "take 0 to 3 exponent bits"),
        (lambda: Posit(bits=8, exponent_bits=-1), "take 0 to 4 exponent bits"),
        (lambda: Posit(bits=3, exponent_bits=7), "take 0 to 6 exponent bits"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()

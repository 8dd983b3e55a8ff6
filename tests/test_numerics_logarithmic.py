"""Logarithmic words: every word, flipped bits, powers of two elsewhere."""

import math

import numpy as np
import pytest
from format_laws import (
    check_bounds_and_fields,
    check_neighbours,
    check_quantize,
    check_words,
    name_of,
    padded,
)

from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.words import all_words, flip

ONE_TERM = [
    Logarithmic(bits=bits, base=2 ** (16 / 2**bits), signed=signed, zero=zero)
    for bits in (2, 3, 5, 8, 12, 16)
    for signed, zero in ((True, True), (False, False), (True, False), (False, True))
    if bits in (2, 8) or signed == zero
] + [Logarithmic(bits=8, base=1.95), Logarithmic(bits=5, base=3.7, signed=False)]
ROUNDED = [
    Logarithmic(bits=8, base=2 ** (1 / 16), fraction=8),
    Logarithmic(bits=8, base=2 ** (1 / 32), fraction=9, signed=False),
    Logarithmic(bits=4, base=2**0.5, fraction=8),
    Logarithmic(bits=12, base=1.01, fraction=16),
    Logarithmic(bits=6, base=2.0, fraction=3),
    Logarithmic(bits=5, base=1.2, fraction=4, zero=False),
]
SOME = [
    Logarithmic(bits=8, base=2**0.125),
    Logarithmic(bits=4, base=1.7, signed=False),
    Logarithmic(bits=5, base=2.0, zero=False),
]
one_term = pytest.mark.parametrize("format", ONE_TERM, ids=name_of)
some_formats = pytest.mark.parametrize("format", SOME, ids=name_of)


def power(format, exponent, largest, zero=True):
    magnitude = np.float64(format.base) ** (exponent.astype(np.int64) - largest)
    return np.where((exponent == 0) & zero, 0, magnitude)


def by_hand(format, words):
    sign = 1 << (format.bits - 1) if format.signed else 1 << format.bits
    rest = words.astype(np.int64) % sign
    magnitude = power(format, rest, sign - 1, format.zero)
    return np.where((words >= sign) & (magnitude != 0), -magnitude, magnitude)


def without_negative_zero(format, words):
    if not (format.signed and format.zero):
        return words
    return np.where(words == 1 << (format.bits - 1), 0, words)


@one_term
def test_every_word_decodes_and_encodes_back(format):
    check_words(format, by_hand, without_negative_zero)


def rounded_by_hand(format, words):
    exact = by_hand(format, words)
    return np.rint(exact * 2.0**format.fraction) / 2.0**format.fraction + 0.0


def least_field(format, words):
    """The least word of those that read alike."""
    values = rounded_by_hand(format, np.arange(1 << format.bits, dtype=np.uint16))
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return first[which[words]]


@pytest.mark.parametrize("format", ROUNDED, ids=name_of)
def test_powers_are_rounded_to_a_fraction(format):
    check_words(format, rounded_by_hand, least_field)
    check_neighbours(format)
    check_quantize(format)
    check_bounds_and_fields(format)


@pytest.mark.parametrize("format", ROUNDED[:3], ids=name_of)
def test_rounded_powers_part_half_way_in_the_logarithm(format):
    values = np.unique(np.abs(rounded_by_hand(format, all_words_of(format))))
    low, high = values[1:-1], values[2:]
    half = np.sqrt(low * high)
    for x, expected in ((half * (1 - 1e-6), low), (half * (1 + 1e-6), high)):
        found = format.quantize(padded(x.astype(np.float32)), 1.0)
        np.testing.assert_array_equal(found, padded(expected.astype(np.float32)))


@pytest.mark.parametrize("format", ONE_TERM, ids=name_of)
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format)


@pytest.mark.parametrize("format", ONE_TERM, ids=name_of)
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


@some_formats
def test_quantize_is_decode_of_encode(format):
    check_quantize(format)


@one_term
def test_nearest_exponent_is_taken(format):
    """Beside every half-way exponent, by more than the rounding of a logarithm."""
    magnitudes = np.unique(np.abs(by_hand(format, all_words_of(format))))
    magnitudes = magnitudes[magnitudes > 0]
    half = np.sqrt(magnitudes[1:] * magnitudes[:-1])
    apart = np.float64(format.base) ** 0.01
    below, above = half / apart, half * apart
    for x, expected in ((below, magnitudes[:-1]), (above, magnitudes[1:])):
        x, expected = padded(x.astype(np.float32)), padded(expected)
        found = np.asarray(format.quantize(x, 1.0))
        # Where exponents are finer than the logarithm of float32, either will do.
        fine = math.log(format.base) < 1e-4
        np.testing.assert_allclose(found, expected, rtol=2e-4 if fine else 1e-6)
        if format.signed:
            np.testing.assert_array_equal(format.quantize(-x, 1.0), -found)


def all_words_of(format):
    return np.asarray(all_words(format.bits))


def test_with_a_zero_code_underflow_starts_half_an_exponent_below_the_least():
    format = Logarithmic(bits=4, base=2.0)
    least, edge = 2.0**-6, 2.0**-6.5
    x = np.float32([edge * 1.001, edge * 0.999, -edge * 1.001, -edge * 0.999])
    np.testing.assert_array_equal(format.quantize(x, 1.0), [least, 0, -least, 0])


def test_without_a_zero_code_everything_small_is_the_least_magnitude():
    x = np.float32([0, -0.0, 1e-9, -1e-9, np.nan, 2.0**-7, -np.inf])
    least = 2.0**-7
    signed = Logarithmic(bits=4, base=2.0, zero=False)
    np.testing.assert_array_equal(
        signed.quantize(x, 1.0), [least, least, least, -least, least, least, -1]
    )
    np.testing.assert_array_equal(signed.encode(x, 1.0), [0, 0, 0, 8, 0, 0, 15])
    unsigned = Logarithmic(bits=3, base=2.0, signed=False, zero=False)
    np.testing.assert_array_equal(unsigned.quantize(x, 1.0), np.full(7, least))


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("base", [2.0, 2**0.25, 1.1])
def test_flipping_bit_k_multiplies_by_its_power_or_changes_the_sign(base, signed, zero):
    format = Logarithmic(bits=6, base=base, signed=signed, zero=zero)
    words = all_words(6)
    value = np.asarray(format.decode(words, 0.3), np.float64)
    for k in range(5 if signed else 6):
        flipped = np.asarray(format.decode(flip(words, k), 0.3), np.float64)
        factor = np.where((np.asarray(words) >> k) & 1, base ** -(2.0**k), base**2.0**k)
        both = (value != 0) & (flipped != 0)
        assert both.sum() == len(words) - 2 * zero * (1 + signed)
        np.testing.assert_allclose(flipped[both], (value * factor)[both], rtol=3e-7)
    if signed:
        negated = np.asarray(format.decode(flip(words, 5), 0.3))
        np.testing.assert_array_equal(negated, -value)


def quantized_po2(x, bits):
    """Power-of-two quantiser as in QKeras (Coelho et al., Nature Machine Intelligence
    3, 2021): the logarithm is rounded, the exponent clipped to two's complement."""
    lowest, highest = -(2 ** (bits - 2)), 2 ** (bits - 2) - 1
    magnitude = np.where(np.abs(x) < 1e-7, 1e-7, np.abs(x)).astype(np.float64)
    exponent = np.clip(np.rint(np.log2(magnitude)), lowest, highest)
    exponent = np.where(np.abs(x) < 1e-7, lowest, exponent)
    return np.where(x < 0, -1, 1) * 2.0**exponent


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_base_two_without_zero_is_quantized_po2(bits):
    """They coincide for base 2, no zero code and scale 2**(2**(bits-2) - 1), up to six
    bits. Beyond, the smallest magnitude there is 1e-7, which is above our least; with
    a zero code there is no counterpart; the words are sign and exponent field here,
    sign and two's complement exponent there, the field less 2**(bits-2)."""
    x = np.random.default_rng(0).normal(size=4096) * np.exp2(
        np.random.default_rng(1).integers(-20, 20, 4096)
    )
    tie = np.abs(np.mod(np.log2(np.abs(x)), 1) - 0.5) < 1e-5
    x = np.concatenate([x[~tie], [0.0, -0.0, 1e-12, -1e-12, 1e30]]).astype(np.float32)
    format = Logarithmic(bits=bits, base=2.0, zero=False)
    scale = 2.0 ** (2 ** (bits - 2) - 1)
    np.testing.assert_array_equal(format.quantize(x, scale), quantized_po2(x, bits))
    exponent = np.log2(np.abs(quantized_po2(x, bits))) + 2 ** (bits - 2)
    field = np.asarray(format.encode(x, scale)) % (1 << (bits - 1))
    np.testing.assert_array_equal(field, exponent)


@some_formats
def test_span_is_the_peak_in_scales(format):
    peak = np.float32(8)
    scale = peak / format.span
    assert format.quantize(np.float32([1e9]), scale) == peak


def test_words_to_check_by_eye():
    x = np.float32([1, -1, -2, 0.25, -0.25, np.nan, np.inf, -np.inf])
    cases = {
        Logarithmic(bits=4, base=2.0): [7, 15, 15, 6, 14, 0, 7, 15],
        Logarithmic(bits=4, base=2.0, signed=False): [15, 0, 0, 14, 0, 0, 15, 0],
    }
    for format, words in cases.items():
        np.testing.assert_array_equal(format.encode(x, 0.5), words)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Logarithmic(bits=17, base=2.0), "Logarithmic words of 17 bits"),
        (lambda: Logarithmic(bits=8, base=1.0), "finite number above 1"),
        (lambda: Logarithmic(bits=8, base=math.inf), "finite number above 1"),
        (lambda: Logarithmic(bits=8, base=2.1), "take fewer bits or a base between"),
        (lambda: Logarithmic(bits=8, base=2.0, zero=False), "a base between"),
        (lambda: Logarithmic(bits=8, base=1 + 1e-9), "powers collide or underflow"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()

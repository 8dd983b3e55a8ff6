"""Floats: every word and the casts of NumPy and ml_dtypes, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from format_laws import (
    ALL,
    bits_of,
    check_bounds_and_fields,
    check_nearest,
    check_neighbours,
    check_quantize,
    check_words,
    even_word,
    name_of,
    nearby_floats,
    own,
    random_floats,
)

from jaxnas.numerics.floats import IEEE, MiniFloat
from jaxnas.numerics.formats import word_dtype
from jaxnas.numerics.words import flip

NUMPY = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
FINITE = {"specials": "finite"}
CASTS = {
    "float16": MiniFloat(exponent=5, mantissa=10, saturate=False),
    "float8_e5m2": MiniFloat(exponent=5, mantissa=2, saturate=False),
    "float8_e4m3": MiniFloat(exponent=4, mantissa=3, saturate=False),
    "float8_e3m4": MiniFloat(exponent=3, mantissa=4, saturate=False),
    "float8_e4m3fn": MiniFloat(
        exponent=4, mantissa=3, specials="nan_only", saturate=False
    ),
    "float6_e2m3fn": MiniFloat(exponent=2, mantissa=3, **FINITE),
    "float6_e3m2fn": MiniFloat(exponent=3, mantissa=2, **FINITE),
    "float4_e2m1fn": MiniFloat(exponent=2, mantissa=1, **FINITE),
}
OTHERS = [
    MiniFloat(exponent=1, mantissa=1, **FINITE),
    MiniFloat(exponent=1, mantissa=3, specials="nan_only"),
    MiniFloat(exponent=2, mantissa=1),
    MiniFloat(exponent=3, mantissa=3, specials="nan_only"),
    MiniFloat(exponent=4, mantissa=7),
    MiniFloat(exponent=6, mantissa=9, **FINITE),
    MiniFloat(exponent=5, mantissa=10),
    *[
        MiniFloat(exponent=exponent, mantissa=mantissa, subnormals=False, **FINITE)
        for exponent, mantissa in [(1, 1), (2, 1), (3, 4), (4, 3), (5, 10)]
    ],
    MiniFloat(exponent=3, mantissa=2, subnormals=False),
]
MINI = [*CASTS.values(), *OTHERS]
every_minifloat = pytest.mark.parametrize("format", MINI, ids=name_of)


def by_hand(format, words):
    """The definition, with every field apart."""
    word, mantissa_bits = words.astype(np.int64), format.mantissa
    mantissa = word % (1 << mantissa_bits)
    exponent = (word >> mantissa_bits) % (1 << format.exponent)
    top = (1 << format.exponent) - 1
    bias = (1 << (format.exponent - 1)) - 1
    value = 2.0 ** (exponent - bias) * (1 + mantissa / (1 << mantissa_bits))
    if format.subnormals:
        small = 2.0 ** (1 - bias) * mantissa / (1 << mantissa_bits)
        value = np.where(exponent == 0, small, value)
    value = np.where((exponent == 0) & (mantissa == 0), 0, value)
    if format.specials == "ieee":
        special = np.where(mantissa == 0, np.inf, np.nan)
        value = np.where(exponent == top, special, value)
    if format.specials == "nan_only":
        last = (exponent == top) & (mantissa == (1 << mantissa_bits) - 1)
        value = np.where(last, np.nan, value)
    return np.where(word >> (format.bits - 1), -value, value)


def one_nan(format, words):
    """NaN is written as one word; infinity, where numbers saturate, as the largest."""
    sign, values = 1 << (format.bits - 1), by_hand(format, words)
    nan = sign - 1
    if format.specials == "ieee":
        nan = sign - (1 << format.mantissa) + (1 << (format.mantissa - 1))
    if format.saturate:
        inside = by_hand(format, np.arange(sign))
        largest = np.argmax(np.where(np.isfinite(inside), inside, -1))
        words = np.where(np.isinf(values), largest | (words & sign), words)
    return np.where(np.isnan(values), nan, words)


@every_minifloat
def test_every_word_decodes_and_encodes_back(format):
    check_words(format, by_hand, one_nan)


@every_minifloat
def test_nearest_number_is_taken_and_of_two_the_even_word(format):
    check_nearest(format, by_hand, even_word)


@pytest.mark.parametrize("format", [*MINI, IEEE(name="float16")], ids=name_of)
def test_neighbours_hold_the_number_between_them(format):
    check_neighbours(format)


@pytest.mark.parametrize("format", [*MINI, IEEE(name="float16")], ids=name_of)
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    check_bounds_and_fields(format)


@pytest.mark.parametrize(
    "format",
    [IEEE(), IEEE(name="float16"), IEEE(name="bfloat16"), *MINI[4:6], OTHERS[-2]],
    ids=name_of,
)
def test_quantize_is_decode_of_encode(format):
    check_quantize(format)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_machine_word_decodes_and_encodes_back(name):
    format = IEEE(name=name)
    values = np.asarray(format.decode(ALL, 1.0))
    expected = ALL.view(NUMPY[name]).astype(np.float32)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(bits_of(values)[number], bits_of(expected)[number])
    assert np.isnan(values[~number]).all()
    back = np.asarray(format.encode(values, 1.0))
    np.testing.assert_array_equal(back[number], ALL[number])
    assert np.isnan(back[~number].view(NUMPY[name])).all()


def numbers():
    return np.concatenate([random_floats(1 << 18), nearby_floats(1 << 12)])


@pytest.mark.parametrize("name", NUMPY)
def test_machine_floats_are_the_casts_of_numpy(name):
    x = numbers()
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(NUMPY[name])
    format, number = IEEE(name=name), ~np.isnan(x)
    words = np.asarray(format.encode(x, 1.0))
    np.testing.assert_array_equal(
        words[number], expected.view(word_dtype(format.bits))[number]
    )
    assert np.isnan(np.asarray(format.quantize(x, 1.0))[~number]).all()


@pytest.mark.parametrize("name", CASTS)
def test_small_floats_are_the_casts_of_ml_dtypes(name):
    x, format = numbers(), CASTS[name]
    target = np.float16 if name == "float16" else getattr(ml_dtypes, name)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(target)
    words = np.asarray(format.encode(x, 1.0))
    stored = expected.view(words.dtype)
    values, expected = format.quantize(x, 1.0), expected.astype(np.float32)
    number = ~np.isnan(expected) & ~np.isnan(x)
    np.testing.assert_array_equal(words[number], stored[number])
    np.testing.assert_array_equal(bits_of(values)[number], bits_of(expected)[number])
    if format.specials == "finite":
        np.testing.assert_array_equal(np.asarray(values)[np.isnan(x)], 0)
    else:
        assert np.isnan(np.asarray(values)[~number]).all()
    every = np.asarray(format.decode(ALL, 1.0))
    by_cast = own(format).astype(words.dtype).view(target).astype(np.float32)
    np.testing.assert_array_equal(every, by_cast)


@pytest.mark.parametrize("format", OTHERS, ids=name_of)
def test_saturation_reaches_the_span(format):
    x = np.float32([np.inf, -np.inf, 3e38, 1.01 * format.span])
    expected = np.float32([1, -1, 1, 1]) * format.span
    np.testing.assert_array_equal(format.quantize(x, 1.0), expected)


@every_minifloat
def test_flipping_the_sign_bit_negates(format):
    words = own(format).astype(word_dtype(format.bits))
    value = np.asarray(format.decode(words, 0.3))
    negated = np.asarray(format.decode(flip(words, format.bits - 1), 0.3))
    np.testing.assert_array_equal(negated, -value)


@every_minifloat
def test_flipping_bit_k_of_the_exponent_multiplies_by_its_power(format):
    """Between numbers of full binades, whose mantissas have their leading one."""
    words = own(format).astype(word_dtype(format.bits))
    value = np.asarray(format.decode(words, 0.5), np.float64)
    least = 1 << format.mantissa if format.subnormals else 1
    full = np.isfinite(value) & (own(format) % (1 << (format.bits - 1)) >= least)
    for k in range(format.exponent):
        other = np.asarray(flip(words, format.mantissa + k))
        flipped = np.asarray(format.decode(other, 0.5), np.float64)
        up = np.where((words >> (format.mantissa + k)) & 1, -1.0, 1.0)
        inside = other % (1 << (format.bits - 1)) >= least
        both = full & inside & np.isfinite(flipped)
        expected = value[both] * 2.0 ** (up[both] * 2**k)
        np.testing.assert_array_equal(flipped[both], expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MiniFloat(exponent=8, mantissa=7), "take IEEE"),
        (lambda: MiniFloat(exponent=0, mantissa=3), "expected 1 to 7 and at least 1"),
        (lambda: MiniFloat(exponent=4, mantissa=0), "Logarithmic.* for no mantissa"),
        (lambda: MiniFloat(exponent=7, mantissa=9), "of 17 bits; expected 3 to 16"),
        (lambda: MiniFloat(exponent=1, mantissa=2), "take specials='finite'"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_names_are_refused():
    # With the annotation hook the annotation speaks first, without it the format does.
    with pytest.raises((ValueError, TypeError), match="name"):
        IEEE(name="float8")
    with pytest.raises((ValueError, TypeError), match="specials"):
        MiniFloat(exponent=4, mantissa=3, specials="some")

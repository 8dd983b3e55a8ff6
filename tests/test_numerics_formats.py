"""Laws of the number formats, on every word and against NumPy and ml_dtypes."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.words import all_words, flip

CODES = ("twos_complement", "sign_magnitude", "unsigned")
FIXED = [FixedPoint(bits=bits, code=code) for bits in range(2, 17) for code in CODES]
LOGARITHMIC = [
    Logarithmic(bits=bits, base=2 ** (16 / 2**bits), signed=signed)
    for bits in range(2, 17)
    for signed in (True, False)
] + [Logarithmic(bits=8, base=2.0), Logarithmic(bits=5, base=3.7, signed=False)]
FLOATS = [IEEE(name=name) for name in ("float16", "bfloat16")]
SOME = [
    FixedPoint(bits=8),
    FixedPoint(bits=5, code="sign_magnitude"),
    FixedPoint(bits=16, code="unsigned"),
    Logarithmic(bits=8, base=2**0.125),
    Logarithmic(bits=4, base=1.7, signed=False),
    IEEE(name="float32"),
    *FLOATS,
]
NUMPY = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


def name_of(value):
    return str(value).replace(" ", "") if isinstance(value, Format) else None


def bits_of(x):
    return np.asarray(x).view(np.uint32)


def random_floats(count, seed=0):
    """Float32 numbers of every magnitude: random words, NaN and subnormals included."""
    words = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)
    return words.view(np.float32)


def nearby_floats(count, seed=0):
    """Normal deviates between the numbers where formats are most likely to slip."""
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.125, -0.375, 65520, 65519.996]
    special += [1e-40, -1e-40, 3e38, -3e38, 2.0**-24, 2.0**-25, 3 * 2.0**-25]
    deviates = np.random.default_rng(seed).normal(size=count - len(special))
    return np.concatenate([special, deviates]).astype(np.float32)


def decoded_by_hand(format, words):
    """What each word stands for at scale one, in float64 integers and powers."""
    word = words.astype(np.int64)
    sign = np.int64(1 << (format.bits - 1))
    if isinstance(format, Logarithmic):
        mask = sign - 1 if format.signed else 2 * sign - 1
        exponent = word & mask
        magnitude = np.where(exponent, format.base ** (exponent - mask), 0)
        return np.where((word > mask) & (exponent > 0), -magnitude, magnitude)
    if format.code == "twos_complement":
        return np.where(word < sign, word, word - 2 * sign)
    if format.code == "sign_magnitude":
        return np.where(word < sign, word, sign - word)
    return word


@functools.partial(jax.jit, static_argnums=0)
def decode_and_encode(format, words, scale):
    values = format.decode(words, scale)
    return values, format.encode(values, scale)


@pytest.mark.parametrize("format", FIXED + LOGARITHMIC, ids=name_of)
def test_every_word_decodes_and_encodes_back(format):
    words, scale = np.asarray(all_words(format.bits)), np.float32(1.3)
    values, back = map(np.asarray, decode_and_encode(format, words, scale))
    by_hand = decoded_by_hand(format, words).astype(np.float32) * scale
    np.testing.assert_array_equal(bits_of(values), bits_of(by_hand + 0.0))

    negative_zero = (words == 1 << (format.bits - 1)) & (values == 0)
    assert negative_zero.sum() == (
        "sign" in format.fields and values.min() == -values.max()
    )
    assert back.dtype == word_dtype(format.bits)
    np.testing.assert_array_equal(back, np.where(negative_zero, 0, words))


@pytest.mark.parametrize("format", FLOATS, ids=name_of)
def test_every_float_word_decodes_and_encodes_back(format):
    words = np.asarray(all_words(16))
    values = np.asarray(format.decode(words, 1.0))
    expected = words.view(NUMPY[format.name]).astype(np.float32)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(bits_of(values)[number], bits_of(expected)[number])
    assert np.isnan(values[~number]).all()

    back = np.asarray(format.encode(values, 1.0))
    np.testing.assert_array_equal(back[number], words[number])
    assert np.isnan(back[~number].view(NUMPY[format.name])).all()


@pytest.mark.parametrize("name", NUMPY)
def test_floats_are_the_casts_of_numpy(name):
    x = np.concatenate([random_floats(1 << 18), nearby_floats(1 << 12)])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(NUMPY[name])
    format, number = IEEE(name=name), ~np.isnan(x)
    words = np.asarray(format.encode(x, 1.0))
    np.testing.assert_array_equal(
        words[number], expected.view(word_dtype(format.bits))[number]
    )
    assert np.isnan(np.asarray(format.quantize(x, 1.0))[~number]).all()


@pytest.mark.parametrize("format", SOME, ids=name_of)
@pytest.mark.parametrize("scale", [0.1, np.float32([[0.5, 0.3, 7.0, 1e-3]])])
def test_quantize_is_decode_of_encode(format, scale):
    x = nearby_floats(1 << 12).reshape(-1, 4)

    def both_ways(x, scale):
        around = format.decode(format.encode(x, scale), scale)
        return format.quantize(x, scale), around

    # A compiler that sees the scale, or both steps at once, must not change a bit.
    eager = both_ways(x, scale)
    constant = jax.jit(lambda x: both_ways(x, scale))(x)
    argument = jax.jit(both_ways)(x, scale)
    for other in (*eager, *constant, *argument):
        np.testing.assert_array_equal(bits_of(other), bits_of(eager[0]))


@pytest.mark.parametrize("format", SOME, ids=name_of)
def test_quantize_is_idempotent_and_monotone(format):
    x = np.sort(nearby_floats(1 << 12))[:-1]  # NaN sorts last
    y = np.asarray(format.quantize(x, 0.3))
    np.testing.assert_array_equal(bits_of(format.quantize(y, 0.3)), bits_of(y))
    assert (y[1:] >= y[:-1]).all()


def test_compiler_cannot_merge_neighbouring_scales():
    """(code * 0.3) * (1 / 0.7) with the constants multiplied first rounds otherwise."""
    first, second = FixedPoint(bits=16), Logarithmic(bits=16, base=1.001)

    def chain(x):
        return second.quantize(first.quantize(x, 0.3), 0.7)

    x = np.random.default_rng(0).normal(size=1 << 14).astype(np.float32) * 1000
    np.testing.assert_array_equal(bits_of(jax.jit(chain)(x)), bits_of(chain(x)))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_fixed_point_rounds_to_nearest_even_exactly(bits, code):
    """Against NumPy on a grid of quarter steps: all ties, both saturations."""
    format, step = FixedPoint(bits=bits, code=code), 2.0**-9
    reach = 2**bits + 2
    x = np.arange(-reach, reach, 0.25, dtype=np.float32) * np.float32(step)
    values = decoded_by_hand(format, np.asarray(all_words(bits)))
    expected = np.clip(np.rint(x.astype(np.float64) / step), values.min(), values.max())
    np.testing.assert_array_equal(format.quantize(x, step), expected * step)


@pytest.mark.parametrize("format", SOME[:5], ids=name_of)
def test_no_other_word_is_nearer(format):
    scale = float(np.float32(0.3))
    x = np.random.default_rng(1).normal(size=257) * scale * format.span / 2
    x = x.astype(np.float32).astype(np.float64)
    y = np.asarray(format.quantize(x.astype(np.float32), scale), np.float64)
    values = decoded_by_hand(format, np.asarray(all_words(format.bits))) * scale
    rounding = 3e-7 * np.abs(x)
    if isinstance(format, Logarithmic):  # nearest in the logarithm, among equal signs
        x, y = np.log(np.abs(x[y != 0])), np.log(np.abs(y[y != 0]))
        values, rounding = np.log(values[values > 0]), np.full(x.shape, 1e-5)
    for value, chosen, slack in zip(x, y, rounding, strict=False):
        assert abs(value - chosen) <= np.abs(value - values).min() + slack


def test_logarithmic_underflow_starts_half_an_exponent_below_the_least():
    format = Logarithmic(bits=4, base=2.0)
    least, edge = 2.0**-6, 2.0**-6.5
    x = np.float32([edge * 1.001, edge * 0.999, -edge * 1.001, -edge * 0.999])
    np.testing.assert_array_equal(format.quantize(x, 1.0), [least, 0, -least, 0])


@pytest.mark.parametrize("code", ["twos_complement", "unsigned"])
@pytest.mark.parametrize("bits", [2, 7, 8, 16])
def test_flipping_bit_k_moves_fixed_point_by_its_weight(bits, code):
    format, step = FixedPoint(bits=bits, code=code), 2.0**-5
    words = all_words(bits)
    for k in range(bits):
        change = format.decode(flip(words, k), step) - format.decode(words, step)
        weight = -(2**k) if "sign" in format.fields and k == bits - 1 else 2**k
        expected = np.where((np.asarray(words) >> k) & 1, -weight, weight) * step
        np.testing.assert_array_equal(change, expected)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("base", [2.0, 2**0.25, 1.1])
def test_flipping_bit_k_multiplies_logarithmic_by_its_power(base, signed):
    format = Logarithmic(bits=6, base=base, signed=signed)
    words = all_words(6)
    value = np.asarray(format.decode(words, 0.3), np.float64)
    for k in range(5 if signed else 6):
        flipped = np.asarray(format.decode(flip(words, k), 0.3), np.float64)
        power = np.where((np.asarray(words) >> k) & 1, base ** -(2.0**k), base**2.0**k)
        both = (value != 0) & (flipped != 0)
        assert both.sum() >= len(words) - 4
        np.testing.assert_allclose(flipped[both], (value * power)[both], rtol=3e-7)


@pytest.mark.parametrize("format", SOME[1:2] + SOME[3:4] + SOME[5:], ids=name_of)
def test_flipping_the_sign_bit_negates(format):
    x = jnp.asarray([0.25, -1.0, 2.0])
    words = format.encode(x, 0.25)
    negated = format.decode(flip(words, format.bits - 1), 0.25)
    np.testing.assert_array_equal(negated, -format.decode(words, 0.25))


@pytest.mark.parametrize("format", SOME, ids=name_of)
def test_bounds_are_the_extreme_words_and_fields_cover_the_word(format):
    if format.bits <= 16:
        values = np.asarray(format.decode(all_words(format.bits), 0.3))
        finite = values[np.isfinite(values)]
        low, high = format.bounds(0.3)
        assert (low, high) == (finite.min(), finite.max())
    masks = list(format.fields.values())
    assert sum(masks) == 2**format.bits - 1  # no gap,
    assert sum(mask.bit_count() for mask in masks) == format.bits  # no overlap


def test_bounds_follow_the_shape_of_the_scale():
    scale = np.float32([[0.5, 0.25]])
    low, high = FixedPoint(bits=4).bounds(scale)
    np.testing.assert_array_equal(low, [[-4, -2]])
    np.testing.assert_array_equal(high, [[3.5, 1.75]])


@pytest.mark.parametrize("format", SOME, ids=name_of)
def test_span_is_the_nominal_peak_in_scales(format):
    if not format.scaled:
        return np.testing.assert_array_equal(
            format.quantize(np.float32([1.5]), 0.1),
            format.quantize(np.float32([1.5]), 9.0),
        )
    peak, scale = 8.0, 8.0 / format.span
    least_step = 0 if isinstance(format, Logarithmic) else scale
    assert format.quantize(np.float32(1e9).reshape(1), scale) == peak - least_step


def test_words_to_check_by_eye():
    x = np.float32([1, -1, -2, 0.25, -0.25, np.nan, np.inf, -np.inf])
    cases = {
        FixedPoint(bits=4): [2, 14, 12, 0, 0, 0, 7, 8],
        FixedPoint(bits=4, code="sign_magnitude"): [2, 10, 12, 0, 0, 0, 7, 15],
        FixedPoint(bits=4, code="unsigned"): [2, 0, 0, 0, 0, 0, 15, 0],
        Logarithmic(bits=4, base=2.0): [7, 15, 15, 6, 14, 0, 7, 15],
        Logarithmic(bits=4, base=2.0, signed=False): [15, 0, 0, 14, 0, 0, 15, 0],
    }
    for format, words in cases.items():
        np.testing.assert_array_equal(format.encode(x, 0.5), words)
    np.testing.assert_array_equal(IEEE().encode(np.float32([-2]), 1.0), [0xC0000000])


def test_bits_above_the_word_are_ignored():
    for format in (FixedPoint(bits=3), Logarithmic(bits=3, base=2.0)):
        words = all_words(3)
        np.testing.assert_array_equal(
            format.decode(words | 0xA8, 1.0), format.decode(words, 1.0)
        )


def test_formats_are_values():
    assert FixedPoint(bits=8) == FixedPoint(bits=8, code="twos_complement")
    assert len({*SOME, *(dataclasses.replace(format) for format in SOME)}) == len(SOME)
    assert all(isinstance(format, Format) for format in SOME)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SOME[0].bits = 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedPoint(bits=1), "FixedPoint words of 1 bits; expected 2 to 16"),
        (lambda: Logarithmic(bits=17, base=2.0), "Logarithmic words of 17 bits"),
        (lambda: Logarithmic(bits=8, base=1.0), "finite number above 1"),
        (lambda: Logarithmic(bits=8, base=math.inf), "finite number above 1"),
        (lambda: Logarithmic(bits=8, base=2.1), "take fewer bits or a base between"),
        (lambda: Logarithmic(bits=8, base=1 + 1e-9), "powers collide or underflow"),
        (lambda: word_dtype(33), "a word of 33 bits; expected 1 to 32"),
    ],
)
def test_errors_name_the_cure(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_unknown_names_are_refused():
    # With the annotation hook the annotation speaks first, without it the format does.
    with pytest.raises((ValueError, TypeError), match="code"):
        FixedPoint(bits=8, code="gray")
    with pytest.raises((ValueError, TypeError), match="name"):
        IEEE(name="float8")

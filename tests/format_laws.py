"""Laws of number formats on all their words, against decodings worked out by hand.

`by_hand(format, words)` says in float64 what words stand for at scale one. Arrays have
one size for all widths, so that formats share the compiled operations.
"""

import itertools

import jax
import numpy as np

from jaxnas.numerics.formats import Format, word_dtype

ALL = np.arange(1 << 16, dtype=np.uint16)
"""All words of 16 bits: for narrower formats, all words under all ignored bits."""


def name_of(value):
    return str(value).replace(" ", "") if isinstance(value, Format) else None


def padded(x, size=1 << 16):
    """The last element repeated up to a size that all formats share."""
    return np.pad(x, (0, -len(x) % size), mode="edge")


def bits_of(x):
    return np.asarray(x).view(np.uint32)


def own(format, words=ALL):
    """The words without the bits that the format ignores."""
    return words & ((1 << format.bits) - 1)


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


def check_words(format, by_hand, canonical=None, scale=1.3):
    """Every word decodes as by hand, and encodes back to its canonical alias."""
    scale = np.float32(scale)
    values = np.asarray(format.decode(ALL, scale))
    unit = scale if format.scaled else np.float32(1)
    expected = by_hand(format, own(format)).astype(np.float32) * unit
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(bits_of(values)[number], bits_of(expected)[number])
    assert np.isnan(values[~number]).all()

    back = np.asarray(format.encode(values, scale))
    assert back.dtype == word_dtype(format.bits)
    words = own(format).astype(back.dtype)
    wanted = words if canonical is None else canonical(format, words)
    np.testing.assert_array_equal(back, wanted)


def distinct(format, by_hand):
    """The numbers of a format, ascending, and the canonical word of each."""
    words = np.arange(1 << format.bits, dtype=np.uint16)
    values = by_hand(format, words) + 0.0
    finite = np.isfinite(values)
    values, first = np.unique(values[finite], return_index=True)
    return values, words[finite][first]


def even_word(low, high, low_word, high_word):
    return high_word % 2 == 0


def smaller_magnitude(low, high, low_word, high_word):
    return np.abs(high) <= np.abs(low)


def check_nearest(format, by_hand, tie, scale=0.25):
    """Nearest by absolute error, at and beside every tie and in between; `scale` must
    be a power of two, so that all ties are numbers."""
    values, words = distinct(format, by_hand)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(way)) for way in (-np.inf, np.inf)]
    x = np.concatenate([values.astype(np.float32), middle, *beside])
    tiny = np.finfo(np.float32).tiny
    x = x[(np.abs(x) >= tiny / scale) | (x == 0)]
    x = padded(x)
    index = np.clip(np.searchsorted(values, x.astype(np.float64)), 1, len(values) - 1)
    low, high = values[index - 1], values[index]
    to_low, to_high = x - low, high - x
    upper = (to_high < to_low) | (
        (to_high == to_low) & tie(low, high, words[index - 1], words[index])
    )
    scale = np.float32(scale if format.scaled else 1)
    expected = np.where(upper, high, low).astype(np.float32) * scale
    np.testing.assert_array_equal(format.quantize(x * scale, scale), expected)


def check_neighbours(format, scale=0.3):
    """The largest number not above and the smallest not below, both among all words."""
    values = np.asarray(format.decode(ALL, scale))
    values = np.unique(values[np.isfinite(values)])
    middle = (values[1:] + values[:-1]) / 2
    spread = np.random.default_rng(0).uniform(1.2 * values[0] - 1, 1.2 * values[-1], 99)
    x = np.concatenate([values, middle, spread.astype(np.float32)])
    x = padded(x, 1 << 17)
    low, high = map(np.asarray, format.neighbours(x, scale))
    inside = np.clip(x, values[0], values[-1])
    below = np.searchsorted(values, inside, side="right") - 1
    above = np.searchsorted(values, inside, side="left")
    np.testing.assert_array_equal(low, values[below])
    np.testing.assert_array_equal(high, values[above])
    nearest = np.asarray(format.quantize(x, scale))
    assert ((nearest == low) | (nearest == high) | ~np.isfinite(nearest)).all()


def check_bounds_and_fields(format):
    values = np.asarray(format.decode(ALL, 0.3))
    finite = values[np.isfinite(values)]
    low, high = format.bounds(0.3)
    assert (low, high) == (finite.min(), finite.max())
    masks = list(format.fields.values())
    assert sum(masks) == 2**format.bits - 1  # no gap,
    assert sum(mask.bit_count() for mask in masks) == format.bits  # no overlap
    assert isinstance(format, Format) and len({format, format}) == 1


def check_quantize(format):
    """decode(encode(x)), whatever the compiler sees; idempotent; monotone."""
    x = nearby_floats(1 << 12).reshape(-1, 4)
    scales = (0.1, np.float32([[0.5, 0.3, 7.0, 1e-3]]))

    def both_ways(x, scale):
        around = format.decode(format.encode(x, scale), scale)
        return format.quantize(x, scale), around

    def everywhere(x, arguments):
        return [both_ways(x, scale) for scale in (*scales, *arguments)]

    eager, jitted = everywhere(x, scales), jax.jit(everywhere)(x, scales)
    for way in zip(eager[:2], jitted[:2], jitted[2:], strict=True):
        for other in itertools.chain(*way):
            np.testing.assert_array_equal(bits_of(other), bits_of(way[0][0]))
    ordered = np.sort(x[np.isfinite(x)])
    y = np.asarray(format.quantize(ordered, 0.3))
    y = y[~np.isnan(y)]
    assert (y[1:] >= y[:-1]).all()
    np.testing.assert_array_equal(bits_of(format.quantize(y, 0.3)), bits_of(y))

"""Histograms of numbers that come batch by batch, and the peaks read off them.

Bins are equal parts of a range that is a power of two, and grows by powers of two: two
neighbours then become one, and what was counted in the small range is exactly what
would have been counted in the large one. The histogram is therefore the same for any
order and any split of the data.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt32

from jaxnas.numerics.calibration import (
    Rounding,
    least_error_peak,
    positive_levels,
)
from jaxnas.numerics.formats import Format

SMALLEST_EXPONENT = -20  # that of SMALLEST_PEAK
LARGEST_EXPONENT = 127


class Histogram(NamedTuple):
    """Counts of magnitudes, zero and positive numbers apart from negative ones.

    Bin j of n holds the magnitudes in [j, j + 1) * 2**exponent / n, but for the last
    one, which holds those from 2**127 too. NaN and infinities are not counted but stay
    in the peak. Counts are exact below 2**32 numbers.
    """

    peak: Float32[Array, "*kept"]
    exponent: Int32[Array, "*kept"]
    counts: UInt32[Array, "*kept 2 bins"]


def empty(kept: tuple[int, ...], bins: int) -> Histogram:
    """A histogram for each index of the kept axes.

    Raises ValueError unless `bins` is a power of two.
    """
    if bins < 2 or bins & (bins - 1):
        raise ValueError(f"{bins} bins; expected a power of two, such as 2048")
    return Histogram(
        peak=jnp.zeros(kept),
        exponent=jnp.full(kept, SMALLEST_EXPONENT, jnp.int32),
        counts=jnp.zeros((*kept, 2, bins), jnp.uint32),
    )


@jax.jit
def add(histogram: Histogram, x: Float32[Array, "*kept values"]) -> Histogram:
    """The histogram of what was counted and of x."""
    bins = histogram.counts.shape[-1]
    magnitude = jnp.abs(x)
    finite = jnp.isfinite(magnitude)
    largest = jnp.where(finite, magnitude, 0).max(-1)
    exponent = jnp.maximum(histogram.exponent, _exponent_above(largest))
    octaves = jnp.minimum(exponent - histogram.exponent, bins.bit_length() - 1)
    # A product with a power of two: exact, so that halving the bins halves the index.
    unit = _power(bins.bit_length() - 1 - exponent)[..., None]
    position = jnp.minimum(magnitude * unit, bins - 1).astype(jnp.int32)
    position = jnp.where(x < 0, bins + position, position)
    return Histogram(
        peak=jnp.maximum(histogram.peak, magnitude.max(-1)),
        exponent=exponent,
        counts=_merged(histogram.counts, octaves) + _counts(position, finite, bins),
    )


def _exponent_above(x: Array) -> Array:
    """The least e with x < 2**e, within the range of exponents."""
    field = jax.lax.bitcast_convert_type(x, jnp.int32) >> 23
    return jnp.clip(field - 126, SMALLEST_EXPONENT, LARGEST_EXPONENT)


def _power(exponent: Array) -> Array:
    """2**exponent, which `exp2` is not to the last bit on every device."""
    return jax.lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def _merged(counts, octaves):
    """The counts when 2**octaves neighbouring bins become one."""
    bins = counts.shape[-1]

    def merge(row, octaves):
        return jnp.zeros_like(row).at[jnp.arange(bins) >> octaves].add(row)

    rows = jnp.repeat(octaves.reshape(-1), 2)
    return jax.vmap(merge)(counts.reshape(-1, bins), rows).reshape(counts.shape)


def _counts(position, finite, bins):
    kept = position.shape[:-1]
    rows = position.reshape(-1, position.shape[-1])
    place = rows + 2 * bins * jnp.arange(rows.shape[0])[:, None]
    counts = jnp.zeros(rows.shape[0] * 2 * bins, jnp.uint32)
    ones = finite.reshape(-1).astype(jnp.uint32)
    return counts.at[place.reshape(-1)].add(ones).reshape(*kept, 2, bins)


@functools.partial(jax.jit, static_argnames="millionths")
def percentile_peak(histogram: Histogram, millionths: int) -> Float32[Array, "*kept"]:
    """The upper end of the bin of the percentile, or the peak if that is less.

    Of n magnitudes floor(n * millionths / 10**6) may lie above. The percentile itself
    lies at most one bin, a part of the range, below.
    """
    cumulative = histogram.counts.sum(-2).cumsum(-1, dtype=jnp.uint32)
    count = cumulative[..., -1]
    rank = count - _share(count, millionths)
    bins = cumulative.shape[-1]
    first = jnp.argmax(cumulative >= rank[..., None], axis=-1)
    edge = (first + 1) * (_power(histogram.exponent) / bins)
    return _within(histogram.peak, edge)


def _share(count, millionths):
    """floor(count * millionths / 10**6) for counts up to 2**32 without a wider type."""
    high, low = divmod(millionths, 1000)
    thousands, rest = count // 1000, count % 1000
    fraction = thousands * low + rest * low // 1000
    return thousands * high + (rest * high + fraction) // 1000


def _within(peak, edge):
    return jnp.where(jnp.isfinite(peak), jnp.minimum(peak, edge), peak)


@functools.partial(jax.jit, static_argnames=("format", "power_of_two"))
def least_mean_square_error_peak(
    histogram: Histogram, format: Format, power_of_two: Rounding
) -> Float32[Array, "*kept"]:
    """`calibration.least_error_peak` with every number at the centre of its bin."""
    bins = histogram.counts.shape[-1]
    centre = jnp.arange(bins) + 0.5
    width = _power(histogram.exponent)[..., None] / bins
    both = jnp.concatenate([centre, -centre])
    points = both.reshape((1,) * (width.ndim - 1) + (-1,)) * width
    counts = histogram.counts.reshape(points.shape).astype(jnp.float32)
    share = counts / jnp.maximum(counts.sum(-1, keepdims=True), 1)
    peak = histogram.peak[..., None]
    last = (points.ndim - 1,)
    return least_error_peak(points, share, peak, last, format, power_of_two)[..., 0]


@functools.partial(jax.jit, static_argnames=("format", "thresholds"))
def least_divergence_peak(
    histogram: Histogram, format: Format, thresholds: int
) -> Float32[Array, "*kept"]:
    """The clipping that loses least information (Migacz, "8-bit inference with
    TensorRT", GTC 2017).

    The magnitudes below a threshold, a number of bins, have the distribution P, to
    whose last bin all those beyond are added. Q is what the format leaves of those
    below: bins whose centres are stored as the same number share their counts evenly
    among those of them that P has not empty. The threshold of least KL(P || Q) wins,
    the largest of equal ones; where P has a bin that Q has not, the divergence is
    infinite. Tried are thresholds down from the whole range, in steps of
    `bins / thresholds`, that have no fewer bins than the format has words from zero up.
    The signs play no part: a sign beside the magnitude has no loss.
    """
    bins = histogram.counts.shape[-1]
    kept = histogram.peak.shape
    counts = histogram.counts.sum(-2).reshape(-1, bins).astype(jnp.float32)
    counts = counts / jnp.maximum(counts.sum(-1, keepdims=True), 1)
    least = min(positive_levels(format), bins)
    cuts = jnp.arange(bins, least - 1, -max(bins // thresholds, 1))
    losses = jax.lax.map(lambda cut: _divergence(counts, cut, format), cuts)
    cut = cuts[jnp.argmin(losses, axis=0)].reshape(kept)
    edge = cut * (_power(histogram.exponent) / bins)
    return _within(histogram.peak, edge)


def _divergence(counts, cut, format):
    """KL(P || Q) of every row of counts when `cut` bins are kept."""
    bin = jnp.arange(counts.shape[-1])
    stored = format.quantize((bin + 0.5) / cut, 1 / format.span)
    level = jnp.cumsum(jnp.diff(stored, prepend=stored[:1]) != 0)
    below = jnp.where((bin < cut)[None], counts, 0)
    beyond = jnp.where((bin < cut)[None], 0, counts).sum(-1)
    p = below.at[:, cut - 1].add(beyond)
    occupied = (p > 0).astype(jnp.float32)

    def by_level(rows):
        return jnp.zeros_like(rows).at[:, level].add(rows)[:, level]

    q = occupied * by_level(below) / jnp.maximum(by_level(occupied), 1)
    q = q / q.sum(-1, keepdims=True)
    loss = jnp.where(p > 0, p * jnp.log(p / q), 0).sum(-1)
    return jnp.where(jnp.isnan(loss), jnp.inf, loss)

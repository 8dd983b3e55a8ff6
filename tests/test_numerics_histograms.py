"""Streaming histograms against counting in NumPy, and what is read off them."""

import math

import jax
import numpy as np
import pytest

from jaxnas.numerics import FixedPoint, Logarithmic
from jaxnas.numerics.calibration import (
    CLIPPING_RATIOS,
    mean_square_error_scale,
    rounded_peak,
)
from jaxnas.numerics.histograms import (
    add,
    empty,
    least_divergence_peak,
    least_mean_square_error_peak,
    percentile_peak,
)

BINS = 64
FORMATS = [
    FixedPoint(bits=4),
    FixedPoint(bits=4, code="unsigned"),
    Logarithmic(bits=4, base=2**0.5),
]
formats = pytest.mark.parametrize("format", FORMATS, ids=str)


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_t(3, size=shape).astype(np.float32)


def histogram(x, bins=BINS):
    return add(empty((), bins), x)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("peak", [0.0, 1e-9, 2.0**-20, 0.3, 1.0, 6.5, 2.0**100, 3.4e38])
def test_counts_are_those_of_numpy(peak):
    x = np.float32(peak) * np.random.default_rng(0).uniform(-1, 1, 400).astype(
        np.float32
    )
    x = np.append(x, np.float32([0, -0.0, peak, -peak]))
    got = histogram(x)
    exponent = int(got.exponent)
    assert np.abs(x).max() < 2.0**exponent or exponent == 127
    assert exponent == -20 or np.abs(x).max() >= 2.0 ** (exponent - 1)
    assert got.peak == np.abs(x).max()
    edges = np.ldexp(np.arange(BINS + 1.0), exponent - 6)
    edges[-1] = np.inf
    for sign, part in enumerate([x[x >= 0], -x[x < 0]]):
        counts, _ = np.histogram(part.astype(np.float64), edges)
        np.testing.assert_array_equal(got.counts[sign], counts)


def test_any_split_in_any_order_gives_the_whole():
    """Peaks over forty octaves, so that some merges leave a single bin."""
    rng = np.random.default_rng(1)
    parts = [
        values(50, seed=s) * np.float32(2.0) ** rng.integers(-30, 10) for s in range(8)
    ]
    parts.append(np.float32(2.0 ** np.arange(-25, 3)))
    whole = histogram(np.concatenate(parts))
    for _ in range(3):
        state = empty((), BINS)
        for index in rng.permutation(len(parts)):
            state = add(state, parts[index])
        assert_equal(state, whole)


def test_rows_are_histograms_of_their_own_scanned_and_mapped():
    x = values(5, 3, 40) * np.float32([[1], [7], [0.01]])[None]
    scanned = jax.jit(
        lambda s, x: jax.lax.scan(lambda s, x: (add(s, x), None), s, x)[0]
    )
    together = scanned(empty((3,), BINS), x)
    mapped = jax.vmap(scanned, (0, 1))(empty((3,), BINS), x)
    assert_equal(together, mapped)
    for row in range(3):
        expected = histogram(x[:, row].reshape(-1))
        for leaf, alone in zip(together, expected, strict=True):
            np.testing.assert_array_equal(leaf[row], alone)


def test_numbers_that_are_not_finite_are_not_counted_but_shown():
    for value in (np.nan, np.inf):
        state = histogram(np.float32([1, value, -value, 2]))
        assert state.counts.sum() == 2 and state.exponent == 2
        np.testing.assert_array_equal(state.peak, value)
        np.testing.assert_array_equal(percentile_peak(state, 500_000), value)
        for format in FORMATS:
            np.testing.assert_array_equal(
                least_divergence_peak(state, format, 8), value
            )
            np.testing.assert_array_equal(
                least_mean_square_error_peak(state, format, True), value
            )


@pytest.mark.parametrize("millionths", [0, 1, 999, 1000, 100_000, 500_000, 999_999])
@pytest.mark.parametrize("size", [1, 9, 1000])
def test_percentile_is_the_end_of_its_bin(millionths, size):
    x = values(size, seed=size)
    rank = size - size * millionths // 10**6
    exact = np.sort(np.abs(x))[rank - 1]
    width = 2.0 ** int(histogram(x).exponent) / BINS
    expected = min((math.floor(exact / width) + 1) * width, np.abs(x).max())
    assert percentile_peak(histogram(x), millionths) == expected


@pytest.mark.parametrize("millionths", [1, 333_333, 123_456, 999_999])
def test_ranks_are_exact_for_all_counts(millionths):
    """Two bins with up to 2**32 - 1 numbers: as many as may lie above, and one more."""
    totals = np.random.default_rng(2).integers(2, 2**32, 50, dtype=np.uint64)
    totals[-1] = 2**32 - 1
    above = totals * millionths // 10**6
    upper = np.concatenate([above, above + 1])
    both = np.stack([np.tile(totals, 2) - upper, upper], -1).astype(np.uint32)
    state = empty((100,), 2)._replace(
        peak=np.full(100, 0.75, np.float32),
        exponent=np.zeros(100, np.int32),
        counts=np.stack([both, 0 * both], -2),
    )
    expected = np.repeat([0.5, 0.75], 50)
    np.testing.assert_array_equal(percentile_peak(state, millionths), expected)


@formats
@pytest.mark.parametrize("rounded", [True, False])
def test_least_error_is_that_of_the_centres_of_bins(format, rounded):
    x = values(300, seed=3)
    width = 2.0 ** int(histogram(x).exponent) / BINS
    centres = np.copysign((np.floor(np.abs(x) / width) + 0.5) * width, x)
    peak = np.abs(x).max()
    found = least_mean_square_error_peak(histogram(x), format, rounded)

    def error(peak):
        return (
            (
                centres
                - np.float64(
                    format.quantize(centres.astype(np.float32), peak / format.span)
                )
            )
            ** 2
        ).sum()

    tried = [
        float(rounded_peak(peak * ratio, rounded))
        for ratio in np.float32(CLIPPING_RATIOS)
    ]
    errors = [error(np.float32(each)) for each in tried]
    assert float(found) in tried
    np.testing.assert_allclose(error(found), min(errors), rtol=1e-5)
    exact = mean_square_error_scale(x, format, power_of_two=False) * format.span
    if not rounded:
        assert 0.7 < found / exact < 1.4


def slow_divergence(counts, cut, format):
    """The same definition in loops: KL(P || Q) of one histogram, in float64."""
    p = [float(c) for c in counts[:cut]]
    centres = np.float32((np.arange(BINS) + 0.5) / cut)  # one shape for all
    stored = np.asarray(format.quantize(centres, 1 / format.span)).tolist()[:cut]
    below = list(p)
    p[-1] += sum(counts[cut:])
    q = [0.0] * cut
    for level in set(stored):
        members = [j for j in range(cut) if stored[j] == level]
        occupied = [j for j in members if p[j] > 0]
        for j in occupied:
            q[j] = sum(below[k] for k in members) / len(occupied)
    if not sum(q):
        return math.inf
    loss = 0.0
    for mine, other in zip(p, q, strict=True):
        if mine:
            loss += (
                math.inf
                if not other
                else mine / sum(p) * math.log(mine / sum(p) / (other / sum(q)))
            )
    return loss


@formats
@pytest.mark.parametrize("seed", range(3))
def test_divergence_is_that_of_loops_over_bins(format, seed):
    x = values(2000, seed=seed)
    state = histogram(x)
    counts = np.asarray(state.counts).sum(0)
    words = 16 if format.fields.get("sign") is None else 8
    cuts = range(BINS, words - 1, -2)
    losses = [slow_divergence(counts, cut, format) for cut in cuts]
    expected = cuts[int(np.argmin(losses))] * 2.0 ** int(state.exponent) / BINS
    found = least_divergence_peak(state, format, BINS // 2)
    assert found == min(expected, np.abs(x).max())


def test_divergence_clips_rare_outliers_and_keeps_what_fits():
    x = np.append(np.random.default_rng(0).uniform(-1, 1, 10**4), [30.0]).astype(
        np.float32
    )
    format = FixedPoint(bits=4)
    assert least_divergence_peak(histogram(x, 2048), format, 128) < 3
    even = np.linspace(-0.999, 0.999, 2048).astype(np.float32)
    assert least_divergence_peak(histogram(even, 2048), format, 128) == even.max()


def test_rows_have_the_peaks_of_their_own():
    x = values(4, 500) * np.float32([[1], [3], [1e-3], [50]])
    together = add(empty((4,), BINS), x)
    for read in (
        lambda state: percentile_peak(state, 10_000),
        lambda state: least_mean_square_error_peak(state, FORMATS[0], False),
        lambda state: least_divergence_peak(state, FORMATS[0], 32),
    ):
        alone = [read(jax.tree.map(lambda leaf: leaf[i], together)) for i in range(4)]  # noqa: B023
        np.testing.assert_array_equal(read(together), alone)


def test_bins_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="48 bins; expected a power of two"):
        empty((), 48)

"""Observers: streams against whole arrays, channels and scans against loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics import FixedPoint, Logarithmic, absmax_scale
from jaxnas.numerics.calibration import (
    SMALLEST_PEAK,
    mean_square_error_scale,
    percentile_scale,
    power_of_two,
)
from jaxnas.numerics.observers import (
    Observer,
    absmax,
    kullback_leibler,
    mean_square_error,
    percentile,
    running_average,
)

FORMAT = FixedPoint(bits=4)
BINS = 128
OBSERVERS = {
    "absmax": absmax,
    "percentile": functools.partial(percentile, 95.0, bins=BINS),
    "mean_square_error": functools.partial(mean_square_error, bins=BINS),
    "kullback_leibler": functools.partial(kullback_leibler, bins=BINS, thresholds=32),
    "exponential": functools.partial(running_average, 0.75),
    "cumulative": functools.partial(running_average, None),
}
STREAMING = list(OBSERVERS)[:4]


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_t(3, size=shape).astype(np.float32)


def observed(observer, batches):
    state = observer.init(jax.ShapeDtypeStruct(batches[0].shape, jnp.float32))
    for batch in batches:
        state = observer.update(state, batch)
    return state


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", STREAMING)
@pytest.mark.parametrize("axis", [None, -1])
def test_batches_in_any_order_and_of_any_size_are_the_whole(name, axis):
    observer = OBSERVERS[name](axis=axis)
    x = values(60, 3) * np.float32(2.0) ** np.arange(-30, 30, dtype=np.float32)[:, None]
    whole = observed(observer, [x])
    batches = np.split(x, [5, 6, 30])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        assert_equal(observed(observer, [batches[i] for i in order]), whole)


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("axis", [-1, (0, 2)])
def test_kept_axes_are_a_loop_over_their_slices(name, axis):
    batches = [values(2, 50, 3, seed=seed) * (1 + seed) for seed in range(2)]
    together = OBSERVERS[name](axis=axis)
    scale = np.asarray(together.scale(observed(together, batches), FORMAT, False))
    kept = {index % 3 for index in np.atleast_1d(axis)}
    assert scale.shape == tuple(n if i in kept else 1 for i, n in enumerate((2, 50, 3)))
    alone = OBSERVERS[name]()
    for index in np.ndindex(scale.shape):
        here = tuple(index[i] if i in kept else slice(None) for i in range(3))
        state = observed(alone, [batch[here].reshape(-1) for batch in batches])
        assert scale[index] == alone.scale(state, FORMAT, False)


@pytest.mark.parametrize("name", OBSERVERS)
def test_scanned_mapped_and_jitted_are_the_loop(name):
    observer = OBSERVERS[name](axis=-1)
    batches = values(2, 4, 30, 3)

    @jax.jit
    def scale(batches):
        start = observer.init(batches[0])
        step = lambda state, x: (observer.update(state, x), None)  # noqa: E731
        return observer.scale(jax.lax.scan(step, start, batches)[0], FORMAT, False)

    expected = [observer.scale(observed(observer, b), FORMAT, False) for b in batches]
    # The average may contract a product and a sum; all others are exact.
    tolerance = 1e-6 if name in ("exponential", "cumulative") else 0
    for got in (np.stack([scale(b) for b in batches]), jax.vmap(scale)(batches)):
        np.testing.assert_allclose(got, np.stack(expected), rtol=tolerance)


@pytest.mark.parametrize("name", OBSERVERS)
def test_powers_of_two_nothing_seen_and_divergence(name):
    observer = OBSERVERS[name]()
    empty = observer.init(values(5))
    assert observer.scale(empty, FORMAT) == SMALLEST_PEAK / FORMAT.span
    state = observer.update(empty, values(200))
    scale = observer.scale(state, FORMAT)
    assert scale.shape == () and scale.dtype == jnp.float32
    assert scale == power_of_two(scale)
    nearest = observer.scale(state, FORMAT, power_of_two="nearest")
    assert nearest == power_of_two(nearest)
    diverged = observer.update(state, np.float32([np.nan]))
    assert jnp.isnan(observer.scale(diverged, FORMAT))


def test_absmax_is_that_of_the_whole_array():
    x = values(8, 5)
    for axis in (None, -1):
        for rounding in (True, False, "nearest"):
            state = observed(absmax(axis), np.split(x, 4))
            expected = absmax_scale(x, FORMAT, axis, rounding)
            assert_equal(absmax(axis).scale(state, FORMAT, rounding), expected)


def test_percentile_exceeds_the_exact_one_by_less_than_a_bin():
    x = values(3000)
    for percent in (50, 99, 99.9):
        observer = percentile(percent)
        state = observed(observer, np.split(x, 3))
        got = observer.scale(state, FORMAT, False) * FORMAT.span
        exact = percentile_scale(x, FORMAT, percent, power_of_two=False) * FORMAT.span
        assert 0 <= got - exact <= 2 * np.abs(x).max() / 2048
    state = observed(percentile(100), [x])
    assert percentile(100).scale(state, FORMAT) == absmax_scale(x, FORMAT)


@pytest.mark.parametrize(
    "format",
    [FORMAT, FixedPoint(bits=4, code="unsigned"), Logarithmic(bits=4, base=2**0.5)],
    ids=str,
)
def test_least_error_of_bins_costs_little_more_than_that_of_the_values(format):
    x = values(2000)
    observer = mean_square_error()
    scale = observer.scale(observed(observer, np.split(x, 4)), format, False)
    exact = mean_square_error_scale(x, format, power_of_two=False)

    def cost(scale):
        return np.square(x - np.asarray(format.quantize(x, scale))).mean()

    assert cost(exact) <= cost(scale) * (1 + 1e-5) and cost(scale) <= 1.01 * cost(exact)


def test_averages_are_those_of_their_definitions():
    peaks = np.float32([3, 1, 5, 2])
    batches = [np.float32([0.5, -peak]) for peak in peaks]
    scale = {
        name: OBSERVERS[name]().scale(
            observed(OBSERVERS[name](), batches), FORMAT, False
        )
        for name in ("exponential", "cumulative")
    }
    expected = peaks[0]
    for peak in peaks[1:]:
        expected = 0.75 * expected + 0.25 * peak
    np.testing.assert_allclose(scale["exponential"] * FORMAT.span, expected, rtol=1e-6)
    np.testing.assert_allclose(
        scale["cumulative"] * FORMAT.span, peaks.mean(), rtol=1e-6
    )


def test_equal_options_are_one_observer_that_is_traced_once():
    assert percentile(99.0, axis=-1) == percentile(99.0, axis=-1)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def update(observer, state, x):
        traces.append(observer)
        return observer.update(state, x)

    for _ in range(3):
        observer = kullback_leibler()
        assert isinstance(observer, Observer)
        update(observer, observer.init(values(4)), values(4))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: percentile(0), "percentile of 0; expected above 0 and up to 100"),
        (lambda: percentile(101), "percentile of 101; expected"),
        (lambda: running_average(1.0), "momentum of 1.0; expected 0 <= momentum < 1"),
        (lambda: mean_square_error(bins=100).init(values(3)), "100 bins; expected a p"),
        (lambda: absmax(axis=2).init(values(3)), r"axis 2 of an array of shape \(3,\)"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()

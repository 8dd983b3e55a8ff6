"""Learned steps and clips against closed forms, rounding by chance against its law."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.jaxprs import equations
from jaxnas.numerics import FixedPoint, Logarithmic, MiniFloat, quantize, quantize_p
from jaxnas.numerics.calibration import SMALLEST_PEAK, power_of_two
from jaxnas.numerics.learned import (
    initial_step,
    initial_steps,
    learned_clip,
    learned_step,
    stochastic_quantize,
)

SIGNED = FixedPoint(bits=4)
UNSIGNED = FixedPoint(bits=4, code="unsigned")
LOGARITHMIC = Logarithmic(bits=4, base=2**0.5)
FORMATS = [SIGNED, UNSIGNED, LOGARITHMIC]
formats = pytest.mark.parametrize("format", FORMATS, ids=str)


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same_bits(a, b):
    np.testing.assert_array_equal(
        np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32)
    )


def gradients(function, *at):
    """Of a weighted sum, so that every output counts for itself."""
    weight = values(*at[0].shape, seed=9)
    loss = lambda *at: (weight * function(*at)).sum()  # noqa: E731
    return weight, *jax.jit(jax.grad(loss, (0, 1)))(*at)


@pytest.mark.parametrize("code", ["twos_complement", "unsigned"])
@pytest.mark.parametrize("shape", [(), (1, 5)])
@pytest.mark.parametrize("stored", ["weight", "activation"])
def test_learned_step_has_the_gradients_of_the_paper(code, shape, stored):
    """Equations 3 and 5 of Esser et al. in NumPy, and their factor of the gradient."""
    format = FixedPoint(bits=3, code=code)
    lowest, highest = (-4, 3) if code == "twos_complement" else (0, 7)
    x, step = values(20, 5), np.full(shape, 0.21, np.float32)
    read = functools.partial(learned_step, format=format, stored=stored)
    assert_same_bits(read(x, step), quantize(x, step, format))
    weight, dx, dstep = gradients(read, x, step)
    v = x / step
    inside = (lowest <= v) & (v <= highest)
    np.testing.assert_array_equal(dx, np.where(inside, weight, 0))
    slope = np.where(inside, np.round(v) - v, np.clip(v, lowest, highest))
    shared = (100 if stored == "weight" else 5) / max(math.prod(shape), 1)
    slope = weight * slope / math.sqrt(shared * highest)
    expected = slope.sum(0, keepdims=True) if shape else slope.sum()
    np.testing.assert_allclose(dstep, expected, rtol=1e-4, atol=1e-4)


def test_initial_step_is_that_of_the_paper():
    x = values(30, 4)
    for format, largest in ((SIGNED, 7), (UNSIGNED, 15), (FixedPoint(bits=8), 127)):
        expected = 2 * np.abs(x).mean() / math.sqrt(largest)
        np.testing.assert_allclose(initial_step(x, format), expected, rtol=1e-5)
        each = 2 * np.abs(x).mean(0, keepdims=True) / math.sqrt(largest)
        np.testing.assert_allclose(initial_step(x, format, -1), each, rtol=1e-5)
    # Other formats get the same peak in other units.
    peak = 2 * np.abs(x).mean() * math.sqrt(7)
    np.testing.assert_allclose(initial_step(x, LOGARITHMIC), peak, rtol=1e-5)
    assert initial_step(0 * x, SIGNED) == SMALLEST_PEAK / SIGNED.span


@pytest.mark.parametrize("step", [0.0, -3.0, -1e-30])
def test_a_step_that_training_drove_below_zero_can_return(step):
    x = np.float32([1.0, 2.0, -0.5])
    floor = SMALLEST_PEAK / SIGNED.span
    read = functools.partial(learned_step, format=SIGNED, stored="weight")
    assert_same_bits(read(x, np.float32(step)), quantize(x, floor, SIGNED))
    at_floor = gradients(read, x, np.float32(floor))[2]
    assert gradients(read, x, np.float32(step))[2] == at_floor != 0
    assert jnp.isnan(jax.jit(read)(x, np.float32(np.nan))).all()


@pytest.mark.parametrize("rounding", [True, "nearest"])
def test_learned_powers_of_two_pass_their_gradient_through(rounding):
    x, step = values(40), np.float32(0.07)
    rounded = power_of_two(step, nearest=rounding == "nearest")
    free = functools.partial(learned_step, format=SIGNED)
    tied = functools.partial(free, power_of_two=rounding)
    assert_same_bits(tied(x, step), quantize(x, rounded, SIGNED))
    for one, other in zip(
        gradients(tied, x, step), gradients(free, x, rounded), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_training_a_step_approaches_the_least_error():
    x = values(400)
    read = functools.partial(learned_step, format=SIGNED, stored="weight")

    @jax.jit
    def cost(step):
        return jnp.mean((read(x, step) - x) ** 2)

    slope = jax.jit(jax.grad(lambda s: jnp.mean((read(x, s) - x) ** 2)))
    step = jnp.float32(1.5)
    for _ in range(300):
        step -= 20 * slope(step)
    least = min(float(cost(jnp.float32(s))) for s in np.linspace(0.1, 1.5, 141))
    assert cost(step) < 1.05 * least < 0.2 * cost(jnp.float32(1.5))


@pytest.mark.parametrize(
    "format", [UNSIGNED, FixedPoint(bits=8, code="unsigned")], ids=str
)
@pytest.mark.parametrize("clip", [0.7, 1.0, 1 / 3])
def test_learned_clip_has_the_gradients_of_the_paper(format, clip):
    clip, largest = np.float32(clip), (1 << format.bits) - 1
    x = np.append(values(200), np.float32([0, clip, np.nextafter(clip, np.float32(0))]))
    read = functools.partial(learned_clip, format=format)
    weight, dx, dclip = gradients(read, x, clip)
    step = np.float64(clip) / largest
    expected = np.round(np.clip(x, 0, clip) / step) * step
    np.testing.assert_allclose(read(x, clip), expected, rtol=1e-5, atol=1e-7)
    # The level is that of the words, which the product may have moved by a bit or two.
    level = np.float32(format.bounds(clip * np.float32(1 / largest))[1])
    assert abs(level - clip) <= 2 * np.spacing(clip)
    np.testing.assert_array_equal(dx, np.where((x >= 0) & (x < level), weight, 0))
    np.testing.assert_allclose(dclip, weight[x >= level].sum(), rtol=1e-5)


def test_learned_clip_is_the_learned_step_without_its_rounding_error():
    x, clip = np.abs(values(50)), np.float32(0.9375)
    step = clip / 15  # exact
    weight, _, dclip = gradients(
        functools.partial(learned_clip, format=UNSIGNED), x, clip
    )
    _, _, dstep = gradients(lambda x, s: quantize(x, s, UNSIGNED), x, step)
    error = np.where(x < clip, (quantize(x, step, UNSIGNED) - x) / clip, 0)
    np.testing.assert_allclose(
        dclip, dstep / 15 - (weight * error).sum(), rtol=1e-4, atol=1e-5
    )


def test_learned_clip_shows_nan_and_has_a_floor_and_powers_of_two():
    read = functools.partial(learned_clip, format=UNSIGNED)
    x = np.ones(2, np.float32)
    assert jnp.isnan(jax.jit(read)(x, np.float32(np.nan))).all()
    assert (read(x, np.float32(-1)) > 0).all()
    assert gradients(read, x, np.float32(-1))[2] != 0
    tied = read(10 * x, np.float32(0.8), power_of_two=True)
    np.testing.assert_array_equal(tied, 15 / 16)
    with pytest.raises(ValueError, match="has negative words; take an unsigned format"):
        learned_clip(x, 1.0, SIGNED)


STOCHASTIC = [*FORMATS, MiniFloat(exponent=2, mantissa=1)]


@pytest.mark.parametrize("format", STOCHASTIC, ids=str)
def test_rounding_by_chance_is_unbiased_between_neighbours(format):
    """Exact binomial tests, one per number, at a family-wise false alarm of 1e-3."""
    trials, scale = 4000, np.float32(0.1)
    low, high = (float(bound) for bound in format.bounds(scale))
    x = np.linspace(low, high, 23).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), trials)
    draw = jax.jit(jax.vmap(lambda key: stochastic_quantize(key, x, scale, format)))
    drawn = np.asarray(draw(keys))
    below, above = (np.asarray(side) for side in format.neighbours(x, scale))
    assert ((drawn == below) | (drawn == above)).all()
    for column in range(len(x)):
        gap = np.float64(above[column]) - below[column]
        if gap:
            share = (np.float64(x[column]) - below[column]) / gap
            hits = int((drawn[:, column] == above[column]).sum())
            assert stats.binomtest(hits, trials, share).pvalue > 1e-3 / len(x)


def test_slope_of_the_mean_is_the_straight_through_derivative():
    """Central differences of the mean over keys, common to both sides, at 5 sigma."""
    x, h, trials = np.float32([-0.33, 0.11, 0.52, 2.0]), 0.04, 20000
    keys = jax.random.split(jax.random.key(1), trials)
    draw = jax.vmap(lambda key, x: stochastic_quantize(key, x, 0.1, SIGNED), (0, None))
    up, down = (np.float64(jax.jit(draw)(keys, x + side)) for side in (h, -h))
    slope = (up - down) / (2 * h)
    low, high = SIGNED.bounds(0.1)
    inside = ((low <= x) & (x <= high)).astype(float)
    deviation = slope.std(0) / math.sqrt(trials)
    assert (np.abs(slope.mean(0) - inside) <= 5 * deviation + 1e-6).all()
    total = jax.grad(lambda x: draw(keys[:1], x).sum())(x)
    np.testing.assert_array_equal(total, inside)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rounding_by_chance_obeys_euler_and_keeps_words(format):
    x, scale, key = 2 * values(64), np.float32(0.3), jax.random.key(2)
    read = lambda x, scale: stochastic_quantize(key, x, scale, format)  # noqa: E731
    y, along = jax.jit(lambda *at: jax.jvp(read, at, at))(x, scale)
    np.testing.assert_allclose(along, y, rtol=1e-5, atol=1e-6)
    assert_same_bits(read(y, scale), y)
    assert_same_bits(read(x, scale), y)
    low, high = format.bounds(scale)
    outside = np.float32([low - 1, high + 1, -np.inf, np.inf])
    assert_same_bits(read(outside, scale), np.stack([low, high, low, high]))


def test_mean_of_the_scale_derivative_vanishes_inside():
    """y_s = (y - x) / s has mean zero where the mean of y is x: five sigma."""
    x, trials = np.float32([-0.63, 0.12, 0.333]), 4000
    keys = jax.random.split(jax.random.key(3), trials)
    one = lambda key: jax.jacfwd(lambda s: stochastic_quantize(key, x, s, SIGNED))(0.1)  # noqa: E731
    slopes = np.asarray(jax.jit(jax.vmap(one))(keys))
    assert (np.abs(slopes.mean(0)) <= 5 * slopes.std(0) / math.sqrt(trials)).all()


FUNCTIONS = {
    "step": lambda x, a: learned_step(x, a, UNSIGNED, stored="weight", site="here"),
    "clip": lambda x, a: learned_clip(x, a, UNSIGNED, stored="weight", site="here"),
    "chance": lambda x, a: stochastic_quantize(
        jax.random.key(0), x, a, UNSIGNED, stored="weight", site="here"
    ),
}
functions = pytest.mark.parametrize("read", FUNCTIONS.values(), ids=FUNCTIONS)


@functions
def test_sites_stay_visible(read):
    sites = [
        eqn
        for eqn in equations(jax.make_jaxpr(read)(values(3, 4), np.float32(0.2)))
        if eqn.primitive is quantize_p
    ]
    (site,) = sites
    assert site.params == {"format": UNSIGNED, "stored": "weight", "site": "here"}


@functions
def test_transformations_agree_with_the_loop(read):
    x, a = values(4, 30), np.float32([0.05, 0.1, 0.2, 0.7])

    def both(x, a):
        return read(x, a), jax.grad(lambda *at: read(*at).sum(), (0, 1))(x, a)

    loop = [both(*at) for at in zip(x, a, strict=True)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    scan = lambda x, a: jax.lax.scan(lambda c, at: (c, both(*at)), 0, (x, a))[1]  # noqa: E731
    for other in (jax.jit(jax.vmap(both))(x, a), jax.jit(scan)(x, a)):
        assert_same_bits(other[0], expected[0])
        for k in range(2):
            np.testing.assert_allclose(
                other[1][k], expected[1][k], rtol=1e-5, atol=1e-6
            )


def test_warm_start_gives_the_chosen_leaves_a_step():
    params = {
        "first": {"kernel": values(3, 4), "bias": values(4)},
        "last": {"kernel": values(4, 2)},
    }
    steps = initial_steps(params, SIGNED, "*/kernel", axis=-1)
    assert steps["first"]["bias"] is None
    for layer in ("first", "last"):
        expected = initial_step(params[layer]["kernel"], SIGNED, -1)
        np.testing.assert_array_equal(steps[layer]["kernel"], expected)

    def stored(w, step):
        return w if step is None else learned_step(w, step, SIGNED, stored="weight")

    def loss(params, steps):
        words = jax.tree.map(stored, params, steps)
        return sum(leaf.sum() for leaf in jax.tree.leaves(words))

    slopes = jax.grad(loss, 1)(params, steps)
    assert jax.tree.structure(slopes) == jax.tree.structure(steps)
    with pytest.raises(ValueError, match="no leaf matches '\\*/gain'"):
        initial_steps(params, SIGNED, "*/gain")

"""Scales by hand-made statistics of what the sites of a function would store."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics import (
    IEEE,
    FixedPoint,
    Observer,
    Rule,
    absmax_scale,
    calibrate,
    quantize,
    quantize_model,
    with_scales,
)

INT8 = FixedPoint(bits=8)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(0, 0.5, (4, 4)), jnp.float32)
BATCHES = [jnp.asarray(RNG.normal(0, 1 + n, (2, 4)), jnp.float32) for n in range(4)]


def q(x, site, scale=2.0**-7, format=INT8):
    return quantize(x, scale, format, site=site)


def test_a_scale_is_that_of_the_observed_numbers():
    def fun(w, x):
        hidden = jnp.tanh(q(x, "x") @ q(w, "w", jnp.ones((1, 4))))
        return q(hidden, "hidden") + q(hidden, "float", format=IEEE())

    found = calibrate(fun, [(W, x) for x in BATCHES])
    stored = jnp.concatenate(BATCHES)
    assert set(found) == {"x", "w", "hidden"}
    np.testing.assert_array_equal(found["x"], absmax_scale(stored, INT8))
    np.testing.assert_array_equal(found["w"], absmax_scale(W, INT8, -1))
    expected = absmax_scale(jnp.tanh(stored @ W), INT8)
    np.testing.assert_array_equal(found["hidden"], expected)
    exact = calibrate(fun, [(W, BATCHES[0])], power_of_two=False)
    assert exact["x"] == abs(BATCHES[0]).max() / INT8.span


def counting():
    """How many numbers each site meets: exact whatever encloses the site."""
    return Observer(
        init=lambda like: jnp.zeros(()),
        update=lambda count, x: count + x.size,
        scale=lambda count, format, power_of_two: count,
    )


def test_every_round_of_a_loop_is_observed_and_only_the_branch_that_runs():
    @jax.custom_jvp
    def doubled(x):
        return 2 * q(x, "custom_jvp")

    doubled.defjvp(lambda p, t: (doubled(*p), 2 * t[0]))

    def fun(x, index):
        x = jax.jit(lambda x: q(x, "jit"))(doubled(x))
        x = jax.checkpoint(lambda x: q(x, "remat"))(x)
        x, _ = jax.lax.scan(lambda x, _: (q(x, "scan"), None), x, None, length=3)
        x = jax.lax.while_loop(
            lambda c: q(c, "condition").sum() * 0 + c[0, 0] < 4,
            lambda c: q(c, "body") + 1,
            x * 0,
        )
        branches = [lambda x, n=n: q(x, f"branch {n}") for n in range(2)]
        return jax.lax.switch(index, branches, x)

    found = calibrate(
        fun,
        [(BATCHES[0], jnp.int32(1)), (BATCHES[1][:1], jnp.int32(1))],
        observer=counting(),
    )
    single = dict.fromkeys(["custom_jvp", "jit", "remat", "branch 1"], 12)
    loops = {"scan": 36, "condition": 48, "body": 48, "branch 0": 0}
    assert {name: int(count) for name, count in found.items()} == single | loops


def test_batches_of_one_shape_share_a_program():
    traces = []

    def fun(x, train):
        traces.append(train)
        return q(x, "x")

    calibrate(fun, ((x, True) for x in BATCHES))
    assert traces == [True, True]  # once for the sites, once for the program


def test_static_scales_are_the_calibrated_ones():
    def fun(w, x):
        step = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
        return jax.lax.scan(step, x, w["stack"])[0] @ w["last"]

    rule = Rule(weight=INT8, activation=INT8, weight_axis=-1)
    params = {"stack": jnp.stack([W, W / 9]), "last": W}
    dynamic = quantize_model(fun, rule)
    scales = calibrate(dynamic, [(params, x) for x in BATCHES])
    assert scales["stack"].shape == (2, 1, 4) and scales["last"].shape == (1, 4)
    static = jax.jit(quantize_model(fun, rule, scales))
    fixed = jax.jit(with_scales(dynamic, scales))
    for x in BATCHES:
        np.testing.assert_array_equal(static(params, x), fixed(params, x))
    calls = str(jax.make_jaxpr(static)(params, BATCHES[0]))
    assert "reduce_max" not in calls


def test_with_scales_replaces_the_named_only():
    def fun(x):
        return q(x, "a"), q(x, "b")

    found = with_scales(fun, {"b": jnp.full((1, 4), 0.5)})(W)
    np.testing.assert_array_equal(found[0], q(W, "a"))
    np.testing.assert_array_equal(found[1], q(W, "b", 0.5))
    with pytest.raises(ValueError, match=r"named \['c'\]; the sites are \['a', 'b'\]"):
        with_scales(fun, {"a": 1.0, "c": 1.0})(W)


@pytest.mark.parametrize(
    "fun, batches, message",
    [
        (lambda x: q(x, "x"), [], "no batches"),
        (lambda x: q(x, "x", format=IEEE()), [(W,)], "no sites that have a scale"),
        (
            lambda x: q(x, "x") + q(x, "x", format=FixedPoint(bits=4)),
            [(W,)],
            "named 'x' store",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused(fun, batches, message):
    with pytest.raises(ValueError, match=message):
        calibrate(fun, batches)

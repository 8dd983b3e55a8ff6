"""Derivatives of costs: against finite differences of what is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hardware_helpers import layers, random_layers

from jaxnas.arithmetic import FLOAT32
from jaxnas.hardware import (
    DATAFLOWS,
    SystolicArray,
    cycles,
    expected_cost,
    latency_cycles,
    smooth,
    smooth_ceil,
    smooth_maximum,
    straight_through,
)

LAYER = layers(
    kernel_height=3, kernel_width=3, in_channels=24, out_channels=40, out_height=13
)


def log_cycles(outputs, array, arithmetic, table=LAYER):
    wide = table._replace(out_channels=jnp.reshape(outputs, (1,)))
    return jnp.log(cycles(wide, array, arithmetic=arithmetic)[0])


@pytest.mark.parametrize("convention", ["scalesim", "realistic"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_gradients_are_finite_differences_of_the_smooth_model(dataflow, convention):
    array = SystolicArray(rows=16, columns=32, dataflow=dataflow, convention=convention)
    arithmetic = smooth(temperature=0.2)
    cost = jax.jit(lambda n: log_cycles(n, array, arithmetic))
    slope = jax.jit(jax.grad(lambda n: log_cycles(n, array, arithmetic)))
    for outputs in (20.0, 31.0, 40.0, 57.5):
        difference = float(cost(outputs + 0.25) - cost(outputs - 0.25)) / 0.5
        assert slope(outputs) == pytest.approx(difference, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("convention", ["scalesim", "realistic"])
@pytest.mark.parametrize("dataflow", [*DATAFLOWS, "best"])
def test_straight_through_keeps_the_exact_values(dataflow, convention):
    array = SystolicArray(rows=9, columns=7, dataflow=dataflow, convention=convention)
    table = random_layers(0, (200,))
    np.testing.assert_allclose(
        cycles(table, array, arithmetic=straight_through()),
        cycles(table, array),
        rtol=1e-6,
    )


def test_straight_through_has_a_slope_where_the_staircase_has_none():
    # 40 outputs are 1.25 of 32 columns, counted as 2: d log / dN = 1 / (2 * 32).
    array = SystolicArray(rows=32, columns=32, dataflow="os")
    slope = jax.grad(log_cycles)(40.0, array, straight_through())
    assert slope == pytest.approx(1 / 64)
    hard = FLOAT32._replace(
        ceil_divide=lambda a, b: jnp.ceil(a / b), exact_divide=lambda a, b: a / b
    )
    assert jax.grad(log_cycles)(40.0, array, hard) == 0


def test_a_smooth_ceiling_becomes_the_ceiling_and_always_rises():
    x = jnp.linspace(0.01, 5, 1234)
    away = jnp.abs(x - jnp.round(x)) > 0.1
    sharp = smooth_ceil(x, 1e-3)
    np.testing.assert_allclose(sharp[away], jnp.ceil(x)[away], atol=0.01)
    for temperature in (0.05, 0.3, 2.0):
        assert (jnp.diff(smooth_ceil(x, temperature)) > 0).all()
    np.testing.assert_allclose(smooth_ceil(x, 5.0), x + 0.5, atol=1e-6)


def test_smooth_cycles_become_the_exact_ones():
    array = SystolicArray(rows=16, columns=16, dataflow="ws")
    # Multiples of the array, and a unit more or less.
    table = layers(in_channels=[16, 17, 31], out_channels=[32, 33, 15], out_height=9)
    found = cycles(table, array, arithmetic=smooth(temperature=1e-5))
    np.testing.assert_allclose(found, cycles(table, array), rtol=1e-3)


def test_at_high_temperature_a_quotient_is_the_mean_of_its_ceilings():
    dividends, divisor = np.arange(1, 1 + 7 * 16), 16
    line = smooth(temperature=10.0).ceil_divide(dividends, divisor)
    np.testing.assert_allclose(line.mean(), np.ceil(dividends / divisor).mean())


def test_the_smooth_maximum_lies_between_the_maximum_and_the_sum():
    values = jnp.array([[3.0, 0, 5], [4.0, 0, 5]])
    np.testing.assert_allclose(smooth_maximum(values, 2.0), [5, 0, 50**0.5], rtol=1e-6)
    np.testing.assert_allclose(smooth_maximum(values, 1.0), [7, 0, 10], rtol=1e-6)
    np.testing.assert_allclose(smooth_maximum(values, 500.0), [4, 0, 5], rtol=2e-3)
    scaled = smooth_maximum(1e30 * values, 8.0)
    np.testing.assert_allclose(scaled, 1e30 * smooth_maximum(values, 8.0), rtol=1e-5)
    slopes = jax.grad(lambda v: smooth_maximum(v, 8.0).sum())(values)
    assert np.isfinite(slopes).all()


def test_expected_cost_is_the_mean_over_all_networks():
    rng = np.random.default_rng(0)
    logits, costs = rng.normal(size=(2, 3, 4)).astype(np.float32)
    shares = np.asarray(jax.nn.softmax(logits, axis=-1))
    mean = 0.0
    for choice in np.ndindex(4, 4, 4):
        share = np.prod([shares[slot, c] for slot, c in enumerate(choice)])
        mean += share * sum(costs[slot, c] for slot, c in enumerate(choice))
    assert expected_cost(jnp.asarray(logits), jnp.asarray(costs)) == pytest.approx(
        mean, rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(temperature=0.0), "temperature=0.0, expected a positive number"),
        (dict(sharpness=0.5), "sharpness=0.5, expected at least 1"),
    ],
)
def test_impossible_relaxations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        smooth(**options)


def test_gradients_of_a_network_are_finite_where_rows_are_masked():
    table = random_layers(3, (8,))
    table = table._replace(kind=np.ones(8, np.int32))
    array = SystolicArray(dataflow="best", convention="realistic")

    def cost(scale):
        wide = table._replace(out_channels=table.out_channels * scale)
        return latency_cycles(wide, array, arithmetic=smooth())

    slope = jax.jit(jax.grad(cost))(1.0)
    assert np.isfinite(slope) and slope > 0

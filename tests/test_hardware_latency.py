"""The latency of a network is slope times the sum over its layers, plus a bias."""

import jax
import numpy as np
import pytest
from table_helpers import table

from jaxnas.hardware.latency import (
    LatencyModel,
    LayerLatencies,
    accuracy,
    distinct_shapes,
    fit_bias,
    fit_line,
    load_latencies,
    predicted_us,
    save_latencies,
    summed_us,
)
from jaxnas.topology import POOLING, stack

WIDE, SMALL = {"in_channels": 8, "out_channels": 4}, {"kernel_height": 3}
NETWORKS = [
    table(WIDE, SMALL, WIDE),
    table(SMALL, SMALL | {"weight_bits": 4}, WIDE | {"mask": 0}),
    table(WIDE, {"kind": POOLING}, {"mask": 0}),
]
SUMS = [17.0, 6.0, 7.0]


def known():
    """Both layers, whose latencies do not depend on the order of entries."""
    (wide,) = distinct_shapes(table(WIDE))
    shapes = distinct_shapes(stack(NETWORKS))
    is_wide = (shapes == wide[None, :]).all(axis=1)
    return LayerLatencies(shapes, np.where(is_wide, 7.0, 3.0))


def test_shapes_are_told_apart_by_what_a_device_of_floats_sees():
    """Not by words, nor by masked rows and vector operations."""
    assert len(distinct_shapes(stack(NETWORKS))) == 2
    assert len(distinct_shapes(NETWORKS[2])) == 1


def test_sums_are_those_of_the_layers_for_one_network_and_for_many():
    single = [float(summed_us(network, known())) for network in NETWORKS]
    together = jax.jit(summed_us)(stack(NETWORKS), known())
    np.testing.assert_array_equal(single, SUMS)
    np.testing.assert_array_equal(together, SUMS)


def test_a_layer_that_was_not_measured_makes_no_number():
    unknown = table(WIDE, {"groups": 5})
    assert np.isnan(summed_us(unknown, known()))


def test_a_line_is_found_again_and_predicts(tmp_path):
    rng = np.random.default_rng(0)
    summed = rng.uniform(10, 500, 40)
    slope, bias = fit_line(summed, 0.7 * summed + 20)
    np.testing.assert_allclose([slope, bias], [0.7, 20])
    model = LatencyModel(known(), slope, bias)
    save_latencies(tmp_path / "latency.json", model)
    again = load_latencies(tmp_path / "latency.json")
    for one in (model, again):
        found = predicted_us(stack(NETWORKS), one)
        np.testing.assert_allclose(found, 0.7 * np.array(SUMS) + 20, rtol=1e-6)


def test_the_line_has_the_least_relative_error():
    rng = np.random.default_rng(1)
    summed = rng.uniform(10, 500, 60)
    measured = (0.7 * summed + 20) * rng.uniform(0.8, 1.2, 60)
    slope, bias = fit_line(summed, measured)
    best = accuracy(slope * summed + bias, measured).relative_rmse
    for other in [(1.05, 0), (0.95, 0), (1, 2), (1, -2)]:
        line = slope * other[0] * summed + bias + other[1]
        assert accuracy(line, measured).relative_rmse > best


def test_the_bias_is_the_mean_of_what_is_missing():
    assert fit_bias(np.array([1.0, 2.0]), np.array([4.0, 7.0])) == 4.0


def test_accuracy_in_closed_form():
    measured = np.array([1.0, 2.0, 3.0])
    found = accuracy(np.array([1.1, 1.8, 3.0]), measured)
    assert found.networks == 3 and found.spearman == pytest.approx(1)
    assert found.relative_rmse == pytest.approx(np.sqrt(2 * 0.1**2 / 3))
    reverse = accuracy(measured[::-1], measured)
    assert reverse.spearman == pytest.approx(-1)


@pytest.mark.parametrize(
    "summed, measured, message",
    [
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0], "4 predictions and 3 measurements"),
        ([1.0, 2.0], [1.0, 2.0], "at least 3"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], "not finite"),
        ([1.0, 2.0, 3.0], [1.0, 0.0, 3.0], "more than 0"),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], "the same sum"),
    ],
)
def test_what_cannot_be_fitted_is_refused(summed, measured, message):
    with pytest.raises(ValueError, match=message):
        fit_line(np.array(summed), np.array(measured))


@pytest.mark.parametrize("text", [None, "[]", '{"layers": [{}]}'])
def test_a_file_without_latencies_is_named(tmp_path, text):
    path = tmp_path / "latency.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match="latency.json"):
        load_latencies(path)

"""Objectives of one network by hand, and the scales that hypervolume is measured on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_helpers import genotype_of

from jaxnas.hardware import (
    Accelerator,
    SystolicArray,
    dram_bytes,
    energy_pj,
    expected_upsets,
    latency_us,
)
from jaxnas.networks import space as spaces
from jaxnas.networks.space import CONVOLUTION, INVERTED, SearchSpace, Stage
from jaxnas.networks.tables import layer_table
from jaxnas.search.objectives import CHEAP, cheap_objectives, hypervolume_points

SPACE = SearchSpace(
    image=(8, 8, 1),
    classes=10,
    stages=(Stage(widths=(2, 4), blocks=1), Stage(widths=(4, 6), blocks=1)),
)
ARRAY = SystolicArray(rows=16, columns=16, dataflow="os")
# stem 3x3 2 w8a8 | inv 3x3 4 e2 +skip w4a8 | pool | conv 5x5 4 w8a4 | dense w8
NETWORK = genotype_of(
    SPACE,
    {"operation": INVERTED, "width": 1, "residual": 1, "activation_bits": 1},
    {"operation": CONVOLUTION, "kernel": 1, "weight_bits": 1},
    stem=(0, 1, 1),
)
WEIGHTS = 9 * 2 + 2 * 4 + 9 * 4 + 4 * 4 + 25 * 4 * 4 + 4 * 10
BIASES = 2 + 4 + 4 + 4 + 4 + 10
WEIGHT_BYTES = 18 + (8 + 36 + 16) / 2 + 400 + 40 + 2 * BIASES
BY_HAND = {
    # Per layer: deviations, heavy tails of small fan-ins, poolings that follow.
    "activation_fragility": WEIGHTS**-0.2
    * (
        (1 + 4 / 9) * 1.6
        + (1 + 4 / 2) * 1.6
        + 2.7 * (1 + 4 / 9) * 1.6
        + 2.7 * (1 + 4 / 4) * 1.6
        + (1 + 4 / 100)
    ),
    "weight_fragility": 6 / WEIGHTS**0.5,
    "macs": 64 * (18 + 8 + 36 + 16) + 16 * 400 + 40,
    "parameters": WEIGHTS + BIASES,
    "weight_bytes": WEIGHT_BYTES,
    # Read and written: image 64, stem 128, both inner maps 256, block 256, last 32.
    "traffic_bytes": WEIGHT_BYTES
    + (64 + 128)
    + (128 + 256)
    + (256 + 256)
    + (256 + 128 + 256)
    + (256 + 32)
    + (32 + 4 * 10),
    # The projection: its input, the shortcut and its output.
    "peak_activation_bytes": 256 + 128 + 256,
    # Output stationary: folds x (fan-in + 30); four folds of 64 pixels, one of 16.
    "latency_cycles": 4 * 39 + 4 * 32 + 4 * 4 * 39 + 4 * 34 + 130 + 34,
}

ACCELERATED = {
    "latency_us": latency_us,
    "dram_bytes": lambda table, device: dram_bytes(table, device).total,
    "energy_pj": energy_pj,
    "expected_upsets": expected_upsets,
}


def evaluate(genotypes, names=CHEAP, array=ARRAY):
    return jax.jit(jax.vmap(cheap_objectives(SPACE, array, names)))(genotypes)


def test_one_network_by_hand():
    text = spaces.describe(SPACE, NETWORK)
    assert text == (
        "stem 3x3 2 w8a8 | inv 3x3 4 e2 +skip w4a8 | pool | conv 5x5 4 w8a4 | dense w8"
    )
    found = dict(zip(CHEAP, evaluate(NETWORK[None])[0], strict=True))
    assert found.keys() == BY_HAND.keys() | ACCELERATED.keys()
    for name, value in BY_HAND.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_what_an_array_alone_costs_is_that_of_the_default_accelerator():
    found = dict(zip(CHEAP, evaluate(NETWORK[None])[0], strict=True))
    device = Accelerator(rows=16, columns=16, dataflow="os", convention="scalesim")
    table = layer_table(SPACE, NETWORK)
    for name, cost in ACCELERATED.items():
        value = jax.jit(cost)(table, device)
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_the_order_is_that_of_the_names():
    names = ("weight_bytes", "macs")
    found = evaluate(NETWORK[None], names)[0]
    np.testing.assert_array_equal(found, [BY_HAND[name] for name in names])


def test_the_array_matters_to_time_and_buffer_accesses_only():
    small = SystolicArray(rows=4, columns=4)
    first, second = evaluate(NETWORK[None])[0], evaluate(NETWORK[None], array=small)[0]
    changed = [name for name, a, b in zip(CHEAP, first, second, strict=True) if a != b]
    # The maps of so small a network fit the buffers: DRAM sees every word once.
    assert changed == [
        "latency_cycles",
        "latency_us",
        "energy_pj",
        "expected_upsets",
    ]


def test_objectives_have_a_logarithm_everywhere():
    keys = jax.random.split(jax.random.key(0), 300)
    genotypes = jax.jit(jax.vmap(lambda key: spaces.sample(key, SPACE)))(keys)
    genotypes = jnp.concatenate([spaces.smallest(SPACE)[None], genotypes])
    found = np.asarray(evaluate(genotypes))
    assert found.dtype == np.float32
    assert np.all(found > 0) and np.all(np.isfinite(found))
    assert np.all(np.ptp(found, axis=0) > 0)


def test_equal_arguments_give_the_same_function():
    again = SystolicArray(rows=16, columns=16, dataflow="os")
    assert cheap_objectives(SPACE, ARRAY) is cheap_objectives(SPACE, again)
    assert cheap_objectives(SPACE, ARRAY) is not cheap_objectives(
        SPACE, ARRAY, CHEAP[:2]
    )


@pytest.mark.parametrize("name", ["speed", "validation_error"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError) as error:
        cheap_objectives(SPACE, ARRAY, ("macs", name))
    text = f"unknown cheap objectives ['{name}']: choose from {CHEAP}"
    assert str(error.value) == text


NAMES = ("macs", "validation_error", "weight_bytes")
INITIAL = np.array([[100.0, 0.5, 8.0], [400.0, 0.1, 2.0], [200.0, 0.3, 32.0]])


def points(fitness, initial=INITIAL):
    fitness = np.asarray(fitness, np.float64)
    return hypervolume_points(fitness, np.asarray(initial), NAMES)


def test_the_best_initial_values_are_zero_and_the_worst_one():
    found = points(INITIAL)
    np.testing.assert_allclose(found.min(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.max(axis=0), 1)
    # Costs by their logarithm, errors by their difference.
    np.testing.assert_allclose(found[2], [0.5, 0.5, 1])
    np.testing.assert_allclose(found[0], [0, 1, 0.5])


def test_better_than_the_best_is_below_zero_and_order_is_kept():
    rng = np.random.default_rng(0)
    fitness = rng.uniform(0.01, 1, (50, 3)) * [800, 1, 64]
    order, expected = (
        np.argsort(values, axis=0) for values in (points(fitness), fitness)
    )
    np.testing.assert_array_equal(order, expected)
    assert np.all(points([[50, 0.05, 1]]) < 0) and np.all(points([[800, 1, 64]]) > 1)


def test_units_do_not_matter():
    scale, fitness = np.array([[1e3, 1.0, 8.0]]), INITIAL[:2] * 1.7
    np.testing.assert_allclose(
        points(fitness * scale, INITIAL * scale), points(fitness), rtol=1e-9
    )
    shift = np.array([[0, 0.25, 0]])
    np.testing.assert_allclose(
        points(fitness + shift, INITIAL + shift), points(fitness), rtol=1e-9
    )


def test_an_error_of_zero_and_a_constant_column_stay_finite():
    initial = INITIAL * [[0, 1, 1]] + [[100, 0, 0]]
    found = points([[100, 0, 2], [200, 0.1, 8]], initial)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found[0], [0, -0.25, 0], atol=1e-12)

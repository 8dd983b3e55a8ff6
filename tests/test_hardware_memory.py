"""Memory and traffic of tables that can be counted by hand."""

import jax
import numpy as np
import pytest
from table_helpers import table

from jaxnas.hardware import memory
from jaxnas.topology import stack

COSTS = [
    memory.weight_bytes,
    memory.activation_traffic_bytes,
    memory.traffic_bytes,
    memory.peak_activation_bytes,
]


CONVOLUTION = dict(
    in_channels=2,
    out_height=6,
    out_width=5,
    out_channels=4,
    kernel_height=3,
    kernel_width=3,
    weight_bits=3,
    bias_bits=16,
    output_bits=7,
    read_bits=480,
    live_bits=1320,
)
DENSE = dict(
    in_channels=4,
    out_channels=3,
    weight_bits=5,
    bias_bits=0,
    output_bits=32,
    read_bits=840,
    live_bits=936,
)
MASKED = dict(mask=0)
NETWORK = table(CONVOLUTION, DENSE)
WEIGHTS = 72 * 3 + 4 * 16 + 12 * 5  # bits
MAPS = 480 + 120 * 7 + 840 + 3 * 32


@pytest.mark.parametrize(
    ("cost", "bits"),
    list(zip(COSTS, [WEIGHTS, MAPS, MAPS + WEIGHTS, 1320], strict=True)),
)
def test_costs_counted_by_hand_keep_fractions_of_a_byte(cost, bits):
    assert cost(NETWORK) == bits / 8


@pytest.mark.parametrize(
    ("cost", "bits"),
    list(zip(COSTS, [60, 840 + 96, 60 + 840 + 96, 936], strict=True)),
)
def test_masked_rows_cost_nothing(cost, bits):
    assert cost(table(CONVOLUTION | MASKED, DENSE)) == bits / 8
    assert cost(table(CONVOLUTION | MASKED, DENSE | MASKED)) == 0


@pytest.mark.parametrize("cost", COSTS)
def test_costs_are_the_same_eager_jitted_vmapped_and_with_leading_axes(cost):
    tables = [NETWORK, table(CONVOLUTION | MASKED, DENSE)]
    expected = np.array([cost(one) for one in tables])
    assert expected[0] != expected[1]
    np.testing.assert_array_equal(jax.jit(jax.vmap(cost))(stack(tables)), expected)
    np.testing.assert_array_equal(cost(stack(tables)), expected)

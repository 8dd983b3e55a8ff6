"""Products of two maps, transposed convolutions and vector operations, traced."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from table_helpers import (
    assert_columns,
    assert_same_table,
    conv,
    max_pool,
    read_image,
    spec,
    store,
    weight,
)

from jaxnas import topology
from jaxnas.analysis.resilience import activation_fragility, weight_fragility
from jaxnas.hardware import memory, systolic
from jaxnas.topology import CONCATENATION, ELEMENTWISE, LAYER, MAP_PRODUCT, POOLING
from jaxnas.tracing import trace_topology

TOKENS, WIDTH, HEADS = 5, 6, 2


class Attention(nn.Module):
    """A transformer's block: attention and two layers, with shortcuts around."""

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS)(y, y)
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(x)))


class Decoder(nn.Module):
    """A vector to an image, upsampled twice."""

    @nn.compact
    def __call__(self, code):
        x = nn.relu(nn.Dense(4 * 4 * 8)(code)).reshape(-1, 4, 4, 8)
        x = nn.relu(nn.ConvTranspose(6, (3, 3), strides=(2, 2))(x))
        return nn.ConvTranspose(3, (4, 4), strides=(2, 2), padding="VALID")(x)


def described(module, image):
    return jax.eval_shape(module.init, jax.random.key(0), image)


def test_attention_has_its_closed_form():
    module, tokens = Attention(), spec(1, TOKENS, WIDTH)
    variables = described(module, tokens)
    table = trace_topology(module.apply, variables, tokens)
    projection, scores = TOKENS * WIDTH**2, TOKENS**2 * WIDTH
    hidden = 4 * projection
    counts = topology.exact_counts(table)
    expected = [*[projection] * 3, scores, scores, projection, hidden, hidden]
    assert counts.macs.tolist() == expected
    assert_columns(table, kind=[*[LAYER] * 3, *[MAP_PRODUCT] * 2, *[LAYER] * 3])
    normalisation = 2 * WIDTH
    assert counts.parameters.sum() + normalisation == sum(
        leaf.size for leaf in jax.tree.leaves(variables)
    )
    # Queries and keys are read for the scores; scores and values for the sum of values.
    maps = 32 * TOKENS * WIDTH
    square = 32 * HEADS * TOKENS**2
    read = [maps, maps, maps, 2 * maps, square + maps, 2 * maps, maps, 4 * maps + maps]
    assert_columns(table, read_bits=read)


def test_vmapped_functions_of_one_example_are_networks_of_one_image():
    module, tokens = Attention(), spec(1, TOKENS, WIDTH)
    variables = described(module, tokens)

    def one(variables, tokens):
        return module.apply(variables, tokens[None])[0]

    options = {"vector_operations": True}
    assert_same_table(
        trace_topology(jax.vmap(one, (None, 0)), variables, tokens, **options),
        trace_topology(module.apply, variables, tokens, **options),
    )

    def layer(kernel, x):
        return max_pool(store(conv(read_image(x[None]), weight(kernel))))[0]

    args = spec(3, 3, 2, 4), spec(1, 6, 6, 2)
    batched = trace_topology(jax.vmap(layer, (None, 0)), *args)
    single = trace_topology(layer, args[0], spec(6, 6, 2))
    assert_same_table(batched, single)


def test_kernels_that_vmap_adds_are_groups():
    args = spec(3, 1, 1, 2, 4), spec(3, 1, 5, 5, 2)
    table = trace_topology(jax.vmap(lambda kernel, x: conv(x, kernel)), *args)
    assert_columns(table, groups=[3], in_channels=[6], out_channels=[12])
    assert topology.exact_macs(table) == 3 * 25 * 2 * 4


def test_words_of_both_maps_of_a_product():
    def network(p, x):
        x = read_image(x)
        left, right = store(conv(x, p), 6), store(conv(x, p), 3)
        scores = store(jnp.einsum("bhwc,bhwd->bcd", left, right), 12)
        return scores @ p[0, 0]

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    left, right = 32 * 6, 32 * 3
    assert_columns(table, kind=[LAYER, LAYER, MAP_PRODUCT, LAYER])
    assert_columns(table, input_bits=[8, 8, 6, 12], weight_bits=[32, 32, 3, 32])
    assert_columns(table, read_bits=[256, 256, left + right, 4 * 12])
    assert_columns(
        table,
        live_bits=[256 + left, 256 + left + right, left + right + 48, 48],
    )
    assert topology.exact_counts(table).macs.tolist() == [64, 64, 2 * 2 * 16, 8]


def test_a_map_may_be_multiplied_with_itself_and_be_a_kernel():
    def network(p, x):
        y = conv(x, p)
        y = y.reshape(16, 2)
        gram = y.T @ y
        return conv(x, gram[None, None])

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, kind=[LAYER, MAP_PRODUCT, MAP_PRODUCT])
    assert_columns(table, read_bits=[1024, 1024, 1024 + 4 * 32])
    assert topology.exact_parameters(table) == 4


def test_a_decoder_has_its_closed_form():
    module, code = Decoder(), spec(1, 10)
    variables = described(module, code)
    table = trace_topology(module.apply, variables, code)
    dense, first, second = 10 * 128, 16 * (9 * 8 * 6), 64 * (16 * 6 * 3)
    assert topology.exact_counts(table).macs.tolist() == [dense, first, second]
    assert_columns(table, out_height=[1, 8, 18], upsampling_width=[1, 2, 2])
    assert topology.exact_parameters(table) == sum(
        leaf.size for leaf in jax.tree.leaves(variables)
    )


def network(p, x, keep=lambda x, bits: x):
    """Two paths, one of them pooled and back, summed and joined; a bias; a mean."""
    h = keep(jax.nn.relu(conv(x, p["first"]) + p["bias"][None, None, None]), 6)
    y = keep(conv(max_pool(h), p["second"]), 4)
    y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
    z = jnp.concatenate([h + y, h], axis=-1)
    return jnp.sum(z, axis=(1, 2)) * 0.5 @ p["dense"]


PARAMS = dict(
    first=spec(3, 3, 2, 4),
    bias=spec(4),
    second=spec(1, 1, 4, 4),
    dense=spec(8, 3),
)
IMAGE = spec(1, 6, 6, 2)


def in_words(p, x):
    return network(p, read_image(x), store)


@pytest.mark.parametrize("fun", [network, in_words])
def test_vector_operations_counted_by_hand(fun):
    table = trace_topology(fun, PARAMS, IMAGE, vector_operations=True)
    kinds = [LAYER, ELEMENTWISE, POOLING, LAYER, ELEMENTWISE, CONCATENATION]
    assert_columns(table, kind=[*kinds, POOLING, ELEMENTWISE, LAYER])
    relu, pool, shortcut, mean, half = 144, 144, 144, 288, 8
    operations = [0, relu, pool, 0, shortcut, 0, mean, half, 0]
    np.testing.assert_array_equal(topology.vector_operations(table), operations)
    assert_columns(table, kernel_height=[3, 1, 2, 1, 1, 1, 6, 1, 1])
    assert_columns(table, bias_bits=[32, *[0] * 8])


def test_words_of_vector_operations_are_those_that_they_find():
    table = trace_topology(in_words, PARAMS, IMAGE, vector_operations=True)
    vector = topology.compress(table._replace(mask=~topology.products(table).mask))
    # The rectifier works on the accumulators, the pooling on the words of a map.
    assert_columns(vector, input_bits=[32, 6, 6, 6, 6, 6])
    assert_columns(vector, weight_bits=[0, 0, 4, 6, 0, 0], output_bits=[32] * 6)


@pytest.mark.parametrize("fun", [network, in_words])
def test_products_are_the_same_with_and_without_vector_operations(fun):
    full = trace_topology(fun, PARAMS, IMAGE, vector_operations=True)
    short = trace_topology(fun, PARAMS, IMAGE)
    assert_same_table(topology.compress(topology.products(full)), short)
    array = systolic.SystolicArray(rows=4, columns=4, dataflow="best")
    for cost in (
        memory.traffic_bytes,
        memory.peak_activation_bytes,
        activation_fragility,
        weight_fragility,
        partial(systolic.latency_cycles, array=array),
    ):
        np.testing.assert_array_equal(cost(full), cost(short))


def test_operations_of_the_image_count_and_those_of_parameters_do_not():
    def network(p, mean, x):
        return conv((x - mean) * 0.5, jnp.tanh(p))

    args = spec(1, 1, 2, 2), spec(1, 1, 1, 2), spec(1, 4, 4, 2)
    table = trace_topology(network, *args, vector_operations=True)
    assert_columns(table, kind=[ELEMENTWISE, ELEMENTWISE, LAYER])
    assert topology.vector_operations(table).sum() == 64


def test_a_scan_repeats_its_vector_operations():
    def network(p, x):
        return lax.scan(lambda x, k: (jnp.tanh(conv(x, k)), None), x, p)[0]

    args = spec(3, 1, 1, 2, 2), spec(1, 4, 4, 2)
    table = trace_topology(network, *args, vector_operations=True)
    assert_columns(table, kind=[LAYER, ELEMENTWISE] * 3)


def test_xla_counts_the_same_operations():
    """Two for each multiply-accumulate, where nothing is padded."""

    def network(p, x):
        x = conv(x, p["first"], stride=2, padding="VALID", feature_group_count=2)
        x = jax.nn.relu(x + p["bias"][None, None, None])
        y = conv(x, p["point"])
        x = lax.conv_transpose(x + y, p["up"], (2, 2), "VALID")
        return x.reshape(1, -1, 3) @ x.reshape(1, -1, 3).mT

    params = dict(
        first=spec(3, 2, 2, 6),
        bias=spec(6),
        point=spec(1, 1, 6, 6),
        up=spec(3, 3, 6, 3),
    )
    args = params, spec(1, 9, 8, 4)
    table = trace_topology(network, *args, vector_operations=True)
    bias = 4 * 4 * 6
    counts = topology.exact_counts(table)
    expected = 2 * counts.macs.sum() + counts.vector_operations.sum() + bias
    assert jax.jit(network).lower(*args).cost_analysis()["flops"] == expected

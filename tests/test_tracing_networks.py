"""Tables of whole networks, counted by hand or published."""

import json
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from table_helpers import (
    assert_columns,
    assert_same_table,
    bias,
    conv,
    max_pool,
    read_image,
    spec,
    store,
    weight,
)

from jaxnas import topology
from jaxnas.tracing import trace_topology


def quantised_network(p, image, wrap=lambda fun: fun):
    """Stem, separable block with padded shortcut, inverted residual, dense layer."""

    @wrap
    def stem(x):
        y = conv(x, weight(p["stem"], 4)) + bias(p["bias"])[:, None, None]
        return store(jax.nn.relu(y), 6)

    @wrap
    def separable(x):
        y = store(
            jax.nn.relu(conv(x, weight(p["depthwise"]), feature_group_count=8)), 5
        )
        y = conv(y, weight(p["pointwise"]))
        return store(jax.nn.relu(y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 4)))), 6)

    @wrap
    def inverted(x):
        y = store(jax.nn.relu(conv(x, weight(p["expand"]))), 4)
        y = conv(y, weight(p["middle"]), feature_group_count=24)
        y = store(jax.nn.relu(y), 4)
        return store(conv(y, weight(p["project"])) + x, 8)

    x = stem(read_image(image))
    x = inverted(separable(max_pool(max_pool(x))))
    pooled = jnp.sum(x, axis=(1, 2)) * 0.25
    return pooled @ weight(p["dense"], 3) + bias(p["logits"])


PARAMS = dict(
    stem=spec(3, 3, 3, 8),
    bias=spec(8),
    depthwise=spec(3, 3, 1, 8),
    pointwise=spec(1, 1, 8, 12),
    expand=spec(1, 1, 12, 24),
    middle=spec(3, 3, 1, 24),
    project=spec(1, 1, 24, 12),
    dense=spec(12, 10),
    logits=spec(10),
)
IMAGE = spec(1, 8, 8, 3)
# Bits of the stored maps in their order.
INPUT, STEM, DEPTHWISE, BLOCK = 192 * 8, 512 * 6, 32 * 5, 48 * 6
EXPANDED, MIDDLE, PROJECTED = 96 * 4, 96 * 4, 48 * 8


def test_quantised_network_counted_by_hand():
    table = trace_topology(quantised_network, PARAMS, IMAGE)
    assert_columns(
        table,
        mask=[True] * 7,
        in_height=[8, 2, 2, 2, 2, 2, 1],
        in_width=[8, 2, 2, 2, 2, 2, 1],
        in_channels=[3, 8, 8, 12, 24, 24, 12],
        out_height=[8, 2, 2, 2, 2, 2, 1],
        out_width=[8, 2, 2, 2, 2, 2, 1],
        out_channels=[8, 8, 12, 24, 24, 12, 10],
        kernel_height=[3, 3, 1, 1, 3, 1, 1],
        kernel_width=[3, 3, 1, 1, 3, 1, 1],
        stride_height=[1] * 7,
        stride_width=[1] * 7,
        groups=[1, 8, 1, 1, 24, 1, 1],
        weight_bits=[4, 8, 8, 8, 8, 8, 3],
        bias_bits=[16, 0, 0, 0, 0, 0, 16],
        input_bits=[8, 6, 5, 6, 4, 4, 8],
        output_bits=[6, 5, 6, 4, 4, 8, 32],
        stored=[1, 1, 1, 1, 1, 1, 0],
        rectified=[1, 1, 1, 1, 1, 0, 0],
        pools_after=[2, 0, 0, 0, 0, 0, 0],
        read_bits=[
            INPUT,
            STEM,
            DEPTHWISE + STEM,
            BLOCK,
            EXPANDED,
            MIDDLE + BLOCK,
            PROJECTED,
        ],
        live_bits=[
            INPUT + STEM,
            STEM + DEPTHWISE,
            DEPTHWISE + STEM + BLOCK,
            BLOCK + EXPANDED,
            BLOCK + EXPANDED + MIDDLE,
            BLOCK + MIDDLE + PROJECTED,
            PROJECTED,
        ],
    )


def with_custom_vjp(fun):
    """The function itself; its derivative is never taken."""
    wrapped = jax.custom_vjp(fun)
    wrapped.defvjp(lambda x: (fun(x), None), lambda _, cotangent: (cotangent,))
    return wrapped


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, with_custom_vjp])
def test_calls_are_followed(wrap):
    wrapped = partial(quantised_network, wrap=wrap)
    assert_same_table(
        trace_topology(wrapped, PARAMS, IMAGE),
        trace_topology(quantised_network, PARAMS, IMAGE),
    )


def test_parameters_may_be_closed_over():
    params = jax.tree.map(lambda p: jnp.ones(p.shape), PARAMS)
    assert_same_table(
        trace_topology(partial(quantised_network, params), IMAGE),
        trace_topology(quantised_network, PARAMS, IMAGE),
    )


def test_arrays_and_their_shapes_have_the_same_table():
    params = jax.tree.map(lambda p: jnp.ones(p.shape), PARAMS)
    assert_same_table(
        trace_topology(quantised_network, params, jnp.ones(IMAGE.shape)),
        trace_topology(quantised_network, PARAMS, IMAGE),
    )


def plain_network(p, x):
    x = jnp.maximum(conv(x, p["first"]) + p["bias"][None, None, None], 0)
    x = conv(max_pool(x), p["second"], stride=2, padding="VALID")
    return jnp.tanh(x).reshape(1, -1) @ p["dense"] + p["logits"][None]


def test_network_without_any_site_counted_by_hand():
    params = dict(
        first=spec(3, 5, 2, 4),
        bias=spec(4),
        second=spec(2, 3, 4, 6),
        dense=spec(3 * 4 * 6, 10),
        logits=spec(10),
    )
    table = trace_topology(plain_network, params, spec(1, 12, 18, 2))
    image, first, second = 432 * 32, 864 * 32, 72 * 32
    assert_columns(
        table,
        in_height=[12, 6, 1],
        in_width=[18, 9, 1],
        in_channels=[2, 4, 72],
        out_height=[12, 3, 1],
        out_width=[18, 4, 1],
        out_channels=[4, 6, 10],
        kernel_height=[3, 2, 1],
        kernel_width=[5, 3, 1],
        stride_height=[1, 2, 1],
        stride_width=[1, 2, 1],
        groups=[1, 1, 1],
        weight_bits=[32] * 3,
        bias_bits=[32, 0, 32],
        input_bits=[32] * 3,
        output_bits=[32] * 3,
        stored=[0] * 3,
        rectified=[1, 0, 0],
        pools_after=[1, 0, 0],
        read_bits=[image, first, second],
        live_bits=[image + first, first + second, second],
    )


def test_words_without_sites_are_those_of_the_dtypes():
    def network(p, x):
        kernel = p["narrow"].astype(jnp.bfloat16)
        x = conv(x.astype(jnp.bfloat16) / 256, kernel)
        return conv(x, p["wide"].astype(jnp.bfloat16))

    params = dict(narrow=spec(1, 1, 3, 4, dtype=jnp.int4), wide=spec(1, 1, 4, 4))
    table = trace_topology(network, params, spec(1, 5, 5, 3, dtype=jnp.uint8))
    assert_columns(
        table,
        weight_bits=[4, 32],
        input_bits=[8, 16],
        output_bits=[16, 16],
        read_bits=[75 * 8, 100 * 16],
        live_bits=[75 * 8 + 100 * 16, 100 * 16],
    )


class Linen(nn.Module):
    """Two normalised convolutions, the second depthwise and strided, and a head."""

    @nn.compact
    def __call__(self, x):
        norm = partial(nn.BatchNorm, use_running_average=True)
        x = (x - jnp.full((3,), 0.5)[None, None, None]) / 0.25
        x = nn.relu(norm()(nn.Conv(8, (3, 3), use_bias=False)(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Conv(8, (3, 3), strides=2, feature_group_count=8, use_bias=False)(x)
        x = nn.relu(norm()(x))
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


def test_linen_modules_with_normalisation():
    model, image = Linen(), spec(1, 12, 12, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    table = trace_topology(model.apply, variables, image)
    assert_columns(
        table,
        in_height=[12, 6, 1],
        in_channels=[3, 8, 8],
        out_height=[12, 3, 1],
        out_channels=[8, 8, 10],
        kernel_height=[3, 3, 1],
        stride_height=[1, 2, 1],
        groups=[1, 8, 1],
        bias_bits=[32] * 3,
        rectified=[1, 1, 0],
        pools_after=[1, 0, 0],
        read_bits=[432 * 32, 1152 * 32, 72 * 32],
    )
    sizes = [p.size for p in jax.tree.leaves(variables["params"])]
    gains = 2 * 8  # folded into the kernels
    assert topology.parameters(table).sum() == sum(sizes) - gains


def resnet20(kernels, x):
    """He et al. (2016), option A: shortcuts are subsampled and padded with zeros."""
    kernels = iter(kernels)
    x = jax.nn.relu(conv(x, next(kernels)))
    for width in (16, 16, 16, 32, 32, 32, 64, 64, 64):
        stride = width // x.shape[-1]
        y = jax.nn.relu(conv(x, next(kernels), stride))
        more = width - x.shape[-1]
        x = jnp.pad(x[:, ::stride, ::stride], ((0, 0),) * 3 + ((0, more),))
        x = jax.nn.relu(conv(y, next(kernels)) + x)
    return jnp.mean(x, axis=(1, 2)) @ next(kernels)


def resnet20_kernels():
    widths = [3, *[16] * 7, *[32] * 6, *[64] * 6]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return [*(spec(3, 3, i, o) for i, o in pairs), spec(64, 10)]


def test_resnet20_has_its_published_size(shared):
    truth = json.loads(shared("truth/network_costs.json").read_text())
    truth = truth["ResNet20_CIFAR_optionA"]
    table = trace_topology(resnet20, resnet20_kernels(), spec(1, 32, 32, 3))
    assert topology.macs(table).sum() == truth["macs"] == 40_551_040
    normalised = table.out_channels[:-1].sum()
    others = 2 * normalised + 10
    assert topology.weights(table).sum() == truth["params_trainable"] - others


def test_resnet20_keeps_at_most_three_maps():
    table = trace_topology(resnet20, resnet20_kernels(), spec(1, 32, 32, 3))
    largest = 32 * 32 * 16 * 32
    assert table.live_bits.max() == 3 * largest
    # The second convolution of a block reads its own operand and the shortcut.
    assert (table.live_bits >= table.read_bits).all()
    assert (table.read_bits[2:7:2] == 2 * largest).all()
    assert (table.read_bits[1:7:2] == largest).all()

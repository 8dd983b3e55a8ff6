"""The rules by which maps and layers are told apart, each on a small network."""

from functools import partial

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

from jaxnas.tracing import trace_topology


def residual_network(p, x, keep=lambda x: x):
    h = keep(jnp.maximum(conv(x, p), 0))
    y = keep(jnp.maximum(conv(h, p), 0))
    h = keep(jnp.maximum(h + conv(y, p), 0))
    return conv(h, p)


def test_a_shortcut_is_kept_and_read_alike_with_and_without_sites():
    args = spec(1, 1, 2, 2), spec(1, 4, 4, 2)
    plain = trace_topology(residual_network, *args)
    in_words = partial(residual_network, keep=partial(store, bits=8))
    stored = trace_topology(lambda p, x: in_words(p, read_image(x)), *args)
    assert_columns(stored, read_bits=np.array([1, 1, 2, 1]) * 256)
    assert_columns(stored, live_bits=np.array([2, 2, 3, 1]) * 256)
    assert_columns(plain, read_bits=4 * stored.read_bits)
    assert_columns(plain, live_bits=4 * stored.live_bits)
    assert_columns(plain, rectified=[1, 1, 1, 0], stored=[0] * 4)


def test_results_summed_before_they_are_stored_share_one_map():
    def network(p, b, x):
        x = read_image(x)
        shortcut = conv(x, p)
        inner = store(conv(x, p), 4)
        total = inner + shortcut + conv(inner, p) + b[None, None, None]
        return conv(store(jax.nn.relu(total), 6), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(2), spec(1, 4, 4, 2))
    image, inner, total = 256, 128, 192
    assert_columns(
        table,
        stored=[1, 1, 1, 0],
        output_bits=[6, 4, 6, 32],
        bias_bits=[0, 0, 32, 0],
        rectified=[1, 0, 1, 0],
        read_bits=[image, image, inner, total],
        live_bits=[image + total, image + inner + total, inner + total, total],
    )


def test_a_concatenated_map_stays_alive_until_it_is_read():
    def network(p, x):
        first = store(conv(read_image(x), p["down"]))
        x = store(conv(store(conv(first, p["same"])), p["same"]))
        x = jnp.concatenate([first, x], axis=-1)
        return conv(x, p["both"])

    params = dict(down=spec(1, 1, 2, 3), same=spec(1, 1, 3, 3), both=spec(1, 1, 6, 1))
    table = trace_topology(network, params, spec(1, 4, 4, 2))
    image, inner = 32 * 8, 48 * 8
    assert_columns(
        table,
        read_bits=[image, inner, inner, 2 * inner],
        live_bits=[image + inner, 2 * inner, 3 * inner, 2 * inner],
    )


def test_a_returned_map_is_alive_to_the_end():
    def network(p, x):
        features = store(conv(read_image(x), p))
        x = store(conv(features, p))
        return features, conv(conv(x, p), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    word, raw = 256, 1024
    assert_columns(table, live_bits=[2 * word, 2 * word, 2 * word + raw, word + raw])


def test_a_map_stored_again_after_pooling_is_a_second_map():
    def network(p, x):
        x = store(jnp.sum(store(conv(read_image(x), p)), axis=(1, 2)), 16)
        return x @ p[0, 0]

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[256, 32], live_bits=[256 + 256 + 32, 32])
    assert_columns(table, output_bits=[8, 32], input_bits=[8, 16])


def test_a_map_made_of_maps_alone_is_written_with_the_newest():
    def network(p, x):
        x = read_image(x)
        left, right = store(conv(x, p)), store(conv(x, p))
        return store(jnp.sum(left + right, axis=(1, 2)), 16) @ p[0, 0]

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[256, 2 * 256, 32])
    assert_columns(table, live_bits=[256 + 256, 3 * 256 + 32, 32])


def test_a_result_joined_with_a_later_map_is_written_with_that():
    def network(p, x):
        x = read_image(x)
        early = conv(x, p)
        later = store(conv(x, p), 4)
        return conv(store(early + later, 6), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    image, later, total = 256, 128, 192
    assert_columns(
        table,
        read_bits=[image, image, total],
        live_bits=[image + total, image + later + total, total],
    )


def test_two_inputs_are_two_maps():
    def network(p, x, y):
        return conv(store(conv(read_image(x), p) + store(y, 4, "input")), p)

    table = trace_topology(network, spec(1, 1, 2, 2), *[spec(1, 4, 4, 2)] * 2)
    assert_columns(table, read_bits=[256 + 128, 256], live_bits=[256 + 128 + 256, 256])


def test_joined_results_without_a_site_are_one_map_of_the_joined_size():
    def network(p, x):
        x = jnp.concatenate([conv(x, p), conv(x, p)], axis=-1)
        return conv(x[..., :2], p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[1024, 1024, 2048])
    assert_columns(table, live_bits=[1024 + 2048, 1024 + 2048, 2048])


def test_the_largest_argument_behind_the_first_layer_is_the_image():
    def network(mean, deviation, p, x):
        x = (x - mean) / deviation
        return conv(conv(x, p) + x, p)

    channels = spec(1, 1, 1, 2)
    args = channels, channels, spec(1, 1, 2, 2), spec(1, 4, 4, 2)
    table = trace_topology(network, *args)
    assert_columns(table, read_bits=[1024, 1024], live_bits=[2048, 1024])


def test_an_image_that_is_closed_over_is_one_map():
    image = jnp.ones((1, 4, 4, 2), jnp.float16)

    def network(p):
        left, right = (store(conv(image.astype(jnp.float32), p)) for _ in range(2))
        return conv(left + right, jnp.ones((1, 1, 2, 3)))

    table = trace_topology(network, spec(1, 1, 2, 2))
    assert_columns(table, input_bits=[16, 16, 8], weight_bits=[32] * 3)
    assert_columns(table, live_bits=[512 + 256, 512 + 2 * 256, 2 * 256])


def test_a_result_that_nobody_reads_has_a_row_and_takes_no_memory():
    def network(p, x):
        conv(x, p)
        return conv(x, p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[1024] * 2, live_bits=[1024] * 2)


BIASES = {
    "per channel": (lambda b: b[None, None, None], (2,), 32),
    "for all channels": (lambda b: b, (), 0),
    "per element": (lambda b: b, (1, 4, 4, 2), 0),
    "constant": (lambda b: jnp.full((1, 1, 1, 2), 3.0), (2,), 0),
    "stored for all channels": (lambda b: store(b, 12, "bias"), (), 12),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_is_stored_as_one_or_added_per_channel(name):
    spread, shape, bits = BIASES[name]

    def network(p, b, x):
        return conv(x, p) + spread(b)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(*shape), spec(1, 4, 4, 2))
    assert_columns(table, bias_bits=[bits])


def test_gates_computed_from_a_map_scale_it():
    def network(p, x):
        x = conv(x, p)
        gate = jax.nn.sigmoid(jnp.mean(x, axis=(1, 2)) @ p[0, 0])
        return conv(x * gate[:, None, None], p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[1024, 1024, 1024])
    assert_columns(table, live_bits=[2048, 2048, 1024])


def separate_layers(kernels, biases, x):
    for kernel, offset in zip(kernels, biases, strict=True):
        y = conv(x, weight(kernel)) + offset[None, None, None]
        x = store(jax.nn.relu(y) + x)
    return conv(x, weight(kernels[0]))


def scanned_layers(kernels, biases, x):
    def layer(x, parameters):
        kernel, offset = parameters
        y = conv(x, weight(kernel)) + offset[None, None, None]
        return store(jax.nn.relu(y) + x), jnp.max(x)

    x, _ = lax.scan(jax.checkpoint(layer), x, (kernels, biases))
    return conv(x, weight(kernels[0]))


def test_a_scan_is_the_loop_that_it_stands_for():
    args = spec(3, 3, 3, 2, 2), spec(3, 2), spec(1, 6, 6, 2)
    looped = trace_topology(separate_layers, *args)
    assert looped.mask.size == 4
    assert_columns(looped, bias_bits=[32, 32, 32, 0])
    assert_same_table(trace_topology(scanned_layers, *args), looped)


def test_a_scanned_vector_is_a_bias_of_each_layer():
    def network(kernels, biases, x):
        def layer(x, parameters):
            return x @ parameters[0] + parameters[1], None

        return lax.scan(layer, x, (kernels, biases))[0]

    table = trace_topology(network, spec(3, 2, 2), spec(3, 2), spec(2))
    assert_columns(table, bias_bits=[32] * 3)


def test_stacked_results_of_a_scan_are_what_was_computed_in_it():
    def network(p, x):
        def layer(x, _):
            x = store(conv(x, p))
            return x, (x, jax.nn.relu(conv(x, p)))

        _, (maps, raw) = lax.scan(layer, x, None, length=2)
        return conv(jnp.sum(maps, axis=0), p) + conv(jnp.sum(raw, axis=0), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, read_bits=[1024, 256, 256, 256, 2 * 256, 2 * 1024])
    assert_columns(table, rectified=[0, 1, 0, 1, 0, 0])


RECTIFIERS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum of zeros": lambda x: jnp.maximum(jnp.zeros_like(x), x),
    "clip": lambda x: jnp.clip(x, 0, 3),
    "clamp": lambda x: lax.clamp(0.0, x, 3.0),
}
OTHERS = {
    "nothing": lambda x: x,
    "leaky": jax.nn.leaky_relu,
    "tanh": jnp.tanh,
    "maximum of ones": lambda x: jnp.maximum(x, 1),
    "clip below zero": lambda x: jnp.clip(x, -1, 1),
    "minimum": lambda x: jnp.minimum(x, 0),
    "rectified statistic": lambda x: x / (1 + jnp.maximum(jnp.mean(x**2), 0)),
}


@pytest.mark.parametrize("name", [*RECTIFIERS, *OTHERS])
def test_rectified_is_a_maximum_with_zero_before_the_store(name):
    activate = (RECTIFIERS | OTHERS)[name]

    def network(p, x):
        before = store(activate(conv(x, p)))
        after = activate(store(conv(before, p)))
        return conv(after, p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, rectified=[name in RECTIFIERS, 0, 0])


def test_pools_are_counted_along_the_longest_path():
    def network(p, x):
        x = store(conv(read_image(x), p))
        short = max_pool(x, side=4)
        long = store(conv(max_pool(x), p))
        mean = lax.reduce_window(
            long, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
        x = store(mean + conv(max_pool(max_pool(long), side=1), p))
        return conv(max_pool(x + short), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 8, 8, 2))
    assert_columns(table, pools_after=[3, 2, 1, 0])


@pytest.mark.parametrize("keep", [store, lambda x: x])
def test_pools_around_a_join_are_counted_on_each_path(keep):
    def network(p, x):
        first = keep(conv(x, p))
        side = keep(conv(max_pool(first), p))
        joined = max_pool(conv(side, p, stride=2)) + max_pool(max_pool(side))
        return conv(keep(max_pool(joined + first[:, ::8, ::8])), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 16, 16, 2))
    before_store = 0 if keep is store else 2
    assert_columns(table, pools_after=[4, 3, before_store, 0])


def test_pools_before_a_join_are_not_on_the_other_path():
    def network(p, x):
        small = store(conv(max_pool(x), p))
        return conv(store(max_pool(conv(x, p)) + small), p)

    table = trace_topology(network, spec(1, 1, 2, 2), spec(1, 4, 4, 2))
    assert_columns(table, pools_after=[0, 0, 0])


@pytest.mark.parametrize(
    "product",
    [
        lambda w, x: weight(w) @ x,
        lambda w, x: w @ read_image(x),
        lambda w, x: read_image(x) @ w.T,
        lambda w, x: x @ w.T,
    ],
)
def test_the_kernel_of_a_product_is_the_factor_that_is_no_map(product):
    table = trace_topology(product, spec(4, 6), spec(6))
    assert_columns(table, in_channels=6, out_channels=4, out_height=1, out_width=1)


def looped(p, x):
    return lax.while_loop(lambda x: x.sum() > 1, lambda x: conv(x, p), x)


def branched(p, x):
    return lax.cond(x.sum() > 0, lambda x: store(x), lambda x: x, conv(x, p))


FAULTY = {
    "no layer": (lambda p, x: x + p.sum(), (1, 4, 4, 2), "no convolution and no dense"),
    "a loop": (looped, (1, 4, 4, 2), "inside `while`.*lax.scan"),
    "a branch": (branched, (1, 4, 4, 2), "inside `cond`.*lax.scan"),
    "a batch": (conv, (3, 4, 4, 2), "batch of 3.*single image"),
    "a huge map": (conv, (1, 2**13, 2**13, 2), "column read_bits.*less than 2.*31"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_functions_that_have_no_table_are_refused(name):
    fun, image, message = FAULTY[name]
    args = (spec(1, 1, 2, 2), spec(*image))
    args = args[::-1] if fun is conv else args
    with pytest.raises(ValueError, match=message):
        trace_topology(fun, *args)

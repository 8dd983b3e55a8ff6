"""Words inside shard_map: every transform rebuilds it, on one device and on two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import sites
from jaxnas.numerics import (
    FixedPoint,
    Rule,
    calibrate,
    quantize,
    quantize_model,
    stored_words,
    with_words,
)

INT8 = FixedPoint(bits=8)
MESH = jax.sharding.Mesh(np.asarray(jax.devices()), ("d",))
ROWS, WHOLE = jax.sharding.PartitionSpec("d"), jax.sharding.PartitionSpec()
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.normal(0, 0.5, (4, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(0, 0.5, (2 * MESH.size, 4)), jnp.float32)


def layer(w, x):
    return jax.nn.relu(x @ w["kernel"]) @ w["kernel"]


def split(fun, check_vma=True):
    """The same function with its rows parted over the devices."""
    specs = {"in_specs": (WHOLE, ROWS), "out_specs": ROWS}
    return jax.shard_map(fun, mesh=MESH, check_vma=check_vma, **specs)


@pytest.mark.parametrize("check_vma", [True, False])
def test_parameters_are_stored_before_they_are_parted(check_vma):
    """Under their names, once for all devices; what is computed inside, inside."""
    rule, w = Rule(weight=INT8, weight_axis=-1), {"kernel": W}
    quantized = quantize_model(split(layer, check_vma), rule)
    assert [s.name for s in sites(quantized, w, X)] == ["kernel"]
    expected = jax.jit(quantize_model(layer, rule))(w, X)
    np.testing.assert_array_equal(jax.jit(quantized)(w, X), expected)

    words = stored_words(quantized, w, X)
    loaded = with_words(quantized, words)
    empty = {"kernel": jnp.zeros_like(W)}
    np.testing.assert_array_equal(jax.jit(loaded)(empty, X), expected)

    def slope(fun):
        return jax.jit(jax.grad(lambda w: (fun(w, X) ** 2).sum()))(w)["kernel"]

    plain = slope(quantize_model(layer, rule))
    np.testing.assert_allclose(slope(quantized), plain, rtol=1e-5)


def test_activations_inside_are_stored_by_every_device_for_its_own_part():
    rule, w = Rule(weight=INT8, activation=INT8), {"kernel": W}
    quantized = quantize_model(split(layer), rule)
    found = [(s.name, s.stored, s.shape) for s in sites(quantized, w, X)]
    assert found == [
        ("kernel", "weight", (4, 4)),
        ("kernel/input", "input", X.shape),
        ("kernel/input_1", "activation", (2, 4)),
    ]
    rows = [quantize_model(layer, rule)(w, x) for x in jnp.split(X, MESH.size)]
    if MESH.size == 1:  # else the scale of the input is that of all rows
        np.testing.assert_array_equal(quantized(w, X), jnp.concatenate(rows))


def test_what_differs_between_devices_is_neither_loaded_nor_observed():
    fun = split(lambda w, x: quantize(x @ w, 0.1, INT8, site="y"))
    tensor = stored_words(
        lambda x: quantize(x, 0.1, INT8, site="y"), X, stored=("activation",)
    )
    with pytest.raises(ValueError, match=r"'y'.*every device along \('d',\)"):
        with_words(fun, tensor)(W, X)
    with pytest.raises(ValueError, match="outside of shard_map"):
        calibrate(fun, [(W, X)])

"""Words inside shard_map: every transform rebuilds it, on one device and on two."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import (
    Fault,
    NetworkModel,
    bit_flips,
    fixed_flips,
    inject,
    multiplicative_noise,
    sites,
    strikes,
)
from jaxnas.numerics import (
    FixedPoint,
    Rule,
    calibrate,
    quantize,
    quantize_model,
    stored_words,
    with_words,
)

KEY = jax.random.key(0)
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


def faulty_layer(w, x):
    w = quantize(w["kernel"], 1 / 64, INT8, stored="weight", site="w")
    inside = quantize(x, 1 / 64, INT8, site="x")
    return w, quantize(inside @ w, 1 / 16, INT8, site="y")


def parted(check_vma=True):
    specs = {"in_specs": (WHOLE, ROWS), "out_specs": (WHOLE, ROWS)}
    return jax.shard_map(faulty_layer, mesh=MESH, check_vma=check_vma, **specs)


def test_every_device_strikes_its_own_part_and_all_the_same_shared_word():
    fault = Fault(bit_flips(0.05))
    w, y = jax.jit(inject(parted(), fault))(KEY, {"kernel": W}, X)
    found = strikes(parted(), fault)(KEY, {"kernel": W}, X)
    expected = np.array(INT8.encode(W, 1 / 64)).ravel()
    for s in found:
        if s.site == "w":
            assert expected[s.word] == s.before
            expected[s.word] = s.after
    expected = INT8.decode(expected.reshape(4, 4), 1 / 64)
    np.testing.assert_array_equal(w, expected)

    rows = jnp.split(X, MESH.size)
    for device, (x, own) in enumerate(zip(rows, jnp.split(y, MESH.size), strict=True)):
        words = [INT8.encode(x, 1 / 64)]
        for number, name in ((1, "x"), (2, "y")):
            key = jax.random.fold_in(jax.random.fold_in(KEY, device), number)
            flips = fault.model.sample(key, x.shape, INT8)
            struck = fault.model.apply(flips, words[-1])
            mine = [s for s in found if s.site == name and s.word // x.size == device]
            assert {s.word % x.size for s in mine} == set(
                np.flatnonzero(np.asarray(struck != words[-1]).ravel())
            )
            scale = 1 / 64 if name == "x" else 1 / 16
            read = INT8.decode(struck, scale)
            words.append(INT8.encode(read @ w, 1 / 16))
        np.testing.assert_array_equal(own, read)


@pytest.mark.parametrize("check_vma", [True, False])
def test_network_faults_count_the_parts_of_all_devices(check_vma):
    copies = 1 if check_vma else MESH.size  # of the shared word
    totals = []

    def sample(key, total_bits):
        totals.append(total_bits)
        return jnp.asarray([last], jnp.uint32)

    last = 8 * (16 * copies + X.size) - 1  # the highest bit of the last word of x
    fault = Fault(NetworkModel(sample))
    (s, *rest) = strikes(parted(check_vma), fault)(KEY, {"kernel": W}, X)
    assert totals == [8 * (16 * copies + 2 * X.size)]
    assert (s.site, s.word, s.before ^ s.after) == ("x", X.size - 1, 128)
    # A sum that it enters is stored as another word than without it: no strike.
    assert not rest


def test_accumulators_and_values_are_struck_on_every_device():
    faults = (
        Fault(multiplicative_noise(0.5), site="x"),
        Fault(fixed_flips(2), ("accumulator",)),
    )
    found = strikes(parted(), *faults)(KEY, {"kernel": W}, X)
    assert {s.site for s in found} == {"x", "dot_0"}
    flipped = [s.word // 8 for s in found if s.site == "dot_0"]
    assert set(flipped) == set(range(MESH.size))


def test_gradients_pass_faults_inside():
    def loss(fun, w):
        return (fun(w, X)[1] ** 2).sum()

    w = {"kernel": W}
    faulty = lambda w, x: inject(parted(), Fault(bit_flips(0.0)))(KEY, w, x)  # noqa: E731
    slope = jax.jit(jax.grad(lambda w: loss(faulty, w)))(w)["kernel"]
    expected = jax.jit(jax.grad(lambda w: loss(parted(), w)))(w)["kernel"]
    np.testing.assert_array_equal(slope, expected)


def test_all_of_this_holds_on_two_devices():
    here = Path(__file__)
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    files = [str(here), str(here.with_name("test_rewriting.py"))]
    # Never this test itself, which would start itself without end.
    chosen = "own_part or parts_of or before_they_are_parted or no_mesh or is_no_call"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-k", chosen, *files],
        env=environment,
        cwd=here.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "8 passed" in done.stdout

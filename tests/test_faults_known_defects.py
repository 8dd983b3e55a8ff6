"""Faults that other tools get wrong: laws that their published code breaks.

Each test names the tool and what its code does, as read in its repository.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import (
    Fault,
    FaultModel,
    bit_flips,
    corrupt,
    fixed_flips,
    given_flips,
    inject,
    network_flips,
    strikes,
)
from jaxnas.numerics import IEEE, FixedPoint, all_words, flip, quantize

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
BYTE = FixedPoint(bits=8)


def read(x, site="x", format=None, scale=1.0, stored="weight"):
    return quantize(x, scale, format or IEEE(), stored=stored, site=site)


@jax.jit
def flipped(x, position):
    """x as read from float32 words of which one bit is flipped."""
    return inject(read, Fault(given_flips(position[None])))(KEY, x)


def float_words(x):
    return np.asarray(x, np.float32).view(np.uint32)


def test_goldeneye_clamps_what_overflows_here_it_stays():
    """Its injector limits every flipped value to the largest of the layer, always."""
    x = jnp.asarray([1.5, 1.0, -2.5, 0.7], jnp.float32)
    assert jnp.isnan(flipped(x, jnp.uint32(30))[0])  # 1.5: exponent all ones
    assert jnp.isposinf(flipped(x, jnp.uint32(32 + 30))[1])
    huge = flipped(x, jnp.uint32(96 + 30))[3]
    assert huge == np.float32(0.7) * np.float32(2.0) ** 127 * 2

    def layer(x, w):
        return x @ read(w[:, None])

    faulty = inject(layer, Fault(given_flips([32 + 30])))
    assert jnp.isposinf(faulty(KEY, jnp.ones((2, 4)), x)).all()
    assert jnp.isnan(faulty(KEY, jnp.asarray([[1.0, 0, 0, 0]]), x)).all()  # 0 * inf


@pytest.mark.parametrize("code", ["twos_complement", "sign_magnitude"])
def test_goldeneye_truncates_signs_and_magnitudes_here_the_code_decides(code):
    """Its faults act on sign and magnitude, cut off; its networks round otherwise."""
    format, scale = FixedPoint(bits=6, code=code), 0.25
    values = format.decode(all_words(6), scale)
    fault = FaultModel(lambda *_: (), lambda _, words: flip(words, 5))
    found = inject(read, Fault(fault))(KEY, values, "x", format, scale)
    expected = -values if code == "sign_magnitude" else values - jnp.where(
        values < 0, -32 * scale, 32 * scale
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected)
    # The words that faults meet are those that the network computes with.
    x = jnp.asarray(RNG.normal(0, 3, 200), jnp.float32)
    twice = inject(read, *[Fault(fault)] * 2)(KEY, x, "x", format, scale)
    np.testing.assert_array_equal(twice, format.quantize(x, scale))


def test_tensorfi_flips_decimal_strings_here_every_bit_is_that_of_ieee():
    """It writes values as fixed point with 10 fraction bits, whatever their size."""
    x = np.float32([1e-30, -3e30, 0.1, -1.0, 5e-42, 0.0])
    for word in range(x.size):
        for bit in range(32):
            found = flipped(jnp.asarray(x), jnp.uint32(32 * word + bit))
            expected = float_words(x)
            expected[word] ^= np.uint32(1 << bit)
            np.testing.assert_array_equal(float_words(found), expected)


def tree():
    sizes = {"a": (40, 30), "b": (30,), "c": (30, 20), "d": (7,)}
    return {
        name: jnp.asarray(RNG.normal(size=size), jnp.float32)
        for name, size in sizes.items()
    }


def flips_of(before, after):
    return {
        name: int(np.bitwise_count(float_words(before[name]) ^ float_words(leaf)).sum())
        for name, leaf in after.items()
    }


def test_tensorfi2_skips_the_last_variable_here_all_are_struck():
    """Its loop over variables ends one too early."""
    params = tree()
    everything = flips_of(params, corrupt(KEY, params, bit_flips(1.0)))
    assert everything == {name: 32 * leaf.size for name, leaf in params.items()}
    one = corrupt(KEY, params, fixed_flips(1))
    assert flips_of(params, one) == dict.fromkeys(params, 1)


def test_tensorfi2_compounds_from_layer_to_layer_here_each_draws_alone():
    """Its number of faults is multiplied by every layer that came before."""
    params = tree()
    together = corrupt(KEY, params, bit_flips(0.05))
    for name in params:
        alone = corrupt(KEY, params, bit_flips(0.05), site=name)
        np.testing.assert_array_equal(
            float_words(alone[name]), float_words(together[name])
        )
    for name, flips in flips_of(params, together).items():
        mean = 0.05 * 32 * params[name].size
        assert abs(flips - mean) < 5 * np.sqrt(mean)


def test_tensorfi2_leaves_its_faults_in_the_model_here_nothing_is_changed():
    """It writes into the model and never restores it."""

    def fun(params, x):
        return x @ read(params["c"], "c")

    params, x = tree(), jnp.ones((2, 30))
    before = {name: np.array(leaf) for name, leaf in params.items()}
    clean = fun(params, x)
    faulty = inject(fun, Fault(fixed_flips(50)))
    first, second = faulty(KEY, params, x), faulty(KEY, params, x)
    corrupt(KEY, params, fixed_flips(50))
    np.testing.assert_array_equal(first, second)
    assert (first != clean).any()
    for name, leaf in params.items():
        np.testing.assert_array_equal(float_words(leaf), float_words(before[name]))
    np.testing.assert_array_equal(fun(params, x), clean)


def test_ares_writes_to_the_first_words_here_to_those_drawn():
    """It shuffles addresses, and then faults words 0 to n - 1."""
    size, count = 1000, 60
    words = sorted(RNG.choice(size, count, replace=False).tolist())
    model = given_flips([32 * word + 31 for word in words])
    found = corrupt(KEY, {"w": jnp.ones(size)}, model)["w"]
    assert np.flatnonzero(found != 1).tolist() == words
    fault = Fault(model)
    listed = strikes(read, fault)(KEY, jnp.ones(size))
    assert [s.word for s in listed] == words
    drawn = corrupt(KEY, {"w": jnp.ones(size)}, fixed_flips(count))["w"]
    struck = np.flatnonzero(np.asarray(drawn) != 1)
    # A mean of 59 or more uniform numbers, five deviations wide.
    assert abs(struck.mean() / size - 0.5) < 5 / np.sqrt(12 * (count - 1))


def test_pytorchfi_copies_the_model_here_what_is_not_struck_is_shared():
    """It makes a deep copy of the model for every fault that is declared."""
    params = tree()
    found = corrupt(KEY, params, fixed_flips(1), site="b")
    assert all(found[name] is params[name] for name in "acd")

    def fun(params):
        return params["a"].sum() + read(params["b"], "b").sum()

    faulty = jax.make_jaxpr(inject(fun, Fault(fixed_flips(1))))(KEY, params)
    assert not [a for a in faulty.consts if np.size(a) >= params["b"].size]


@pytest.mark.parametrize(
    "call",
    [
        lambda: inject(read, Fault(bit_flips(0.1), site="y"))(KEY, jnp.ones(2)),
        lambda: inject(read, Fault(bit_flips(0.1), ("bias",)))(KEY, jnp.ones(2)),
        lambda: inject(read, Fault(bit_flips(0.1), layers=(1,)))(KEY, jnp.ones(2)),
        lambda: inject(read, Fault(network_flips(65)))(KEY, jnp.ones(2)),
        lambda: inject(read, Fault(given_flips([64])))(KEY, jnp.ones(2)),
        lambda: corrupt(KEY, {"w": jnp.ones(2)}, fixed_flips(65)),
        lambda: corrupt(KEY, {"w": jnp.ones(2)}, fixed_flips(1), site="v"),
        lambda: inspect.unwrap(inject)(read, bit_flips(0.1)),
    ],
)
def test_pytorchfi_fails_while_it_reports_here_errors_say_what_is_wrong(call):
    """The message of its assertion on the batch raises an error of its own."""
    with pytest.raises(ValueError, match=r"\w+.*(;|:) .*\w+"):
        call()


def test_pytorchfi_strikes_weights_or_neurons_here_both_in_one_run():
    """Issue 56; and weights of one dimension, issue 85."""

    def fun(w, b, x):
        b = read(b, "b", BYTE, 1 / 16, "bias")
        return read(x @ read(w, "w", BYTE, 1 / 16) + b[None], "y", stored="activation")

    w, b, x = jnp.ones((3, 2)), jnp.zeros(2), jnp.ones((4, 3))
    kinds = "weight", "bias", "activation"
    faults = [Fault(given_flips([0]), (stored,)) for stored in kinds]
    listed = strikes(fun, *faults)(KEY, w, b, x)
    assert [(s.site, s.word) for s in listed] == [("b", 0), ("w", 0), ("y", 0)]


def test_one_flip_in_a_linear_layer_is_x_times_the_change_of_the_weight():
    """Every bit of every word: the closed form, exact in powers of two."""
    step, x = 2.0**-5, jnp.asarray(RNG.integers(-8, 8, (5, 3)) / 4, jnp.float32)
    w = jnp.asarray(RNG.integers(-128, 128, (3, 4)) * step, jnp.float32)

    def layer(w, x):
        return x @ read(w, "w", BYTE, step)

    @jax.jit
    def exhaustive(positions):
        def one(position):
            fault = Fault(given_flips(position[None]))
            return inject(layer, fault)(KEY, w, x) - layer(w, x)

        return jax.lax.map(one, positions)

    found = exhaustive(jnp.arange(w.size * 8, dtype=jnp.uint32))
    codes = np.asarray(w / step, np.int64).ravel()
    for n, difference in enumerate(np.asarray(found)):
        word, bit = divmod(n, 8)
        row, column = divmod(word, 4)
        up = not codes[word] >> bit & 1
        change = (1 if up else -1) * (-1 if bit == 7 else 1) * 2**bit * step
        expected = np.zeros((5, 4), np.float32)
        expected[:, column] = np.asarray(x)[:, row] * change
        np.testing.assert_array_equal(difference, expected)

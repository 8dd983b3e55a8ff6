"""Words in place of parameters compute the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, digits, genotypes, random_weights

from jaxnas.networks.materialize import materialize
from jaxnas.numerics.deployment import StoredTensor, stored_words, with_words
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.integers import integer
from jaxnas.numerics.primitives import quantize
from jaxnas.numerics.words import flip

BYTE = FixedPoint(bits=8)
X = jnp.linspace(-1, 1, 12).reshape(3, 4)
KERNEL = jnp.linspace(-2, 2, 8).reshape(4, 2)


def dense(kernel, x):
    x = quantize(x, 1 / 64, BYTE, stored="input", site="x")
    read = quantize(kernel, 1 / 32, BYTE, stored="weight", site="dense/kernel")
    return jax.nn.relu(x @ read)


def test_words_are_those_of_the_sites_in_calls_too():
    words = stored_words(jax.jit(dense), KERNEL, X)
    assert list(words) == ["dense/kernel"]
    tensor = words["dense/kernel"]
    assert tensor.format == BYTE and tensor.stored == "weight"
    np.testing.assert_array_equal(tensor.words, BYTE.encode(KERNEL, 1 / 32))
    assert tensor.scale == 1 / 32
    assert set(stored_words(dense, KERNEL, X, stored=("input",))) == {"x"}


@pytest.mark.parametrize("scheme", ["fixed_point", "logarithmic"])
def test_a_network_is_computed_from_its_words_alone(scheme):
    weights = jax.tree.map(np.asarray, random_weights())
    module, variables = materialize(SPACE, genotypes(3)[2], *weights, scheme=scheme)
    variables = jax.tree.map(jnp.asarray, variables)
    expected = jax.jit(module.apply)(variables, digits())
    words = stored_words(module.apply, variables, digits())
    loaded = with_words(module.apply, words)
    empty = jax.tree.map(jnp.zeros_like, variables)
    found = jax.jit(loaded)(empty, digits())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if scheme == "fixed_point":
        np.testing.assert_array_equal(found, expected)
        computed = jax.jit(integer(loaded))
        np.testing.assert_array_equal(computed(empty, digits()), expected)


def test_loaded_words_may_differ_and_keep_their_place():
    words = stored_words(dense, KERNEL, X)
    tensor = words["dense/kernel"]
    flipped = flip(tensor.words, 6)
    loaded = with_words(dense, {"dense/kernel": tensor._replace(words=flipped)})
    expected = dense(BYTE.decode(flipped, 1 / 32), X)
    np.testing.assert_array_equal(loaded(KERNEL, X), expected)
    assert (np.asarray(expected) != np.asarray(dense(KERNEL, X))).any()
    again = stored_words(loaded, KERNEL, X)
    np.testing.assert_array_equal(again["dense/kernel"].words, flipped)


def test_loops_and_branches_read_the_same_words_in_every_round():
    def looped(kernel, x):
        def step(x, _):
            return dense(kernel, x)[:, :1] * jnp.ones((1, 4)), None

        return jax.lax.scan(step, x, None, length=3)[0]

    words = stored_words(dense, KERNEL, X)
    found = with_words(looped, words)(jnp.zeros_like(KERNEL), X)
    np.testing.assert_array_equal(found, looped(KERNEL, X))
    with pytest.raises(ValueError, match="inside a 'scan' equation.*unrolled"):
        stored_words(looped, KERNEL, X)


def test_derivatives_with_respect_to_the_input_stay():
    loaded = with_words(dense, stored_words(dense, KERNEL, X))
    found, expected = (
        jax.grad(lambda x, f=f: f(KERNEL, x).sum())(X) for f in (loaded, dense)
    )
    np.testing.assert_array_equal(found, expected)


def named(*names):
    def fun(x):
        return sum(quantize(x, 1.0, BYTE, stored="weight", site=name) for name in names)

    return fun


def test_names_must_tell_sites_apart():
    with pytest.raises(ValueError, match="two sites are named 'a'"):
        stored_words(named("a", "b", "a"), X)
    with pytest.raises(ValueError, match="a site has no name"):
        stored_words(named("a", ""), X)


def test_words_of_another_function_are_refused():
    tensor = stored_words(dense, KERNEL, X)["dense/kernel"]
    cases = {
        r"no site is named \['other'\]": {"other": tensor},
        r"shape \(2, 4\), but it stores": {
            "dense/kernel": tensor._replace(words=tensor.words.T)
        },
        "bits=7": {
            "dense/kernel": StoredTensor(
                tensor.words, 1.0, FixedPoint(bits=7), "weight"
            )
        },
    }
    for message, words in cases.items():
        with pytest.raises(ValueError, match=message):
            with_words(dense, words)(KERNEL, X)

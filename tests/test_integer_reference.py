"""The reference of integer arithmetic: that it reads the words it is given."""

import fractions
import functools

import integer_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, digits, genotypes, random_weights

from jaxnas.networks.materialize import materialize


@functools.cache
def network():
    weights = jax.tree.map(np.asarray, random_weights())
    module, variables = materialize(SPACE, genotypes(1, seed=8)[0], *weights)
    return module, variables


def test_every_logit_depends_on_the_words():
    """One step more in one kernel word: integers and simulation move together."""
    module, variables = network()
    variables = jax.tree.map(jnp.asarray, variables)
    kernel = variables["params"]["head"]["kernel"]
    arrays = jax.tree.map(np.asarray, variables)
    before = reference.logits(module.spec, arrays, np.asarray(digits()))
    step = 2.0 ** (
        reference.ceil_log2(np.abs(kernel).max(0)) - (module.spec.head_weight_bits - 1)
    )
    row = np.unravel_index(np.abs(kernel).argmin(), kernel.shape)
    changed = kernel.at[row].add(step[row[1]])
    variables["params"]["head"]["kernel"] = changed
    arrays["params"]["head"]["kernel"] = np.asarray(changed)
    after = reference.logits(module.spec, arrays, np.asarray(digits()))
    assert (before.words[:, row[1]] != after.words[:, row[1]]).any()
    simulated = np.float64(module.apply(variables, digits()))
    exact = np.ldexp(np.float64(after.words), after.exponent)
    np.testing.assert_array_equal(simulated, exact)


@pytest.mark.parametrize("left", range(-6, 4))
def test_shifts_round_half_to_even(left):
    words = np.arange(-200, 200)
    expected = [round(int(word) * fractions.Fraction(2) ** left) for word in words]
    np.testing.assert_array_equal(reference.shift(words, left), expected)


def test_exponents_are_those_of_the_next_power_of_two():
    peaks = np.array([1, 1.5, 2, 2.0001, 4, 0.5, 0.3, 0.25, 0, 1e-9])
    expected = [0, 1, 1, 2, 2, -1, -1, -2, -20, -20]
    np.testing.assert_array_equal(reference.ceil_log2(peaks), expected)


def test_sums_beyond_32_bits_are_refused():
    module, variables = network()
    arrays = jax.tree.map(np.asarray, variables)
    # A bias of 2**15 beside a kernel of 2**-20: shifted by more than 16 bits.
    arrays["params"]["stem"]["kernel"] = arrays["params"]["stem"]["kernel"] * 2.0**-40
    arrays["params"]["stem"]["offset"] = np.full_like(
        arrays["params"]["stem"]["offset"], 2.0**15
    )
    with pytest.raises(OverflowError, match="leaves 32 bits"):
        reference.logits(module.spec, arrays, np.asarray(digits()))

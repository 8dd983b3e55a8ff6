"""With fixed-point words, simulated networks are integer arithmetic bit for bit."""

import fractions

import integer_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, digits, genotypes, random_weights

from jaxnas.networks.materialize import materialize


def networks(count, seed):
    """Random networks with the weights of another draw each."""
    for index, genotype in enumerate(genotypes(count, seed=seed)):
        weights = jax.tree.map(np.asarray, random_weights(index % 4))
        module, variables = materialize(SPACE, genotype, *weights)
        yield module, jax.tree.map(jnp.asarray, variables)


def test_simulated_logits_are_those_of_integer_arithmetic():
    seen, largest, different = set(), 0, set()
    for module, variables in networks(24, seed=7):
        simulated = np.asarray(module.apply(variables, digits()))
        sums = []
        integers = reference.logits(
            module.spec,
            jax.tree.map(np.asarray, variables),
            np.asarray(digits()),
            sums,
        )
        exact = np.ldexp(np.float64(integers.words), integers.exponent)
        np.testing.assert_array_equal(np.float64(simulated), exact)
        largest = max(largest, *(np.abs(total).max() for total in sums))
        different.add(tuple(simulated.ravel()))
        for block in (block for stage in module.spec.stages for block in stage):
            seen.add((block.operation, block.residual))
            seen.add((block.words.weight, block.words.activation))
    # Accumulators below 2**24 are what exact float32 sums ask for; they are long too.
    assert 2**16 < largest < 2**24
    assert len(different) > 20
    operations = ("convolution", "separable", "inverted")
    words = {(weight, activation) for weight in (4, 8) for activation in (4, 8)}
    assert seen == words | {(one, skip) for one in operations for skip in (True, False)}


def test_every_logit_depends_on_the_words():
    """One step more in one kernel word: integers and simulation move together."""
    module, variables = next(networks(1, seed=8))
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
    module, variables = next(networks(1, seed=8))
    arrays = jax.tree.map(np.asarray, variables)
    # A bias of 2**15 beside a kernel of 2**-20: shifted by more than 16 bits.
    arrays["params"]["stem"]["kernel"] = arrays["params"]["stem"]["kernel"] * 2.0**-40
    arrays["params"]["stem"]["offset"] = np.full_like(
        arrays["params"]["stem"]["offset"], 2.0**15
    )
    with pytest.raises(OverflowError, match="leaves 32 bits"):
        reference.logits(module.spec, arrays, np.asarray(digits()))

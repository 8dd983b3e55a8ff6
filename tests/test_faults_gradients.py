"""Faults in training: each step has its own, and a run that resumes has the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.faults.corruption import corrupt
from jaxnas.faults.gradients import faulty_state, faulty_updates
from jaxnas.faults.models import FaultModel, bit_flips
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
# The cheapest of models to compile: one random mask for all words of a leaf.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint32) >> 9,
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)
PARAMS = {"bias": jnp.ones(3), "kernel": jnp.linspace(-1, 1, 12).reshape(3, 4)}
GRADIENTS = jax.tree.map(lambda leaf: leaf * 0.5 + 0.25, PARAMS)


def assert_trees(found, expected, equal=True):
    same = jax.tree.map(lambda a, b: bool((a == b).all()), found, expected)
    assert all(jax.tree.leaves(same)) == equal


def test_steps_corrupt_updates_with_keys_of_their_own():
    transform = faulty_updates(SCRAMBLE, KEY, site="kernel")
    state, seen = transform.init(PARAMS), []
    for step in range(3):
        updates, state = transform.update(GRADIENTS, state)
        fresh = jax.random.fold_in(KEY, step)
        assert_trees(updates, corrupt(fresh, GRADIENTS, SCRAMBLE, site="kernel"))
        np.testing.assert_array_equal(updates["bias"], GRADIENTS["bias"])
        seen.append(updates)
    assert int(state.count) == 3
    assert_trees(seen[0], seen[1], equal=False)


def test_scanned_steps_in_a_chain_are_a_loop_by_hand():
    optimiser = optax.chain(faulty_updates(SCRAMBLE, KEY), optax.sgd(0.1))

    def step(state, _):
        updates, state = optimiser.update(GRADIENTS, state)
        return state, updates

    _, scanned = jax.lax.scan(step, optimiser.init(PARAMS), length=2)
    for number in range(2):
        faulted = corrupt(jax.random.fold_in(KEY, number), GRADIENTS, SCRAMBLE)
        expected = jax.tree.map(lambda leaf: -0.1 * leaf, faulted)
        found = jax.tree.map(lambda leaf, number=number: leaf[number], scanned)
        jax.tree.map(np.testing.assert_allclose, found, expected)


def test_faults_stay_in_the_state_of_the_optimiser():
    inner = optax.trace(decay=0.5)
    transform = faulty_state(inner, SCRAMBLE, KEY, site="*kernel")
    state, expected = transform.init(PARAMS), inner.init(PARAMS)
    for step in range(3):
        updates, state = transform.update(GRADIENTS, state, PARAMS)
        fresh = jax.random.fold_in(KEY, step)
        expected = corrupt(fresh, expected, SCRAMBLE, site="*kernel")
        by_hand, expected = inner.update(GRADIENTS, expected)
        assert_trees(updates, by_hand)
        assert_trees(state.inner, expected)


def test_without_faults_training_is_what_it_was():
    plain = optax.adam(0.1)
    chained = optax.chain(
        faulty_updates(bit_flips(0.0), KEY), faulty_state(plain, bit_flips(0.0), KEY)
    )
    expected, _ = plain.update(GRADIENTS, plain.init(PARAMS), PARAMS)
    found, _ = chained.update(GRADIENTS, chained.init(PARAMS), PARAMS)
    assert_trees(found, expected)


def test_updates_may_be_stored_in_a_format():
    transform = faulty_updates(bit_flips(0.0), KEY, format=FixedPoint(bits=4))
    found, _ = transform.update(GRADIENTS, transform.init(PARAMS))
    assert len(np.unique(found["kernel"])) < 12


def test_a_site_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="kernel"):
        transform = faulty_updates(bit_flips(0.1), KEY, site="weight")
        transform.update(GRADIENTS, transform.init(PARAMS))

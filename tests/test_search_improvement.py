"""Children are chosen by the hypervolume that they would add, member by member."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search.hypervolume import hypervolume, reference_point
from jaxnas.search.improvement import most_promising

KEY = jax.random.key(0)


def test_members_fill_places_in_turn_with_the_best_new_child():
    known = jnp.array([[2.0, 2.0], [9.0, 9.0], [6.0, 3.0]])
    mask = jnp.array([True, False, True])
    one = jnp.array([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0], [4.0, 4.0]])
    other = jnp.array([[5.0, 5.0], [1.0, 1.0], [0.0, 0.0], [4.0, 4.0]])
    new = jnp.array([True, True, False, True])
    rows = most_promising(KEY, jnp.stack([one, other]), new, known, mask, 4)
    assert rows.tolist() == [0, 1, 3, 2]


def test_what_a_member_chose_before_is_worth_nothing_twice():
    known = jnp.array([[0.0, 10.0], [10.0, 0.0], [5.0, 5.0]])
    children = jnp.array([[[1.0, 7.0], [1.1, 7.0], [7.5, 2.5], [6.0, 6.0]]])
    every = jnp.ones(4, bool)
    rows = most_promising(KEY, children, every, known, every[:3], 4)
    assert rows.tolist() == [0, 2, 1, 3]


def test_the_choice_is_that_of_exact_volumes():
    """Where volumes differ by more than the samples' error, in three objectives."""
    rng = np.random.default_rng(1)
    known = jnp.asarray(rng.uniform(0.3, 1, (9, 3)), jnp.float32)
    guess = jnp.asarray(rng.uniform(0.1, 1, (12, 3)), jnp.float32)
    every = jnp.ones(12, bool)
    chosen = most_promising(KEY, guess[None], every, known, every[:9], 3)
    volume = jax.jit(hypervolume)
    reference, front = reference_point(known), known
    for row in chosen.tolist():
        gains = [
            float(volume(jnp.concatenate([front, child[None]]), reference))
            for child in guess
        ]
        assert gains[row] >= max(gains) - 0.005
        front = jnp.concatenate([front, guess[row][None]])


def test_as_many_places_as_children_are_all_of_them():
    rng = np.random.default_rng(2)
    guesses = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    known = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    for new, mask in itertools.product([True, False], repeat=2):
        children, rows = jnp.full(6, new), jnp.full(3, mask)
        found = most_promising(KEY, guesses, children, known, rows, 6)
        assert sorted(found.tolist()) == list(range(6))

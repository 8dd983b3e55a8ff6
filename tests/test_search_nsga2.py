"""Tournaments of NSGA-II: who enters and who wins."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search import Nsga2, Real
from jaxnas.search.nsga2 import entrants

ROWS = 9


def test_every_row_in_use_enters_equally_often_in_random_order():
    draw = jax.jit(lambda key, mask: entrants(key, mask, 25))
    orders = set()
    for used in (1, 4, 9):
        for seed in range(4):
            rows = draw(jax.random.key(seed), jnp.arange(ROWS) < used)
            counts = np.bincount(rows, minlength=ROWS)
            assert counts[used:].sum() == 0
            assert np.ptp(counts[:used]) <= 1
            orders.add(tuple(rows.tolist()))
    assert len(orders) == 9  # a single row has one order


def test_the_lower_front_wins_and_then_the_emptier_surroundings():
    algorithm = Nsga2(ROWS, jnp.zeros(1), variables=Real(0, 1), num_objectives=2)
    state = algorithm._init(jax.random.key(0), algorithm.default_params)
    # The rows are a total order: row 0 is the best and row 8 the worst.
    state = state.replace(
        mask=jnp.ones(ROWS, bool),
        rank=jnp.arange(ROWS) // 3,
        crowding=jnp.array([jnp.inf, 2, 1] * 3),
    )
    mate = jax.jit(lambda key: algorithm._matings(key, state))
    wins = np.zeros(ROWS)
    for seed in range(200):
        parents, mates = mate(jax.random.key(seed))
        half = algorithm.proposals // 2
        np.testing.assert_array_equal(np.roll(parents, half), mates)
        wins += np.bincount(parents, minlength=ROWS)
    # Row i meets each of the 8 others alike and beats 8 - i of them.
    shares = wins / wins.sum()
    np.testing.assert_allclose(shares, (8 - np.arange(ROWS)) / 36, atol=0.02)

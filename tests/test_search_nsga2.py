"""NSGA-II: who enters tournaments, who wins, and who survives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import textbook_survivors, thinned_survivors

from jaxnas.search import Categorical, Nsga2, Real

ROWS = 9


def mated(algorithm, **changes):
    """How often each row of a population was a parent, of 200 draws."""
    state = algorithm._init(jax.random.key(0), algorithm.default_params)
    rows = algorithm.population_size
    state = state.replace(mask=jnp.ones(rows, bool), **changes)
    keys = jax.random.split(jax.random.key(1), 200)
    draw = jax.jit(jax.vmap(lambda key: algorithm._matings(key, state)))
    parents, mates = np.asarray(draw(keys))
    half = algorithm.proposals // 2
    np.testing.assert_array_equal(np.roll(parents, half, axis=1), mates)
    return np.bincount(np.ravel(parents), minlength=rows)


@pytest.mark.parametrize("by_front", [True, False])
def test_the_better_row_wins_and_then_the_emptier_surroundings(by_front):
    algorithm = Nsga2(
        ROWS, jnp.zeros(1), variables=Real(0, 1), num_objectives=2, by_front=by_front
    )
    # The rows are a total order: row 0 is the best and row 8 the worst.
    wins = mated(
        algorithm,
        rank=jnp.arange(ROWS) // 3,
        fitness=jnp.repeat(jnp.arange(3.0), 3)[:, None] * jnp.ones((1, 2)),
        crowding=jnp.array([jnp.inf, 2, 1] * 3),
    )
    # Row i meets each of the 8 others alike and beats 8 - i of them.
    shares = wins / wins.sum()
    np.testing.assert_allclose(shares, (8 - np.arange(ROWS)) / 36, atol=0.02)


@pytest.mark.parametrize("variables", [Real(0, 1), Categorical(3)])
def test_real_genes_decide_how_parents_are_chosen_and_paired(variables):
    real = isinstance(variables, Real)
    solution = jnp.zeros(1) if real else jnp.zeros(1, jnp.int32)
    options = dict(variables=variables, num_objectives=2)
    plain = Nsga2(4, solution, **options)
    for option, chosen in (("by_front", real), ("similar", not real)):
        assert plain == Nsga2(4, solution, **options, **{option: chosen})
        assert plain != Nsga2(4, solution, **options, **{option: not chosen})


def test_of_rows_that_break_constraints_the_one_that_breaks_them_less_wins():
    algorithm = Nsga2(
        4,
        jnp.zeros(1),
        variables=Real(0, 1),
        num_objectives=2,
        num_constraints=1,
        by_front=False,
    )
    # The worse the objectives, the less is violated: row 3 violates nothing.
    wins = mated(
        algorithm,
        fitness=jnp.arange(4.0)[:, None] * jnp.ones((1, 2)),
        violation=jnp.array([3.0, 2.0, 1.0, 0.0]),
    )
    assert (np.diff(wins) > 0).all() and wins[0] == 0


@pytest.mark.parametrize("objectives", [2, 3])
def test_survivors_are_the_textbook_ones_or_those_of_thinning_row_by_row(objectives):
    rng = np.random.default_rng(objectives)
    sets = rng.random((500, 20, objectives)).astype(np.float32)
    mask, kept = jnp.ones(20, bool), jnp.zeros(20)
    expected = {False: textbook_survivors, True: thinned_survivors}
    for thinning, oracle in expected.items():
        algorithm = Nsga2(
            10,
            jnp.zeros(1),
            variables=Real(0, 1),
            num_objectives=objectives,
            thinning=thinning,
        )
        found = jax.jit(
            jax.vmap(
                lambda fitness, algorithm=algorithm: algorithm._survivors(
                    None, algorithm._init(None, None), fitness, kept, mask, None
                )[0]
            )
        )(sets)
        wanted = [oracle(each.astype(float), 10) for each in sets]
        np.testing.assert_array_equal(np.sort(found, axis=1), wanted)

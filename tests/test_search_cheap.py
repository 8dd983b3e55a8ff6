"""A whole search in one program, against a space that can be enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from pareto_oracles import better

from jaxnas.search import Categorical, Nsga2, cheap_search

LEVELS = (4, 3, 5, 2)
ALGORITHM = Nsga2(
    10,
    jnp.zeros(4, jnp.int32),
    variables=Categorical(np.array(LEVELS)),
    num_objectives=2,
    num_constraints=1,
    repair=lambda genome: jnp.where(genome[0] == 0, genome.at[3].set(0), genome),
)


def cost(genome):
    a, b, c, d = genome
    objectives = jnp.stack([a + b * c % 4 + d, 7 - a + (c - b) ** 2])
    return jnp.append(objectives, 1 - b).astype(jnp.float32)


def test_a_small_space_is_solved_and_told_truly():
    params = ALGORITHM.default_params
    state, metrics = cheap_search(
        jax.random.key(0), ALGORITHM, cost, params, generations=30
    )
    every = np.array(list(itertools.product(*map(range, LEVELS))), np.int32)
    every = every[(every[:, 0] > 0) | (every[:, 3] == 0)]
    costs = np.asarray(jax.vmap(cost)(every))
    feasible = costs[costs[:, 2] <= 0, :2]
    front = {
        tuple(row)
        for row in feasible
        if not any(better(other, row) for other in feasible)
    }
    found = np.asarray(state.fitness)[state.mask & (state.rank == 0)]
    assert {tuple(row) for row in found} == front and len(front) > 2
    known = {
        tuple(genome): tuple(c[:2]) for genome, c in zip(every, costs, strict=True)
    }
    rows = zip(state.population[state.mask], state.fitness[state.mask], strict=True)
    assert all(known[tuple(np.asarray(g))] == tuple(np.asarray(f)) for g, f in rows)
    np.testing.assert_array_equal(metrics["generation_counter"], np.arange(1, 31))
    assert (np.diff(metrics["evaluated"]) >= 0).all()
    assert metrics["evaluated"][-1] == state.evaluated
    assert (np.diff(metrics["best_fitness"], axis=0) <= 0).all()

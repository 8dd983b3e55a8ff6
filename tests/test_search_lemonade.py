"""LEMONADE draws parents and accepts children where its front is sparse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import better
from scipy import stats

from jaxnas.search import (
    Categorical,
    Integer,
    Lemonade,
    UniformSearch,
    hypervolume,
    kernel_log_density,
)


def lemonade(size, genes, levels, **options):
    """A search of integer vectors; they have as many objectives as `options` say."""
    solution = jnp.zeros(genes, jnp.int32)
    return Lemonade(size, solution, variables=Integer(0, levels - 1), **options)


def tuples(rows):
    return [tuple(row) for row in np.asarray(rows).tolist()]


def test_a_small_space_is_visited_once_and_solved():
    levels = 4
    space = np.stack(np.indices((levels, levels)), axis=-1).reshape(-1, 2)
    judge = jax.jit(
        jax.vmap(lambda g: jnp.stack([1.0 + g[0], 1.0 + (5 * g[1] - 2 * g[0]) % 7]))
    )

    def anything(key, first, second, params):
        return jax.random.randint(key, first.shape, 0, levels)

    options = dict(proposals=64, accepted=5, memory=16, variation=anything)
    algorithm = lemonade(
        8, 2, levels, num_objectives=2, cheap=lambda g: 1.0 + g[:1], **options
    )
    params, key = algorithm.default_params, jax.random.key(1)
    first = jnp.array([[3, 3]])
    state = algorithm.init(key, first, judge(first), params)
    visited = tuples(first)
    for number in range(6):
        children, state = algorithm.ask(jax.random.fold_in(key, number), state, params)
        visited += tuples(children[state.children_mask])
        # What is not asked for may come back with any fitness.
        used = state.children_mask[:, None]
        fitness = jnp.where(used, judge(children), -9.0 * number)
        state, _ = algorithm.tell(key, children, fitness, state, params)
    assert sorted(visited) == tuples(space)
    assert not state.children_mask.any()
    values = np.asarray(judge(space))
    front = [g for g, v in zip(space, values, strict=True) if not beaten(v, values)]
    assert sorted(tuples(state.population[state.mask])) == tuples(front)


def beaten(value, others):
    return any(better(other, value) for other in others)


def test_parents_are_drawn_inversely_to_their_density():
    cost = lambda g: jnp.where(g[0] == 0, jnp.nan, jnp.exp(g[:1]))  # noqa: E731
    draws = 8192

    def fresh(key, first, second, params):
        return jax.random.randint(key, first.shape, 9, 2**31 - 1)

    algorithm = lemonade(
        6,
        2,
        2**31 - 1,
        num_objectives=2,
        cheap=lambda g: jnp.where(g[0] > 8, jnp.ones(1), cost(g)),
        variation=fresh,
        proposals=draws,
        accepted=draws,
        memory=0,
    )
    # Row 2 has failed: it must neither breed nor be felt, though its cost is NaN.
    genes = jnp.array([1, 2, 0, 3, 7])
    line = jnp.array([4.0, 3.0, jnp.nan, 2.0, 1.0])
    population, fitness = genes[:, None] * jnp.ones((1, 2), jnp.int32), line[:, None]
    fitness = jnp.concatenate([fitness, -fitness], axis=1)
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), population, fitness, params)
    _, state = algorithm.ask(jax.random.key(1), state, params)
    assert state.children_mask.all()
    used = state.population[state.mask][:, :1].astype(jnp.float32)
    assert used[:, 0].tolist() == [1, 2, 3, 7]
    weights = np.exp(-np.asarray(jax.jit(kernel_log_density)(used, used), float))
    counts = np.bincount(state.parents, minlength=6)
    assert counts[4:].sum() == 0
    expected = draws * weights / weights.sum()
    assert stats.chisquare(counts[:4], expected).pvalue > 0.01
    assert stats.chisquare(counts[:4]).pvalue < 1e-6


def test_children_are_accepted_inversely_to_density_without_replacement():
    draws = 4000

    def one_to_four(key, first, second, params):
        return jax.random.randint(key, first.shape, 1, 5)

    algorithm = lemonade(
        2,
        1,
        5,
        num_objectives=1,
        cheap=lambda g: jnp.exp(0.5 * g),
        variation=one_to_four,
        proposals=64,
        accepted=2,
        memory=0,
    )
    params, keys = algorithm.default_params, jax.random.split(jax.random.key(0), draws)
    origin = jnp.zeros((1, 1), jnp.int32)
    state = algorithm.init(keys[0], origin, jnp.ones((1, 1)), params)
    children, _ = jax.vmap(algorithm.ask, in_axes=(0, None, None))(keys, state, params)
    # The population is one point at log cost 0, so that its density has unit width.
    weights = {gene: np.exp(0.5 * (0.5 * gene) ** 2) for gene in range(1, 5)}
    total = sum(weights.values())
    pairs = [(a, b) for a in weights for b in weights if a != b]
    law = [weights[a] / total * weights[b] / (total - weights[a]) for a, b in pairs]
    drawn = tuples(children[:, :, 0])
    counts = [drawn.count(pair) for pair in pairs]
    assert sum(counts) == draws
    assert stats.chisquare(counts, draws * np.array(law)).pvalue > 0.01


GENES, LEVELS = 8, 12


def cheap(genotype):
    return jnp.stack([1.0 + genotype[0], 1.0 + jnp.sum(genotype[1:4])])


@jax.vmap
def evaluate(genotype):
    missing = LEVELS - 1 - genotype
    error = jnp.sum(missing) + missing[0] ** 2
    return jnp.append(cheap(genotype), error)


def volume_of_search(algorithm, seed):
    """The hypervolume that 25 generations of six children reach."""
    params, key = algorithm.default_params, jax.random.key(seed)
    population = jax.random.randint(key, (12, GENES), 0, LEVELS)
    state = algorithm.init(key, population, evaluate(population), params)

    def step(state, number):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(key, number))
        children, state = algorithm.ask(key_ask, state, params)
        return algorithm.tell(key_tell, children, evaluate(children), state, params)

    state, _ = jax.lax.scan(step, state, jnp.arange(25))
    reference = jnp.array([LEVELS + 1.0, 3 * LEVELS, 210.0])
    return hypervolume(state.fitness, reference, state.mask & (state.rank == 0))


def test_lemonade_beats_random_search():
    solution, common = (
        jnp.zeros(GENES, jnp.int32),
        dict(variables=Categorical(LEVELS), num_objectives=3, proposals=48, accepted=6),
    )
    both = (
        Lemonade(12, solution, cheap=cheap, **common),
        UniformSearch(12, solution, **common),
    )
    seeds = jnp.arange(4)
    ours, theirs = (
        jax.jit(lambda s, a=a: jax.lax.map(lambda one: volume_of_search(a, one), s))(
            seeds
        )
        for a in both
    )
    assert (ours > theirs).all()


def test_while_nothing_is_feasible_the_least_broken_survive():
    algorithm = lemonade(
        4,
        1,
        9,
        num_objectives=2,
        num_constraints=1,
        cheap=lambda g: 1.0 + g,
        proposals=8,
        accepted=2,
        memory=0,
    )
    population = jnp.arange(4)[:, None]
    columns = jnp.array([[1.0, 2, 5], [2, 1, 3], [1, 3, 3], [9, 9, 4]])
    params = algorithm.default_params
    state = algorithm.init(jax.random.key(0), population, columns, params)
    assert state.population[state.mask][:, 0].tolist() == [1, 2]
    children = jnp.array([[5], [6]])
    state = state.replace(children_mask=jnp.ones(2, bool))
    fitness = jnp.array([[8.0, 8, 0], [9, 9, -1]])
    state, _ = algorithm.tell(jax.random.key(0), children, fitness, state, params)
    assert state.population[state.mask][:, 0].tolist() == [5]


def test_costs_without_an_axis_are_refused():
    algorithm = lemonade(4, 2, 9, num_objectives=2, cheap=lambda g: 1.0 + g[0])
    params, population = algorithm.default_params, jnp.ones((1, 2), jnp.int32)
    state = algorithm.init(jax.random.key(0), population, jnp.ones((1, 2)), params)
    with pytest.raises(ValueError, match=r"cheap returned shape \(\)"):
        algorithm.ask(jax.random.key(1), state, params)

"""Operators on genes of every kind: bounds, dtypes, rates and their distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.search.genomes import Categorical, Integer, Rates, Real, fitted, sample
from jaxnas.search.genomes import vary as vary_unjitted

LARGE = 2**31 - 2
SOLUTION = {
    "half": jnp.zeros(2, jnp.bfloat16),
    "order": jnp.zeros(3, jnp.int32),
    "real": jnp.zeros((2, 2)),
    "small": jnp.zeros(2, jnp.int8),
}
VARIABLES = {
    "half": Real(-1.0, 1.0),
    "order": Integer(np.array([-3, 5, 0]), np.array([4, 5, LARGE])),
    "real": Real(np.array([[0.0, 1.0], [-2.0, 3.0]]), np.array([[1.0, 9], [-1, 3]])),
    "small": Categorical(np.array([3, 1])),
}
FITTED = fitted(VARIABLES, SOLUTION)
LOWS = {"half": -1, "order": [-3, 5, 0], "real": [[0, 1], [-2, 3]], "small": 0}
HIGHS = {"half": 1, "order": [4, 5, LARGE], "real": [[1, 9], [-1, 3]], "small": [2, 0]}
ROWS = 4000
vary = jax.jit(vary_unjitted)


@pytest.fixture(scope="module")
def parents():
    draw = jax.jit(lambda key: sample(key, FITTED, SOLUTION, ROWS))
    return draw(jax.random.key(1)), draw(jax.random.key(2))


def children_of(parents, seed=0, **rates):
    return vary(jax.random.key(seed), *parents, FITTED, Rates(**rates))


def test_samples_and_children_keep_bounds_and_types(parents):
    children = children_of(parents, mutation_rate=0.5, mutation_eta=1.0)
    for population in (parents[0], children):
        for name, leaf in SOLUTION.items():
            found = population[name]
            assert found.dtype == leaf.dtype
            exact = np.asarray(found.astype(jnp.float32) if name == "half" else found)
            assert (exact >= LOWS[name]).all() and (exact <= HIGHS[name]).all()


def test_samples_are_uniform(parents):
    counts = np.bincount(parents[0]["small"][:, 0], minlength=3)
    assert stats.chisquare(counts).pvalue > 0.01
    counts = np.bincount(parents[0]["order"][:, 0] + 3, minlength=8)
    assert stats.chisquare(counts).pvalue > 0.01
    shares = np.asarray(parents[0]["real"][:, 0, 1] - 1) / 8
    assert stats.kstest(shares, "uniform").pvalue > 0.01
    assert np.ptp(parents[0]["order"][:, 2] / LARGE) > 0.99


def test_without_crossover_and_mutation_children_are_their_parents(parents):
    children = children_of(parents, crossover_rate=0.0, mutation_rate=0.0)
    both = jax.tree.map(lambda *pair: jnp.concatenate(pair), *parents)
    jax.tree.map(np.testing.assert_array_equal, children, both)


def test_crossed_genes_come_from_both_parents_and_keep_their_mean(parents):
    children = children_of(parents, crossover_rate=1.0, mutation_rate=0.0)
    for name in ("order", "small"):
        one, two = children[name][:ROWS], children[name][ROWS:]
        pair = np.stack([one, two]), np.stack([p[name] for p in parents])
        np.testing.assert_array_equal(*(np.sort(each, axis=0) for each in pair))
        differ = parents[0][name] != parents[1][name]
        swapped = np.asarray(one != parents[0][name])[np.asarray(differ)]
        assert abs(swapped.mean() - 0.5) < 0.05
    one, two = children["real"][:ROWS, 0, 1], children["real"][ROWS:, 0, 1]
    first, second = (np.asarray(p["real"])[:, 0, 1] for p in parents)
    assert abs(np.mean(one + two - first - second)) < 0.02
    nearer_the_other = np.abs(one - second) < np.abs(one - first)
    assert abs(nearer_the_other.mean() - 0.25) < 0.04


def test_spread_of_simulated_binary_crossover_far_from_bounds():
    # Far from the bounds the spread factor has density (eta + 1) / 2 * beta ** eta
    # below 1 and (eta + 1) / 2 * beta ** -(eta + 2) above (Deb and Agrawal 1995).
    variables = fitted(Real(-1e6, 1e6), jnp.zeros(1))
    pair = jnp.zeros((ROWS, 1)), jnp.ones((ROWS, 1))
    rates = Rates(
        crossover_rate=1.0, exchange_rate=1.0, mutation_rate=0.0, crossover_eta=3.0
    )
    children = vary(jax.random.key(3), *pair, variables, rates)
    beta = np.abs(np.asarray(children[:ROWS, 0] - children[ROWS:, 0]))

    def cumulative(beta):
        return np.where(beta <= 1, 0.5 * beta**4, 1 - 0.5 * beta**-4.0)

    assert stats.kstest(beta, cumulative).pvalue > 0.01


def test_polynomial_mutation_has_its_distribution():
    # At the middle of [0, 1] a step d > 0 is exceeded with probability
    # ((1 - d) ** 4 - 0.5 ** 4) / (1 - 0.5 ** 4) / 2 for an index of 3 (Deb 2001).
    variables = fitted(Real(0.0, 1.0), jnp.zeros(1))
    pair = jnp.full((ROWS, 1), 0.5), jnp.full((ROWS, 1), 0.5)
    rates = Rates(crossover_rate=0.0, mutation_rate=1.0, mutation_eta=3.0)
    steps = np.asarray(vary(jax.random.key(4), *pair, variables, rates))[:, 0] - 0.5

    def cumulative(step):
        beyond = ((1 - np.abs(step)) ** 4 - 0.5**4) / (1 - 0.5**4) / 2
        return np.where(step < 0, beyond, 1 - beyond)

    assert stats.kstest(steps, cumulative).pvalue > 0.01


def test_children_do_not_creep_towards_a_bound_for_ever():
    variables = fitted(Real(0.0, 4.0), jnp.zeros(1))
    rates = Rates(crossover_rate=1.0, mutation_rate=0.5)
    genes = 4 * np.logspace(-9, -5, ROWS, dtype=np.float32)[:, None]
    for parents in (genes, 4 - genes):
        pair = jnp.asarray(parents), jnp.asarray(parents[::-1])
        children = np.asarray(vary(jax.random.key(5), *pair, variables, rates))
        apart = np.minimum(children, 4 - children)
        assert (apart == 0).any()
        assert apart[apart > 0].min() >= 4 * 2.0**-24
        assert (apart[apart > 0] < 4e-5).any()


def test_mutation_changes_as_many_genes_as_its_rate_says(parents):
    children = children_of(parents, crossover_rate=0.0, mutation_rate=0.25)
    both = jax.tree.map(lambda *pair: jnp.concatenate(pair), *parents)
    for name, genes in (("order", [0, 2]), ("small", [0])):
        changed = np.asarray(children[name] != both[name])[:, genes]
        assert abs(changed.mean() - 0.25) < 0.02
    # A gene of one value cannot change.
    assert (children["small"][:, 1] == 0).all() and (children["order"][:, 1] == 5).all()


def test_a_category_becomes_any_other(parents):
    children = children_of(parents, crossover_rate=0.0, mutation_rate=1.0)
    before, after = parents[0]["small"][:, 0], children["small"][:ROWS, 0]
    counts = np.bincount((after - before) % 3, minlength=3)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.01


@pytest.mark.parametrize(
    ("variables", "solution", "message"),
    [
        (Real(0, 1), jnp.zeros(2, jnp.int32), "int32 for a Real, expected floats"),
        (Integer(0, 1), jnp.zeros(2), "float32 for a Integer, expected integers"),
        (Categorical(2), jnp.zeros(2, bool), "bool for a Categorical"),
        (Real(1, 0), jnp.zeros(2), "expected finite ones in rising order"),
        (Real(0, np.inf), jnp.zeros(2), "expected finite ones in rising order"),
        (Categorical(0), jnp.zeros(2, jnp.int32), "a count of at least 1"),
        (Real(np.zeros(3), 1), jnp.zeros(2), r"shape \(3,\), expected one number or"),
        (Integer(-(2**31), 0), jnp.zeros(1, jnp.int32), "fewer than 2\\*\\*31 values"),
        ({"a": Real(0, 1)}, {"b": jnp.zeros(1)}, "variables have structure"),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables, solution, message):
    with pytest.raises(ValueError, match=message):
        fitted(variables, solution)

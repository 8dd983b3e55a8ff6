"""Children of networks: crossed by whole blocks, and mutated."""

import jax
import jax.numpy as jnp
import numpy as np
from network_helpers import SPACE, genotypes

from jaxnas.networks import space as spaces
from jaxnas.networks.space import BLOCK_GENES, HEAD_GENES, STEM_GENES
from jaxnas.search import Params, Rates
from jaxnas.search.morphisms import mutate
from jaxnas.search.variations import canonical_in, cross, crossed_mutants, mutants

KEY = jax.random.key(3)
COUNT = 300


def parents():
    """Pairs of random networks."""
    everyone = genotypes(2 * COUNT)
    return everyone[:COUNT], everyone[COUNT:]


def parts(genotype):
    """Stem, blocks and head, as tuples of genes."""
    first, last = len(STEM_GENES), len(HEAD_GENES)
    rows = genotype[first:-last].reshape(-1, len(BLOCK_GENES))
    return [tuple(part) for part in (genotype[:first], *rows, genotype[-last:])]


def crossed(rates):
    keys = jax.random.split(KEY, COUNT)
    one = jax.jit(jax.vmap(lambda key, *pair: cross(key, SPACE, *pair, rates)))
    return np.asarray(one(keys, *parents()))


def test_children_have_whole_blocks_of_either_parent():
    """But for genes that lose their effect: residuals across other widths."""
    children = crossed(Rates(crossover_rate=1.0, exchange_rate=0.5))
    np.testing.assert_array_equal(
        children, jax.vmap(canonical_in(SPACE))(jnp.asarray(children))
    )
    residual = BLOCK_GENES.index("residual")
    second, total = 0, 0
    for child, *pair in zip(children, *map(np.asarray, parents()), strict=True):
        for mine, one, other in zip(*map(parts, (child, *pair)), strict=True):
            if len(mine) == len(BLOCK_GENES):
                mine, one, other = (
                    part[:residual] + part[residual + 1 :]
                    for part in (mine, one, other)
                )
            assert mine in (one, other)
            second, total = second + (mine == other != one), total + (one != other)
    assert abs(second / total - 0.5) < 0.05


def test_rates_of_zero_leave_the_first_parent():
    for rates in (Rates(crossover_rate=0.0), Rates(exchange_rate=0.0)):
        np.testing.assert_array_equal(crossed(rates), parents()[0])


def test_variations_are_mutants_row_by_row():
    first, second = (one[:6] for one in parents())
    rates = Rates(crossover_rate=0.7, exchange_rate=0.4)
    params = Params(variables=(), rates=rates)
    keys = [jax.random.fold_in(KEY, row) for row in range(6)]
    mutated, crossed = (jax.jit(f, static_argnums=1) for f in (mutate, cross))
    alone = [mutated(k, SPACE, one) for k, one in zip(keys, first, strict=True)]
    found = jax.jit(mutants(SPACE))(KEY, first, second, params)
    np.testing.assert_array_equal(found, alone)
    mixed = []
    for key, *pair in zip(keys, first, second, strict=True):
        key_cross, key_mutate = jax.random.split(key)
        child = crossed(key_cross, SPACE, *pair, rates)
        mixed.append(mutated(key_mutate, SPACE, child))
    found = jax.jit(crossed_mutants(SPACE))(KEY, first, second, params)
    np.testing.assert_array_equal(found, mixed)


def test_operators_of_equal_spaces_are_the_same():
    same = spaces.SearchSpace(
        **{name: getattr(SPACE, name) for name in SPACE.__dataclass_fields__}
    )
    for make in (mutants, crossed_mutants, canonical_in):
        assert make(same) is make(SPACE)

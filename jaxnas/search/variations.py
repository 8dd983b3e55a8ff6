"""How networks beget networks: the operators of algorithms that search genotypes.

All children of a call are made at once, a row each; that which is equal for a space is
made once, so that algorithms which use it are equal and share their programs.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxnas.networks import space as spaces
from jaxnas.networks.space import BLOCK_GENES, HEAD_GENES, STEM_GENES, SearchSpace
from jaxnas.search.genomes import Rates
from jaxnas.search.morphisms import mutate
from jaxnas.search.states import Params
from jaxnas.types import Genotype, Key

Genotypes = Int[Array, "children genes"]


@functools.cache
def mutants(space: SearchSpace) -> Callable:
    """`variation(key, first, second, params)`: a mutant of every first parent."""

    def variation(
        key: Key, first: Genotypes, second: Genotypes, params: Params
    ) -> Genotypes:
        return _each(key, lambda key, one: mutate(key, space, one), first)

    return variation


@functools.cache
def crossed_mutants(space: SearchSpace) -> Callable:
    """As `mutants`, but of first parents that were crossed with the second ones."""

    def child(key: Key, first: Genotype, second: Genotype, rates: Rates) -> Genotype:
        key_cross, key_mutate = jax.random.split(key)
        return mutate(key_mutate, space, cross(key_cross, space, first, second, rates))

    def variation(
        key: Key, first: Genotypes, second: Genotypes, params: Params
    ) -> Genotypes:
        def one(key, pair):
            return child(key, *pair, params.rates)

        return _each(key, one, (first, second))

    return variation


@functools.cache
def canonical_in(space: SearchSpace) -> Callable[[Genotype], Genotype]:
    """`repair(genotype)`: the same network without genes that have no effect."""
    return lambda genotype: spaces.canonical(space, genotype)


def cross(
    key: Key, space: SearchSpace, first: Genotype, second: Genotype, rates: Rates
) -> Genotype:
    """The first network, with the probability `crossover_rate` crossed: its stem, head
    and every block are then the second's with the probability `exchange_rate`.

    Blocks are exchanged whole (uniform crossover after Syswerda, 1989), since a gene
    means little without those of its block.
    """
    draws = jax.random.uniform(key, (space.slots + 3,))
    exchanged = draws[1:] < rates.exchange_rate
    exchanged &= draws[0] < rates.crossover_rate
    sizes = [len(STEM_GENES), *[len(BLOCK_GENES)] * space.slots, len(HEAD_GENES)]
    genes = jnp.repeat(exchanged, jnp.array(sizes), total_repeat_length=space.genes)
    return spaces.canonical(space, jnp.where(genes, second, first))


def _each(key, function, items):
    """`function(key, item)` for every row, each with a key of its number."""
    count = jax.tree.leaves(items)[0].shape[0]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
    return jax.vmap(function)(keys, items)

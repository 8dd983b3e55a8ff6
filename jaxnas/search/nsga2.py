"""NSGA-II: whole fronts survive, then the least crowded of the front that is cut.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic
algorithm: NSGA-II" (2002).
"""

import jax
import jax.numpy as jnp

from .crowding import crowding_distance
from .generations import GenerationalAlgorithm
from .genomes import sample
from .pareto import front_ranks


class Nsga2(GenerationalAlgorithm):
    """See `GenerationalAlgorithm`; any number of objectives, best at two or three.

    Parents win a tournament of two by constrained front, then by crowding, as they were
    when their population was selected. Survivors are sorted by front and crowding; of
    equally crowded rows the earlier survives.
    """

    def _matings(self, key, state):
        half = self.proposals // 2
        pairs = entrants(key, state.mask, 4 * half)
        left, right = pairs.reshape(2, 2 * half)
        better = state.rank[right] < state.rank[left]
        equal = state.rank[right] == state.rank[left]
        better |= equal & (state.crowding[right] > state.crowding[left])
        winners = jnp.where(better, right, left)
        return winners, jnp.roll(winners, half)

    def _survivors(self, key, state, fitness, violation, mask, params):
        limits = violation if self.num_constraints else None
        rank = front_ranks(fitness, mask, limits, enough=self.population_size)
        ranked = mask & (rank < mask.size)
        crowding = crowding_distance(fitness, ranked, rank)
        rows = jnp.lexsort((-crowding, rank))[: self.population_size]
        return rows.astype(jnp.int32), rank, crowding, state.extra


class UniformSearch(Nsga2):
    """NSGA-II's selection of children that are drawn at random, without parents.

    What a comparison with it measures is the variation alone.
    """

    def _matings(self, key, state):
        nobody = jnp.full(self.proposals, -1, jnp.int32)
        return nobody, nobody

    def _children(self, key, first, second, params):
        return sample(key, params.variables, self.solution, self.proposals)


def entrants(key, mask, count):
    """Rows in use, each as often as any other or once more, in random order, int32.

    Shuffled rows one round after the other: everybody enters as many tournaments, and
    chance decides the opponents alone.
    """
    rows = mask.size
    rounds = -(-count // rows)
    noise = jax.random.bits(key, (rounds, rows), jnp.uint32) >> 1
    places = jnp.where(mask[None, :], noise, jnp.uint32(2**32 - 1))
    shuffled = jnp.argsort(places, axis=1).astype(jnp.int32)
    used = jnp.maximum(jnp.sum(mask), 1)
    numbers = jnp.arange(count)
    return shuffled[(numbers // used) % rounds, numbers % used]

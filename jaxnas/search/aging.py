"""Regularised evolution: the oldest die, so that nothing survives by luck alone.

Real, Aggarwal, Huang and Le, "Regularized evolution for image classifier architecture
search" (2019), Algorithm 1, with several children per step and, for more objectives
than one, winners by constrained front and then by crowding.
"""

import jax
import jax.numpy as jnp

from .crowding import crowding_distance
from .generations import GenerationalAlgorithm
from .genomes import mutants
from .pareto import front_ranks


class AgingEvolution(GenerationalAlgorithm):
    """See `GenerationalAlgorithm`; rows stand in the order of their birth.

    Every child is the mutant of the best of `tournament` rows drawn with replacement.
    The best ever seen leaves with the others in time: keep an `archive_size`.

    Args:
      tournament: rows drawn per child; more press harder for the best.
    """

    def __init__(self, *arguments, tournament: int = 10, **options):
        if tournament < 1:
            raise ValueError(f"found {tournament=}, expected at least 1")
        super().__init__(*arguments, **options)
        self.tournament = tournament

    def _matings(self, key, state):
        shape = self.proposals, self.tournament
        drawn = jax.random.randint(key, shape, 0, jnp.maximum(jnp.sum(state.mask), 1))
        order = jnp.lexsort((-state.crowding, state.rank, ~state.mask))
        place = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
        winners = order[jnp.min(place[drawn], axis=1)].astype(jnp.int32)
        return winners, jnp.full(self.proposals, -1, jnp.int32)

    def _children(self, key, first, second, params):
        if self.variation is not None:
            return self.variation(key, first, first, params)
        return mutants(key, first, params.variables, params.rates)

    def _survivors(self, key, state, fitness, violation, mask, params):
        size = self.population_size
        order = jnp.argsort(~mask, stable=True)
        first = jnp.maximum(jnp.sum(mask) - size, 0)
        rows = jax.lax.dynamic_slice(order, (first,), (size,)).astype(jnp.int32)
        alive = jnp.zeros_like(mask).at[rows].set(mask[rows])
        limits = violation if self.num_constraints else None
        rank = front_ranks(fitness, alive, limits)
        return rows, rank, crowding_distance(fitness, alive, rank), state.extra

    def _configuration(self):
        return *super()._configuration(), self.tournament

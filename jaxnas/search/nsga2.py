"""NSGA-II: whole fronts survive, then the least crowded of the front that is cut.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic
algorithm: NSGA-II" (2002); the front that is cut is thinned after Kukkonen and Deb,
"Improved pruning of non-dominated solutions based on crowding distance for bi-objective
optimization problems" (2006).
"""

import jax
import jax.numpy as jnp

from .crowding import distances, neighbours, thinned
from .generations import GenerationalAlgorithm
from .genomes import Real, sample
from .matings import entrants, mixes_values, paired
from .ordering import ascending, sortable
from .pareto import dominates, front_ranks


class Nsga2(GenerationalAlgorithm):
    """See `GenerationalAlgorithm`; any number of objectives, best at two or three.

    Parents win a tournament of two by constrained front, then by crowding, as they were
    when their population was selected. Survivors are sorted by front and crowding; of
    equally crowded rows the earlier survives.

    Args:
      by_front: whether an earlier front wins a tournament, as in the paper; otherwise
        only who dominates the other does, as in the authors' program, which presses
        less on rows of later fronts and so keeps fronts wide. By default by front if
        all genes are real, where mutation widens a front again, and else by dominance.
      similar: whether winners mate who are alike in fitness (see `matings.alike`); by
        default if no gene is real.
      thinning: whether rows of the front that is cut leave one at a time, distances
        being measured anew each time; otherwise all at once, as in the paper.
    """

    def __init__(
        self,
        *arguments,
        by_front: bool | None = None,
        similar: bool | None = None,
        thinning: bool = True,
        **options,
    ):
        super().__init__(*arguments, **options)
        kinds = self.default_params.variables
        real = all(isinstance(kind, Real) for kind in kinds)
        self.by_front = real if by_front is None else by_front
        self.similar = mixes_values(kinds) if similar is None else similar
        self.thinning = thinning

    def _matings(self, key, state):
        half = self.proposals // 2
        # Four entrants in a row make a pair of parents: nearly always four rows.
        left, right = entrants(key, state.mask, 4 * half).reshape(half, 2, 2).T
        if self.by_front:
            better = state.rank[right] < state.rank[left]
            tied = state.rank[right] == state.rank[left]
        else:
            better, tied = _dominance(state, left, right)
        better |= tied & (state.crowding[right] > state.crowding[left])
        winners = jnp.where(better, right, left).reshape(2 * half)
        return paired(jax.random.fold_in(key, 1), winners, state.fitness, self.similar)

    def _survivors(self, key, state, fitness, violation, mask, params):
        limits = violation if self.num_constraints else None
        size = self.population_size
        rank = front_ranks(fitness, mask, limits, enough=size)
        ranked = mask & (rank < mask.size)
        near = neighbours(fitness, ranked, rank)
        crowding = distances(near)
        kept = ranked
        if self.thinning:
            last = ranked & (rank == jnp.max(rank, initial=0, where=ranked))
            sure = ranked & ~last
            kept = sure | thinned(near, size - jnp.sum(sure), last)
        # By front and then by crowding; who does not remain comes last.
        front = jnp.where(kept, rank, mask.size).astype(jnp.uint32)
        rows = ascending(sortable(-crowding))
        rows = ascending(front, mask.size.bit_length(), after=rows)[:size]
        return rows, rank, crowding, state.extra

    def _configuration(self):
        options = self.by_front, self.similar, self.thinning
        return *super()._configuration(), *options


class UniformSearch(Nsga2):
    """NSGA-II's selection of children that are drawn at random, without parents.

    What a comparison with it measures is the variation alone.
    """

    def _matings(self, key, state):
        nobody = jnp.full(self.proposals, -1, jnp.int32)
        return nobody, nobody

    def _children(self, key, first, second, params):
        return sample(key, params.variables, self.solution, self.proposals)


def _dominance(state, left, right):
    """Whether the right row dominates the left one, and whether crowding decides."""
    one, other = state.fitness[left], state.fitness[right]
    above, below = dominates(other, one), dominates(one, other)
    less, more = state.violation[left], state.violation[right]
    kept = (less <= 0) & (more <= 0)
    return jnp.where(kept, above, more < less), kept & ~above & ~below

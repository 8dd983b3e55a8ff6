"""Crowding: how far apart the rows of a front lie, and which to drop when it is full.

Mathematics: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective
genetic algorithm: NSGA-II" (2002), section III-B. Masks and rows as in `pareto`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from .pareto import given


def crowding_distance(
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"] | None = None,
    ranks: Int32[Array, " rows"] | None = None,
) -> Float[Array, " rows"]:
    """How far apart the neighbours of a row lie in its own front, for all fronts.

    The gap between both neighbours is summed over the objectives, each in units of its
    range over the front (an objective without range adds nothing). The first and last
    row along any objective are infinitely far from a neighbour; ties are ordered by row
    number. Without `ranks` all rows are one front. Zero for rows that are masked out or
    have an objective that is not finite: these are nobody's neighbours.
    """
    counted = given(mask, fitness) & jnp.all(jnp.isfinite(fitness), axis=1)
    rows = counted.size
    ranks = jnp.zeros(rows, jnp.int32) if ranks is None else ranks
    fronts = jnp.where(counted, ranks, rows + 1)
    numbers = jnp.arange(rows, dtype=jnp.int32)

    # Sorted by front and value, a front is a run whose ends hold its extremes.
    def along(objective):
        keys = fronts, objective, numbers
        front, value, row = jax.lax.sort(keys, num_keys=2, is_stable=True)
        change = front[1:] != front[:-1]
        first, last = jnp.append(True, change), jnp.append(change, True)
        start = jax.lax.cummax(jnp.where(first, numbers, 0))
        end = jax.lax.cummin(jnp.where(last, numbers, rows), reverse=True)
        spread = value[end] - value[start]
        gap = jnp.roll(value, -1) - jnp.roll(value, 1)
        share = jnp.where(spread > 0, gap / spread, 0.0)
        distance = jnp.where(first | last, jnp.inf, share)
        return jnp.zeros_like(objective).at[row].set(distance)

    finite = jnp.where(counted[:, None], fitness, 0.0)
    return jnp.where(counted, jnp.sum(jax.vmap(along, 1)(finite), axis=0), 0.0)


def thin(
    fitness: Float[Array, "rows objectives"],
    size: int | Int32[Array, ""],
    mask: Bool[Array, " rows"] | None = None,
) -> Bool[Array, " rows"]:
    """Which rows of one front remain when the most crowded leave, until `size` do.

    Rows leave one at a time and distances are measured anew, since two close neighbours
    that make each other crowded must not both go. Of equally crowded rows the last
    leaves. Extremes leave only once nothing else is left, so that `size >= 2 *
    objectives` keeps the best of every objective.
    """

    def drop(keep):
        distance = crowding_distance(fitness, keep)
        least = jnp.min(distance, initial=jnp.inf, where=keep)
        crowded = keep & (distance == least)
        last = crowded.size - 1 - jnp.argmax(crowded[::-1])
        return keep.at[last].set(False)

    return jax.lax.while_loop(
        lambda keep: jnp.sum(keep) > size, drop, given(mask, fitness)
    )

"""Crowding: how far apart the rows of a front lie, and which to drop when it is full.

Mathematics: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective
genetic algorithm: NSGA-II" (2002), section III-B. Masks and rows as in `pareto`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from .ordering import ascending, sortable
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
    front_bits = (rows + 1).bit_length()
    numbers = jnp.arange(rows, dtype=jnp.int32)

    # Sorted by front and value, a front is a run whose ends hold its extremes.
    def along(objective):
        row = ascending(sortable(objective))
        row = ascending(fronts.astype(jnp.uint32), front_bits, after=row)
        front, value = fronts[row], objective[row]
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

    Rows leave one at a time and distances are measured anew (Kukkonen and Deb 2006),
    since two close neighbours that make each other crowded must not both go. Of equally
    crowded rows the last leaves. Extremes leave only once nothing else is left, so that
    `size >= 2 * objectives` keeps the best of every objective.
    """
    mask = given(mask, fitness)
    counted = mask & jnp.all(jnp.isfinite(fitness), axis=1)
    values = jnp.where(counted[:, None], fitness, 0.0).T
    before, after, spread = jax.vmap(_linked, (0, None))(values, counted)
    numbers = jnp.arange(mask.size, dtype=jnp.int32)
    surplus = jnp.sum(mask) - size

    def distances(left, before, after):
        gap = _at(values, after) - _at(values, before)
        shares = jnp.where(spread[:, None] > 0, gap / spread[:, None], 0.0)
        shares = jnp.where((before < 0) | (after < 0), jnp.inf, shares)
        return jnp.where(left, jnp.sum(shares, axis=0), jnp.inf)

    # A row that leaves changes the distances of its neighbours alone, and none falls.
    # Whoever is more crowded than all its neighbours thus leaves before them, at its
    # present distance; in what order such rows leave does not matter, and all leave at
    # once. The distance at which each left gives the order of leaving one at a time.
    def leave(carry):
        distance, left_at, left, before, after = carry
        others = jnp.concatenate([before, after])
        near = distance[others]
        last = (distance[None] == near) & (numbers[None] > others)
        first = jnp.all((others < 0) | (distance[None] < near) | last, axis=0)
        leaves = left & (distance < jnp.inf) & first
        before, after = _unlinked(before, after, leaves)
        left &= ~leaves
        left_at = jnp.where(leaves, distance, left_at)
        return distances(left, before, after), left_at, left, before, after

    # No row can still leave at less than the least distance.
    def wanting(carry):
        least = jnp.min(carry[0])
        return (jnp.sum(mask & (carry[1] < least)) < surplus) & (least < jnp.inf)

    left_at = jnp.where(mask & ~counted, 0.0, jnp.inf)
    carry = distances(counted, before, after), left_at, counted, before, after
    left_at = jax.lax.while_loop(wanting, leave, carry)[1]
    out = jnp.where(mask, left_at, -1.0)[::-1]
    order = mask.size - 1 - ascending(sortable(out))
    place = jnp.zeros_like(numbers).at[order].set(numbers)
    return mask & (place >= surplus + jnp.sum(~mask))


def _linked(values, counted):
    """The neighbours of each row along one objective, -1 for none, and its range."""
    rows = counted.size
    order = ascending(sortable(jnp.where(counted, values, jnp.inf)))
    places = jnp.arange(rows, dtype=jnp.int32)
    last = jnp.sum(counted) - 1
    before = jnp.where(places > 0, jnp.roll(order, 1), -1)
    after = jnp.where(places < last, jnp.roll(order, -1), -1)
    empty = jnp.full(rows, -1, jnp.int32)
    spread = values[order[jnp.maximum(last, 0)]] - values[order[0]]
    return empty.at[order].set(before), empty.at[order].set(after), spread


def _unlinked(before, after, leaves):
    """The neighbours once some rows have left of which no two were neighbours."""
    rows = leaves.size

    def along(before, after):
        behind, ahead = (jnp.where(leaves, one, rows) for one in (after, before))
        return (
            before.at[behind].set(before, mode="drop"),
            after.at[ahead].set(after, mode="drop"),
        )

    return jax.vmap(along)(before, after)


_at = jax.vmap(lambda values, rows: values[rows])

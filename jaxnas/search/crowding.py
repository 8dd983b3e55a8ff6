"""Crowding: how far apart the rows of a front lie, and which to drop when it is full.

Mathematics: Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective
genetic algorithm: NSGA-II" (2002), section III-B. Masks and rows as in `pareto`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from .ordering import ascending, sortable
from .pareto import given


class Neighbours(NamedTuple):
    """Who lies next to each row in its own front, along every objective."""

    # The row before along every objective, then the row after along each; -1 for none.
    links: Int32[Array, "sides rows"]
    # Halves of the objectives.
    values: Float[Array, "objectives rows"]
    # The range of these over each row's front.
    spread: Float[Array, "objectives rows"]
    # Rows that have a front; the others are nobody's neighbours.
    counted: Bool[Array, " rows"]


def neighbours(
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"] | None = None,
    ranks: Int32[Array, " rows"] | None = None,
) -> Neighbours:
    """The neighbours of all rows, each in its front; ties are ordered by row number.

    Without `ranks` all rows are one front. Rows that are masked out or have an
    objective that is not finite have no front.
    """
    counted = given(mask, fitness) & jnp.all(jnp.isfinite(fitness), axis=1)
    rows = counted.size
    ranks = jnp.zeros(rows, jnp.int32) if ranks is None else ranks
    fronts = jnp.where(counted, ranks, rows + 1)
    front_bits = (rows + 1).bit_length()
    numbers = jnp.arange(rows, dtype=jnp.int32)

    # Sorted by front and value, a front is a run.
    def along(values):
        order = ascending(sortable(values))
        order = ascending(fronts.astype(jnp.uint32), front_bits, after=order)
        place = jnp.zeros_like(numbers).at[order].set(numbers)

        def beside(place):
            row = order[jnp.clip(place, 0, rows - 1)]
            same = (place >= 0) & (place < rows) & (fronts[row] == fronts)
            return jnp.where(same, row, -1)

        return beside(place - 1), beside(place + 1)

    # Halves, so that no difference of two is infinite.
    finite = jnp.where(counted[:, None], fitness * 0.5, 0.0)
    links = jnp.concatenate(jax.vmap(along)(finite.T))
    none = jnp.full((rows + 2, finite.shape[1]), jnp.inf, finite.dtype)
    least, most = none.at[fronts].min(finite), (-none).at[fronts].max(finite)
    return Neighbours(links, finite.T, (most - least)[fronts].T, counted)


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
    return distances(neighbours(fitness, mask, ranks))


def distances(near: Neighbours) -> Float[Array, " rows"]:
    """As `crowding_distance`, of rows whose neighbours are known."""
    before, after = jnp.split(near.links, 2)
    gap = _each(near.values, after) - _each(near.values, before)
    shares = jnp.where(near.spread > 0, gap / near.spread, 0.0)
    shares = jnp.where((before < 0) | (after < 0), jnp.inf, shares)
    return jnp.where(near.counted, jnp.sum(shares, axis=0), 0.0)


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
    return thinned(neighbours(fitness, mask), size, mask)


def thinned(
    near: Neighbours, size: int | Int32[Array, ""], mask: Bool[Array, " rows"]
) -> Bool[Array, " rows"]:
    """As `thin`, of rows whose neighbours are known; the mask is one whole front.

    Search algorithms that need the crowding too thus sort the objectives once.
    """
    numbers = jnp.arange(mask.size, dtype=jnp.int32)
    surplus = jnp.sum(mask) - size
    counted = mask & near.counted

    # A row that leaves changes the distances of its neighbours alone, and none falls.
    # Whoever is more crowded than all its neighbours thus leaves before them, at its
    # present distance; in what order such rows leave does not matter, and all leave at
    # once. The distance at which each left gives the order of leaving one at a time.
    def leave(carry):
        distance, left_at, links = carry
        other = distance[links]
        last = (distance[None] == other) & (numbers[None] > links)
        first = (links < 0) | (distance[None] < other) | last
        leaves = (distance < jnp.inf) & jnp.all(first, axis=0)
        # No two of those that leave are neighbours.
        links = jnp.where((links >= 0) & leaves[links], _each(links, links), links)
        left_at = jnp.where(leaves, distance, left_at)
        remain = counted & (left_at == jnp.inf)
        distance = jnp.where(remain, distances(near._replace(links=links)), jnp.inf)
        return distance, left_at, links

    # No row can still leave at less than the least distance.
    def wanting(carry):
        least = jnp.min(carry[0])
        return (jnp.sum(mask & (carry[1] < least)) < surplus) & (least < jnp.inf)

    left_at = jnp.where(mask & ~counted, 0.0, jnp.inf)
    distance = jnp.where(counted, distances(near), jnp.inf)
    carry = distance, left_at, near.links
    left_at = jax.lax.while_loop(wanting, leave, carry)[1]
    out = jnp.where(mask, left_at, -1.0)[::-1]
    order = mask.size - 1 - ascending(sortable(out))
    place = jnp.zeros_like(numbers).at[order].set(numbers)
    # Rows outside the mask come first.
    return mask & (place >= mask.size - size)


_each = jax.vmap(lambda values, rows: values[rows])
"""Values at row numbers, both with a leading axis."""

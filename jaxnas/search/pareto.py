"""Pareto geometry on masked arrays: ranks, crowding, hypervolume and density.

Rows of `fitness` are individuals and its columns objectives, all minimised. A row whose
mask is False takes no part whatever it holds, NaN included. Every function has static
shapes and works under `jit`, `vmap` and `scan`.

Mathematics: dominance, fronts and crowding after Deb, Pratap, Agarwal and Meyarivan, "A
fast and elitist multiobjective genetic algorithm: NSGA-II" (2002); hypervolume after
Zitzler and Thiele (1999); bandwidth after Scott, "Multivariate Density Estimation".
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


def dominates(
    a: Float[Array, "*#batch objectives"], b: Float[Array, "*#batch objectives"]
) -> Bool[Array, "*batch"]:
    """Whether `a` is nowhere worse than `b` and somewhere better; NaN reads as +inf."""
    a, b = (jnp.where(jnp.isnan(x), jnp.inf, x) for x in (a, b))
    return jnp.all(a <= b, axis=-1) & jnp.any(a < b, axis=-1)


def nondominated(
    fitness: Float[Array, "rows objectives"], mask: Bool[Array, " rows"] | None = None
) -> Bool[Array, " rows"]:
    """Which rows are dominated by no other; equal rows do not dominate each other."""
    mask = _given(mask, fitness)
    return mask & ~jnp.any(_dominance(fitness, mask), axis=0)


def front_ranks(
    fitness: Float[Array, "rows objectives"], mask: Bool[Array, " rows"] | None = None
) -> Int32[Array, " rows"]:
    """The front of every row: 0 if nondominated, 1 if so once front 0 is gone, ...

    Rows that are masked out get rank `rows`, which no other row can reach.
    """
    mask = _given(mask, fitness)
    dominance = _dominance(fitness, mask)

    # Dominance is a strict partial order, so what remains always has a minimal row and
    # every pass peels at least one.
    def peel(carry):
        ranks, remaining, level = carry
        front = remaining & ~jnp.any(dominance & remaining[:, None], axis=0)
        return jnp.where(front, level, ranks), remaining & ~front, level + 1

    ranks = jnp.full(mask.shape, mask.size, jnp.int32)
    start = ranks, mask, jnp.int32(0)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), peel, start)[0]


def crowding_distance(
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"] | None = None,
    ranks: Int32[Array, " rows"] | None = None,
) -> Float[Array, " rows"]:
    """How far apart the neighbours of a row lie in its own front (NSGA-II, III-B).

    The gap between both neighbours is summed over the objectives, each in units of its
    range over the front (an objective without range adds nothing). The first and last
    row along any objective are infinitely far from a neighbour; ties are ordered by row
    number. Without `ranks` all rows are one front. Zero for rows that are masked out or
    have an objective that is not finite: these are nobody's neighbours.
    """
    counted = _given(mask, fitness) & jnp.all(jnp.isfinite(fitness), axis=1)
    ranks = jnp.zeros(counted.shape, jnp.int32) if ranks is None else ranks
    peers = counted[:, None] & counted[None, :] & (ranks[:, None] == ranks[None, :])
    number = jnp.arange(counted.size)
    earlier = number[None, :] < number[:, None]

    # By comparing all pairs, as dominance does: no sort, and so nothing to undo.
    def along(objective):
        own, other = objective[:, None], objective[None, :]
        before = peers & ((other < own) | ((other == own) & earlier))
        below = jnp.max(jnp.where(before, other, -jnp.inf), axis=1)
        above = jnp.min(jnp.where(before.T, other, jnp.inf), axis=1)
        low = jnp.min(jnp.where(peers, other, jnp.inf), axis=1)
        high = jnp.max(jnp.where(peers, other, -jnp.inf), axis=1)
        spread = jnp.where(high > low, high - low, jnp.inf)
        gap = above - below
        return jnp.where(jnp.isinf(gap), jnp.inf, gap / spread)

    return jnp.where(counted, jnp.sum(jax.vmap(along, 1)(fitness), axis=0), 0.0)


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
        lambda keep: jnp.sum(keep) > size, drop, _given(mask, fitness)
    )


def hypervolume(
    points: Float[Array, "rows objectives"],
    reference: Float[Array, " objectives"],
    mask: Bool[Array, " rows"] | None = None,
) -> Float[Array, ""]:
    """The volume that the points dominate within the reference point.

    Exact up to float32 rounding for any number of objectives M, in `O(rows ** (M - 1))`
    time and `O(rows ** (M - 2))` memory. A point that is not better than the reference
    in every objective adds nothing. The unit is the product of those of all objectives:
    scale them first where that could overflow.
    """
    inside = _given(mask, points) & jnp.all(points < reference[None, :], axis=1)
    points = jnp.where(inside[:, None], points, reference[None, :])
    if points.shape[1] == 1:
        return reference[0] - jnp.min(points)

    # Points enter in the order of the last objective; between two entries lies a slab
    # as thick as their difference in it. A slab is cut into the cells of the grid that
    # the points span in all but the last two objectives. `floor` is, per cell, the
    # least last but one objective of the points entered so far that reach it: from
    # there to the reference the cell is dominated. A point moved to the reference
    # changes nothing.
    points = points[jnp.argsort(points[:, -1])]
    slabs = jnp.diff(points[:, -1], append=reference[-1])
    axes = points.shape[1] - 2
    edges = [jnp.sort(points[:, axis]) for axis in range(axes)]
    widths = [jnp.diff(e, append=reference[i]) for i, e in enumerate(edges)]

    def enter(floor, point):
        reached = jnp.bool_(True)
        for axis, edge in enumerate(edges):
            shape = [-1 if i == axis else 1 for i in range(axes)]
            reached &= (edge >= point[axis]).reshape(shape)
        floor = jnp.where(reached, jnp.minimum(floor, point[-2]), floor)
        area = reference[-2] - floor
        for width in reversed(widths):
            area = jnp.sum(area * width.reshape([1] * (area.ndim - 1) + [-1]), axis=-1)
        return floor, area

    floor = jnp.full([points.shape[0]] * axes, reference[-2])
    return jnp.sum(jax.lax.scan(enter, floor, points)[1] * slabs)


def kernel_log_density(
    points: Float[Array, "rows dimensions"],
    queries: Float[Array, "queries dimensions"],
    mask: Bool[Array, " rows"] | None = None,
) -> Float[Array, " queries"]:
    """The log of a kernel density estimate from `points`, at `queries` (natural log).

    The kernel is a product of Gaussians, each with the bandwidth `sigma * rows ** (-1 /
    (dimensions + 4))` of Scott's rule, sigma being the sample deviation. A dimension in
    which all points agree has no scale of its own: its bandwidth is one unit. No points
    give `-inf`.
    """
    mask = _given(mask, points)
    points = jnp.where(mask[:, None], points, 0.0)
    count = jnp.maximum(jnp.sum(mask), 1)
    dimensions = points.shape[1]

    # Agreement is judged on the extremes: a mean is rounded, so that the deviation of
    # equal values need not be zero.
    low = jnp.min(points, axis=0, initial=jnp.inf, where=mask[:, None])
    high = jnp.max(points, axis=0, initial=-jnp.inf, where=mask[:, None])
    mean = jnp.sum(points, axis=0) / count
    squares = jnp.where(mask[:, None], (points - mean[None, :]) ** 2, 0.0)
    sigma = jnp.sqrt(jnp.sum(squares, axis=0) / jnp.maximum(count - 1, 1))
    scott = count ** (-1.0 / (dimensions + 4))
    bandwidth = jnp.where(high > low, sigma * scott, 1.0)

    steps = (queries[:, None, :] - points[None, :, :]) / bandwidth[None, None, :]
    kernels = jnp.where(mask[None, :], -0.5 * jnp.sum(steps**2, axis=-1), -jnp.inf)
    constant = jnp.sum(jnp.log(bandwidth)) + 0.5 * dimensions * math.log(2 * math.pi)
    return jax.nn.logsumexp(kernels, axis=1) - jnp.log(count) - constant


def _given(mask, rows):
    return jnp.ones(rows.shape[0], bool) if mask is None else mask


def _dominance(fitness, mask):
    """`[i, j]`: row `i` dominates row `j`, both taking part."""
    pairs = dominates(fitness[:, None, :], fitness[None, :, :])
    return pairs & mask[:, None] & mask[None, :]

"""Hypervolume: what a set of points dominates within a reference point.

Zitzler and Thiele, "Multiobjective evolutionary algorithms: a comparative case study
and the strength Pareto approach" (1999). All objectives are minimised; masks as in
`pareto`. The reference decides what is measured: fix it once per run, `reference_point`
of the first evaluated population being one choice, and keep it with the results.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxnas.types import Key

from .pareto import given

LARGEST_SWEEP = 2**32
"""Cells that an exact hypervolume may visit, `rows ** (objectives - 1)`: 65,536 rows of
three objectives, 1,625 of four, 256 of five. Two have no limit."""


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

    Raises:
      ValueError: the sweep would be larger than `LARGEST_SWEEP`.
    """
    rows, objectives = points.shape
    if objectives > 2 and rows ** (objectives - 1) > LARGEST_SWEEP:
        most = math.floor(LARGEST_SWEEP ** (1 / (objectives - 1)) + 1e-6)
        raise ValueError(
            f"found {rows} points of {objectives} objectives, expected at most {most} "
            "for an exact hypervolume: thin the set or use hypervolume_estimate"
        )
    inside = given(mask, points) & jnp.all(points < reference[None, :], axis=1)
    points = jnp.where(inside[:, None], points, reference[None, :])
    if objectives == 1:
        return reference[0] - jnp.min(points)

    # Points enter in the order of the last objective; between two entries lies a slab
    # as thick as their difference in it. A point moved to the reference changes
    # nothing.
    points = points[jnp.argsort(points[:, -1])]
    slabs = jnp.diff(points[:, -1], append=reference[-1])
    if objectives == 2:
        areas = reference[0] - jax.lax.cummin(points[:, 0])
    else:
        areas = _slab_areas(points, reference)
    return _total(areas * slabs)


def hypervolume_contributions(
    points: Float[Array, "rows objectives"],
    reference: Float[Array, " objectives"],
    mask: Bool[Array, " rows"] | None = None,
) -> Float[Array, " rows"]:
    """What the hypervolume would lose without each of the points.

    Zero for rows that are masked out, dominated, repeated or beyond the reference. The
    loss is the box between point and reference less what the others dominate of it
    (While, Bradstreet and Barone, "A fast way of calculating exact hypervolumes",
    2012), so that its rounding error is that of the box, not of the whole volume.
    One exact hypervolume per row, with its limits.
    """
    mask = given(mask, points)
    inside = mask & jnp.all(points < reference[None, :], axis=1)
    corners = jnp.where(inside[:, None], points, reference[None, :])

    def loss(row):
        own = corners[row]
        others = jnp.maximum(corners, own[None, :])
        shared = hypervolume(others, reference, inside.at[row].set(False))
        return jnp.maximum(jnp.prod(reference - own) - shared, 0.0)

    losses = jax.lax.map(loss, jnp.arange(points.shape[0]))
    # A point at least as good leaves nothing; the difference may round to more.
    nowhere_worse = jnp.all(corners[:, None] <= corners[None], axis=-1)
    twin = ~jnp.eye(points.shape[0], dtype=bool) & inside[:, None]
    covered = jnp.any(nowhere_worse & twin, axis=0)
    return jnp.where(inside & ~covered, losses, 0.0)


def hypervolume_estimate(
    key: Key,
    points: Float[Array, "rows objectives"],
    reference: Float[Array, " objectives"],
    mask: Bool[Array, " rows"] | None = None,
    *,
    samples: int = 16384,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """An unbiased estimate of the hypervolume and its standard error, any objectives.

    Seen from the reference the dominated set is star-shaped: along a direction `u` of
    the positive orthant it reaches `R(u) = max over points of min over m of
    (reference[m] - point[m]) / u[m]`. Its volume is the integral of `R ** M / M` over
    that part of the unit sphere, hence the mean of `R ** M` over random directions
    times `(pi / 4) ** (M / 2) / Gamma(M / 2 + 1)` (polar coordinates; Deng and Zhang,
    "Approximating hypervolume and hypervolume contributions using polar coordinate",
    2019). Coordinates are first scaled by the best point, which makes rays comparable.

    Args:
      samples: directions drawn, at least 2; time is `O(samples * rows)`.

    Raises:
      ValueError: fewer than 2 samples.
    """
    if samples < 2:
        raise ValueError(
            f"found {samples} samples, expected at least 2: a standard error needs a "
            "spread"
        )
    objectives = points.shape[1]
    inside = given(mask, points) & jnp.all(points < reference[None, :], axis=1)
    depths = jnp.where(inside[:, None], reference[None, :] - points, 0.0)
    extent = jnp.max(depths, axis=0)
    depths = depths / jnp.where(extent > 0, extent, 1.0)[None, :]

    normal = jnp.abs(jax.random.normal(key, (samples, objectives)))
    directions = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)

    def reach(direction):
        return jnp.max(jnp.min(depths / direction[None, :], axis=1))

    powers = jax.lax.map(reach, directions, batch_size=64) ** objectives
    unit = (math.pi / 4) ** (objectives / 2) / math.gamma(objectives / 2 + 1)
    scale = unit * jnp.prod(extent)
    return scale * jnp.mean(powers), scale * jnp.std(powers, ddof=1) / samples**0.5


def reference_point(
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"] | None = None,
    *,
    margin: float = 0.1,
) -> Float[Array, " objectives"]:
    """A point worse than all of a first population: its worst values and a margin.

    The margin is a share of the range of each objective, or of one unit where all rows
    agree. Rows that are not finite are left out; with none left the point is `margin`.
    """
    counted = given(mask, fitness) & jnp.all(jnp.isfinite(fitness), axis=1)
    best = jnp.min(fitness, axis=0, initial=jnp.inf, where=counted[:, None])
    worst = jnp.max(fitness, axis=0, initial=-jnp.inf, where=counted[:, None])
    some = jnp.any(counted)
    best, worst = jnp.where(some, best, 0.0), jnp.where(some, worst, 0.0)
    return worst + margin * jnp.where(worst > best, worst - best, 1.0)


def _slab_areas(points, reference):
    """What is dominated in all but the last objective, after each entry.

    A slab is cut into the cells of the grid that the points span in all but the last
    two objectives. `floor` is, per cell, the least last but one objective of the points
    entered so far that reach it: from there to the reference the cell is dominated.
    """
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
            area = jnp.dot(area, width, precision=jax.lax.Precision.HIGHEST)
        return floor, area

    floor = jnp.full([points.shape[0]] * axes, reference[-2])
    return jax.lax.scan(enter, floor, points)[1]


def _total(values):
    """The sum, in blocks: rounding grows with their number and size, not with both."""
    side = math.isqrt(max(values.size - 1, 0)) + 1
    blocks = jnp.pad(values, (0, side * side - values.size)).reshape(side, side)
    return jnp.sum(jnp.sum(blocks, axis=1))

"""How well a set of points stands for a known front; both indicators are minimised.

IGD+: Ishibuchi, Masuda, Tanigaki and Nojima, "Modified distance calculation in
generational distance and inverted generational distance" (2015), equations 18 and 19.
Additive epsilon: Zitzler, Thiele, Laumanns, Fonseca and da Fonseca, "Performance
assessment of multiobjective optimizers" (2003). Masks as in `pareto`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .pareto import given

BATCH = 32
"""Points of the front that are compared with the whole set at once."""


def igd_plus(
    points: Float[Array, "rows objectives"],
    front: Float[Array, "known objectives"],
    mask: Bool[Array, " rows"] | None = None,
) -> Float[Array, ""]:
    """The mean distance from the front to what the points dominate of it.

    Only what a point lacks counts: an objective in which it is better adds nothing. In
    the unit of the objectives, which should therefore be of one scale; +inf without
    points.
    """

    def distance(known):
        lack = jnp.maximum(points - known[None, :], 0.0)
        return jnp.sqrt(jnp.sum(lack**2, axis=1))

    return jnp.mean(_nearest(distance, points, front, mask))


def additive_epsilon(
    points: Float[Array, "rows objectives"],
    front: Float[Array, "known objectives"],
    mask: Bool[Array, " rows"] | None = None,
) -> Float[Array, ""]:
    """By how much the points must improve in every objective to dominate the front.

    In the unit of the objectives; negative where they already lie beyond the front,
    +inf without points.
    """

    def distance(known):
        return jnp.max(points - known[None, :], axis=1)

    return jnp.max(_nearest(distance, points, front, mask))


def _nearest(distance, points, front, mask):
    """The least distance of each point of the front to any row; NaN reads as +inf."""
    mask = given(mask, points)

    def least(known):
        found = distance(known)
        counted = mask & ~jnp.isnan(found)
        return jnp.min(found, initial=jnp.inf, where=counted)

    return jax.lax.map(least, front, batch_size=BATCH)

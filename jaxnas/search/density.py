"""How densely points lie: a Gaussian kernel estimate over masked rows.

Bandwidth after Scott, "Multivariate Density Estimation" (1992). Masks as in `pareto`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .pareto import given


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
    mask = given(mask, points)
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

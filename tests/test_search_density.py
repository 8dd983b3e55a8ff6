"""The kernel estimate against SciPy and against the sum spelled out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.search.density import kernel_log_density


def test_density_is_that_of_scipy_in_one_dimension():
    rng = np.random.default_rng(0)
    points, queries = rng.normal(3, 2, (20, 1)), rng.normal(3, 6, (50, 1))
    expected = stats.gaussian_kde(points[:, 0]).logpdf(queries[:, 0])
    actual = jax.jit(kernel_log_density)(points, queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def diagonal_density(points, queries):
    """The estimate spelled out in float64, agreeing dimensions with unit bandwidth."""
    count, dimensions = points.shape
    spread = np.ptp(points, axis=0) > 0
    sigma = points.std(axis=0, ddof=1) if count > 1 else np.ones(dimensions)
    width = np.where(spread, sigma * count ** (-1 / (dimensions + 4)), 1)
    steps = (queries[:, None] - points[None]) / width
    kernels = np.exp(-0.5 * (steps**2).sum(axis=-1)) / np.prod(
        width * (2 * np.pi) ** 0.5
    )
    return np.log(kernels.mean(axis=1))


@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("agreeing", [[], [1], [0, 1, 2]])
def test_density_is_a_mean_of_products(count, agreeing):
    rng = np.random.default_rng(count)
    points = rng.normal(0, (1, 5, 0.1), (12, 3)).astype(np.float32)
    points[:, agreeing] = 0.1
    mask = np.arange(12) < count
    points[~mask] = np.nan
    queries = rng.normal(0, (1, 5, 0.1), (9, 3)).astype(np.float32)
    expected = diagonal_density(points[mask].astype(float), queries.astype(float))
    actual = jax.jit(kernel_log_density)(points, queries, mask)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_density_integrates_to_one():
    points = jnp.array([[-1.0], [0.5], [0.5], [2.0]])
    grid = jnp.linspace(-9, 10, 2001)
    density = jnp.exp(jax.jit(kernel_log_density)(points, grid[:, None]))
    np.testing.assert_allclose(jnp.trapezoid(density, grid), 1, rtol=1e-5)


def test_nothing_has_no_density_anywhere():
    points, nothing = jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool)
    density = jax.jit(kernel_log_density)(points, jnp.zeros((4, 2)), nothing)
    np.testing.assert_array_equal(density, -np.inf)

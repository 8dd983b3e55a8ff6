"""Test problems in JAX, each a function from genomes `[rows, genes]` to objectives.

ZDT1-4 and ZDT6: Zitzler, Deb and Thiele, "Comparison of multiobjective evolutionary
algorithms: empirical results" (2000). DTLZ1-3 and 7: Deb, Thiele, Laumanns and Zitzler,
"Scalable test problems for evolutionary multiobjective optimization" (2005). WFG4:
Huband, Hingston, Barone and While (2006). The knapsacks: Zitzler and Thiele (1999).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnas.search import Categorical, Real

PI = np.pi
ITEMS = 100


class Problem(NamedTuple):
    """What is minimised, over which genes, and up to where hypervolume counts."""

    name: str
    evaluate: Callable
    variables: Real | Categorical
    genes: int
    objectives: int
    reference: tuple[float, ...]
    generations: int
    constraints: int = 0


def problems() -> list[Problem]:
    unit = Real(0.0, 1.0)
    box = np.array([[0.0, 1.0]] + [[-5.0, 5.0]] * 9)
    two, three = (1.1, 1.1), (1.1, 1.1, 1.1)
    scales = 2.0 * np.arange(1, 12)
    return [
        Problem("zdt1", zdt1, unit, 30, 2, two, 100),
        Problem("zdt2", zdt2, unit, 30, 2, two, 150),
        Problem("zdt3", zdt3, unit, 30, 2, two, 100),
        Problem("zdt4", zdt4, Real(box[:, 0], box[:, 1]), 10, 2, two, 200),
        Problem("zdt6", zdt6, unit, 10, 2, two, 200),
        Problem("dtlz1", dtlz1, unit, 7, 3, (0.55, 0.55, 0.55), 250),
        Problem("dtlz2", dtlz2, unit, 12, 3, three, 100),
        Problem("dtlz3", dtlz3, unit, 12, 3, three, 1000),
        Problem("dtlz7", dtlz7, unit, 22, 3, (1.1, 1.1, 6.6), 150),
        Problem("wfg4", wfg4, Real(np.zeros(11), scales), 11, 3, (2.2, 4.4, 6.6), 100),
        Problem("knapsack", knapsack, Categorical(2), ITEMS, 2, (0.0, 0.0), 150, 2),
    ]


def zdt1(x):
    g = 1 + 9 * jnp.mean(x[:, 1:], axis=1)
    return jnp.stack([x[:, 0], g * (1 - jnp.sqrt(x[:, 0] / g))], axis=1)


def zdt2(x):
    g = 1 + 9 * jnp.mean(x[:, 1:], axis=1)
    return jnp.stack([x[:, 0], g * (1 - (x[:, 0] / g) ** 2)], axis=1)


def zdt3(x):
    g = 1 + 9 * jnp.mean(x[:, 1:], axis=1)
    share = x[:, 0] / g
    second = g * (1 - jnp.sqrt(share) - share * jnp.sin(10 * PI * x[:, 0]))
    return jnp.stack([x[:, 0], second], axis=1)


def zdt4(x):
    rest = x[:, 1:]
    g = 1 + 10 * rest.shape[1] + jnp.sum(rest**2 - 10 * jnp.cos(4 * PI * rest), axis=1)
    return jnp.stack([x[:, 0], g * (1 - jnp.sqrt(x[:, 0] / g))], axis=1)


def zdt6(x):
    first = 1 - jnp.exp(-4 * x[:, 0]) * jnp.sin(6 * PI * x[:, 0]) ** 6
    g = 1 + 9 * jnp.mean(x[:, 1:], axis=1) ** 0.25
    return jnp.stack([first, g * (1 - (first / g) ** 2)], axis=1)


def dtlz1(x):
    g = 100 * _ripples(x[:, 2:])
    one, two = x[:, 0], x[:, 1]
    shares = [one * two, one * (1 - two), 1 - one]
    return jnp.stack([0.5 * (1 + g) * share for share in shares], axis=1)


def dtlz2(x):
    return _sphere(x, jnp.sum((x[:, 2:] - 0.5) ** 2, axis=1))


def dtlz3(x):
    return _sphere(x, 100 * _ripples(x[:, 2:]))


def dtlz7(x):
    g = 1 + 9 * jnp.mean(x[:, 2:], axis=1)
    waves = x[:, :2] / (1 + g[:, None]) * (1 + jnp.sin(3 * PI * x[:, :2]))
    last = (1 + g) * (3 - jnp.sum(waves, axis=1))
    return jnp.stack([x[:, 0], x[:, 1], last], axis=1)


def wfg4(x):
    """Four positions and seven distances; three objectives."""
    y = x / (2.0 * jnp.arange(1, 12, dtype=jnp.float32))[None, :]
    # Multi-modal shift with 30 hills of size 10 around 0.35.
    away = jnp.abs(y - 0.35)
    inner = away / (2 * (jnp.floor(0.35 - y) + 0.35))
    t = (1 + jnp.cos(122 * PI * (0.5 - inner)) + 40 * inner**2) / 12
    t = jnp.clip(t, 0.0, 1.0)
    one, two = jnp.mean(t[:, :2], axis=1), jnp.mean(t[:, 2:4], axis=1)
    distance = jnp.mean(t[:, 4:], axis=1)
    a, b = one * PI / 2, two * PI / 2
    shape = [jnp.sin(a) * jnp.sin(b), jnp.sin(a) * jnp.cos(b), jnp.cos(a)]
    return jnp.stack([distance + 2 * (i + 1) * h for i, h in enumerate(shape)], axis=1)


def knapsack(x):
    """Two knapsacks of one hundred items: negative profits, then excess weights."""
    profits, weights, capacities = items()
    chosen = x.astype(jnp.float32)
    # Sums of integers below 2**24, exact in any order.
    exact = dict(precision="highest")
    profit = jnp.matmul(chosen, jnp.asarray(profits, jnp.float32).T, **exact)
    weight = jnp.matmul(chosen, jnp.asarray(weights, jnp.float32).T, **exact)
    excess = weight - jnp.asarray(capacities, jnp.float32)[None, :]
    return jnp.concatenate([-profit, excess], axis=1)


def items():
    """Profits and weights from 10 to 100; each knapsack holds half of its items."""
    rng = np.random.default_rng(2026)
    profits, weights = rng.integers(10, 101, (2, 2, ITEMS))
    return profits, weights, weights.sum(axis=1) // 2


def _ripples(rest):
    # 1 - cos(t) as 2 sin(t / 2) ** 2, which float32 does not round below zero.
    away = rest - 0.5
    return jnp.sum(away**2 + 2 * jnp.sin(10 * PI * away) ** 2, axis=1)


def _sphere(x, g):
    (sin_a, cos_a), (sin_b, cos_b) = _quarter(x[:, 0]), _quarter(x[:, 1])
    shape = [cos_a * cos_b, cos_a * sin_b, sin_a]
    return jnp.stack([(1 + g) * h for h in shape], axis=1)


def _quarter(share):
    """Sine and cosine of a share of a quarter turn.

    In float32 the cosine of half of pi is below zero, so that its product with `1 + g`
    would be the less the greater `g` is. This one is exactly zero.
    """
    return jnp.sin(share * (PI / 2)), jnp.sin((1 - share) * (PI / 2))

"""Pareto geometry by definition, in NumPy, and the sets it is tried on."""

import jax
import numpy as np

TRIALS, ROWS = 30, 14


def random_sets(objectives, *, seed=0, levels=4, failures=False):
    """Sets full of ties and repeated rows; rows outside the mask hold NaN."""
    rng = np.random.default_rng(seed)
    shape = TRIALS, ROWS, objectives
    fitness = rng.integers(0, levels, shape).astype(np.float32)
    fitness[:, -3:] = fitness[:, :3]
    if failures:
        fitness[rng.random(shape) < 0.08] = np.inf
    mask = rng.random(shape[:2]) < 0.8
    fitness[~mask] = np.nan
    return fitness, mask


def batched(function, *axes):
    return jax.jit(jax.vmap(function, in_axes=axes or 0))


def better(a, b):
    return all(a <= b) and any(a < b)


def peeled(fitness, mask):
    """Front numbers by definition: remove what nothing left dominates, and repeat."""
    ranks = np.full(len(fitness), len(fitness))
    left, level = set(np.flatnonzero(mask)), 0
    while left:
        front = {
            i for i in left if not any(better(fitness[j], fitness[i]) for j in left)
        }
        ranks[list(front)] = level
        left, level = left - front, level + 1
    return ranks


def neighbour_gaps(fitness, mask, ranks):
    """Crowding by definition: front by front, objective by objective."""
    distance = np.zeros(len(fitness))
    counted = mask & np.isfinite(fitness).all(axis=1)
    for front in set(ranks[counted]):
        rows = np.flatnonzero(counted & (ranks == front))
        for values in fitness.T:
            order = rows[np.argsort(values[rows], kind="stable")]
            spread = np.ptp(values[rows])
            distance[order[[0, -1]]] = np.inf
            for before, row, after in zip(order, order[1:], order[2:], strict=False):
                if spread > 0:
                    distance[row] += (values[after] - values[before]) / spread
    return distance


def constrained_better(a, b, violation_a, violation_b):
    """Deb's rule: feasibility first, then the violation, then the objectives."""
    if violation_a <= 0 and violation_b <= 0:
        return better(a, b)
    return max(violation_a, 0) < max(violation_b, 0)


def textbook_survivors(fitness, size):
    """NSGA-II, section III-C: whole fronts while they fit, then the least crowded.

    Of equally crowded rows the earlier survives.
    """
    everyone = np.ones(len(fitness), bool)
    ranks = peeled(fitness, everyone)
    distance = neighbour_gaps(fitness, everyone, ranks)
    survivors = []
    for level in range(ranks.max() + 1):
        front = np.flatnonzero(ranks == level)
        if len(survivors) + len(front) > size:
            front = front[np.argsort(-distance[front], kind="stable")]
            front = front[: size - len(survivors)]
        survivors += front.tolist()
    return sorted(survivors)


def thinned_survivors(fitness, size):
    """NSGA-II whose cut front loses its most crowded row, the last of equals, again
    and again, with all distances measured anew."""
    alive = np.ones(len(fitness), bool)
    ranks = peeled(fitness, alive)
    while alive.sum() > size:
        worst = alive & (ranks == ranks[alive].max())
        if alive.sum() - worst.sum() >= size:
            alive &= ~worst
            continue
        distance = neighbour_gaps(fitness, worst, np.zeros(len(fitness)))
        alive[max(np.flatnonzero(worst), key=lambda row: (-distance[row], row))] = 0
    return np.flatnonzero(alive).tolist()

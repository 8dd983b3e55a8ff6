"""NSGA-III: the front that is cut is thinned so that every direction keeps someone.

Deb and Jain, "An evolutionary many-objective optimization algorithm using
reference-point-based nondominated sorting approach, part I" (2014), Algorithms 1 to 4;
constraints as in part II (Jain and Deb, 2014); directions after Das and Dennis,
"Normal-boundary intersection" (1998).
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from .generations import GenerationalAlgorithm
from .matings import entrants, mixes_values, paired
from .pareto import front_ranks
from .states import Leaf

OFF_AXIS = 1e-6
"""Weight of the other objectives when the extreme along one is sought."""


def das_dennis(objectives: int, divisions: int) -> np.ndarray:
    """All directions whose shares are multiples of `1 / divisions` and sum to one.

    Returns float32 `[comb(divisions + objectives - 1, divisions), objectives]`.

    Raises:
      ValueError: there is no objective or no division.
    """
    if objectives < 1 or divisions < 1:
        raise ValueError(f"found {objectives=}, {divisions=}, expected at least 1 each")
    # Bars between stars: the gaps are the shares.
    places = range(divisions + objectives - 1)
    bars = np.array(list(itertools.combinations(places, objectives - 1)), int)
    bars = bars.reshape(math.comb(len(places), objectives - 1), objectives - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, len(places))))
    return ((np.diff(edges, axis=1) - 1) / divisions).astype(np.float32)


@struct.dataclass
class Frame:
    """The scales of the objectives that NSGA-III has learnt, on the feasible rows."""

    ideal: Leaf  # float32 [objectives]: the least value ever seen
    worst: Leaf  # float32 [objectives]: the greatest value ever seen
    extremes: Leaf  # float32 [objectives, objectives]: the row nearest each axis


class Nsga3(GenerationalAlgorithm):
    """See `GenerationalAlgorithm`; for many objectives, unlike crowding.

    Parents are drawn at random, those that break constraints less being preferred.
    Ranks are those of constrained fronts; crowding is not used.

    Args:
      directions: float32 `[directions, objectives]`, nowhere negative, such as
        `das_dennis` makes; a population of about as many rows fits. They are
        parameters (`params.extra`), so that other directions compile nothing anew.
      similar: whether winners mate who are alike in fitness (see `matings.alike`); by
        default if no gene is real.

    Raises:
      ValueError: directions have a wrong shape, or one has no length.
    """

    def __init__(
        self,
        *arguments,
        directions: np.ndarray,
        similar: bool | None = None,
        **options,
    ):
        super().__init__(*arguments, **options)
        mixes = mixes_values(self.default_params.variables)
        self.similar = mixes if similar is None else similar
        directions = np.asarray(directions, np.float32)
        shape = directions.shape
        if len(shape) != 2 or shape[1] != self.num_objectives or not shape[0]:
            raise ValueError(
                f"found directions of shape {shape}, expected [directions, "
                f"{self.num_objectives}]: one column per objective"
            )
        lengths = np.linalg.norm(directions, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ValueError(
                "found directions without a finite length above 0, expected none: "
                "leave them out"
            )
        if (directions < 0).any():
            raise ValueError("found negative directions, expected shares from 0 to 1")
        units = jnp.asarray(directions / lengths)
        self._default_params = self._default_params.replace(extra=units)

    def _init(self, key, params):
        shape = self.num_objectives, self.num_objectives
        frame = Frame(
            ideal=jnp.full(shape[0], jnp.inf),
            worst=jnp.full(shape[0], -jnp.inf),
            extremes=jnp.full(shape, jnp.inf),
        )
        return super()._init(key, params).replace(extra=frame)

    def _matings(self, key, state):
        half = self.proposals // 2
        left, right = entrants(key, state.mask, 4 * half).reshape(2, 2 * half)
        better = state.violation[right] < state.violation[left]
        winners = jnp.where(better, right, left)
        return paired(jax.random.fold_in(key, 1), winners, state.fitness, self.similar)

    def _survivors(self, key, state, fitness, violation, mask, params):
        limits = violation if self.num_constraints else None
        size, rows = self.population_size, mask.size
        rank = front_ranks(fitness, mask, limits, enough=size)
        ranked = mask & (rank < rows)
        frame, scaled = _scaled(state.extra, fitness, ranked & (violation <= 0), rank)
        niche, distance = _associated(scaled, params.extra)

        last = jnp.max(rank, initial=0, where=ranked)
        sure, candidate = ranked & (rank < last), ranked & (rank == last)
        counts = jnp.zeros(params.extra.shape[0], jnp.int32).at[niche].add(sure)
        noise = jax.random.uniform(key, (rows,))
        level = _levels(niche, distance, candidate, counts, noise)
        chosen = jnp.lexsort((noise, jnp.where(candidate, level, 0), rank))[:size]
        return chosen.astype(jnp.int32), rank, jnp.zeros_like(noise), frame

    def _configuration(self):
        return *super()._configuration(), self.similar


def _scaled(frame, fitness, counted, rank):
    """The frame after these rows, and the fitness from its ideal 0 to its nadir 1."""
    finite = jnp.where(jnp.isfinite(fitness), fitness, 0.0)
    least = jnp.min(fitness, axis=0, initial=jnp.inf, where=counted[:, None])
    most = jnp.max(fitness, axis=0, initial=-jnp.inf, where=counted[:, None])
    ideal, worst = jnp.minimum(frame.ideal, least), jnp.maximum(frame.worst, most)
    origin = jnp.where(jnp.isfinite(ideal), ideal, 0.0)

    # The extreme along an axis has the least achievement: its worst objective, the
    # others weighing a million times as much.
    rows = jnp.concatenate(
        [frame.extremes, jnp.where(counted[:, None], finite, jnp.inf)]
    )
    axes = jnp.eye(origin.size)
    weights = jnp.where(axes > 0, 1.0, OFF_AXIS)
    achievement = jnp.max((rows - origin[None])[:, None, :] / weights[None], axis=2)
    extremes = rows[jnp.argmin(achievement, axis=0)]

    # The plane through the extremes cuts the axes at the intercepts. Where it does not,
    # or cuts beyond the worst that is known, the worst of the first front stands in.
    offsets = jnp.where(jnp.isfinite(extremes), extremes - origin[None], axes)
    plane = jnp.linalg.solve(offsets, jnp.ones(origin.size))
    intercepts = 1 / jnp.where(plane > 0, plane, jnp.nan)
    front = counted & (rank == 0)
    span = jnp.where(jnp.isfinite(worst), worst - origin, 0.0)
    edge = jnp.max(finite - origin[None], axis=0, initial=0.0, where=front[:, None])
    sound = jnp.isfinite(intercepts) & (intercepts > OFF_AXIS)
    sound = jnp.all(sound & (intercepts <= span * (1 + 1e-5)))
    width = jnp.where(sound, intercepts, edge)
    width = jnp.where(width > OFF_AXIS, width, jnp.where(span > 0, span, 1.0))
    frame = Frame(ideal=ideal, worst=worst, extremes=extremes)
    return frame, (finite - origin[None]) / width[None]


def _associated(scaled, directions):
    """The direction nearest to each row, and its squared distance from that ray."""
    along = jnp.matmul(scaled, directions.T, precision=jax.lax.Precision.HIGHEST)
    apart = jnp.sum(scaled**2, axis=1, keepdims=True) - along**2
    niche = jnp.argmin(apart, axis=1).astype(jnp.int32)
    return niche, jnp.maximum(jnp.min(apart, axis=1), 0.0)


def _levels(niche, distance, candidate, counts, noise):
    """How full the niche of a candidate is when its turn comes.

    The paper picks one row at a time out of the emptiest niche: the nearest to the ray
    if that niche is empty and any other time a random one. A niche is therefore emptied
    in an order that is known beforehand, and its candidate number `i` is met when the
    niche holds `counts + i` rows: sorting by this number, ties at random, is the loop.
    """
    directions, rows = counts.size, niche.size
    far = jnp.where(candidate, distance, jnp.inf)
    nearest = jnp.full(directions, jnp.inf).at[niche].min(far)
    first = candidate & (counts[niche] == 0) & (distance == nearest[niche])
    turn = jnp.where(first, -1.0, noise)
    group = jnp.where(candidate, niche, directions)
    order = jnp.lexsort((turn, group))
    places = jnp.arange(rows, dtype=jnp.int32)
    ordered = group[order]
    starts = jnp.append(True, ordered[1:] != ordered[:-1])
    number = places - jax.lax.cummax(jnp.where(starts, places, 0))
    number = jnp.zeros(rows, jnp.int32).at[order].set(number)
    return counts[niche] + number

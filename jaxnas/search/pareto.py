"""Pareto dominance on masked arrays: which rows dominate which, and their fronts.

Rows of `fitness` are individuals and its columns objectives, all minimised. A row whose
mask is False takes no part whatever it holds, NaN included. Every function has static
shapes and works under `jit`, `vmap` and `scan`.

Mathematics: dominance, fronts and constrained dominance after Deb, Pratap, Agarwal and
Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from .ordering import WORD_BITS, ascending, sortable


def dominates(
    a: Float[Array, "*#batch objectives"], b: Float[Array, "*#batch objectives"]
) -> Bool[Array, "*batch"]:
    """Whether `a` is nowhere worse than `b` and somewhere better; NaN reads as +inf."""
    a, b = _without_nan(a), _without_nan(b)
    return jnp.all(a <= b, axis=-1) & jnp.any(a < b, axis=-1)


def nondominated(
    fitness: Float[Array, "rows objectives"], mask: Bool[Array, " rows"] | None = None
) -> Bool[Array, " rows"]:
    """Which rows are dominated by no other; equal rows do not dominate each other."""
    mask = given(mask, fitness)
    columns = _without_nan(fitness).T
    pairs = _dominance(columns[:, :, None], columns[:, None, :])
    return mask & ~jnp.any(pairs & mask[:, None], axis=0)


def front_ranks(
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"] | None = None,
    violation: Float[Array, " rows"] | None = None,
    *,
    enough: int | None = None,
) -> Int32[Array, " rows"]:
    """The front of every row: 0 if nondominated, 1 if so once front 0 is gone, ...

    One objective costs a sort and two cost `O(rows log rows)` on a CPU; otherwise the
    dominators of a row are kept as single bits, `rows ** 2 / 8` bytes in all.

    Args:
      mask: rows that take part; the others get rank `rows`, which no other can reach.
      violation: by how much a row breaks its constraints, at most 0 where it keeps
        them; NaN reads as +inf. A row that keeps them dominates every row that does
        not, and of two that do not the one with the lesser violation dominates,
        whatever their objectives (Deb et al. 2002, Definition 1).
      enough: stop after the first front with which so many rows have been ranked; rows
        of later fronts get rank `rows`. All rows by default.
    """
    mask = given(mask, fitness)
    values = _without_nan(fitness)
    rows, objectives = values.shape
    if violation is not None:
        values = _constrained(values, _without_nan(violation))
    if objectives == 1:
        ranks = _ordinals(jnp.where(mask, values[:, 0], _worst(values)))
    elif objectives == 2:
        # Patience sorting is one short step per row, which only a CPU does quickly.
        ranks = jax.lax.platform_dependent(
            values, mask, cpu=_patience, default=lambda v, m: _peel(v, m, enough)
        )
    else:
        return _peel(values, mask, enough)
    if enough is not None:
        sizes = jnp.zeros(rows, jnp.int32).at[ranks].add(mask, mode="drop")
        before = jnp.cumsum(sizes) - sizes
        ranks = jnp.where(before[jnp.minimum(ranks, rows - 1)] < enough, ranks, rows)
    return jnp.where(mask, ranks, rows)


def given(mask, rows) -> Bool[Array, " rows"]:
    """The mask, or one that takes in all rows."""
    return jnp.ones(rows.shape[0], bool) if mask is None else mask


def _without_nan(values):
    return jnp.where(jnp.isnan(values), jnp.inf, values)


def _worst(values):
    if jnp.issubdtype(values.dtype, jnp.integer):
        return jnp.iinfo(values.dtype).max
    return jnp.inf


def _dominance(a, b):
    """Whether `a` dominates `b`; the first axis is that of the objectives."""
    # Column by column, so that no array is larger than one column of all pairs.
    nowhere_worse = nowhere_better = True
    for own, other in zip(a, b, strict=True):
        nowhere_worse &= own <= other
        nowhere_better &= own >= other
    return nowhere_worse & ~nowhere_better


def _constrained(values, violation):
    """Numbers whose plain dominance is the constrained dominance of the rows.

    Feasible rows keep the order of each objective in numbers below `rows`; the others
    have their place among the violations, above that, in every objective.
    """
    rows = values.shape[0]
    broken = violation > 0
    places = rows + _ordinals(jnp.where(broken, violation, 0))
    orders = jax.vmap(_ordinals, in_axes=1, out_axes=1)(values)
    return jnp.where(broken[:, None], places[:, None], orders)


def _ordinals(values):
    """Dense ranks: equal values have equal numbers, which start at 0."""
    return _numbered(values, ascending(sortable(values)))


def _numbered(values, order):
    """Dense ranks of values of which a rising order is known."""
    ordered = values[order]
    steps = jnp.append(False, ordered[1:] != ordered[:-1])
    numbers = jnp.cumsum(steps, dtype=jnp.int32)
    return jnp.zeros(values.size, jnp.int32).at[order].set(numbers)


def _patience(values, mask):
    """Fronts of two objectives, rows being met in lexicographic order.

    Whatever dominates a row is met before it. A front already met dominates the row if
    and only if its least second objective so far is no larger than the row's, unless
    the row equals its predecessor, whose front it then shares. These least values never
    fall from a front to the next, so that bisection finds the first which is larger.
    """
    rows = mask.size
    first, second = (jnp.where(mask, v, _worst(values)) for v in values.T)
    order = ascending(sortable(second))
    heights = _numbered(second, order)
    order = ascending(sortable(first), after=order)
    ordered = jnp.stack([first[order], second[order]])
    equal = jnp.append(False, jnp.all(ordered[:, 1:] == ordered[:, :-1], axis=0))

    def meet(carry, row):
        tails, previous = carry
        height, same = row
        found = jnp.searchsorted(tails, height, side="right").astype(jnp.int32)
        front = jnp.where(same, previous, found)
        return (tails.at[front].set(height), front), front

    start = jnp.full(rows, rows, jnp.int32), jnp.int32(0)
    fronts = jax.lax.scan(meet, start, (heights[order], equal))[1]
    return jnp.zeros(rows, jnp.int32).at[order].set(fronts)


def _peel(values, mask, enough):
    """Fronts of any number of objectives, removed one after the other."""
    rows = mask.size
    words = -(-rows // WORD_BITS)
    dominators = _dominators(values, words)
    wanted = jnp.sum(mask) - (rows if enough is None else enough)

    # Dominance is a strict partial order, so what remains always has a minimal row and
    # every pass peels at least one.
    def front(carry):
        ranks, left, level = carry
        alive = dominators & _packed(left, words)[:, None]
        reached = jax.lax.reduce(alive, jnp.uint32(0), jax.lax.bitwise_or, (0,))
        minimal = left & (reached == 0)
        return jnp.where(minimal, level, ranks), left & ~minimal, level + 1

    start = jnp.full(rows, rows, jnp.int32), mask, jnp.int32(0)
    return jax.lax.while_loop(
        lambda carry: jnp.sum(carry[1]) > jnp.maximum(wanted, 0), front, start
    )[0]


def _dominators(values, words):
    """Bit `k` of `[w, i]`: row `k * words + w` dominates row `i`."""
    padding = ((0, words * WORD_BITS - values.shape[0]), (0, 0))
    padded = jnp.pad(values, padding, constant_values=_worst(values))
    found = jnp.zeros((words, values.shape[0]), jnp.uint32)
    for bit, block in enumerate(padded.reshape(WORD_BITS, words, -1)):
        pairs = _dominance(block.T[:, :, None], values.T[:, None, :])
        found |= pairs.astype(jnp.uint32) << bit
    return found


def _packed(rows, words):
    """The rows as bits in the order of `_dominators`, uint32 `[words]`."""
    padded = jnp.pad(rows, (0, words * WORD_BITS - rows.size))
    bits = padded.reshape(WORD_BITS, words).astype(jnp.uint32)
    weights = jnp.uint32(1) << jnp.arange(WORD_BITS, dtype=jnp.uint32)
    return jnp.sum(bits * weights[:, None], axis=0, dtype=jnp.uint32)

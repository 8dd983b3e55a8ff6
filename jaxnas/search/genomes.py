"""What the genes of a genome may be, and how they are drawn, crossed and mutated.

A genome is any pytree of arrays; each leaf holds genes of one kind, described by a
`Real`, an `Integer` or a `Categorical`. A population is the same pytree with a leading
axis of rows. Leaves keep their dtype: nothing is raveled, so that integers are never
rounded through floats. Bounds are traced: new ones compile nothing anew.

Operators: simulated binary crossover and polynomial mutation within bounds after Deb
and Agrawal, "Simulated binary crossover for continuous search space" (1995), and Deb,
"Multi-objective optimization using evolutionary algorithms" (2001), sections 4.3 and
4.4; uniform crossover after Syswerda (1989).
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from .noise import random_words

SETTLED = 2.0**-24
"""Real children within this share of their range from a bound are put on it: what the
fraction of a float32 resolves."""

# Bounds are numbers, arrays or tracers, and after a transformation anything at all.
Leaf: TypeAlias = Any


@struct.dataclass
class Real:
    """Genes of the interval from `low` to `high`, for leaves of floats.

    What is nearer to a bound than 2**-24 of the interval is moved to it.
    """

    low: Leaf
    high: Leaf


@struct.dataclass
class Integer:
    """Ordered genes `low, low + 1, ..., high`, for leaves of integers."""

    low: Leaf
    high: Leaf


@struct.dataclass
class Categorical:
    """Genes without order, `0, ..., count - 1`, for leaves of integers."""

    count: Leaf


Variable: TypeAlias = Real | Integer | Categorical


@struct.dataclass
class Rates:
    """How often and how far genes change; all are traced.

    Crossover is drawn once per pair of parents and then gene by gene.
    """

    crossover_rate: Leaf = 0.9  # of a pair of parents
    exchange_rate: Leaf = 0.5  # of a gene of a pair that is crossed, above 0; to 1/256
    crossover_eta: Leaf = 15.0  # larger: real children closer to their parents
    mutation_rate: Leaf = 0.1  # of a gene
    mutation_eta: Leaf = 20.0  # larger: smaller steps of real and integer genes


def fitted(variables: Any, solution: Any) -> tuple[Variable, ...]:
    """One variable per leaf of the solution, its bounds spread over the genes.

    Args:
      variables: one variable for all leaves, or a pytree of them like `solution`.

    Raises:
      ValueError: there is not one variable per leaf, a leaf has not the dtype of its
        kind, or bounds are empty, not finite or of another shape.
    """
    kinds = Real | Integer | Categorical
    leaves, structure = jax.tree.flatten(solution)
    found, given = jax.tree.flatten(variables, is_leaf=lambda x: isinstance(x, kinds))
    if len(found) == 1 and isinstance(variables, kinds):
        found = found * len(leaves)
    elif given != structure:
        raise ValueError(
            f"variables have structure {given}, expected one Real, Integer or "
            f"Categorical for all or one per leaf of the solution: {structure}"
        )
    return tuple(_fitted(*pair) for pair in zip(found, leaves, strict=True))


def sample(key, variables: tuple[Variable, ...], solution: Any, rows: int) -> Any:
    """A population of `rows` genomes, every gene uniform over its values."""
    leaves, structure = jax.tree.flatten(solution)
    keys = jax.random.split(key, len(leaves))
    drawn = []
    for key, variable, leaf in zip(keys, variables, leaves, strict=True):
        share = _shares(key, 1, (rows, *leaf.shape))[0]
        drawn.append(_at(variable, share, leaf.dtype))
    return jax.tree.unflatten(structure, drawn)


def vary(key, first: Any, second: Any, variables: tuple[Variable, ...], rates: Rates):
    """Two children of every pair of parents, crossed and then mutated.

    Args:
      first, second: populations of the parents, one row per pair.
      variables: one per leaf, as `fitted` returns them.

    Returns:
      A population of twice as many rows: the children that lie by their first parent,
      then those by their second.
    """
    leaves, structure = jax.tree.flatten(first)
    pairs = leaves[0].shape[0]
    key, *keys = jax.random.split(key, 1 + len(leaves))
    crossed = jax.random.uniform(key, (pairs,)) < rates.crossover_rate
    each = zip(keys, leaves, jax.tree.leaves(second), variables, strict=True)
    children = [_vary(*one, crossed, rates) for one in each]
    return jax.tree.unflatten(structure, children)


def mutants(key, genomes: Any, variables: tuple[Variable, ...], rates: Rates):
    """A mutant of every row, of which there is an even number; nothing is crossed."""
    half = jax.tree.leaves(genomes)[0].shape[0] // 2
    first, second = (
        jax.tree.map(lambda leaf, part=part: leaf[part], genomes)
        for part in (slice(None, half), slice(half, None))
    )
    return vary(key, first, second, variables, rates.replace(crossover_rate=0.0))


def _fitted(variable, leaf):
    real = isinstance(variable, Real)
    kind = type(variable).__name__
    if jnp.issubdtype(leaf.dtype, jnp.floating) != real or leaf.dtype == bool:
        raise ValueError(
            f"found a leaf of type {leaf.dtype} for a {kind}, expected "
            f"{'floats' if real else 'integers'}: describe it by another kind"
        )
    if isinstance(variable, Categorical):
        variable = Integer(low=0, high=np.asarray(variable.count) - 1)
    low, high = np.asarray(variable.low), np.asarray(variable.high)
    for bound in (low, high):
        if bound.shape not in ((), leaf.shape):
            raise ValueError(
                f"found bounds of shape {bound.shape}, expected one number or "
                f"{leaf.shape}: one bound per gene"
            )
    wide = high.astype(np.float64) - low.astype(np.float64)
    if not (np.isfinite(wide).all() and (wide >= 0).all() and (wide < 2**128).all()):
        raise ValueError(
            f"found bounds {low} and {high}, expected finite ones in rising order (and "
            "a count of at least 1)"
        )
    if not real and (wide >= 2**31).any():
        raise ValueError(
            f"found {low} to {high}, expected fewer than 2**31 values of a gene: "
            "divide it into several genes"
        )
    low, high = (
        jnp.broadcast_to(jnp.asarray(bound, leaf.dtype), leaf.shape)
        for bound in (low, high)
    )
    if kind == "Categorical":
        return Categorical(count=high + 1)
    return type(variable)(low=low, high=high)


def _shares(key, count, shape):
    """Numbers uniform over [0, 1), float32 `[count, *shape]`."""
    return _share_and_byte(key, count, shape)[0]


def _share_and_byte(key, count, shape):
    """Numbers uniform over [0, 1) and, independent of them, over 0, ..., 255."""
    # One block of bits for all: every separate draw is compiled anew.
    bits = random_words(key, (count, *shape))
    return (bits >> 8).astype(jnp.float32) * 2.0**-24, bits & 0xFF


def _at(variable, share, dtype):
    """The value at a share of the way through all values."""
    if isinstance(variable, Real):
        low, high = (b.astype(jnp.float32)[None] for b in (variable.low, variable.high))
        value = (low + share * (high - low)).astype(dtype)
        return jnp.clip(value, variable.low[None], variable.high[None])
    low = jnp.zeros_like(variable.count) if _unordered(variable) else variable.low
    last = variable.count - 1 if _unordered(variable) else variable.high - low
    steps = jnp.floor(share * (last.astype(jnp.float32) + 1)[None])
    return low[None] + jnp.minimum(_whole(steps, dtype), last[None])


def _unordered(variable):
    return isinstance(variable, Categorical)


def _whole(steps, dtype):
    """Float steps as integers; the largest float below 2**31 keeps within int32."""
    return jnp.minimum(steps, 2147483520.0).astype(jnp.int32).astype(dtype)


def _vary(key, first, second, variable, crossed, rates):
    rows = first.shape
    crossed = crossed.reshape(-1, *[1] * (first.ndim - 1))
    in_line = lambda one: jnp.broadcast_to(one, rows).reshape(-1)  # noqa: E731
    # Bits are a great part of the cost: none are drawn that are not used.
    real = isinstance(variable, Real)
    noise, bytes_ = _share_and_byte(key, 3 if real else 2, rows)
    if real:
        exchanged = crossed & (noise[2] < rates.exchange_rate)
        # What is uniform and below a rate is, divided by it, uniform once more.
        share = in_line(noise[2] / rates.exchange_rate)
    else:
        exchanged = crossed & (bytes_[0] < rates.exchange_rate * 256)
        share = None
    exchanged, variable = in_line(exchanged), jax.tree.map(in_line, variable)

    def child(parents):
        own, other, noise = parents
        if real:
            other = _crossed(own, other, variable, share, rates)
        child = jnp.where(exchanged, other, own)
        mutates = noise < rates.mutation_rate
        scaled = jnp.where(mutates, noise / rates.mutation_rate, 0.0)
        child = jnp.where(mutates, _mutant(child, variable, scaled, rates), child)
        return _settled(child, variable) if real else child

    # One child of each pair after the other, all genes in one axis: what enters a loop
    # lies in memory, and only a long axis of that is vectorised on a CPU.
    pair = first.reshape(-1), second.reshape(-1)
    own, other = jnp.stack(pair), jnp.stack(pair[::-1])
    children = jax.lax.map(child, (own, other, noise[:2].reshape(2, -1)))
    return children.reshape(2 * rows[0], *rows[1:])


def _crossed(own, other, variable, share, rates):
    """Real genes of crossed pairs, of which half also change sides: else no child would
    mix its parents."""
    low, high = (b.astype(jnp.float32) for b in (variable.low, variable.high))
    floats = own.astype(jnp.float32), other.astype(jnp.float32)
    near, far = (jnp.where(share < 0.5, *pair) for pair in (floats[::-1], floats))
    share = jnp.where(share < 0.5, 2 * share, 2 * share - 1)
    genes = _simulated_binary(near, far, low, high, share, rates.crossover_eta)
    return genes.astype(own.dtype)


def _settled(genes, variable):
    """Genes that are as good as at a bound, at the bound.

    Both operators can come nearer to it for ever, by smaller steps each time. A row
    that is best in one objective by 1e-30 of its range is dominated by no other, bad as
    it is in the rest, and keeps the place of one that is good (on ZDT4, most of all).
    """
    low, high = variable.low, variable.high
    near = (high - low) * jnp.asarray(SETTLED, genes.dtype)
    genes = jnp.where(genes - low < near, low, genes)
    return jnp.where(high - genes < near, high, genes)


def _mutant(genes, variable, share, rates):
    """What each gene becomes if it mutates."""
    if isinstance(variable, Categorical):
        # Any other value, all equally likely.
        count = variable.count
        others = jnp.maximum(count - 1, 1)
        steps = _whole(jnp.floor(share * others.astype(jnp.float32)), genes.dtype)
        moved = genes + (1 + jnp.minimum(steps, others - 1)) % count
        return jnp.where(moved >= count, moved - count, moved)
    low, high = variable.low, variable.high
    if isinstance(variable, Real):
        bounds = low.astype(jnp.float32), high.astype(jnp.float32)
        shift = _polynomial(genes.astype(jnp.float32), *bounds, share, rates)
        width = bounds[1] - bounds[0]
        moved = (genes.astype(jnp.float32) + shift * width).astype(genes.dtype)
        return jnp.clip(moved, low, high)
    # A real step, rounded but at least one, and never out of bounds.
    place, width = ((x - low).astype(jnp.float32) for x in (genes, high))
    shift = _polynomial(place, jnp.float32(0), width, share, rates)
    steps = _whole(jnp.maximum(jnp.round(jnp.abs(shift) * width), 1), genes.dtype)
    down = (genes > low) & ((share < 0.5) | (genes == high))
    below, above = (jnp.minimum(steps, room) for room in (genes - low, high - genes))
    return jnp.where(down, genes - below, genes + above)


def _simulated_binary(near, far, low, high, share, eta):
    """Children on the side of their near parent, which the spread may reproduce."""
    below = near <= far
    apart = jnp.abs(near - far)
    room = jnp.where(below, near - low, high - near)
    reach = 1 + 2 * room / jnp.where(apart > 0, apart, 1.0)
    tail = share * (2 - jnp.exp(-(eta + 1) * jnp.log(reach)))
    base = jnp.where(tail <= 1, tail, 1 / jnp.maximum(2 - tail, 1e-6))
    # By how much the spread exceeds one, so that parents near a bound, or near each
    # other, are not lost in the rounding of their middle.
    excess = jnp.exp(jnp.log(base) / (eta + 1)) - 1
    step = 0.5 * excess * apart
    return jnp.clip(jnp.where(below, near - step, near + step), low, high)


def _polynomial(genes, low, high, share, rates):
    """A step in units of the range, whose bounds it does not leave."""
    width = jnp.where(high > low, high - low, 1.0)
    power = rates.mutation_eta + 1
    down = share < 0.5
    # Written for small steps: with p the power, d the way to the bound and t twice the
    # share of the tail, the step is 1 - (t + (1 - t) (1 - d) ** p) ** (1 / p).
    way = jnp.minimum(jnp.where(down, genes - low, high - genes) / width, 1.0)
    rest = 1 - jnp.where(down, 2 * share, 2 - 2 * share)
    step = jnp.expm1(jnp.log1p(rest * jnp.expm1(power * jnp.log1p(-way))) / power)
    return jnp.where(down, step, -step)

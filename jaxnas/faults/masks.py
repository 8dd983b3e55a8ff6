"""Exact sampling of the bits that flip, at a cost that grows with the flips.

Every bit of a memory flips independently with probability `rate`. Instead of drawing
a number per bit, the distance from one flip to the next is drawn: it is geometric,

    P(gap >= n) = (1 - p)^n,   gap = floor(E / -log(1 - p)),   E = -log U exponential,

(Devroye, "Non-Uniform Random Variate Generation", 1986, X.2). Sampling happens at a
static `max_rate`, which fixes all shapes; a flip is kept where its uniform level is at
most rate / max_rate. So one compiled program serves all rates, and under one key and
one `max_rate` the flips at a lower rate are a subset of those at a higher one.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, UInt, UInt8, UInt32

from jaxnas.faults.rates import Rate
from jaxnas.types import Key

SMALLEST_MAX_RATE = 2.0**-20
"""Lower rates are sampled at this one and thinned: gaps come from float32, which has no
odd numbers above 2**24, so that longer ones would favour some bits of a word."""


def capacity(total_bits: int, max_rate: float) -> int:
    """How many flips to make room for: the mean, 8 standard deviations and 16 more.

    More of them than that have probability below 1e-14 or, in small memories, none.
    Rounded up to a power of two: samplers of one capacity are one program, which XLA
    compiles once for all memories of a network. Raises ValueError for a rate outside
    [0, 1] and for 2**31 bits and more, where positions overflow.
    """
    if not 0 <= max_rate <= 1:
        raise ValueError(f"max_rate={max_rate}; expected a probability per bit, 0 to 1")
    if not 0 <= total_bits < 2**31:
        raise ValueError(
            f"{total_bits} bits in one memory; expected fewer than 2**31: split it"
        )
    if max_rate == 0 or total_bits == 0:
        return 0
    mean = total_bits * max(max_rate, SMALLEST_MAX_RATE)
    room = min(math.ceil(mean + 8 * math.sqrt(mean) + 16), total_bits)
    return 1 << (room - 1).bit_length()


def bernoulli_positions(
    key: Key,
    total_bits: int,
    rate: Rate | Float[Array, " period"],
    max_rate: float,
    *,
    far: bool = False,
) -> UInt32[Array, " capacity"]:
    """The positions at which bits flip: each bit with probability `rate` on its own.

    Positions are distinct and ascend; slots that are not used hold `total_bits` and
    may lie anywhere between. `rate` may be traced and counts at most as `max_rate`;
    several rates take turns, bit i having `rate[i % period]`. The cost is that of
    `max_rate`, except that a rate of zero costs nothing. The law is exact but for the
    2**-32 grid of the uniform numbers and a relative 2**-23 in rate.

    far: which flips are kept. Under one key the near and the far flips share no bit as
        long as their two rates sum up to at most `max_rate`; at equal sum, all are in
        one or the other.

    Raises ValueError as `capacity` does.
    """
    slots = capacity(total_bits, max_rate)
    limit = jnp.uint32(total_bits)
    if not slots:
        return jnp.full(slots, limit)
    max_rate = max(max_rate, SMALLEST_MAX_RATE)
    return _positions(key, limit, jnp.asarray(rate), slots, max_rate, far)


@partial(jax.jit, static_argnames=("slots", "max_rate", "far"))
def _positions(key, limit, rate, slots, max_rate, far):
    def sample(key):
        # One call: every separate draw is compiled, and dispatched, on its own.
        bits = jax.random.bits(key, (2 * slots,))
        positions = _running_sums(_gaps(bits[:slots], limit, max_rate), limit)
        levels = ~bits[slots:] if far else bits[slots:]
        own = rate[positions % rate.size] if rate.ndim else rate
        # The product, not the ratio of the rates: at max_rate all flips must stay.
        kept = _uniform(levels) * max_rate <= own
        return jnp.where(kept, positions, limit)

    wanted = jnp.any(rate > 0)
    return jax.lax.cond(wanted, sample, lambda key: jnp.full(slots, limit), key)


def _uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Uniform numbers in (0, 1], with full relative precision near 0, never zero."""
    return (bits.astype(jnp.float32) + 0.5) * 2.0**-32


def _gaps(
    bits: UInt32[Array, " n"], limit: UInt32[Array, ""], max_rate: float
) -> UInt32[Array, " n"]:
    """Distances from flip to flip, at most `limit`; the first counts from bit 0.

    E = -log U is needed with full relative precision at both ends: U near 1 decides
    on neighbouring flips, U near 0 on the longest gaps. With t <= 1/2 the distance
    of U to the nearer end, E = -log t at the lower end and -log1p(-t) at the upper.
    """
    nearer = _uniform(jnp.minimum(bits, ~bits))
    below = bits < jnp.uint32(2**31)
    exponential = jnp.where(below, -jnp.log(nearer), -jnp.log1p(-nearer))
    scale = -1 / math.log1p(-max_rate) if max_rate < 1 else 0.0
    skipped = jnp.minimum(exponential * scale, limit.astype(jnp.float32))
    # The first flip may be bit 0; each further one lies at least one bit on.
    step = (jnp.arange(bits.size) > 0).astype(jnp.uint32)
    return jnp.minimum(skipped.astype(jnp.uint32) + step, limit)


def _running_sums(
    gaps: UInt32[Array, " n"], limit: UInt32[Array, ""]
) -> UInt32[Array, " n"]:
    """Cumulative sums that stop at `limit`; all terms are below 2**31, so none wraps.

    A plain loop is the fastest on CPU, to run and to compile; devices with many lanes
    need the logarithmic depth.
    """
    return jax.lax.platform_dependent(
        gaps, limit, cpu=_sums_by_loop, default=_sums_by_tree
    )


def _sums_by_loop(gaps, limit):
    def step(total, gap):
        total = jnp.minimum(total + gap, limit)
        return total, total

    return jax.lax.scan(step, jnp.uint32(0), gaps)[1]


def _sums_by_tree(gaps, limit):
    # Saturating addition is associative.
    return jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, limit), gaps)


def uniform_positions(key: Key, total_bits: int, count: int) -> UInt32[Array, " count"]:
    """So many distinct positions, ascending: every set of them is equally likely.

    Positions are drawn at random, and repeated ones drawn again until none is. Nothing
    in this tells one position from another, so that the law is the same under every
    renumbering of the bits: sets of one size have one probability. (Independent draws
    without that would hit a bit twice, and flip fewer.) Raises ValueError unless
    0 <= count <= total_bits < 2**32.
    """
    if not 0 <= count <= total_bits < 2**32:
        raise ValueError(
            f"{count} distinct flips in {total_bits} bits; expected 0 <= flips <= bits "
            "and fewer than 2**32 bits"
        )
    if 2 * count <= total_bits:
        return _redrawn(key, jnp.uint32(total_bits), count)
    # Few of these many are left out, and a few are quickly distinct.
    left_out = _redrawn(key, jnp.uint32(total_bits), total_bits - count)
    chosen = jnp.ones(total_bits, bool).at[left_out].set(False)
    return jnp.nonzero(chosen, size=count)[0].astype(jnp.uint32)


@partial(jax.jit, static_argnames="count")
def _redrawn(key, total, count):
    def draw(number):
        key_of_round = jax.random.fold_in(key, number)
        return jax.random.randint(key_of_round, (count,), 0, total, jnp.uint32)

    def again(state):
        number, positions = state
        fresh = jnp.where(_repeats(positions), draw(number), positions)
        return number + 1, jnp.sort(fresh)

    start = (jnp.uint32(1), jnp.sort(draw(0)))
    return jax.lax.while_loop(lambda state: _repeats(state[1]).any(), again, start)[1]


def distinct(
    positions: UInt32[Array, " n"], total_bits: int | UInt32[Array, ""]
) -> UInt32[Array, " n"]:
    """Each position once, in slots that ascend; repeats become `total_bits`."""
    positions = jnp.sort(positions)
    return jnp.where(_repeats(positions), jnp.uint32(total_bits), positions)


def _repeats(ascending: UInt32[Array, " n"]) -> Bool[Array, " n"]:
    first = jnp.ones(min(1, ascending.size), bool)
    return ~jnp.concatenate([first, ascending[1:] != ascending[:-1]])


def flips_to_masks(
    word: UInt32[Array, " capacity"],
    bit: UInt8[Array, " capacity"],
    words_shape: tuple[int, ...],
    dtype: DTypeLike,
) -> UInt[Array, "..."]:
    """The masks whose exclusive-or with words inverts bit `bit[i]` of word `word[i]`.

    Words are counted in row-major order; those beyond the last one are dropped. The
    pairs must be distinct: they are distinct powers of two in each word, so that
    their sum, which scatters fast, is their or.
    """
    masks = jnp.zeros(math.prod(words_shape), dtype)
    flips = jnp.ones((), dtype) << bit.astype(dtype)
    return masks.at[word].add(flips, mode="drop").reshape(words_shape)


@partial(jax.jit, static_argnames=("words_shape", "bits", "dtype", "far"))
def bernoulli_masks(
    key: Key,
    words_shape: tuple[int, ...],
    bits: int,
    rate: Rate | Float[Array, " bits"],
    dtype: DTypeLike,
    *,
    far: bool = False,
) -> UInt[Array, "..."]:
    """Masks in which each of the lowest `bits` bits is one with probability `rate`.

    A number per bit: the cheaper way at high rates. Nested in the rate under one key;
    near and far masks are disjoint as long as their rates sum up to at most one.
    """
    rate = jnp.broadcast_to(jnp.asarray(rate), (bits,))

    def plane(position, masks):
        levels = jax.random.bits(jax.random.fold_in(key, position), words_shape)
        ones = _uniform(~levels if far else levels) <= rate[position]
        ones = ones.astype(dtype)
        return masks | ones << position.astype(dtype)

    return jax.lax.fori_loop(0, bits, plane, jnp.zeros(words_shape, dtype))

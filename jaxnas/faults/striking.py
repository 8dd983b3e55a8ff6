"""What becomes of the words of one site: keys, models and windows applied in order."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jaxtyping import Array, UInt32

from jaxnas.faults.masks import flips_to_masks
from jaxnas.faults.models import FaultModel
from jaxnas.faults.sites import Found, Window, is_accumulator
from jaxnas.jaxprs import bind
from jaxnas.numerics.formats import Format
from jaxnas.numerics.machine import from_words, to_words
from jaxnas.numerics.primitives import quantize_p
from jaxnas.rewriting import on_shards, replace
from jaxnas.types import Key, Words

# Numbers beyond all sites and rounds, from which keys of their own are folded.
ACCUMULATORS, NETWORK, EVERY_ROUND = (np.uint32(2**32 - n) for n in (1, 2, 1))


class Loop(NamedTuple):
    """A loop around a site."""

    first: tuple[int, int]  # numbers of its first site of memory and accumulator
    length: int | None
    iteration: Array


class Draw(NamedTuple):
    """A fault drawn anew at every site."""

    model: FaultModel
    permanent: bool


class Positions(NamedTuple):
    """A fault drawn once for the whole network, as one site sees it."""

    positions: UInt32[Array, " flips"]
    window: Window


class Blow(NamedTuple):
    """What is done to the words of a site: in the order of the faults."""

    place: int  # of the site among all
    found: Found
    acts: tuple[Draw | Positions, ...]


Report = Callable[[Blow, Sequence[Loop], Array, Array], None]
"""Called with the words of a site before and after, as they are computed."""


def network_key(key: Key, fault: int) -> Key:
    """The key of the fault number `fault` that is drawn once for the network."""
    return jax.random.fold_in(jax.random.fold_in(key, NETWORK), fault)


def _site_key(key: Key, found: Found, loops: Sequence[Loop], permanent: bool) -> Key:
    accumulator = is_accumulator(found)
    if accumulator:
        key = jax.random.fold_in(key, ACCUMULATORS)
    for loop in loops:
        key = jax.random.fold_in(key, loop.first[accumulator])
        key = jax.random.fold_in(key, EVERY_ROUND if permanent else loop.iteration)
    for axis, _ in found.shards:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    return jax.random.fold_in(key, found.number)


def strike(
    eqn: JaxprEqn,
    operands: list,
    key: Key,
    blow: Blow,
    loops: Sequence[Loop],
    report: Report | None,
) -> list:
    """The result of an equation that is a site, with faults.

    Faults of words act first; what is then read is what faults of values act on.
    """
    acts = _drawn(blow, key, loops)
    on_values = [act for act in acts if _is_on_values(act)]
    words = (_memory if eqn.primitive is quantize_p else _accumulator)(eqn, operands)
    after = words.before
    for act in acts:
        if not _is_on_values(act):
            after = _struck(act, after, blow.found, loops)
    clean = len(on_values) == len(acts)
    results = words.clean() if clean else words.decode(after)
    for model, own in on_values:
        results = [_changed(model, own, results[0], blow.found)]
    if on_values:
        after = words.encode(jax.lax.stop_gradient(results[0]))
    if report is not None:
        report(blow, loops, words.before, after)
    return results


def _drawn(blow: Blow, key: Key, loops: Sequence[Loop]) -> list:
    """The acts of a blow: models with their keys, and positions."""
    several = sum(isinstance(act, Draw) for act in blow.acts) > 1
    drawn, number = [], 0
    for act in blow.acts:
        if isinstance(act, Draw):
            own = _site_key(key, blow.found, loops, act.permanent)
            # Alone it is not folded: what it draws must not depend on other faults.
            act = act.model, jax.random.fold_in(own, number) if several else own
            number += 1
        drawn.append(act)
    return drawn


def _is_on_values(act) -> bool:
    return isinstance(act[0], FaultModel) and act[0].on == "values"


class _Words(NamedTuple):
    """The words of a site, how they are read, and what is read without faults."""

    before: Words
    encode: Callable  # values -> words
    decode: Callable  # words -> results
    clean: Callable  # () -> results


def _memory(eqn: JaxprEqn, operands: list) -> _Words:
    (x, scale), format = jax.lax.stop_gradient(operands), eqn.params["format"]

    def decode(words):
        values = [format.decode(words, scale)]
        faulted = replace(partial(bind, eqn), operands, values)
        # Bound once more, which changes no value that was decoded, as the memory word
        # that it still is: further transforms of the faulted function see the same
        # sites.
        return bind(eqn, [*faulted, scale])

    encode = partial(format.encode, scale=scale)
    return _Words(encode(x), encode, decode, partial(bind, eqn, operands))


def _accumulator(eqn: JaxprEqn, operands: list) -> _Words:
    # Bound once, so that further transforms of the faulted function see one site.
    results = bind(eqn, operands)
    (values,) = jax.lax.stop_gradient(results)

    def decode(words):
        faulted = [from_words(words, values.dtype)]
        if not jnp.issubdtype(values.dtype, jnp.floating):
            return faulted  # which have no derivative
        return replace(partial(bind, eqn), operands, faulted)

    return _Words(to_words(values), to_words, decode, lambda: results)


def _struck(act: Any, words: Array, found: Found, loops: Sequence[Loop]) -> Array:
    format = found.site.format
    if isinstance(act, Positions):
        start = _start(act.window, found, loops)
        return flipped(words, format, act.positions, start)
    return draw_and_apply(*act, words, format)


def draw_and_apply(model: FaultModel, key: Key, stored: Array, format: Format) -> Array:
    """Words or values under a fault drawn for them."""

    def struck(key, stored):
        return model.apply(model.sample(key, stored.shape, format), stored)

    return on_shards(struck, key, stored)


def _changed(model: FaultModel, key: Key, values: Array, found: Found) -> Array:
    changed = draw_and_apply(model, key, values, found.site.format)
    check_values(changed, values, found.site.name)
    return changed


def check_values(changed: Array, values: Array, name: str) -> None:
    """Raises ValueError where a fault of values gave other shapes or dtypes."""
    if (changed.shape, changed.dtype) != (values.shape, values.dtype):
        raise ValueError(
            f"a fault of values turned {values.dtype}{list(values.shape)} at {name!r} "
            f"into {changed.dtype}{list(changed.shape)}; expected shape and dtype to "
            "stay: cast its result, or select other sites"
        )


def _start(window: Window, found: Found, loops: Sequence[Loop]) -> Array:
    """The position of the first bit of a site, in this round and on this device."""
    copy = jnp.uint32(0)
    for loop in () if window.once else loops:
        copy = copy * loop.length + loop.iteration.astype(jnp.uint32)
    copy = copy * math.prod(n for _, n in found.shards) + shard_index(found)
    bits = math.prod(found.site.shape) * found.site.format.bits
    return copy * np.uint32(bits) + np.uint32(window.start)


def shard_index(found: Found) -> Array:
    """The number of this device among those whose words differ; 0 without a mesh."""
    index = jnp.uint32(0)
    for axis, size in found.shards:
        index = index * size + jax.lax.axis_index(axis).astype(jnp.uint32)
    return index


def flipped(
    words: Array,
    format: Format,
    positions: UInt32[Array, " flips"],
    start: Array | np.uint32,
) -> Array:
    """The words with those of the bits at `positions` inverted that lie among theirs.

    `start` is the position of their first bit; positions before and behind are skipped.
    """
    local = positions - start  # wraps to a large number before the window
    inside = local < np.uint32(words.size * format.bits)
    word = jnp.where(inside, local // np.uint32(format.bits), np.uint32(words.size))
    bit = (local % np.uint32(format.bits)).astype(jnp.uint8)
    return words ^ flips_to_masks(word, bit, words.shape, words.dtype)

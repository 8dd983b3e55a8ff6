"""Faults in pytrees of parameters: the words of their leaves, of any framework."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnas.faults.models import FaultModel, NetworkModel
from jaxnas.faults.sites import check_total
from jaxnas.faults.striking import check_values, draw_and_apply, flipped
from jaxnas.numerics.calibration import absmax_scale
from jaxnas.numerics.formats import Format
from jaxnas.numerics.machine import FLOATS, from_words, machine_format, to_words
from jaxnas.trees import leaf_keys, leaf_paths, select
from jaxnas.types import Key

Formats = Format | Mapping[str, Format] | None


def corrupt(
    key: Key,
    params: PyTree,
    model: FaultModel | NetworkModel,
    *,
    format: Formats = None,
    site: str = "*",
    integers: bool = False,
) -> PyTree:
    """`params` with faults in the words of the leaves that match.

    format: number format in which floating-point leaves are stored, each with one
        power-of-two scale from its largest magnitude; a mapping gives formats by globs
        on paths, of which the first that matches decides. By default the words of their
        own dtype (float32, float16 or bfloat16).
    site: glob on the paths of the leaves, as "*/kernel".
    integers: whether integer leaves are struck as well, in the words of their dtype, as
        quantised weights are words already. Mostly they count steps.

    Leaf number `n` draws from `fold_in(key, n)`, whichever others are selected; a
    `NetworkModel` draws once from `key`, over the bits of all leaves that match, in
    their order. Dtypes stay; with a format, selected leaves are quantised even where no
    fault strikes. What is no array stays as it is.

    Raises:
      ValueError: no leaf matches (the message lists the paths), or a matching one has
        another dtype than these; a format's glob matches no leaf.
    """
    leaves, structure = jax.tree.flatten(params)
    paths = leaf_paths(params)
    keys = jax.tree.leaves(leaf_keys(key, structure.unflatten(range(len(leaves)))))
    chosen = _chosen(params, leaves, site, integers)
    formats = _formats(format, [paths[n] for n in chosen])
    stored = {n: _stored(leaves[n], paths[n], formats.get(paths[n])) for n in chosen}
    if isinstance(model, NetworkModel):
        total = sum(each.words.size * each.format.bits for each in stored.values())
        check_total(total)
        positions = model.sample(key, total)
    start, faulted = 0, list(leaves)
    for n, (words, own, decode) in stored.items():
        if isinstance(model, NetworkModel):
            faulted[n] = decode(flipped(words, own, positions, np.uint32(start)))
            start += words.size * own.bits
        elif model.on == "words":
            faulted[n] = decode(draw_and_apply(model, keys[n], words, own))
        else:
            values = decode(words)
            faulted[n] = draw_and_apply(model, keys[n], values, own)
            check_values(faulted[n], values, paths[n])
    return structure.unflatten(faulted)


def _chosen(params: PyTree, leaves: list, site: str, integers: bool) -> list[int]:
    """The numbers of the leaves to be struck."""
    kinds = (jnp.floating, jnp.integer) if integers else (jnp.floating,)

    def is_word(leaf):
        array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
        return array and any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds)

    rows = zip(leaves, select(params, site), strict=True)
    chosen = [n for n, (leaf, matches) in enumerate(rows) if matches and is_word(leaf)]
    if not chosen:
        expected = "floating-point or integer" if integers else "floating-point"
        raise ValueError(
            f"no leaf that matches {site!r} is a {expected} array; the paths are: "
            f"{', '.join(leaf_paths(params))}"
        )
    return chosen


def _formats(format: Formats, paths: Sequence[str]) -> dict[str, Format | None]:
    """The format of each path; None for the words of its own dtype."""
    globs = format if isinstance(format, Mapping) else {"*": format}
    for glob in globs:
        if not any(fnmatchcase(path, glob) for path in paths):
            raise ValueError(
                f"the format for {glob!r} is for no leaf; the paths are: "
                f"{', '.join(paths)}"
            )
    matching = {p: [g for g in globs if fnmatchcase(p, g)] for p in paths}
    return {path: globs[found[0]] for path, found in matching.items() if found}


class _Stored(NamedTuple):
    words: Array
    format: Format
    decode: Callable[[Array], Array]


def _stored(leaf: Any, path: str, format: Format | None) -> _Stored:
    leaf = jnp.asarray(leaf)
    own = machine_format(leaf.dtype)
    if format is None or jnp.issubdtype(leaf.dtype, jnp.integer):
        if own is None:
            raise ValueError(
                f"leaf {path!r} of dtype {leaf.dtype}; expected one of {FLOATS}, or "
                "integers of 8, 16 or 32 bits: leave it out by its path, or give the "
                "format in which it is stored"
            )
        # Casts instead of encode and decode: they keep every NaN as it is.
        return _Stored(to_words(leaf), own, partial(from_words, dtype=leaf.dtype))
    values = leaf.astype(jnp.float32)
    scale = absmax_scale(values, format)

    def decode(words):
        return format.decode(words, scale).astype(leaf.dtype)

    return _Stored(format.encode(values, scale), format, decode)

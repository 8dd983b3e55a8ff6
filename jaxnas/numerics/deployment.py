"""Words instead of parameters: what the memory of a chip is loaded with.

`stored_words` reads the words that a function makes of its parameters, and `with_words`
computes the function from such words alone.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import Array, Float32, UInt

from jaxnas.jaxprs import (
    bind,
    called,
    contains,
    interpret,
    subjaxprs,
    varying_axes,
)
from jaxnas.numerics.formats import Format
from jaxnas.numerics.primitives import quantize_p
from jaxnas.rewriting import rebuild, trace

PARAMETERS = ("weight", "bias", "scale")


class StoredTensor(NamedTuple):
    """The words of one site, the scale of their format, and what they store."""

    words: UInt[Array | np.ndarray, "..."]
    scale: Float32[Array | np.ndarray, "..."]
    format: Format
    stored: str


def stored_words(
    fun: Callable,
    *args: Any,
    stored: tuple[str, ...] = PARAMETERS,
    **kwargs: Any,
) -> dict[str, StoredTensor]:
    """What the sites of `fun(*args, **kwargs)` store, by the names of the sites.

    stored: the kinds of words to read; by default those of parameters.

    Raises:
      ValueError: two sites share a name, or one has none; a site lies in a loop or
        branch, where it stores more than one array or none.
    """
    call = trace(fun, args, kwargs)
    formats = {}

    def read(arrays):
        found = {}

        def visit(eqn, operands):
            if eqn.primitive is quantize_p and eqn.params["stored"] in stored:
                name, format = eqn.params["site"], eqn.params["format"]
                _require_new(name, found)
                x, scale = operands
                formats[name] = format, eqn.params["stored"]
                found[name] = format.encode(x, scale), jnp.asarray(scale)
            if called(eqn) is not None:
                return interpret(called(eqn), operands, visit)
            _require_outside(eqn, stored)
            return bind(eqn, operands)

        interpret(call.closed, arrays, visit)
        return found

    found = jax.jit(read)(call.arrays)
    return {name: StoredTensor(*found[name], *formats[name]) for name in found}


def _require_new(name: str, found: Mapping) -> None:
    if not name or name in found:
        raise ValueError(
            f"{'a site has no name' if not name else f'two sites are named {name!r}'}; "
            "words are exported by name: give every site one of its own"
        )


def _require_outside(eqn: JaxprEqn, stored: tuple[str, ...]) -> None:
    def is_site(inner):
        return inner.primitive is quantize_p and inner.params["stored"] in stored

    if any(contains(body, is_site) for body in subjaxprs(eqn)):
        raise ValueError(
            f"a site lies inside a {eqn.primitive.name!r} equation, where it may store "
            "several arrays or none; export the function with its loops unrolled"
        )


def with_words(fun: Callable, words: Mapping[str, StoredTensor]) -> Callable:
    """`fun` with the named sites read from these words, whatever it would store there.

    The signature stays; parameters that only feed these sites no longer matter. Every
    call traces `fun`. Raises ValueError for a name that no site has, for words of
    another shape or format than the site's, and for a site inside a `shard_map` that
    stores other words on every device.
    """

    def loaded(*args: Any, **kwargs: Any) -> Any:
        call = trace(fun, args, kwargs)
        met: set[str] = set()
        results = _evaluate(call.closed, call.arrays, words, met)
        if met != set(words):
            raise ValueError(
                f"no site is named {sorted(set(words) - met)}; the words belong to "
                "another function"
            )
        return call.structure.unflatten(results)

    return loaded


def _evaluate(closed: ClosedJaxpr, inputs: list, words: Mapping, met: set) -> list:
    def is_named(eqn):
        return eqn.primitive is quantize_p and eqn.params["site"] in words

    def visit(eqn, operands):
        bodies = subjaxprs(eqn)

        def evaluate(number, inputs, iteration, state):
            return _evaluate(bodies[number], inputs, words, met), state

        if is_named(eqn):
            met.add(eqn.params["site"])
            return _read(eqn, words[eqn.params["site"]])
        if any(contains(body, is_named) for body in bodies):
            return rebuild(eqn, operands, evaluate)[0]
        return bind(eqn, operands)

    return interpret(closed, inputs, visit)


def _read(eqn: JaxprEqn, tensor: StoredTensor) -> list:
    format, shape = eqn.params["format"], eqn.outvars[0].aval.shape
    if axes := varying_axes(eqn.outvars[0].aval):
        raise ValueError(
            f"site {eqn.params['site']!r} stores other words on every device along "
            f"{axes}; store what is given to shard_map, before it is parted"
        )
    if tensor.format != format or tensor.words.shape != shape:
        raise ValueError(
            f"the words of site {eqn.params['site']!r} are {tensor.format} of shape "
            f"{tensor.words.shape}, but it stores {format} of shape {shape}"
        )
    scale = jnp.asarray(tensor.scale)
    # Bound as a site again: the same words, visible to faults and to integers.
    return bind(eqn, [format.decode(tensor.words, scale), scale])

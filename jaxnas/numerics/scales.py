"""Static scales: found from data at the sites of any function, and put in there.

Deployed hardware does not look at its data to choose a scale. `calibrate` runs a
function that has quantisation sites on batches of data and returns a scale for each;
`with_scales` fixes them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import Array, Float32

from jaxnas.jaxprs import bind, contains, equations, interpret, subjaxprs
from jaxnas.numerics.calibration import Rounding
from jaxnas.numerics.observers import Observer, absmax
from jaxnas.numerics.primitives import quantize, quantize_p
from jaxnas.rewriting import combine, partition, rebuild, trace
from jaxnas.types import Scale


def calibrate(
    fun: Callable,
    batches: Iterable[tuple],
    *,
    observer: Observer | None = None,
    power_of_two: Rounding = True,
) -> dict[str, Float32[Array, "..."]]:
    """A scale for each site of `fun` by its name, from the data that it would store.

    batches: the positional arguments of one call each. Those of one shape share a
        compiled program.
    observer: what becomes of the data; by default `absmax()`. Without axes of its own:
        a site whose present scale is one per channel keeps one per channel.
    power_of_two: how peaks are rounded.

    Observed are the numbers before rounding, of a function that stores nothing: the
    scales that its sites happen to have do not matter. Sites that share a name share a
    scale, and so do all rounds of a loop (but for the test that ends a `while`, which
    is not observed). Sites in formats without a scale are left out.

    Raises:
      ValueError: there is no batch or no site with a scale; sites that share a name
        differ in format or in the shape of their scale.
    """
    observer = absmax() if observer is None else observer

    @partial(jax.jit, static_argnums=0)
    def update(static, states, arrays):
        call = trace(fun, combine(arrays, static), {})
        change = partial(_observe, observer)
        return _evaluate(call.closed, call.arrays, change, states)[1]

    found, states = None, {}
    for args in batches:
        arrays, static = partition(args)
        if found is None:
            found = _scaled_sites(trace(fun, args, {}).closed)
            states = {name: _start(observer, eqn) for name, eqn in found.items()}
        states = update(static, states, arrays)
    if not found:
        seen = "batches" if found is None else "sites that have a scale"
        raise ValueError(
            f"found no {seen}; expected at least one batch of arguments for a function "
            "with sites, such as quantize_model makes"
        )
    return {
        name: _scale(observer, states[name], eqn, power_of_two)
        for name, eqn in found.items()
    }


def with_scales(fun: Callable, scales: Mapping[str, Scale]) -> Callable:
    """`fun` with these scales at the sites of these names; the signature stays.

    Other sites keep theirs. Every call traces `fun`; compile the result with `jax.jit`
    for more than one call. Raises ValueError for a name that no site has, and for a
    scale that does not broadcast to what its site stores.
    """

    def change(eqn, operands, state):
        x, scale = operands
        scale = scales.get(eqn.params["site"], scale)
        return [quantize(x, scale, **eqn.params)], state

    def rescaled(*args: Any, **kwargs: Any) -> Any:
        call = trace(fun, args, kwargs)
        names = {eqn.params["site"] for eqn in equations(call.closed) if _is_site(eqn)}
        if not names >= set(scales):
            raise ValueError(
                f"no site is named {sorted(set(scales) - names)}; the sites are "
                f"{sorted(names)}"
            )
        results, _ = _evaluate(call.closed, call.arrays, change, ())
        return call.structure.unflatten(results)

    return rescaled


def _is_site(eqn: JaxprEqn) -> bool:
    return eqn.primitive is quantize_p


def _evaluate(
    closed: ClosedJaxpr, inputs: Sequence, change: Callable, state: Any
) -> tuple[list, Any]:
    """Results with each site evaluated by `change(eqn, operands, state)`."""

    def visit(eqn, operands):
        nonlocal state
        bodies = subjaxprs(eqn)

        def evaluate(number, inputs, iteration, state):
            return _evaluate(bodies[number], inputs, change, state)

        if _is_site(eqn):
            results, state = change(eqn, operands, state)
        elif any(contains(body, _is_site) for body in bodies):
            results, state = rebuild(eqn, operands, evaluate, state)
        else:
            results = bind(eqn, operands)
        return results

    return interpret(closed, inputs, visit), state


def _scaled_sites(closed: ClosedJaxpr) -> dict[str, JaxprEqn]:
    """The first site of each name, of those whose formats have a scale."""
    found: dict[str, JaxprEqn] = {}
    for eqn in filter(_is_site, equations(closed)):
        name, format = eqn.params["site"], eqn.params["format"]
        if format.scaled and _kind(found.setdefault(name, eqn)) != _kind(eqn):
            raise ValueError(
                f"sites named {name!r} store {_kind(found[name])} and {_kind(eqn)}; "
                "sites that share a scale need the same: name them apart"
            )
    return found


def _kind(eqn: JaxprEqn) -> tuple:
    """Format and shape of the scale."""
    return eqn.params["format"], eqn.invars[1].aval.shape


def _start(observer: Observer, eqn: JaxprEqn) -> Any:
    values, scale = (variable.aval for variable in eqn.invars)
    rows = jax.eval_shape(lambda: _rows(jnp.zeros(values.shape), scale.shape))
    if not scale.shape:
        return observer.init(rows)
    one = observer.init(jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype))
    return jax.tree.map(lambda x: jnp.stack([x] * len(rows)), one)


def _observe(observer: Observer, eqn: JaxprEqn, operands: list, states: dict) -> tuple:
    x, scale = operands
    name = eqn.params["site"]
    if name in states:
        update = jax.vmap(observer.update) if jnp.ndim(scale) else observer.update
        state = update(states[name], _rows(x, jnp.shape(scale)))
        states = {**states, name: state}
    return [x], states


def _rows(x: Array, scale_shape: tuple[int, ...]) -> Array:
    """The values that share a scale, in rows; x itself where all do."""
    if not scale_shape:
        return x
    kept = [axis for axis, size in enumerate(scale_shape) if size > 1]
    return jnp.moveaxis(x, kept, range(len(kept))).reshape(prod(scale_shape), -1)


def _scale(observer: Observer, state: Any, eqn: JaxprEqn, power_of_two) -> Array:
    format, shape = _kind(eqn)

    def scale(state):
        return observer.scale(state, format, power_of_two)

    return jax.vmap(scale)(state).reshape(shape) if shape else scale(state)

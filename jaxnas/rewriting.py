"""Functions rewritten equation by equation, with loops and branches built anew.

`trace` turns a call into a jaxpr; an interpreter of `jaxnas.jaxprs` evaluates it and
replaces the equations it is after. Where such an equation lies inside another one,
`rebuild` makes that other one again around the rewritten body, so that loops stay
loops, branches branches, rematerialisation and derivatives what they were.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import primitives as core

from jaxnas.jaxprs import (
    bind,
    called,
    interpret,
    is_shard_map,
    scan_operands,
    shard_map_options,
    subjaxprs,
    vary,
    varying_axes,
    while_operands,
)


class Static(NamedTuple):
    """What of a pytree is no array: hashable if its leaves are."""

    structure: Any
    leaves: tuple  # None in the place of an array
    is_array: tuple[bool, ...]


def partition(tree: Any) -> tuple[list, Static]:
    """The arrays in a pytree, also those given as `jax.ShapeDtypeStruct`, and the rest.

    The rest is flags, names and numbers: Python values, on which a program depends.
    """
    kinds = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)
    leaves, structure = jax.tree.flatten(tree)
    is_array = tuple(isinstance(leaf, kinds) for leaf in leaves)
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    pairs = zip(leaves, is_array, strict=True)
    rest = tuple(None if array else leaf for leaf, array in pairs)
    return arrays, Static(structure, rest, is_array)


def combine(arrays: Sequence, static: Static) -> Any:
    """The pytree that was partitioned, with other arrays."""
    given = iter(arrays)
    pairs = zip(static.leaves, static.is_array, strict=True)
    return static.structure.unflatten(next(given) if array else x for x, array in pairs)


class Traced(NamedTuple):
    """A call as a jaxpr of its array arguments."""

    closed: ClosedJaxpr
    structure: Any  # of the result
    arrays: list
    paths: list[tuple]  # of each array: its JAX key path in (args, kwargs)


def trace(fun: Callable, args: tuple, kwargs: dict) -> Traced:
    """The jaxpr of a call. What is not an array reaches `fun` as it is."""
    arrays, static = partition((args, kwargs))

    def call(arrays):
        args, kwargs = combine(arrays, static)
        return fun(*args, **kwargs)

    closed, result = jax.make_jaxpr(call, return_shape=True)(arrays)
    pairs, _ = jax.tree_util.tree_flatten_with_path((args, kwargs))
    rows = zip(pairs, static.is_array, strict=True)
    paths = [path for (path, _), array in rows if array]
    return Traced(closed, jax.tree.structure(result), arrays, paths)


Evaluate = Callable[[int, list, Any, Any], tuple[list, Any]]
"""`evaluate(number, inputs, iteration, state) -> (results, state)`: the rewritten jaxpr
number `number` of an equation, in the order of `subjaxprs`. `iteration` counts the
rounds of a loop, and is None elsewhere."""


def rebuild(
    eqn: JaxprEqn, operands: Sequence[Any], evaluate: Evaluate, state: Any = ()
) -> tuple[list, Any]:
    """The results of an equation that holds jaxprs, these evaluated by `evaluate`.

    state: a pytree that is threaded through all evaluations in their order. The last
        test of a `while`, which ends it, cannot pass its state on.

    Calls are evaluated in place. Functions with derivatives of their own keep them, as
    of the original function at the given operands. An operand that a scan slices, or
    a `shard_map` parts, may be a pytree of arrays of one shape that are treated alike;
    `evaluate` receives it so.

    Raises ValueError for an equation that is neither a call, a loop, a branch nor a
    `shard_map`, and for a state that is to leave a `shard_map`.
    """
    return _rule(eqn)(eqn, list(operands), evaluate, state)


def _rule(eqn: JaxprEqn) -> Callable:
    return _shard_map if is_shard_map(eqn) else _RULES.get(eqn.primitive, _inline)


def evaluated_in_place(eqn: JaxprEqn) -> bool:
    """Whether `rebuild` evaluates the one jaxpr of the equation on its own operands."""
    return _rule(eqn) is _inline and called(eqn) is not None


def can_be_rebuilt(eqn: JaxprEqn) -> bool:
    """Whether `rebuild` accepts an equation that holds jaxprs."""
    return _rule(eqn) is not _inline or called(eqn) is not None


class Entry(NamedTuple):
    """Which operand an input of an inner jaxpr takes, and how."""

    operand: int
    role: Literal["constant", "carry", "slice", "shard"]


def entries(eqn: JaxprEqn) -> list[list[Entry]]:
    """For each inner jaxpr of an equation that can be rebuilt, where its inputs are."""
    every = range(len(eqn.invars))
    constants = [Entry(i, "constant") for i in every]
    if eqn.primitive is core.scan_p:
        consts, carries = scan_operands(eqn)
        slices = [Entry(i, "slice") for i in every[consts + carries :]]
        carry = [Entry(i, "carry") for i in every[consts : consts + carries]]
        return [constants[:consts] + carry + slices]
    if eqn.primitive is core.while_p:
        condition, body = while_operands(eqn)
        carry = [Entry(i, "carry") for i in every[condition + body :]]
        held = constants[:condition], constants[condition : condition + body]
        return [constants + carry for constants in held]
    if eqn.primitive is core.cond_p:
        return [constants[1:] for _ in subjaxprs(eqn)]
    if is_shard_map(eqn):
        return [[Entry(i, "shard") for i in every]]
    return [constants]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def replace(function: Callable, operands: Sequence, results: list) -> list:
    """The given results, with the derivative of `function(operands)`.

    Not clean + stop_gradient(results - clean): such a sum is rounded, so that a small
    result in place of a large one would be lost.
    """
    return results


@replace.defjvp
def _replace_jvp(function, primals, tangents):
    operands, results = primals
    _, derivative = jax.jvp(function, (operands,), tangents[:1])
    return results, derivative


def on_shards(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)` inside a `shard_map`, where an argument may vary.

    JAX refuses a loop that starts from a constant and goes on with what differs between
    devices, and a branch next to one that does not vary. Here loops and branches carry
    what varies, wherever any argument does: functions need not know of meshes.
    """
    leaves = jax.tree.leaves(arguments)
    axes = sorted({a for leaf in leaves for a in varying_axes(jax.typeof(leaf))})
    if not axes:
        return function(*arguments)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    closed, results = jax.make_jaxpr(function, return_shape=True)(*shapes)
    found = _on_shards(closed, leaves, axes)
    return jax.tree.unflatten(jax.tree.structure(results), found)


def _on_shards(closed: ClosedJaxpr, inputs: list, axes: list[str]) -> list:
    def visit(eqn, operands):
        if not can_be_rebuilt(eqn):
            # A primitive asks for operands that vary alike.
            return bind(eqn, [vary(x, axes) for x in operands])
        bodies = subjaxprs(eqn)

        def evaluate(number, inputs, iteration, state):
            return _on_shards(bodies[number], inputs, axes), state

        return rebuild(eqn, [vary(x, axes) for x in operands], evaluate)[0]

    return [vary(x, axes) for x in interpret(closed, inputs, visit)]


def _inline(eqn, operands, evaluate, state):
    if called(eqn) is None:
        raise ValueError(
            f"found what is to be rewritten inside a {eqn.primitive.name!r} equation, "
            "which cannot be rebuilt; move it out, or transform the function inside"
        )
    return evaluate(0, operands, None, state)


def _remat(eqn, operands, evaluate, state):
    options = {name: eqn.params[name] for name in ("prevent_cse", "policy")}

    def body(operands, state):
        return evaluate(0, operands, None, state)

    return jax.checkpoint(body, **options)(operands, state)


def _custom_derivative(eqn, operands, evaluate, state):
    constants = jax.lax.stop_gradient(operands)
    results, state = evaluate(0, constants, None, state)
    return replace(partial(bind, eqn), operands, results), state


def _scan(eqn, operands, evaluate, state):
    consts, carries = scan_operands(eqn)
    constants, carry, slices = _split(operands, consts, carries)

    def step(carried, slices):
        (carry, state), (iteration, *slices) = carried, slices
        inputs = [*constants, *carry, *slices]
        results, state = evaluate(0, inputs, iteration, state)
        return (results[:carries], state), results[carries:]

    options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
    numbered = [jnp.arange(options["length"]), *slices]
    (carry, state), stacked = jax.lax.scan(step, (carry, state), numbered, **options)
    return [*carry, *stacked], state


def _while(eqn, operands, evaluate, state):
    condition_constants, body_constants, carry = _split(operands, *while_operands(eqn))

    def test(carried):
        iteration, carry, state = carried
        return evaluate(0, [*condition_constants, *carry], iteration, state)

    def step(carried):
        iteration, carry, state = carried
        if jax.tree.leaves(state):  # a condition returns one truth value and no more
            _, state = test(carried)
        inputs = [*body_constants, *carry]
        carry, state = evaluate(1, inputs, iteration, state)
        return iteration + 1, carry, state

    start = (jnp.int32(0), carry, state)
    return jax.lax.while_loop(lambda carried: test(carried)[0][0], step, start)[1:]


def _cond(eqn, operands, evaluate, state):
    def branch(number, operands, state):
        return evaluate(number, operands, None, state)

    index, *operands = operands
    branches = [partial(branch, number) for number in range(len(subjaxprs(eqn)))]
    return jax.lax.switch(index, branches, operands, state)


def _shard_map(eqn, operands, evaluate, state):
    if jax.tree.leaves(state):
        raise ValueError(
            "found what is to be observed inside a 'shard_map' equation, where every "
            "device sees its own part; transform the function outside of shard_map"
        )
    options = shard_map_options(eqn)._asdict()
    # One list, not one argument each: a spec then holds for all arrays of an operand.
    options["in_specs"] = (list(options["in_specs"]),)
    options["out_specs"] = list(options["out_specs"])

    def body(operands):
        return evaluate(0, operands, None, state)[0]

    return jax.shard_map(body, **options)(operands), state


def _split(operands: Sequence, *sizes: int) -> list[list]:
    """Consecutive pieces of these sizes, then the rest."""
    ends = [sum(sizes[:n]) for n in range(len(sizes) + 1)] + [len(operands)]
    return [list(operands[a:b]) for a, b in zip(ends, ends[1:], strict=False)]


_RULES = {
    core.scan_p: _scan,
    core.while_p: _while,
    core.cond_p: _cond,
    core.remat_p: _remat,
    core.custom_jvp_call_p: _custom_derivative,
    core.custom_vjp_call_p: _custom_derivative,
}

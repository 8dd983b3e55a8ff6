"""Looking inside equations: the only module that knows how jaxprs are laid out.

Where JAX keeps the jaxprs of a call, a branch or a loop differs between primitives
and between releases. They are found here by their type, never by the name of the
parameter that holds them; loops and branches are told apart by the identity of
their primitive. This module knows nothing about networks, formats or faults.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import cond_p, scan_p, while_p

CONTROL_FLOW = (scan_p, while_p, cond_p)


def subjaxprs(eqn: JaxprEqn) -> tuple[ClosedJaxpr, ...]:
    """All jaxprs among the parameters of an equation, in the order of the parameters.

    The branches of a `cond` come in the order of its index; a `while` gives its
    condition, then its body.
    """
    found = []
    for value in eqn.params.values():
        members = value if isinstance(value, (tuple, list)) else (value,)
        found += [_closed(v) for v in members if isinstance(v, (Jaxpr, ClosedJaxpr))]
    return tuple(found)


def _closed(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    # Since jax 0.12 the two classes are one, which must not be wrapped again.
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def called(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The jaxpr that a call-like equation evaluates on its own operands, else None.

    Call-like are `jit`, `remat`, `custom_jvp_call`, `custom_vjp_call` and all others
    that hold one jaxpr with the types of the equation. A loop over a carry alone
    has these types too, yet runs its jaxpr more than once: it is no call. Neither is a
    `shard_map`, whose jaxpr speaks of mesh axes that are unknown outside.
    """
    if eqn.primitive in CONTROL_FLOW or is_shard_map(eqn):
        return None
    match subjaxprs(eqn):
        case (body,) if _types(body) == (_avals(eqn.invars), _avals(eqn.outvars)):
            return body
    return None


def _types(closed: ClosedJaxpr) -> tuple[list, list]:
    return _avals(closed.jaxpr.invars), _avals(closed.jaxpr.outvars)


def _avals(variables: Sequence) -> list:
    return [(v.aval.shape, v.aval.dtype) for v in variables]


class ScanOperands(NamedTuple):
    """How many operands of a scan are constants and how many are carried.

    The operands are constants, carry, slices in this order; the results are carry,
    then stacked outputs.
    """

    constants: int
    carry: int


def scan_operands(eqn: JaxprEqn) -> ScanOperands:
    """The split of a scan's operands: counts in the equation, a tree since jax 0.12."""
    if "num_carry" in eqn.params:
        return ScanOperands(eqn.params["num_consts"], eqn.params["num_carry"])
    constants, carry, _ = eqn.params["ft_in"].unpack()
    return ScanOperands(len(constants), len(carry))


class WhileOperands(NamedTuple):
    """How many operands of a `while` its condition and its body hold constant.

    The operands are constants of the condition, constants of the body, then the
    carry, which is also the result.
    """

    condition: int
    body: int


def while_operands(eqn: JaxprEqn) -> WhileOperands:
    """The split of the operands of a `while` equation."""
    return WhileOperands(eqn.params["cond_nconsts"], eqn.params["body_nconsts"])


class ShardMap(NamedTuple):
    """The options of a `shard_map` equation, as `jax.shard_map` takes them."""

    mesh: Any
    in_specs: tuple
    out_specs: tuple
    axis_names: frozenset
    check_vma: bool


def is_shard_map(eqn: JaxprEqn) -> bool:
    """Whether an equation runs its jaxpr on every device of a mesh."""
    # By its name: JAX does not export the primitive.
    return eqn.primitive.name == "shard_map"


def shard_map_options(eqn: JaxprEqn) -> ShardMap:
    """The options of a `shard_map` equation."""
    given = {"axis_names": eqn.params["newly_manual_axes"]}
    names = ("mesh", "in_specs", "out_specs", "check_vma")
    return ShardMap(**given, **{name: eqn.params[name] for name in names})


def varying_axes(aval: Any) -> tuple[str, ...]:
    """The mesh axes along which the devices hold different values, by name.

    None outside a `shard_map`, and in one that does not check it (`check_vma=False`).
    """
    kind = getattr(aval, "manual_axis_type", None)
    return tuple(sorted(kind.varying)) if kind else ()


def vary(value: Any, axes: Sequence[str]) -> Any:
    """The same value, typed as one that may vary along these mesh axes."""
    missing = set(axes) - set(varying_axes(jax.typeof(value)))
    if not missing:
        return value
    return jax.lax.pcast(value, tuple(sorted(missing)), to="varying")


def equations(closed: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """Every equation in program order, an equation before those of its own jaxprs."""
    for eqn in closed.jaxpr.eqns:
        yield eqn
        for inner in subjaxprs(eqn):
            yield from equations(inner)


def contains(closed: ClosedJaxpr, predicate: Callable[[JaxprEqn], bool]) -> bool:
    """Whether an equation satisfies the predicate at any depth."""
    return any(predicate(eqn) for eqn in equations(closed))


def interpret(
    closed: ClosedJaxpr,
    inputs: Sequence[Any],
    visit: Callable[[JaxprEqn, list], Sequence[Any]],
) -> list:
    """Evaluates a jaxpr on `inputs`, with `visit(eqn, operands)` giving the results.

    With `visit=bind` this is ordinary evaluation. The values may be anything that
    `visit` understands; literals and constants enter as they stand in the jaxpr.
    """
    jaxpr = closed.jaxpr
    environment = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    environment.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else environment[atom]

    for eqn in jaxpr.eqns:
        results = visit(eqn, [read(atom) for atom in eqn.invars])
        environment.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(eqn: JaxprEqn, operands: Sequence[Any]) -> list:
    """The results of an equation as it stands, on new operands."""
    parameters = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*operands, **parameters)
    return list(results) if eqn.primitive.multiple_results else [results]

"""Where an array comes from: the parameters that it is made of, and how it was moved.

A symbol stands for an array of a program that is interpreted without being run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import primitives as core

from jaxnas.jaxprs import equations
from jaxnas.numerics.rules import Layout, Word
from jaxnas.rewriting import evaluated_in_place

Origin = tuple[str, ...] | None
"""The paths of the parameters that an array is made of alone; None: of others too."""


@dataclass(eq=False)
class Symbol:
    """What is known of one array of the program."""

    aval: Any
    origin: Origin
    is_word: bool = False  # read from memory already
    label: str = ""  # the name of its words, where made of parameters
    named: bool = False  # an argument of the function, or a slice of one
    source: "tuple[JaxprEqn, Symbol] | None" = None  # of which it is a move
    words: dict[Layout, Word] = field(default_factory=dict)

    @property
    def root(self) -> "Symbol":
        return self if self.source is None else self.source[1].root

    @property
    def real(self) -> bool:
        return jnp.issubdtype(self.aval.dtype, jnp.floating)

    @property
    def in_memory(self) -> bool:
        """Whether an operation may read it from memory: no constant, no scalar."""
        array = self.real and self.aval.ndim > 0 and self.aval.size > 0
        return array and self.origin != ()


def joined(symbols: Sequence[Symbol]) -> tuple[Origin, bool]:
    """Of what arrays are made together, and whether all are words."""
    is_word = all(symbol.is_word for symbol in symbols)
    if any(symbol.origin is None for symbol in symbols):
        return None, is_word
    paths = (path for symbol in symbols for path in symbol.origin)
    return tuple(dict.fromkeys(paths)), is_word


def lifted(atoms: Sequence, values: Sequence) -> list[Symbol]:
    """Constants as symbols too: made of nothing."""
    pairs = zip(atoms, values, strict=True)
    return [v if isinstance(v, Symbol) else Symbol(a.aval, ()) for a, v in pairs]


def leaving(eqn: JaxprEqn, results: Sequence[list[Symbol]]) -> list[Symbol]:
    """What leaves an equation: new arrays, of the symbols that are joined in each."""
    columns = zip(eqn.outvars, zip(*results, strict=True), strict=True)
    return [_made(eqn, out.aval, *joined(column)) for out, column in columns]


def computed(
    eqn: JaxprEqn, operands: Sequence[Symbol], is_word: bool = False
) -> list[Symbol]:
    """New arrays, each made of all the operands."""
    origin, _ = joined(operands)
    return [_made(eqn, out.aval, origin, is_word) for out in eqn.outvars]


def _made(eqn: JaxprEqn, aval: Any, origin: Origin, is_word: bool) -> Symbol:
    label = f"{origin[0]}/{eqn.primitive.name}" if origin else ""
    return Symbol(aval, origin, is_word, label)


_ALONG_AXES = {
    core.convert_element_type_p.name,
    core.copy_p.name,
    core.dynamic_slice_p.name,
    core.name_p.name,
    core.pad_p.name,
    core.rev_p.name,
    core.sharding_constraint_p.name,
    core.slice_p.name,
    core.stop_gradient_p.name,
    "pvary",  # what is equal on all devices, typed as what may differ
    "split",
}
_MOVES = _ALONG_AXES | {
    core.broadcast_in_dim_p.name,
    core.gather_p.name,
    core.reshape_p.name,
    core.squeeze_p.name,
    core.transpose_p.name,
}


def kind_of(eqn: JaxprEqn, symbols: list[Symbol]) -> str:
    if eqn.primitive is core.conv_general_dilated_p:
        return "convolution"
    if eqn.primitive is core.dot_general_p:
        return "dot"
    if eqn.primitive in (core.gather_p, core.dynamic_slice_p):
        table, *indices = symbols
        if table.origin and any(index.origin is None for index in indices):
            return "embedding"
    return eqn.primitive.name


def is_move(eqn: JaxprEqn, symbols: list[Symbol]) -> bool:
    """Whether each result has numbers of the first operand only, and where they lie."""
    if eqn.primitive.name not in _MOVES or kind_of(eqn, symbols) == "embedding":
        return False
    first, *others = symbols
    placed = all(other.origin == () or not other.real for other in others)
    floats = all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
    return first.real and floats and placed


def only_moves(closed: ClosedJaxpr) -> bool:
    return all(
        eqn.primitive.name in _MOVES
        or evaluated_in_place(eqn)
        or not any(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
        for eqn in equations(closed)
    )


def axes_at_root(symbol: Symbol, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of the root that became these of a symbol; None where it has none."""
    while symbol.source is not None and axes:
        eqn, symbol = symbol.source
        if eqn.primitive is core.transpose_p:
            axes = tuple(eqn.params["permutation"][axis] for axis in axes)
        elif eqn.primitive.name not in _ALONG_AXES:
            return None
    return axes

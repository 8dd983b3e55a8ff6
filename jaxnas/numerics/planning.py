"""Which operands of a function are words of memory: rules, and where they lead.

The jaxpr is interpreted once with symbols that say of which parameters each array is
made. An operation that a rule decides reads its operands from memory. Each of them is
followed back through operations that only move numbers (transpose, reshape, slice,
cast between floats, and into the bodies of loops, branches and calls) to its root: a
parameter, an argument or a computed array. There the words are stored, once for all
who read them in the same layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import primitives as core

from jaxnas.jaxprs import called, equations, interpret, subjaxprs
from jaxnas.numerics.calibration import Axis
from jaxnas.numerics.primitives import quantize_p
from jaxnas.numerics.provenance import (
    Symbol,
    axes_at_root,
    computed,
    is_move,
    joined,
    kind_of,
    leaving,
    lifted,
    only_moves,
)
from jaxnas.numerics.rules import LAYERS, Layout, Rule, Word
from jaxnas.rewriting import Entry, can_be_rebuilt, entries, evaluated_in_place


@dataclass(frozen=True)
class Plan:
    """What is stored. Equations go by their numbers, see `evaluate_numbered`."""

    reads: dict[int, dict[int, Word]] = field(default_factory=dict)
    """For each operation the words from which it reads which operand."""
    moves: set[int] = field(default_factory=set)
    """Equations that only move the numbers of their first operand."""
    inlined: set[int] = field(default_factory=set)
    """Calls that are evaluated in place."""
    regions: dict[int, list] = field(default_factory=dict)
    """For each equation to be rebuilt, each jaxpr in it and each input: pairs of words,
    as it is read inside and as it is stored outside."""


def evaluate_numbered(
    closed: ClosedJaxpr, inputs: Sequence, first: int, visit: Callable
) -> list:
    """`interpret` with `visit(number, eqn, operands)`, the first equation `first`.

    An equation is followed by those of its own jaxprs, so that the number is the place
    in the program with all calls written out.
    """
    number = first

    def numbered(eqn, operands):
        nonlocal number
        start, number = number, number + _size(eqn)
        return visit(start, eqn, operands)

    return interpret(closed, inputs, numbered)


def first_numbers(number: int, eqn: JaxprEqn) -> list[int]:
    """The number of the first equation in each jaxpr of equation `number`."""
    firsts = [number + 1]
    for body in subjaxprs(eqn):
        firsts.append(firsts[-1] + sum(map(_size, body.jaxpr.eqns)))
    return firsts[:-1]


def _size(eqn: JaxprEqn) -> int:
    return 1 + sum(_size(e) for body in subjaxprs(eqn) for e in body.jaxpr.eqns)


def make_plan(
    closed: ClosedJaxpr, rules: Sequence[Rule], paths: Sequence[str | None]
) -> Plan:
    """The plan for a function; `paths` tell parameters among its arguments.

    Raises:
      ValueError: a rule matches no operation; a parameter is read in two layouts; an
        operation to be quantised lies inside an equation that cannot be rebuilt.
    """
    planner = _Planner(rules)
    arguments = []
    for variable, path in zip(closed.jaxpr.invars, paths, strict=True):
        origin = None if path is None else (path,)
        symbol = Symbol(variable.aval, origin, label=path or "", named=True)
        arguments.append(symbol)
    planner.run(closed, arguments, 0)
    planner.check()
    return planner.plan


def _taken(eqn: JaxprEqn) -> list[list[Entry]]:
    """`entries`, where what a loop carries unchanged is a constant."""
    taken, body = entries(eqn), subjaxprs(eqn)[-1].jaxpr
    carry = [
        (e, v) for e, v in zip(taken[-1], body.invars, strict=True) if e.role == "carry"
    ]
    pairs = zip(carry, body.outvars, strict=False)
    constant = {entry.operand for (entry, v), end in pairs if end is v}
    return [
        [e._replace(role="constant") if e.operand in constant else e for e in row]
        for row in taken
    ]


def _insides(
    body: ClosedJaxpr, taken: Sequence[Entry], symbols: Sequence[Symbol]
) -> list[Symbol]:
    """The inputs of an inner jaxpr: where it stores what it reads, until `_hoisted`."""
    insides = []
    for variable, entry in zip(body.jaxpr.invars, taken, strict=True):
        outside = symbols[entry.operand]
        inside = Symbol(variable.aval, outside.origin, outside.is_word)
        inside.label, inside.named = outside.root.label, outside.root.named
        if entry.role == "carry":
            inside.named = False
            inside.label = f"{outside.origin[0]}/carry" if outside.origin else ""
        insides.append(inside)
    return insides


def _hoisted(
    taken: Sequence[Entry], insides: Sequence[Symbol], symbols: Sequence[Symbol]
) -> list[list[tuple[Word, Word]]]:
    """Words of constants and slices, stored outside: pairs of words per input.

    What a loop carries changes, so its words are stored inside, in every round.
    """
    return [
        []
        if entry.role == "carry"
        else [
            (word, outside)
            for word in inside.words.values()
            if (outside := _outside(entry, inside, symbols[entry.operand], word))
        ]
        for entry, inside in zip(taken, insides, strict=True)
    ]


def _outside(entry: Entry, inside: Symbol, operand: Symbol, word: Word) -> Word | None:
    axes, sliced = word.layout.axes, entry.role == "slice"
    if sliced and inside.origin:
        axes = (0, *(axis + 1 for axis in axes))
    axes = axes_at_root(operand, axes)
    if axes is None and sliced:
        return None  # as good inside: every slice is stored in its own round
    if axes is None:
        raise ValueError(
            f"{word.name} is reshaped before it enters a loop or branch that reads it "
            f"with scales along {word.layout.axes}; use weight_axis=None, or reshape "
            "it inside"
        )
    layout = word.layout._replace(axes=axes)
    return _store(operand.root, word._replace(layout=layout))


def _store(root: Symbol, word: Word) -> Word:
    """The word of this layout, the given one where there is none yet."""
    others = [layout for layout in root.words if layout != word.layout]
    if others and root.origin and root.named:
        raise ValueError(
            f"the parameter {word.name!r} is read as {others[0]} and as {word.layout}; "
            "one memory holds it: give all operations that read it the same rule"
        )
    return root.words.setdefault(word.layout, word)


def _kept_axes(axis: Axis, root: Symbol) -> tuple[int, ...]:
    kept = () if axis is None else (axis,) if isinstance(axis, int) else axis
    rank = root.aval.ndim
    if not all(-rank <= index < rank for index in kept):
        raise ValueError(
            f"weight_axis={axis} for {root.label!r} of shape {root.aval.shape}: no "
            "such axis; give it a rule of its own by path"
        )
    return tuple(sorted(index % rank for index in kept))


class _Planner:
    """The state of one interpretation.

    Bodies of loops are interpreted until the origins of what they carry settle; what an
    earlier round noted of an equation is overwritten by the next.
    """

    def __init__(self, rules: Sequence[Rule]):
        self.rules = rules
        self.plan = Plan()
        self.matched: set[Rule] = set()
        self.operations: dict[tuple[str, str], None] = {}  # met: kinds and paths
        self.readers: dict[str, list] = {}  # under one name, by place

    def run(
        self, closed: ClosedJaxpr, symbols: list[Symbol], first: int
    ) -> list[Symbol]:
        def visit(number, eqn, operands):
            return self.equation(number, eqn, lifted(eqn.invars, operands))

        results = evaluate_numbered(closed, symbols, first, visit)
        return lifted(closed.jaxpr.outvars, results)

    def equation(
        self, number: int, eqn: JaxprEqn, symbols: list[Symbol]
    ) -> list[Symbol]:
        if eqn.primitive is quantize_p:
            return computed(eqn, symbols, is_word=True)
        if subjaxprs(eqn):
            return self.nested(number, eqn, symbols)
        results = computed(eqn, symbols)
        self.plan.moves.discard(number)
        if not is_move(eqn, symbols):
            self.read(number, eqn, symbols)
            return results
        self.plan.moves.add(number)
        for result in results:
            result.source, result.is_word = (eqn, symbols[0]), symbols[0].is_word
        return results

    def read(self, number: int, eqn: JaxprEqn, symbols: list[Symbol]) -> None:
        """Notes which operands the operation reads from which words."""
        self.plan.reads.pop(number, None)
        operands = {i: s for i, s in enumerate(symbols) if s.in_memory}
        if not operands:
            return
        weights = [symbol for symbol in symbols if symbol.real and symbol.origin]
        kind, path = kind_of(eqn, symbols), weights[-1].origin[0] if weights else ""
        bias = kind in ("add", "sub") and None in [s.origin for s in symbols if s.real]
        self.operations[kind, path] = None
        matching = [rule for rule in self.rules if rule.matches(kind, path)]
        self.matched.update(matching)
        for i, symbol in operands.items() if matching else ():
            rule = matching[0]
            format = rule.weight if symbol.origin else rule.activation
            if format is not None and not symbol.is_word:
                word = self.word(symbol, rule, kind, path, (number, i), bias)
                self.plan.reads.setdefault(number, {})[i] = word

    def word(
        self,
        symbol: Symbol,
        rule: Rule,
        kind: str,
        path: str,
        place: tuple[int, int],
        bias: bool,
    ) -> Word:
        """The word of an operand at a place: (number of the operation, operand)."""
        root = symbol.root
        if root.origin:
            axes = _kept_axes(rule.weight_axis, root)
            layout = Layout(rule.weight, axes, rule.power_of_two)
            stored, name = "bias" if bias else "weight", root.label
        else:
            layout = Layout(rule.activation, (), rule.power_of_two)
            stored, name = "input" if root.named else "activation", f"{path}/input"
            if not path:
                name = f"{self.distinct(kind, place[0])}/input_{place[1]}"
        if layout not in root.words and not (root.origin and root.named):
            name = self.distinct(name, place, bare=True)
        return _store(root, Word(name, stored, layout))

    def distinct(self, name: str, place: Any, bare: bool = False) -> str:
        """The name with a number for each place; `bare`: the first without."""
        places = self.readers.setdefault(name, [])
        if place not in places:
            places.append(place)
        number = places.index(place)
        return name if bare and number == 0 else f"{name}_{number}"

    def nested(self, number: int, eqn: JaxprEqn, symbols: list[Symbol]) -> list[Symbol]:
        if not can_be_rebuilt(eqn):
            self.refuse(eqn)
            return computed(eqn, symbols)
        if not evaluated_in_place(eqn):
            return self.region(number, eqn, symbols)
        body = called(eqn)
        results = self.run(body, symbols, number + 1)
        self.plan.inlined.discard(number)
        if self.stores_within(number, eqn) or only_moves(body):
            self.plan.inlined.add(number)
            return results
        return leaving(eqn, [results])

    def refuse(self, eqn: JaxprEqn) -> None:
        for inner in (e for body in subjaxprs(eqn) for e in equations(body)):
            arrays = [Symbol(v.aval, None) for v in inner.invars]
            kind = kind_of(inner, arrays)
            if any(s.in_memory for s in arrays) and any(
                rule.matches(kind, None) for rule in self.rules
            ):
                raise ValueError(
                    f"found {kind!r} inside a {eqn.primitive.name!r} equation, which "
                    "cannot be rebuilt; move it out, or name other operations in rules"
                )

    def stores_within(self, number: int, eqn: JaxprEqn) -> bool:
        return any(number < n < number + _size(eqn) for n in self.plan.reads)

    def region(self, number: int, eqn: JaxprEqn, symbols: list[Symbol]) -> list[Symbol]:
        """A loop, a branch or another equation that is built anew."""
        bodies, firsts, taken = subjaxprs(eqn), first_numbers(number, eqn), _taken(eqn)
        carry = [e.operand for e in entries(eqn)[-1] if e.role == "carry"]
        symbols, settled = list(symbols), False
        while not settled:
            settled = True
            insides = [
                _insides(*row, symbols) for row in zip(bodies, taken, strict=True)
            ]
            rows = zip(bodies, insides, firsts, strict=True)
            results = [self.run(*row) for row in rows]
            for i, end in zip(carry, results[-1], strict=False):
                state = joined([symbols[i], end])
                if state != joined([symbols[i]]):
                    symbols[i], settled = Symbol(end.aval, *state), False
        self.plan.regions.pop(number, None)
        if self.stores_within(number, eqn):
            rows = zip(taken, insides, strict=True)
            self.plan.regions[number] = [_hoisted(*row, symbols) for row in rows]
        if eqn.primitive is core.cond_p:  # which branch is taken depends on the index
            index = Symbol(None, symbols[0].origin, is_word=True)
            return leaving(eqn, [*results, [index] * len(eqn.outvars)])
        ends = [symbols[i] for i in carry] + results[-1][len(carry) :]
        return leaving(eqn, [ends])

    def check(self) -> None:
        unused = [rule for rule in self.rules if rule not in self.matched]
        if unused:
            met = [
                f"{kind} {path!r}"
                for kind, path in self.operations
                if path or kind in LAYERS
            ]
            raise ValueError(
                f"no operation matches {unused[0]}; the operations and the paths of "
                f"their weights are: {', '.join(met) or 'none'}"
            )

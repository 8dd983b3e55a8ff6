"""Any model made of memory words: quantisation sites put into a function by rules.

`quantize_model` evaluates the function's jaxpr and stores what the plan says is read
from memory. All else stays as it is: loops stay loops, and what no rule decides is
computed as before, bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import Array

from jaxnas.jaxprs import bind, called, subjaxprs
from jaxnas.numerics.calibration import absmax_scale
from jaxnas.numerics.planning import (
    Plan,
    evaluate_numbered,
    first_numbers,
    make_plan,
)
from jaxnas.numerics.primitives import quantize
from jaxnas.numerics.rules import Layout, Rule, Word
from jaxnas.rewriting import entries, rebuild, trace
from jaxnas.types import Scale

PARTED = ("slice", "shard")  # inputs of which an inner jaxpr sees a part at a time


def quantize_model(
    fun: Callable,
    rules: Rule | Sequence[Rule],
    scales: Mapping[str, Scale] | None = None,
    *,
    params_argnums: int | tuple[int, ...] = 0,
) -> Callable:
    """`fun` with its operands read from memory words; the signature stays.

    rules: of those that match an operation, the first decides.
    scales: the scale of every site by name, as `calibrate` finds them. By default they
        follow the data: the largest magnitude of what is stored, rounded as the rule
        says, constant in derivatives.
    params_argnums: which positional arguments hold the parameters.

    A weight is stored at the parameter that it was moved from (transposed, cast, sliced
    ...), under the name of its path: "params/Dense_0/kernel". Layers that a scan takes
    from a stack have a scale each. An activation is stored where it is computed, under
    the name of the weight of its first reader: "params/Dense_0/kernel/input"; without a
    weight as "dot_0/input_1". Where several operations read an array in one format, or
    a loop reads it in every round, it is one word. Parameters that are computed from
    others are named by the last operation: "params/Dense_0/kernel/mul". Values that
    come out of a site of `fun` itself are words already and not stored again. What
    `fun` closes over is constant and not stored.

    Every call traces `fun`; compile the result with `jax.jit` for more than one call.

    Raises:
      ValueError: a rule matches no operation (the message lists them all); a site has
        no scale, or a scale no site; a parameter is read in two layouts; an operation
        to be quantised lies inside an equation that cannot be rebuilt.
    """
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    argnums = (params_argnums,) if isinstance(params_argnums, int) else params_argnums

    def quantized(*args: Any, **kwargs: Any) -> Any:
        call = trace(fun, args, kwargs)
        paths = [_parameter_path(path, argnums) for path in call.paths]
        plan = make_plan(call.closed, rules, paths)
        placer = _Placer(plan, scales)
        values = [_Value(array) for array in call.arrays]
        results = placer.run(call.closed, values, 0)
        placer.check()
        return call.structure.unflatten([value.array for value in results])

    return quantized


def _parameter_path(path: tuple, argnums: tuple[int, ...]) -> str | None:
    """The name of a parameter; None for what is none.

    Numbered by its argument where that is needed to tell it from others.
    """
    (part, argument, *rest) = path
    if part.idx == 1 or argument.idx not in argnums:
        return None
    shown = rest if rest and len(argnums) == 1 else [argument, *rest]
    return jax.tree_util.keystr(tuple(shown), simple=True, separator="/")


@dataclass(eq=False)
class _Value:
    """An array, the move that made it, and its words as read back."""

    array: Any  # literals are no JAX arrays
    source: "tuple[JaxprEqn, list[_Value], int] | None" = None
    words: dict[Layout, Array] = field(default_factory=dict)


class _Placer:
    """Evaluation by a plan."""

    def __init__(self, plan: Plan, scales: Mapping[str, Scale] | None):
        self.plan = plan
        self.scales = scales
        self.needed: set[str] = set()  # names for which a scale was sought

    def check(self) -> None:
        if self.scales is None or self.needed == set(self.scales):
            return
        raise ValueError(
            f"no scale for {sorted(self.needed - set(self.scales))}, no site for "
            f"{sorted(set(self.scales) - self.needed)}; the sites that have a scale "
            f"are {sorted(self.needed)}: take the scales that calibrate returns"
        )

    def run(
        self, closed: ClosedJaxpr, values: list[_Value], first: int
    ) -> list[_Value]:
        def visit(number, eqn, operands):
            return self.equation(number, eqn, [_lifted(x) for x in operands])

        results = evaluate_numbered(closed, values, first, visit)
        return [_lifted(x) for x in results]

    def equation(
        self, number: int, eqn: JaxprEqn, values: list[_Value]
    ) -> list[_Value]:
        if number in self.plan.inlined:
            return self.run(called(eqn), values, number + 1)
        if number in self.plan.regions:
            return [_Value(array) for array in self.region(number, eqn, values)]
        operands = [value.array for value in values]
        for i, word in self.plan.reads.get(number, {}).items():
            operands[i] = self.word(values[i], word)
        moved = number in self.plan.moves
        return [
            _Value(array, (eqn, values, k) if moved else None)
            for k, array in enumerate(bind(eqn, operands))
        ]

    def word(self, value: _Value, word: Word) -> Array:
        """A value as read from memory: stored at its root, then moved."""
        if word.layout not in value.words:
            if value.source is None:
                read = self.stored(value.array, word)
            else:
                eqn, (first, *others), k = value.source
                operands = [self.word(first, word), *(v.array for v in others)]
                read = bind(eqn, operands)[k]
            value.words[word.layout] = read
        return value.words[word.layout]

    def stored(self, array: Any, word: Word) -> Array:
        format, axes, power_of_two = word.layout
        x = jnp.asarray(array, jnp.float32)
        if not format.scaled:
            scale = 1.0
        elif self.scales is not None:
            self.needed.add(word.name)
            scale = self.scales.get(word.name, 1.0)
        else:
            fixed = jax.lax.stop_gradient(x)
            scale = absmax_scale(fixed, format, axes or None, power_of_two)
        read = quantize(x, scale, format, stored=word.stored, site=word.name)
        return read.astype(array.dtype)

    def region(self, number: int, eqn: JaxprEqn, values: list[_Value]) -> list[Array]:
        """An equation built anew; words of what it does not change enter from outside.

        Those of slices and shards are parted too, the others are constants of the new
        body.
        """
        bodies, firsts = subjaxprs(eqn), first_numbers(number, eqn)
        taken, pairs = entries(eqn), self.plan.regions[number]
        words = [
            [
                {w.layout: self.word(values[e.operand], outside) for w, outside in row}
                for e, row in zip(*rows, strict=True)
            ]
            for rows in zip(taken, pairs, strict=True)
        ]
        operands = [value.array for value in values]
        for (operand, role), held in zip(taken[0], words[0], strict=True):
            if role in PARTED:
                operands[operand] = [operands[operand], *held.values()]

        def evaluate(n, inputs, iteration, state):
            inner = []
            for x, (_, role), held in zip(inputs, taken[n], words[n], strict=True):
                array, *reads = x if role in PARTED else [x, *held.values()]
                known = dict(zip(held, reads, strict=True))
                inner.append(_Value(array, words=known))
            results = self.run(bodies[n], inner, firsts[n])
            return [value.array for value in results], state

        return rebuild(eqn, operands, evaluate)[0]


def _lifted(x: Any) -> _Value:
    return x if isinstance(x, _Value) else _Value(x)

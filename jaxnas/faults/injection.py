"""Faults injected into any JAX function.

A function's memory words are its `quantize` equations. `inject` interprets its jaxpr
and replaces the value of each selected word by that of the faulted word; loops,
branches and shard_maps are rebuilt around the sites they hold, all other equations stay
as they are. `strikes` does the same and lists the words that changed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.extend.core import primitives as core

from jaxnas.faults.models import Fault, NetworkModel, Site
from jaxnas.faults.sites import (
    ACCUMULATOR,
    Found,
    check_fault,
    count_sites,
    find_sites,
    is_accumulator,
    is_site,
    selected,
    windows,
)
from jaxnas.faults.striking import (
    Blow,
    Draw,
    Loop,
    Positions,
    Report,
    network_key,
    shard_index,
    strike,
)
from jaxnas.jaxprs import bind, interpret, subjaxprs
from jaxnas.rewriting import Traced, rebuild, trace
from jaxnas.types import Key


def sites(
    fun: Callable, *args: Any, accumulators: bool = False, **kwargs: Any
) -> list[Site]:
    """The quantisation sites of `fun(*args, **kwargs)`, in program order.

    Arrays may be given as `jax.ShapeDtypeStruct`; nothing is computed. A site in a
    loop is listed once, with the shape that it has in one iteration; a site inside a
    `shard_map` with that of the part of one device.

    accumulators: whether the results of matrix products and convolutions are listed
        too, stored as "accumulator" and named "dot_0", "convolution_1", ... by their
        number among themselves.
    """
    found = [each.site for each in find_sites(trace(fun, args, kwargs).closed)]
    return [s for s in found if accumulators or s.stored != ACCUMULATOR]


def inject(fun: Callable, *faults: Fault) -> Callable:
    """`faulty(key, *args, **kwargs)`: `fun(*args, **kwargs)` with faults in its words.

    At every site that a fault selects, the encoded words are faulted and decoded; then
    faults of values act on what was read. Several faults at one site act in their
    order, as by `chain`. Derivatives stay straight-through: flipped words change values
    and count as constant beside them; faults of values are differentiated as the
    operations they are. Every call traces `fun`; compile the result with `jax.jit` for
    more than one call.

    Faults strike quantisation sites; `stored=("accumulator",)` strikes the results of
    matrix products and convolutions, in the words of their dtype: floats, or the int32
    partial sums of a function that `jaxnas.numerics.integer` made.

    Site number `n`, in the order of `sites`, draws from `fold_in(key, n)`. A loop whose
    first site is `n` folds that key with the number of the iteration, and its sites
    fold the result with theirs: every iteration has faults of its own, but for those
    of a permanent fault, which fold the same number in all. Accumulators do so among
    themselves, from a key of their own. Whether a part of `fun` is jitted or
    rematerialised makes no difference to its faults.

    Inside a `shard_map` a device strikes its own part: keys are folded with the indices
    of the mesh axes along which the words differ. Words that are the same on all
    devices are one memory and get one fault, but with `check_vma=False` it is not known
    which are, and every device strikes a copy of its own.

    Raises:
      ValueError: a fault selects no site (the message lists all) or kinds of words that
        do not exist; a selected site lies inside an equation that cannot be rebuilt; a
        `NetworkModel` selects a site in a loop of unknown length, or 2**32 bits.
    """
    for fault in faults:
        check_fault(fault)

    def faulty(key: Key, *args: Any, **kwargs: Any) -> Any:
        call = trace(fun, args, kwargs)
        results = _planned(call, faults, None)(key, call.arrays)
        return call.structure.unflatten(results)

    return faulty


class Strike(NamedTuple):
    """A word that faults changed.

    number: of the site, among those of memory or among the accumulators.
    iteration: of the loops around it, the outermost first.
    word: row-major index; those of the devices of a mesh follow each other.
    before, after: the word as an unsigned number. Where a fault of values acted, after
        is the word nearest to the value.
    """

    site: str
    number: int
    iteration: tuple[int, ...]
    word: int
    before: int
    after: int


def strikes(fun: Callable, *faults: Fault) -> Callable:
    """`listing(key, *args, **kwargs)`: the words that `inject` changes under this key.

    In program order, then by iteration and word. The words before are those that the
    faulty run meets: faults upstream have changed what is stored downstream. The
    function is compiled and run; the listing itself cannot be transformed.

    Under `trial_key(key, i)` these are the words that trial i of a campaign changes.

    Raises:
      ValueError: as `inject`; a key that is traced, as under `jax.jit` or `jax.vmap`.
    """
    for fault in faults:
        check_fault(fault)

    def listing(key: Key, *args: Any, **kwargs: Any) -> list[Strike]:
        if isinstance(key, jax.core.Tracer):
            raise ValueError(
                "strikes lists what one run does, found a traced key; call it outside "
                "of jax.jit and jax.vmap, once for each key"
            )
        changed: dict[tuple, Strike] = {}
        call = trace(fun, args, kwargs)
        run = jax.jit(_planned(call, faults, partial(_report, changed)))
        jax.block_until_ready(run(key, call.arrays))
        jax.effects_barrier()  # waits for the reports
        return [changed[place] for place in sorted(changed)]

    return listing


def _report(changed: dict, blow: Blow, loops: Sequence[Loop], before, after) -> None:
    (site, number, *_), place = blow.found, blow.place

    def note(shard, iterations, before, after):
        # To NumPy first: JAX may not compute while a program of its own waits.
        before, after = np.asarray(before).ravel(), np.asarray(after).ravel()
        iteration = tuple(int(i) for i in iterations)
        for i in np.flatnonzero(before != after):
            word = int(shard) * before.size + int(i)
            words = int(before[i]), int(after[i])
            # By place, as callbacks come in any order and may come twice.
            changed[place, iteration, word] = Strike(
                site.name, number, iteration, word, *words
            )

    iterations = [loop.iteration for loop in loops]
    jax.debug.callback(note, shard_index(blow.found), iterations, before, after)


Plan = dict[int, Blow]
"""What happens at the sites that are struck, by their places among all sites."""


def _planned(
    call: Traced, faults: Sequence[Fault], report: Report | None
) -> Callable[[Key, list], list]:
    """The faulty evaluation of a traced call; all checks are made here."""
    found = find_sites(call.closed)
    places = [selected(fault, found) for fault in faults]
    rows = [
        windows(fault, found, chosen) if isinstance(fault.model, NetworkModel) else None
        for fault, chosen in zip(faults, places, strict=True)
    ]

    def run(key, arrays):
        acts: dict[int, list] = {}
        for n, (fault, chosen) in enumerate(zip(faults, places, strict=True)):
            if rows[n] is not None:
                window, total = rows[n]
                positions = fault.model.sample(network_key(key, n), total)
            for place in chosen:
                act = (
                    Draw(fault.model, fault.permanent)
                    if rows[n] is None
                    else Positions(positions, window[place])
                )
                acts.setdefault(place, []).append(act)
        plan = {n: Blow(n, found[n], tuple(each)) for n, each in acts.items()}
        return _Run(found, plan, key, report).evaluate(call.closed, arrays, 0, ())

    return run


class _Run(NamedTuple):
    """One evaluation with faults."""

    found: list[Found]
    plan: Plan
    key: Key
    report: Report | None

    def evaluate(
        self, closed: ClosedJaxpr, inputs: Sequence, first: int, loops: tuple[Loop, ...]
    ) -> list:
        """The results of a jaxpr whose first site stands at the place `first`.

        Places follow from the jaxpr, never from the order of evaluation: JAX may trace
        the body of a loop any number of times.
        """
        place = first

        def visit(eqn, operands):
            nonlocal place
            start, place = place, place + count_sites(eqn)
            if not any(n in self.plan for n in range(start, place)):
                return bind(eqn, operands)
            if is_site(eqn):
                blow = self.plan[start]
                return strike(eqn, operands, self.key, blow, loops, self.report)
            return self.around(eqn, operands, start, loops)

        return interpret(closed, inputs, visit)

    def around(self, eqn, operands, first, loops):
        """An equation that holds sites; in a loop they know the iteration."""
        bodies = subjaxprs(eqn)
        counts = [sum(map(count_sites, body.jaxpr.eqns)) for body in bodies]

        def evaluate(number, inputs, iteration, state):
            inner = loops
            if eqn.primitive in (core.scan_p, core.while_p):
                length = eqn.params.get("length")
                inner = (*loops, Loop(self.numbers(first), length, iteration))
            start = first + sum(counts[:number])
            return self.evaluate(bodies[number], inputs, start, inner), state

        return rebuild(eqn, operands, evaluate)[0]

    def numbers(self, place: int) -> tuple[int, int]:
        """The numbers of the next sites from a place on: of memory, of accumulators."""
        before = sum(is_accumulator(each) for each in self.found[:place])
        return place - before, before

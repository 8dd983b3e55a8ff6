"""Where faults can strike: the sites of a function, and which of them a fault selects.

Two kinds of words are found in a jaxpr: those of `quantize` equations, which stand for
memory, and the results of matrix products and convolutions, which stand for the
accumulators of the arithmetic unit. Each kind is numbered apart in program order, so
that accumulators never shift the numbers of memory.
"""

import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, get_args

from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import primitives as core

from jaxnas.faults.models import Fault, FaultModel, NetworkModel, On, Site
from jaxnas.jaxprs import is_shard_map, shard_map_options, subjaxprs, varying_axes
from jaxnas.numerics.machine import machine_format
from jaxnas.numerics.primitives import Stored, quantize_p

ACCUMULATOR = "accumulator"
KINDS = (*get_args(Stored), ACCUMULATOR)
ARITHMETIC = {core.dot_general_p: "dot", core.conv_general_dilated_p: "convolution"}
LARGEST_TOTAL = 2**32 - 1


class Found(NamedTuple):
    """A site in its surroundings."""

    site: Site
    number: int  # among the sites of memory, or among the accumulators
    rounds: tuple[int | None, ...]  # of the loops around it; None where unknown
    shards: tuple[tuple[str, int], ...]  # mesh axes along which its words differ


def is_accumulator(found: Found) -> bool:
    return found.site.stored == ACCUMULATOR


def is_site(eqn: JaxprEqn) -> bool:
    """Whether the result of an equation is a word of memory or of an accumulator."""
    if eqn.primitive in ARITHMETIC:
        return machine_format(eqn.outvars[0].aval.dtype) is not None
    return eqn.primitive is quantize_p


def count_sites(eqn: JaxprEqn) -> int:
    """How many sites an equation is, or holds."""
    inside = (e for body in subjaxprs(eqn) for e in body.jaxpr.eqns)
    return is_site(eqn) + sum(map(count_sites, inside))


def find_sites(closed: ClosedJaxpr) -> list[Found]:
    """All sites of a jaxpr in program order; those in loops are listed once."""
    found: list[Found] = []
    for eqn, rounds, shards in _surroundings(closed, (), _Shards({}, frozenset())):
        aval, memory = eqn.outvars[0].aval, eqn.primitive is quantize_p
        number = sum(is_accumulator(other) != memory for other in found)
        if memory:
            name, stored, format = (eqn.params[k] for k in ("site", "stored", "format"))
        else:
            name, stored = f"{ARITHMETIC[eqn.primitive]}_{number}", ACCUMULATOR
            format = machine_format(aval.dtype)
        axes = sorted(shards.always | set(varying_axes(aval)))
        sizes = tuple((axis, shards.sizes[axis]) for axis in axes)
        found.append(
            Found(Site(name, stored, format, aval.shape), number, rounds, sizes)
        )
    return found


class _Shards(NamedTuple):
    """The mesh around an equation: its sizes, and the axes without check_vma."""

    sizes: dict[str, int]
    always: frozenset[str]


def _surroundings(closed: ClosedJaxpr, rounds: tuple, shards: _Shards) -> Iterator:
    """The equations that are sites, the lengths of the loops and the mesh around."""
    for eqn in closed.jaxpr.eqns:
        if is_site(eqn):
            yield eqn, rounds, shards
        inner, parted = rounds, shards
        if eqn.primitive in (core.scan_p, core.while_p):
            inner = (*rounds, eqn.params.get("length"))
        if is_shard_map(eqn):
            options = shard_map_options(eqn)
            own = frozenset() if options.check_vma else frozenset(options.axis_names)
            sizes = shards.sizes | dict(options.mesh.shape)
            parted = _Shards(sizes, shards.always | own)
        for body in subjaxprs(eqn):
            yield from _surroundings(body, inner, parted)


def check_fault(fault: object) -> None:
    """Raises ValueError for what is no Fault, and for kinds of words that are none."""
    if not isinstance(fault, Fault):
        raise ValueError(f"inject takes Faults, got {fault!r}; wrap it: Fault(model)")
    model = fault.model
    if not isinstance(model, FaultModel | NetworkModel):
        raise ValueError(
            f"a Fault of {model!r}; expected a FaultModel or a NetworkModel"
        )
    if isinstance(model, FaultModel) and model.on not in get_args(On):
        raise ValueError(f"a model on={model.on!r}; expected one of {get_args(On)}")
    if not set(fault.stored or ()) <= set(KINDS):
        raise ValueError(
            f"a fault in stored={fault.stored!r}; expected None or a tuple out of "
            f"{KINDS}"
        )


def selected(fault: Fault, found: Sequence[Found]) -> list[int]:
    """The places in `found` of the sites that a fault selects, ascending.

    Raises ValueError where there is none, or fewer than `layers` asks for.
    """
    places = [place for place, each in enumerate(found) if _selects(fault, each.site)]
    wanted = range(len(places)) if fault.layers is None else fault.layers
    if wanted and all(0 <= layer < len(places) for layer in wanted):
        return sorted({places[layer] for layer in wanted})
    among = "" if fault.layers is None else f"layers={fault.layers} of "
    if places:
        sites = f"the {len(places)} sites selected are: {_names(found, places)}"
    else:
        known = [n for n, f in enumerate(found) if _may_select(fault, f.site)]
        names = _names(found, known) or "none, as nothing is quantised"
        sites = f"the sites are: {names}"
    condition = "" if fault.where is None else " and where"
    raise ValueError(
        f"no site matches {among}stored={fault.stored} and site={fault.site!r}"
        f"{condition}; {sites}"
    )


def _may_select(fault: Fault, site: Site) -> bool:
    """Accumulators are no memory: only a fault that names them strikes them."""
    asked = ACCUMULATOR in (fault.stored or ())
    return asked or site.stored != ACCUMULATOR


def _selects(fault: Fault, site: Site) -> bool:
    kind = _may_select(fault, site) and site.stored in (fault.stored or KINDS)
    named = kind and fnmatchcase(site.name, fault.site)
    return named and (fault.where is None or bool(fault.where(site)))


def _names(found: Sequence[Found], places: Sequence[int]) -> str:
    sites = [found[place].site for place in places]
    return ", ".join(f"{site.name!r} ({site.stored})" for site in sites)


class Window(NamedTuple):
    """Where the bits of one site lie among those that a network fault selects."""

    start: int
    once: bool  # the same bits in every round of a loop


def windows(
    fault: Fault, found: Sequence[Found], places: Sequence[int]
) -> tuple[dict[int, Window], int]:
    """The window of each selected site, and the sum of all bits.

    Sites follow each other in program order; in a site the rounds of its loops, the
    outermost first, then the devices of a mesh, then words, then bits. All branches
    count, though one is taken. Raises ValueError for a loop of unknown length, and for
    2**32 bits or more.
    """
    rows, total = {}, 0
    for place in places:
        site, _, rounds, shards = found[place]
        rounds = () if fault.permanent else rounds
        if None in rounds:
            raise ValueError(
                f"site {site.name!r} lies in a while loop, whose number of rounds is "
                "not known, so that its bits cannot be counted; use scan or fori_loop "
                "with fixed bounds, permanent=True, or leave the site out"
            )
        rows[place] = Window(total, fault.permanent)
        copies = math.prod(rounds) * math.prod(size for _, size in shards)
        total += copies * math.prod(site.shape) * site.format.bits
    check_total(total)
    return rows, total


def check_total(bits: int) -> None:
    """Raises ValueError for more bits than 32-bit positions tell apart."""
    if bits > LARGEST_TOTAL:
        raise ValueError(
            f"a network fault over {bits} bits; positions end at {LARGEST_TOTAL}: "
            "select fewer sites or leaves"
        )

"""Faults injected into any JAX function, and into any pytree of parameters.

A function's memory words are its `quantize` equations. `inject` interprets its jaxpr
and replaces the value of each selected word by that of the faulted word; loops and
branches are rebuilt around the sites they hold, all other equations stay as they are.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jax.extend.core import primitives as core
from jaxtyping import Array, PyTree

from jaxnas.faults.models import Fault, FaultModel, Site, chain
from jaxnas.jaxprs import bind, equations, interpret, subjaxprs
from jaxnas.numerics.calibration import absmax_scale
from jaxnas.numerics.floats import IEEE, Name
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.numerics.primitives import Stored, quantize_p
from jaxnas.rewriting import rebuild, replace, trace
from jaxnas.trees import leaf_keys, leaf_paths, select
from jaxnas.types import Key


def sites(fun: Callable, *args: Any, **kwargs: Any) -> list[Site]:
    """The quantisation sites of `fun(*args, **kwargs)`, in program order.

    Arrays may be given as `jax.ShapeDtypeStruct`; nothing is computed. A site in a
    loop is listed once, with the shape that it has in one iteration.
    """
    return _sites(trace(fun, args, kwargs).closed)


def inject(fun: Callable, *faults: Fault) -> Callable:
    """`faulty(key, *args, **kwargs)`: `fun(*args, **kwargs)` with faults in its words.

    At every quantisation site that a fault selects, the encoded words are faulted and
    decoded. Several faults at one site act in their order, as by `chain`. Derivatives
    stay straight-through: faults change values, and count as constant beside them.
    Every call traces `fun`; compile the result with `jax.jit` for more than one call.

    Site number `n`, in the order of `sites`, draws from `fold_in(key, n)`. A loop whose
    first site is `n` folds that key with the number of the iteration, and its sites
    fold the result with theirs: every iteration has faults of its own. Whether a part
    of `fun` is jitted or rematerialised makes no difference to its faults.

    Raises:
      ValueError: a fault selects no site (the message lists all) or kinds of words that
        do not exist; a selected site lies inside an equation that cannot be rebuilt.
    """
    for fault in faults:
        _check(fault)

    def faulty(key: Key, *args: Any, **kwargs: Any) -> Any:
        call = trace(fun, args, kwargs)
        models = _models(faults, _sites(call.closed))
        results = _evaluate(call.closed, call.arrays, key, 0, models)
        return call.structure.unflatten(results)

    return faulty


def _check(fault) -> None:
    if not isinstance(fault, Fault):
        raise ValueError(f"inject takes Faults, got {fault!r}; wrap it: Fault(model)")
    unknown = set(fault.stored or ()) - set(get_args(Stored))
    if unknown:
        raise ValueError(
            f"a fault in stored={fault.stored!r}; expected None or a tuple out of "
            f"{get_args(Stored)}"
        )


def _sites(closed: ClosedJaxpr) -> list[Site]:
    return [
        Site(
            name=eqn.params["site"],
            stored=eqn.params["stored"],
            format=eqn.params["format"],
            shape=eqn.outvars[0].aval.shape,
        )
        for eqn in equations(closed)
        if eqn.primitive is quantize_p
    ]


Models = Sequence[FaultModel | None]
"""The model that acts at each site, None where no fault selects it."""


def _models(faults: Sequence[Fault], found: Sequence[Site]) -> Models:
    for fault in faults:
        if not any(_selects(fault, site) for site in found):
            names = [f"{site.name!r} ({site.stored})" for site in found]
            raise ValueError(
                f"no site matches stored={fault.stored} and site={fault.site!r}; the "
                f"sites are: {', '.join(names) or 'none, as nothing is quantised'}"
            )
    return [_model([f.model for f in faults if _selects(f, site)]) for site in found]


def _selects(fault: Fault, site: Site) -> bool:
    kind = fault.stored is None or site.stored in fault.stored
    return kind and fnmatchcase(site.name, fault.site)


def _model(models: Sequence[FaultModel]) -> FaultModel | None:
    # A lone model is not chained: what it draws must not depend on other faults.
    if len(models) > 1:
        return chain(*models)
    return models[0] if models else None


def _evaluate(
    closed: ClosedJaxpr, inputs: Sequence, key: Key, first: int, models: Models
) -> list:
    """The results of a jaxpr whose first site has the number `first`, with faults.

    Numbers follow from the place in the jaxpr, never from the order of evaluation:
    JAX may trace the body of a loop any number of times.
    """
    number = first

    def visit(eqn, operands):
        nonlocal number
        start, number = number, number + _count(eqn)
        if not any(models[start:number]):
            return bind(eqn, operands)
        rule = _site if eqn.primitive is quantize_p else _around
        return rule(eqn, operands, key, start, models)

    return interpret(closed, inputs, visit)


def _count(eqn: JaxprEqn) -> int:
    inside = sum(len(_sites(closed)) for closed in subjaxprs(eqn))
    return inside + (eqn.primitive is quantize_p)


def _site(eqn, operands, key, first, models):
    format, model = eqn.params["format"], models[first]
    x, scale = jax.lax.stop_gradient(operands)
    fault = model.sample(jax.random.fold_in(key, first), x.shape, format)
    words = model.apply(fault, format.encode(x, scale))
    faulted = replace(partial(bind, eqn), operands, [format.decode(words, scale)])
    # Bound once more, which changes no value that was decoded, as the memory word that
    # it still is: further transforms of the faulted function see the same sites.
    return bind(eqn, [*faulted, scale])


def _around(eqn, operands, key, first, models):
    """An equation that holds sites; in a loop every iteration has a key of its own."""
    if eqn.primitive in (core.scan_p, core.while_p):
        key = jax.random.fold_in(key, first)
    bodies = subjaxprs(eqn)
    counts = [len(_sites(body)) for body in bodies]

    def evaluate(number, inputs, iteration, state):
        fresh = key if iteration is None else jax.random.fold_in(key, iteration)
        start = first + sum(counts[:number])
        return _evaluate(bodies[number], inputs, fresh, start, models), state

    return rebuild(eqn, operands, evaluate)[0]


def corrupt(
    key: Key,
    params: PyTree,
    model: FaultModel,
    *,
    format: Format | None = None,
    site: str = "*",
) -> PyTree:
    """`params` with faults in the words of the floating-point leaves that match.

    format: number format in which the leaves are stored, each with one power-of-two
        scale from its largest magnitude. By default the words of their own dtype
        (float32, float16 or bfloat16).
    site: glob on the paths of the leaves, as "*/kernel".

    Leaf number `n` draws from `fold_in(key, n)`, whichever others are selected. Dtypes
    stay; with a format, selected leaves are quantised even where no fault strikes.

    Raises:
      ValueError: no floating-point leaf matches (the message lists the paths), or a
        matching one has another float dtype than these three.
    """
    leaves, structure = jax.tree.flatten(params)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    chosen = list(map(all, zip(select(params, site), floating, strict=True)))
    if not any(chosen):
        raise ValueError(
            f"no leaf that matches {site!r} is floating-point; the paths are: "
            f"{', '.join(leaf_paths(params))}"
        )
    keys = jax.tree.leaves(leaf_keys(key, structure.unflatten(leaves)))
    rows = zip(keys, leaves, chosen, strict=True)
    faulted = [_faulted(k, x, model, format) if hit else x for k, x, hit in rows]
    return structure.unflatten(faulted)


def _faulted(key: Key, leaf: Array, model: FaultModel, format: Format | None) -> Array:
    if format is None:
        own = _own_format(leaf)
        # A cast instead of encode: it keeps every NaN as it is.
        words = jax.lax.bitcast_convert_type(leaf, word_dtype(own.bits))
        words = model.apply(model.sample(key, leaf.shape, own), words)
        return jax.lax.bitcast_convert_type(words, leaf.dtype)
    values = leaf.astype(jnp.float32)
    scale = absmax_scale(values, format)
    fault = model.sample(key, leaf.shape, format)
    words = model.apply(fault, format.encode(values, scale))
    return format.decode(words, scale).astype(leaf.dtype)


def _own_format(leaf: Array) -> IEEE:
    if leaf.dtype.name not in get_args(Name):
        raise ValueError(
            f"a leaf of dtype {leaf.dtype}; expected one of {get_args(Name)}: leave it "
            "out by its path, or give the format in which it is stored"
        )
    return IEEE(name=leaf.dtype.name)

"""Functions of integer words, computed as a chip without float units does it.

`integer` interprets a jaxpr. What was read from a word is an integer code and a step
(see `steps`): a fixed-point code as it stands, the antilogarithm of a logarithmic word
(a table and a shift, see `Logarithmic.fraction`). Products and sums are those of int32
codes. Storing a fixed-point word is a shift, or a multiplication and a shift, that
rounds half to even, then a clip; any other word is found by comparisons. All else
(parameters before they are words, normalisation folded into them, scales) is computed
in floats as before, since a deployed network does so once, before it is shipped.

With power-of-two scales both are the same function, bit for bit, as long as float32
holds the sums: |sum| < 2**24 steps.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn
from jaxtyping import Array, Int32

from jaxnas.jaxprs import bind, called, interpret
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.formats import Format
from jaxnas.numerics.integer_formats import IntegerValues, integer_values, stored_code
from jaxnas.numerics.primitives import quantize_p
from jaxnas.numerics.steps import (
    Scaled,
    Step,
    finer,
    in_steps,
    least,
    multiplied,
    step_of,
)


def integer(fun: Callable, *, scales: str = "power_of_two") -> Callable:
    """`fun` with everything between its words computed in integers, same signature.

    Every quantisation site must hold words that are integers times a power of two (see
    `integer_values`): `FixedPoint`, `Logarithmic` with a fraction and others;
    integer arguments, such as images of bytes, are codes as they stand. Results that
    depend on words come back as float32, `codes * step`. Sums must stay below
    2**30 steps: beyond, they wrap as int32 accumulators do.

    scales: what the scales of words are. "power_of_two": codes change their step by
        shifts, exactly as `fun` does. "real": by 31-bit multipliers, with which a sum
        that lies within 2**-30 of half-way between two words may be stored as the one
        or the other, and terms of a sum are first rounded to the finest of their steps
        (none is if a bias has the step of the products it is added to).

    Raises:
      ValueError: unknown `scales`; an operation on words has no integer form (it is
        named, with what to do); a site has another format; a known scale is not a power
        of two, where it should be.
    """
    if scales not in ("power_of_two", "real"):
        raise ValueError(f"scales={scales!r}; expected 'power_of_two' or 'real'")
    visit = partial(_visit, scales == "real")

    def computed(*args: Any, **kwargs: Any) -> Any:
        closed, result = jax.make_jaxpr(fun, return_shape=True)(*args, **kwargs)
        inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves((args, kwargs))]
        values = interpret(closed, inputs, visit)
        return jax.tree.unflatten(jax.tree.structure(result), map(_float, values))

    return computed


def _visit(real: bool, eqn: JaxprEqn, operands: list) -> list:
    body = called(eqn)
    if body is not None:
        return interpret(body, operands, partial(_visit, real))
    if eqn.primitive is quantize_p:
        return [_store(real, eqn, *operands)]
    if eqn.primitive.name == "convert_element_type":
        return [_convert(real, eqn, *operands)]
    if not any(isinstance(operand, Scaled) for operand in operands):
        return bind(eqn, operands)
    rule = _RULES.get(eqn.primitive.name)
    if rule is None:
        raise ValueError(
            f"{eqn.primitive.name!r} reads words (shapes {_shapes(eqn)}) and has no "
            "integer form; compute it on the host, behind the integer function"
        )
    result = rule(eqn, *operands)
    return list(result) if eqn.primitive.multiple_results else [result]


def _shapes(eqn: JaxprEqn) -> str:
    return ", ".join(str(atom.aval.shape) for atom in eqn.invars)


def _store(real: bool, eqn: JaxprEqn, x: Any, scale: Any) -> Scaled:
    format, site = eqn.params["format"], eqn.params["site"]
    table = _integer_values(format, site)
    step = _known(scale, f"the scale of site {site!r}", x, real)
    if not isinstance(x, Scaled):
        values = format.decode(format.encode(x, scale), 1.0)
        codes = (values * 2.0**table.fraction).astype(jnp.int32)
    elif isinstance(format, FixedPoint):
        codes = jnp.clip(in_steps(x, step), table.codes[0], table.codes[-1])
    else:
        codes = stored_code(*_unscaled(x, step), table)
    return Scaled(codes, step.shifted(-table.fraction))


def _unscaled(x: Scaled, step: Step) -> tuple[Array, Array]:
    """Codes c and exponents e with c * 2**e = x / step, as near as 30 bits allow."""
    left = x.step.exponent - step.exponent
    if step.factor is None:
        return x.codes, left
    room = jnp.maximum(jax.lax.clz(jnp.abs(x.codes)) - 3, 0)
    codes = multiplied(x.codes << room, x.step.factor / step.factor, jnp.int32(0))
    return codes, left - room


def _integer_values(format: Format, site: str) -> IntegerValues:
    try:
        return integer_values(format)
    except ValueError as error:
        raise ValueError(f"site {site!r}: {error}") from None


def _known(scale: Any, what: str, x: Any, real: bool) -> Step:
    """A scale as the step of x."""
    if isinstance(scale, Scaled):
        raise ValueError(f"{what} was itself computed from words; give it as a float")
    rank = (x.codes if isinstance(x, Scaled) else jnp.asarray(x)).ndim
    ones = (1,) * rank
    return step_of(scale, what, real).change(lambda e: e if e.ndim else e.reshape(ones))


def _convert(real: bool, eqn: JaxprEqn, x: Any) -> Any:
    """Integers that become floats are codes; floats of words stay what they are."""
    target = eqn.params["new_dtype"]
    if isinstance(x, Scaled):
        if not jnp.issubdtype(target, jnp.floating):
            raise ValueError(
                f"words are converted to {target}; leave them floating-point"
            )
        return x
    integral = jnp.issubdtype(jnp.asarray(x).dtype, jnp.integer)
    if integral and jnp.issubdtype(target, jnp.floating):
        codes = jnp.asarray(x).astype(jnp.int32)
        return Scaled(codes, _known(1.0, "one", codes, real))
    return bind(eqn, [x])[0]


def _float(value: Any) -> Any:
    if not isinstance(value, Scaled):
        return value
    floats = jnp.ldexp(value.codes.astype(jnp.float32), value.step.exponent)
    return floats if value.step.factor is None else floats * value.step.factor


def _aligned(values: Sequence[Any]) -> tuple[list[Array], Step]:
    """Codes of all values in the finest step of any, and that step."""
    step = least([value.step for value in values if isinstance(value, Scaled)])
    codes = [
        finer(value, step) if isinstance(value, Scaled) else _zero(value)
        for value in values
    ]
    return codes, step


def _zero(value: Any) -> Int32[Array, "..."]:
    """A float that meets words outside a product: only zero has a code in every step.

    Infinities, as the neutral element of a maximum, are the ends of the integers.
    """
    known = not isinstance(value, jax.core.Tracer)
    if known and np.all(np.asarray(value) == 0):
        return jnp.zeros(jnp.shape(value), jnp.int32)
    if known and np.all(np.isneginf(np.asarray(value))):
        return jnp.full(jnp.shape(value), -(2**31), jnp.int32)
    raise ValueError(
        "a float that is not a word is added to words or compared with them; store it "
        "with quantize first"
    )


def _uniform(x: Scaled, axes: Sequence[int]) -> Scaled:
    """The same numbers with one step along the axes."""
    sizes = x.step.exponent.shape
    if all(sizes[axis] == 1 for axis in axes):
        return x
    coarse = x.step
    for axis in axes:
        parts = [
            coarse.change(lambda e: jax.lax.slice_in_dim(e, i, i + 1, axis=axis))  # noqa: B023
            for i in range(sizes[axis])
        ]
        coarse = least(parts)
    return Scaled(finer(x, coarse), coarse)


def _joined(eqn: JaxprEqn, *operands: Any) -> Scaled:
    codes, step = _aligned(operands)
    return Scaled(bind(eqn, codes)[0], step)


def _compared(eqn: JaxprEqn, *operands: Any) -> Array:
    codes, _ = _aligned(operands)
    return bind(eqn, codes)[0]


def _select(eqn: JaxprEqn, which: Array, *cases: Any) -> Scaled:
    codes, step = _aligned(cases)
    return Scaled(bind(eqn, [which, *codes])[0], step)


def _multiply(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    if isinstance(x, Scaled) and isinstance(y, Scaled):
        return Scaled(x.codes * y.codes, x.step.times(y.step))
    words, factor = (x, y) if isinstance(x, Scaled) else (y, x)
    return _rescaled(words, factor, "a factor of words")


def _divide(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    return _rescaled(x, y, "a divisor of words", Step.inverse)


def _rescaled(
    words: Scaled, factor: Any, what: str, change: Callable = lambda step: step
) -> Scaled:
    step = _known(factor, what, words, words.step.factor is not None)
    return Scaled(words.codes, words.step.times(change(step)))


def _negate(eqn: JaxprEqn, x: Scaled) -> Scaled:
    return Scaled(-x.codes, x.step)


def _moved(eqn: JaxprEqn, x: Scaled, *rest: Any) -> Scaled:
    """Operations that only move numbers; steps that differ move along."""
    rest = [r.codes if isinstance(r, Scaled) else r for r in rest]
    codes = bind(eqn, [x.codes, *rest])[0]
    if x.step.exponent.size == 1:
        return Scaled(codes, x.step.change(lambda e: e.reshape((1,) * codes.ndim)))
    full = x.step.change(lambda e: jnp.broadcast_to(e, x.codes.shape))
    return Scaled(codes, full.change(lambda e: bind(eqn, [e, *rest])[0]))


def _pad(eqn: JaxprEqn, x: Scaled, value: Any) -> Scaled:
    codes = bind(eqn, [x.codes, _padding(value)])[0]
    if x.step.exponent.size == 1:
        return Scaled(codes, x.step)
    full = x.step.change(lambda e: jnp.broadcast_to(e, x.codes.shape))
    # Zeros have any step; the factor of one must still be one.
    return Scaled(
        codes, full.change(lambda e: bind(eqn, [e, jnp.ones((), e.dtype)])[0])
    )


def _padding(value: Any) -> Array:
    return value.codes if isinstance(value, Scaled) else _zero(value)


def _concatenate(eqn: JaxprEqn, *operands: Any) -> Scaled:
    codes, step = _aligned(
        [_uniform(x, range(x.codes.ndim)) if isinstance(x, Scaled) else x
         for x in operands]
    )  # fmt: skip
    return Scaled(bind(eqn, codes)[0], step)


def _reduced(eqn: JaxprEqn, x: Scaled) -> Scaled:
    axes = eqn.params["axes"]
    x = _uniform(x, axes)
    sizes = x.step.exponent.shape
    kept = [size for axis, size in enumerate(sizes) if axis not in axes]
    step = x.step.change(lambda e: e.reshape(kept))
    return Scaled(bind(eqn, [x.codes])[0], step)


def _arg(eqn: JaxprEqn, x: Scaled) -> Array:
    return bind(eqn, [_uniform(x, eqn.params["axes"]).codes])[0]


def _windowed(eqn: JaxprEqn, x: Scaled) -> Scaled:
    sizes = eqn.params["window_dimensions"]
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    x = _uniform(x, axes)
    return Scaled(bind(eqn, [x.codes])[0], x.step)


def _convolve(eqn: JaxprEqn, x: Any, kernel: Any) -> Scaled:
    _require_words(eqn, x, kernel)
    numbers = eqn.params["dimension_numbers"]
    outputs, *inputs = numbers.rhs_spec
    kernel = _uniform(kernel, inputs)
    x = _uniform(x, numbers.lhs_spec[1:])
    columns, rows = [1] * x.codes.ndim, [1] * x.codes.ndim
    columns[numbers.out_spec[1]] = kernel.step.exponent.shape[outputs]
    rows[numbers.out_spec[0]] = x.step.exponent.shape[numbers.lhs_spec[0]]
    step = x.step.change(lambda e: e.reshape(rows)).times(
        kernel.step.change(lambda e: e.reshape(columns))
    )
    options = {"preferred_element_type": jnp.dtype(jnp.int32), "precision": None}
    return Scaled(_bind_with(eqn, [x.codes, kernel.codes], options), step)


def _dot(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    _require_words(eqn, x, y)
    (x_axes, y_axes), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    x, y = _uniform(x, x_axes), _uniform(y, y_axes)
    x_free = [a for a in range(x.codes.ndim) if a not in (*x_axes, *x_batch)]
    y_free = [a for a in range(y.codes.ndim) if a not in (*y_axes, *y_batch)]
    sizes = [
        [value.step.exponent.shape[axis] for axis in axes]
        for value, axes in ((x, x_batch), (x, x_free), (y, y_batch), (y, y_free))
    ]

    def rows(e):
        e = e.transpose(*x_batch, *x_free, *x_axes)
        return e.reshape(*sizes[0], *sizes[1], *[1] * len(y_free))

    def columns(e):
        e = e.transpose(*y_batch, *y_free, *y_axes)
        return e.reshape(*sizes[2], *[1] * len(x_free), *sizes[3])

    step = x.step.change(rows).times(y.step.change(columns))
    options = {"preferred_element_type": jnp.dtype(jnp.int32), "precision": None}
    return Scaled(_bind_with(eqn, [x.codes, y.codes], options), step)


def _require_words(eqn: JaxprEqn, *operands: Any) -> None:
    if not all(isinstance(operand, Scaled) for operand in operands):
        raise ValueError(
            f"{eqn.primitive.name!r} multiplies words with floats of shape "
            f"{eqn.invars[1].aval.shape}; store both operands with quantize"
        )


def _bind_with(eqn: JaxprEqn, operands: list, options: dict) -> Array:
    parameters = eqn.primitive.get_bind_params(eqn.params) | options
    return eqn.primitive.bind(*operands, **parameters)


def _barrier(eqn: JaxprEqn, *operands: Any) -> tuple:
    return operands


_MOVES = (
    "broadcast_in_dim copy dynamic_slice expand_dims gather reshape rev slice squeeze "
    "stop_gradient transpose"
).split()
_RULES = {
    **dict.fromkeys(_MOVES, _moved),
    **dict.fromkeys(("add", "sub", "max", "min"), _joined),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compared),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduced),
    **dict.fromkeys(("argmax", "argmin"), _arg),
    **dict.fromkeys(("reduce_window_max", "reduce_window_sum"), _windowed),
    "concatenate": _concatenate,
    "conv_general_dilated": _convolve,
    "div": _divide,
    "dot_general": _dot,
    "mul": _multiply,
    "neg": _negate,
    "optimization_barrier": _barrier,
    "pad": _pad,
    "select_n": _select,
}

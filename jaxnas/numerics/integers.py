"""Functions of integer words, computed as a chip without float units does it.

`integer` interprets a jaxpr. What was read from a word is an integer code and a binary
exponent: a fixed-point code as it stands, the antilogarithm of a logarithmic word (a
table and a shift, see `Logarithmic.fraction`). Products and sums are those of int32
codes. Storing a fixed-point word is a shift that rounds half to even, then a clip; any
other word is found by comparisons. All else (parameters before they are words,
normalisation folded into them, scales) is computed in floats as before, since a
deployed network does so once, before it is shipped.

With power-of-two scales both are the same function, bit for bit, as long as float32
holds the sums: |sum| < 2**24 steps. After Jacob et al., "Quantization and training of
neural networks for efficient integer-arithmetic-only inference", arXiv:1712.05877, with
shifts for their multipliers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

LARGEST_SHIFT = 30


class Scaled(NamedTuple):
    """The numbers `codes * 2**exponent`; the exponent broadcasts against the codes."""

    codes: Int32[Array, "*shape"]
    exponent: Int32[Array, "*ones"]


def integer(fun: Callable) -> Callable:
    """`fun` with everything between its words computed in integers, same signature.

    Every quantisation site must hold words that are integers times a power of two (see
    `integer_values`): `FixedPoint`, `Logarithmic` with a fraction and others, with
    power-of-two scales;
    integer arguments, such as images of bytes, are codes as they stand. Results that
    depend on words come back as float32, `codes * 2**exponent`. Sums must stay below
    2**30 steps: beyond, they wrap as int32 accumulators do.

    Raises:
      ValueError: an operation on words has no integer form (it is named, with what to
        do); a site has another format; a known scale is not a power of two.
    """

    def computed(*args: Any, **kwargs: Any) -> Any:
        closed, result = jax.make_jaxpr(fun, return_shape=True)(*args, **kwargs)
        inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves((args, kwargs))]
        values = interpret(closed, inputs, _visit)
        return jax.tree.unflatten(jax.tree.structure(result), map(_float, values))

    return computed


def requantize(
    x: Scaled,
    exponent: Int32[Array, "..."],
    low: Int32[Array, ""] | int,
    high: Int32[Array, ""] | int,
) -> Int32[Array, "*shape"]:
    """Codes of x in steps of `2**exponent`: shifted, half to even, clipped."""
    left = x.exponent - exponent
    return jnp.clip(shifted(x.codes, left), low, high)


@jax.jit
def shifted(
    codes: Int32[Array, "*shape"], left: Int32[Array, "..."]
) -> Int32[Array, "*shape"]:
    """`codes * 2**left`, to the right rounded half to even.

    To the left, what reaches +-2**16 stays there or beyond: no word is so large.
    |codes| must be below 2**30.
    """
    right = jnp.clip(-left, 0, LARGEST_SHIFT)
    floor = codes >> right
    remainder = codes - (floor << right)
    half = (1 << right) >> 1
    up = (remainder > half) | ((remainder == half) & (floor & 1 == 1))
    rounded = jnp.where(-left > LARGEST_SHIFT, 0, floor + (up & (right > 0)))
    left = jnp.clip(left, 0, 17)
    enough = (1 << 16 >> left) + 1
    return jnp.where(left > 0, jnp.clip(codes, -enough, enough) << left, rounded)


def _visit(eqn: JaxprEqn, operands: list) -> list:
    body = called(eqn)
    if body is not None:
        return interpret(body, operands, _visit)
    if eqn.primitive is quantize_p:
        return [_store(eqn, *operands)]
    if eqn.primitive.name == "convert_element_type":
        return [_convert(eqn, *operands)]
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


def _store(eqn: JaxprEqn, x: Any, scale: Any) -> Scaled:
    format, site = eqn.params["format"], eqn.params["site"]
    table = _integer_values(format, site)
    exponent = _whole_rank(_exponent(scale, f"the scale of site {site!r}"), x)
    if not isinstance(x, Scaled):
        values = format.decode(format.encode(x, scale), 1.0)
        codes = (values * 2.0**table.fraction).astype(jnp.int32)
    elif isinstance(format, FixedPoint):
        low, high = int(table.codes[0]), int(table.codes[-1])
        codes = requantize(x, exponent, low, high)
    else:
        codes = stored_code(x.codes, x.exponent - exponent, table)
    return Scaled(codes, exponent - table.fraction)


def _integer_values(format: Format, site: str) -> IntegerValues:
    try:
        return integer_values(format)
    except ValueError as error:
        raise ValueError(f"site {site!r}: {error}") from None


def _exponent(scale: Any, what: str) -> Int32[Array, "..."]:
    """The binary logarithm of powers of two, from the bits of their exponents."""
    if isinstance(scale, Scaled):
        raise ValueError(f"{what} was itself computed from words; give it as a float")
    scale = jnp.asarray(scale, jnp.float32)
    word = jax.lax.bitcast_convert_type(scale, jnp.int32)
    if not isinstance(scale, jax.core.Tracer):
        found = np.asarray(scale).view(np.int32)
        wrong = (found & 0x007FFFFF != 0) | (found <= 0)
        if wrong.any():
            raise ValueError(
                f"{what} is {np.asarray(scale)[wrong].flat[0]}; integer arithmetic "
                "needs a power of two: calibrate with power_of_two=True"
            )
    return (word >> 23) - 127


def _whole_rank(exponent: Array, x: Any) -> Array:
    rank = (x.codes if isinstance(x, Scaled) else jnp.asarray(x)).ndim
    return exponent if exponent.ndim else exponent.reshape((1,) * rank)


def _convert(eqn: JaxprEqn, x: Any) -> Any:
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
        return Scaled(codes, jnp.zeros((1,) * codes.ndim, jnp.int32))
    return bind(eqn, [x])[0]


def _float(value: Any) -> Any:
    if not isinstance(value, Scaled):
        return value
    return jnp.ldexp(value.codes.astype(jnp.float32), value.exponent)


def _aligned(values: Sequence[Any]) -> tuple[list[Array], Array]:
    """Codes of all values in the finest step of any, and its exponent."""
    words = [value for value in values if isinstance(value, Scaled)]
    exponent = words[0].exponent
    for value in words[1:]:
        exponent = jnp.minimum(exponent, value.exponent)
    codes = [
        value.codes << (value.exponent - exponent)
        if isinstance(value, Scaled)
        else _zero(value)
        for value in values
    ]
    return codes, exponent


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
    """The same numbers with one exponent along the axes."""
    along = tuple(axis for axis in axes if x.exponent.shape[axis] > 1)
    if not along:
        return x
    exponent = x.exponent.min(along, keepdims=True)
    return Scaled(x.codes << (x.exponent - exponent), exponent)


def _joined(eqn: JaxprEqn, *operands: Any) -> Scaled:
    codes, exponent = _aligned(operands)
    return Scaled(bind(eqn, codes)[0], exponent)


def _compared(eqn: JaxprEqn, *operands: Any) -> Array:
    codes, _ = _aligned(operands)
    return bind(eqn, codes)[0]


def _select(eqn: JaxprEqn, which: Array, *cases: Any) -> Scaled:
    codes, exponent = _aligned(cases)
    return Scaled(bind(eqn, [which, *codes])[0], exponent)


def _multiply(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    if isinstance(x, Scaled) and isinstance(y, Scaled):
        return Scaled(x.codes * y.codes, x.exponent + y.exponent)
    words, factor = (x, y) if isinstance(x, Scaled) else (y, x)
    return _rescaled(words, _exponent(factor, "a factor of words"))


def _divide(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    return _rescaled(x, -_exponent(y, "a divisor of words"))


def _rescaled(words: Scaled, left: Array) -> Scaled:
    return Scaled(words.codes, words.exponent + _whole_rank(left, words))


def _negate(eqn: JaxprEqn, x: Scaled) -> Scaled:
    return Scaled(-x.codes, x.exponent)


def _moved(eqn: JaxprEqn, x: Scaled, *rest: Any) -> Scaled:
    """Operations that only move numbers; exponents that differ move along."""
    rest = [r.codes if isinstance(r, Scaled) else r for r in rest]
    codes = bind(eqn, [x.codes, *rest])[0]
    if x.exponent.size == 1:
        return Scaled(codes, x.exponent.reshape((1,) * codes.ndim))
    exponents = jnp.broadcast_to(x.exponent, x.codes.shape)
    return Scaled(codes, bind(eqn, [exponents, *rest])[0])


def _pad(eqn: JaxprEqn, x: Scaled, value: Any) -> Scaled:
    codes = bind(eqn, [x.codes, _padding(value)])[0]
    if x.exponent.size == 1:
        return Scaled(codes, x.exponent)
    exponents = jnp.broadcast_to(x.exponent, x.codes.shape)
    return Scaled(codes, bind(eqn, [exponents, jnp.int32(0)])[0])


def _padding(value: Any) -> Array:
    return value.codes if isinstance(value, Scaled) else _zero(value)


def _concatenate(eqn: JaxprEqn, *operands: Any) -> Scaled:
    codes, exponent = _aligned(
        [_uniform(x, range(x.codes.ndim)) if isinstance(x, Scaled) else x
         for x in operands]
    )  # fmt: skip
    return Scaled(bind(eqn, codes)[0], exponent)


def _reduced(eqn: JaxprEqn, x: Scaled) -> Scaled:
    axes = eqn.params["axes"]
    x = _uniform(x, axes)
    kept = [size for axis, size in enumerate(x.exponent.shape) if axis not in axes]
    return Scaled(bind(eqn, [x.codes])[0], x.exponent.reshape(kept))


def _arg(eqn: JaxprEqn, x: Scaled) -> Array:
    return bind(eqn, [_uniform(x, eqn.params["axes"]).codes])[0]


def _windowed(eqn: JaxprEqn, x: Scaled) -> Scaled:
    sizes = eqn.params["window_dimensions"]
    axes = [axis for axis, size in enumerate(sizes) if size > 1]
    x = _uniform(x, axes)
    return Scaled(bind(eqn, [x.codes])[0], x.exponent)


def _convolve(eqn: JaxprEqn, x: Any, kernel: Any) -> Scaled:
    _require_words(eqn, x, kernel)
    numbers = eqn.params["dimension_numbers"]
    outputs, *inputs = numbers.rhs_spec
    kernel = _uniform(kernel, inputs)
    x = _uniform(x, numbers.lhs_spec[1:])
    shape = [1] * x.codes.ndim
    shape[numbers.out_spec[1]] = kernel.exponent.shape[outputs]
    rows = [1] * x.codes.ndim
    rows[numbers.out_spec[0]] = x.exponent.shape[numbers.lhs_spec[0]]
    exponent = x.exponent.reshape(rows) + kernel.exponent.reshape(shape)
    options = {"preferred_element_type": jnp.dtype(jnp.int32), "precision": None}
    return Scaled(_bind_with(eqn, [x.codes, kernel.codes], options), exponent)


def _dot(eqn: JaxprEqn, x: Any, y: Any) -> Scaled:
    _require_words(eqn, x, y)
    (x_axes, y_axes), (x_batch, y_batch) = eqn.params["dimension_numbers"]
    x, y = _uniform(x, x_axes), _uniform(y, y_axes)
    x_free = [a for a in range(x.codes.ndim) if a not in (*x_axes, *x_batch)]
    y_free = [a for a in range(y.codes.ndim) if a not in (*y_axes, *y_batch)]
    sizes = [
        [value.exponent.shape[axis] for axis in axes]
        for value, axes in ((x, x_batch), (x, x_free), (y, y_batch), (y, y_free))
    ]
    rows = x.exponent.transpose(*x_batch, *x_free, *x_axes)
    rows = rows.reshape(*sizes[0], *sizes[1], *[1] * len(y_free))
    columns = y.exponent.transpose(*y_batch, *y_free, *y_axes)
    columns = columns.reshape(*sizes[2], *[1] * len(x_free), *sizes[3])
    options = {"preferred_element_type": jnp.dtype(jnp.int32), "precision": None}
    return Scaled(_bind_with(eqn, [x.codes, y.codes], options), rows + columns)


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

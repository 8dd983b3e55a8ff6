"""Granularity: blocks of words that share a scale, which is a memory word itself.

A shared scale is written once, read back, and multiplies every element of its block: a
fault in it rescales the block. Elements are therefore encoded with the scale that was
written and decoded with the one that is read.

Block floating point is textbook; microscaling follows Rouhani et al., "Microscaling
data formats", arXiv:2310.10537, adaptive floats Tambe et al., "Algorithm-hardware
co-design of adaptive floating-point encodings", DAC 2020.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jaxnas.numerics.exponents import PowerOfTwo
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import MiniFloat
from jaxnas.numerics.formats import Format
from jaxnas.numerics.primitives import quantize
from jaxnas.types import Scale, Values

EXPONENTS = PowerOfTwo()
E2M1 = MiniFloat(exponent=2, mantissa=1, specials="finite")


def quantize_blocks(
    x: Values,
    format: Format,
    *,
    axis: int | None = -1,
    block: int | None = None,
    shared: Format = EXPONENTS,
    unit: Scale = 1.0,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """x as read back from words of `format` that share a scale per block.

    axis: the axis that is cut into blocks, whose other axes have blocks of their own.
        None: one block for the whole array.
    block: elements per block, the last one of a row may have fewer. None: whole rows.
    shared: format of the scales, which are a site of their own, named `site`/scale and
        stored as "scale"; `unit` is the scale of these words.
    stored, site: those of the elements; see `quantize`. At this site the elements are
        in units of the shared scale.

    Derivatives are straight-through; the shared scale counts as a constant. A block
    whose scale reads NaN reads NaN; where `shared` has no word for NaN, a block with a
    NaN in it gets the least scale. Raises ValueError for an axis that x does not have,
    a block of fewer than one element, a format without scale, and as `quantize` does.
    """
    x = jnp.asarray(x)
    _check(x, format, axis, block)
    if axis is None:
        flat = x.reshape(-1)
        options = {"shared": shared, "unit": unit, "stored": stored, "site": site}
        return quantize_blocks(flat, format, **options).reshape(x.shape)
    size, axis = x.shape[axis], axis % x.ndim
    block = min(block or size, size)
    scale = shared_scale(_peaks(x, axis, block), format, shared, unit)
    read = quantize(scale, unit, shared, stored="scale", site=f"{site}/scale")
    # A scale too small for its format is zero, as is then the whole block.
    inverse = jnp.where(scale == 0, 0, 1 / scale)
    elements = x * _spread(inverse, axis, block, size)
    elements = quantize(elements, 1.0, format, stored=stored, site=site)
    return elements * _spread(read, axis, block, size)


def shared_scale(
    peak: Values, format: Format, shared: Format = EXPONENTS, unit: Scale = 1.0
) -> Float32[Array, "..."]:
    """The number, decodable in `shared`, that scales words with this largest magnitude.

    Where the shared words are powers of two: 2**(E - e), E the exponent of the peak and
    e that of the largest number of `format` (if that is below a power of two, as the
    codes of fixed point are; else of the one below). Elements then saturate only
    within the last binade, as in microscaling. Otherwise peak / span, rounded as
    `shared` rounds. The scale counts as a constant in derivatives.
    """
    peak = jax.lax.stop_gradient(jnp.asarray(peak))
    if not isinstance(shared, PowerOfTwo):
        return shared.quantize(peak / format.span, unit)
    bits = jax.lax.bitcast_convert_type(peak, jnp.int32)
    power = jax.lax.bitcast_convert_type(bits & 0x7F800000, jnp.float32)
    power = jnp.where(jnp.isnan(peak), jnp.nan, power)
    reach = math.ceil(math.log2(format.span)) - 1
    return shared.quantize(power * 2.0**-reach, unit)


def block_floating_point(
    x: Values,
    *,
    bits: int,
    block: int,
    axis: int = -1,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """Sign and magnitude of `bits` bits per element, one exponent word per block.

    The step is 2**(E - bits + 2) with E the exponent of the block's peak, so that the
    peak keeps its leading bit. Options and errors as in `quantize_blocks`.
    """
    format = FixedPoint(bits=bits, code="sign_magnitude")
    return quantize_blocks(x, format, axis=axis, block=block, stored=stored, site=site)


def microscaling(
    x: Values,
    *,
    element: MiniFloat = E2M1,
    block: int = 32,
    axis: int = -1,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """Small floats in blocks of 32 with an E8M0 scale: MXFP4 by default.

    MXFP8 is MiniFloat(exponent=4, mantissa=3, specials="nan_only") or (5, 2), MXFP6
    (2, 3) or (3, 2) with specials="finite". Options and errors as in `quantize_blocks`.
    """
    return quantize_blocks(x, element, axis=axis, block=block, stored=stored, site=site)


def adaptive_float(
    x: Values,
    *,
    exponent: int,
    mantissa: int,
    stored: str = "activation",
    site: str = "",
) -> Float32[Array, "..."]:
    """Floats without subnormals or special words, whose bias is one word per array.

    The bias puts the exponent of the largest magnitude at the largest exponent field;
    the word of the least number stands for zero. Errors as in `quantize_blocks`.
    """
    format = MiniFloat(
        exponent=exponent, mantissa=mantissa, specials="finite", subnormals=False
    )
    return quantize_blocks(x, format, axis=None, stored=stored, site=site)


def _check(x: Array, format: Format, axis: int | None, block: int | None) -> None:
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"axis {axis} of an array of shape {x.shape}: no such axis; take one of "
            f"{list(range(x.ndim))}, or None for a single block"
        )
    if block is not None and block < 1:
        raise ValueError(f"blocks of {block} elements; expected at least 1")
    if block is not None and axis is None:
        raise ValueError(
            f"blocks of {block} elements along axis None; give the axis, or leave out "
            "`block` for one block of all elements"
        )
    if not format.scaled:
        raise ValueError(
            f"{format} does not depend on a scale, so that blocks have none to share; "
            "take FixedPoint, Logarithmic or MiniFloat"
        )


def _peaks(x: Array, axis: int, block: int) -> Float32[Array, "..."]:
    """The largest magnitude of each block along the axis."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -x.shape[axis] % block)
    padded = jnp.pad(jnp.abs(x), padding)
    shape = [*x.shape[:axis], -1, block, *x.shape[axis + 1 :]]
    return padded.reshape(shape).max(axis + 1)


def _spread(scale: Array, axis: int, block: int, size: int) -> Float32[Array, "..."]:
    """One scale per element of an axis of this size from one per block."""
    spread = jnp.repeat(scale, block, axis)
    return jax.lax.slice_in_dim(spread, 0, size, axis=axis)

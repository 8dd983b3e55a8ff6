"""Quantised layers: what is stored as a word, where normalisation goes, what a sum is.

One layer is convolution, batch normalisation, optional shortcut and rectifier, and a
store. Three things are words in memory: the kernel after the normalisation is folded
into it, the bias, and the map that leaves the layer. Fixed-point words are integers
times a power-of-two step, and so are logarithmic ones, whose powers are rounded to a
binary fraction. Every product and sum is then a multiple of one small step, so float32
computes what int32 accumulators would, bit for bit and in any order, as long as they
stay below 2**24 steps.

Training sees the deployed words (after Krishnamoorthi 2018, arXiv 1806.08342): the
kernel is quantised as it will be stored, scaled by the running deviation, and the
batch's own statistics normalise its output. Towards its end they may be frozen: then
the running statistics normalise, as they will in the deployed layer, and stay.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from jaxnas.networks.convolutions import Maps
from jaxnas.numerics.calibration import power_of_two
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE
from jaxnas.numerics.formats import Format
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.primitives import quantize
from jaxnas.switches import recomputed_switch

ACTIVATION_PEAK = 4.0
"""Largest stored activation. Normalised maps have unit deviation, so four deviations
hold all but a few of their values whatever the data; the rest saturate."""
VARIANCE_FLOOR = 1e-3
STATISTICS_MOMENTUM = 0.9
FRACTION = 8
"""Fraction bits of signed logarithmic words as arithmetic reads them, one fewer than
where there is no sign. Of the 24 bits of an exact float32 sum, products of two operands
leave seven for its length."""
SCHEMES = ("fixed_point", "logarithmic")
FLOAT = "float32"
"""The scheme without rounding or saturation of kernels and maps, whatever the width:
what the others are compared with."""

Choice = int | Int[Array, ""]
Convolve = Callable[[Array, Array], Array]


class LayerParams(NamedTuple):
    """Trained values of one layer; the kernel is HWIO, a depthwise one HW1C."""

    kernel: Float[Array, "kernel_height kernel_width inputs outputs"]
    gain: Float[Array, " outputs"]
    offset: Float[Array, " outputs"]


class LayerStatistics(NamedTuple):
    """Running mean and variance of the convolution's output, per channel."""

    mean: Float[Array, " outputs"]
    variance: Float[Array, " outputs"]


class HeadParams(NamedTuple):
    """The dense layer that ends a network."""

    kernel: Float[Array, "inputs classes"]
    bias: Float[Array, " classes"]


class WordFormats(NamedTuple):
    """The formats among which `Choice` indices choose, one tuple per kind of tensor."""

    weight: tuple[Format, ...]
    rectified: tuple[Format, ...]
    linear: tuple[Format, ...]


class Layer(NamedTuple):
    """How one layer computes and stores; `*_bits` are choices that may be traced.

    `frozen` statistics matter in training only.
    """

    formats: WordFormats
    weight_bits: Choice
    activation_bits: Choice
    site: str
    convolve: Convolve
    rectify: bool | Bool[Array, ""] = True
    train: bool = False
    frozen: bool | Bool[Array, ""] = False


class StoredMap(NamedTuple):
    """A map read back from memory, and the step of which its values are multiples (0 if
    there is none)."""

    values: Maps
    step: Float[Array, ""]


def word_formats(word_bits: tuple[int, ...], schemes: tuple[str, ...]) -> WordFormats:
    """Formats of every scheme and width; index `scheme * len(word_bits) + width`.

    `fixed_point`: two's complement, unsigned after a rectifier. `logarithmic`: powers
    rounded to `FRACTION` bits or one more; the base is `2**(1/n)` with the least power
    of two `n` from 2 on that lets the exponents of a word span no more octaves than
    `FRACTION`. `float32`: that, for words of any width. Raises ValueError for an
    unknown scheme.
    """
    known = (*SCHEMES, FLOAT)
    unknown = [scheme for scheme in schemes if scheme not in known]
    if unknown or not schemes:
        raise ValueError(f"unknown number schemes {unknown}: choose from {known}")
    pairs = [(scheme, bits) for scheme in schemes for bits in word_bits]
    return WordFormats(
        weight=tuple(_word(scheme, bits, signed=True) for scheme, bits in pairs),
        rectified=tuple(_word(scheme, bits, signed=False) for scheme, bits in pairs),
        linear=tuple(_word(scheme, bits, signed=True) for scheme, bits in pairs),
    )


def _word(scheme: str, bits: int, *, signed: bool) -> Format:
    if scheme == FLOAT:
        return IEEE(name="float32")
    if scheme == "fixed_point":
        code = "twos_complement" if signed else "unsigned"
        return FixedPoint(bits=bits, code=code)
    magnitudes = 2 ** (bits - 1 if signed else bits) - 1
    steps_per_octave = 2
    while magnitudes / steps_per_octave > FRACTION:
        steps_per_octave *= 2
    base = 2 ** (1 / steps_per_octave)
    fraction = FRACTION if signed else FRACTION + 1
    return Logarithmic(bits=bits, base=base, signed=signed, fraction=fraction)


def read_image(images: UInt8[Array, "batch height width channels"]) -> StoredMap:
    """The input image: its pixels are 8-bit words of value `pixel / 256`."""
    step = jnp.float32(2**-8)
    pixels = images.astype(jnp.float32) * step
    word = FixedPoint(bits=8, code="unsigned")
    return StoredMap(quantize(pixels, step, word, stored="input", site="image"), step)


def apply_layer(
    layer: Layer,
    params: LayerParams,
    statistics: LayerStatistics,
    x: StoredMap,
    shortcut: Maps | None = None,
) -> tuple[StoredMap, LayerStatistics]:
    """Convolve, normalise, add the shortcut, rectify, store.

    In training the batch's mean and variance normalise and the running statistics move,
    unless they are frozen; otherwise the normalisation is folded into the stored kernel
    and bias.
    """
    if layer.train:
        y, statistics = _normalised_convolution(layer, params, statistics, x.values)
    else:
        y = _folded_convolution(layer, params, statistics, x)
    y = y if shortcut is None else y + shortcut
    return _store_map(layer, _rectify(layer, y)), statistics


def _normalised_convolution(layer, params, statistics, x):
    deviation = jnp.sqrt(statistics.variance + VARIANCE_FLOOR)
    slope = params.gain / deviation
    # A vanished gain would leave nothing to normalise: quantise the bare kernel then.
    slope = jnp.where(jnp.abs(slope) < 1e-4, 1.0 / deviation, slope)
    kernel, _ = _store_kernel(layer, params.kernel * per_channel(slope))
    y = layer.convolve(x, kernel) / per_channel(slope)
    mean = jnp.mean(y, axis=(0, 1, 2))
    variance = jnp.mean((y - per_channel(mean)) ** 2, axis=(0, 1, 2))
    mean = jnp.where(layer.frozen, statistics.mean, mean)
    variance = jnp.where(layer.frozen, statistics.variance, variance)
    scale = params.gain / jnp.sqrt(variance + VARIANCE_FLOOR)
    normalised = (y - per_channel(mean)) * per_channel(scale)
    moved = jax.tree.map(
        lambda old, new: old + (1 - STATISTICS_MOMENTUM) * lax.stop_gradient(new - old),
        statistics,
        LayerStatistics(mean, variance),
    )
    return normalised + per_channel(params.offset), moved


def _folded_convolution(layer, params, statistics, x):
    slope, bias = fold(params, statistics)
    kernel, step = _store_kernel(layer, params.kernel * per_channel(slope))
    bias = store_bias(bias, step.reshape(-1) * x.step, f"{layer.site}/bias")
    return layer.convolve(x.values, kernel) + per_channel(bias)


def fold(
    params: LayerParams, statistics: LayerStatistics
) -> tuple[Float[Array, " outputs"], Float[Array, " outputs"]]:
    """The factor of the kernel and the bias that the normalisation comes to."""
    # Programs must not round these differently, or they would store other words: the
    # barrier keeps the root from being rewritten, and dividing last leaves no product
    # that a compiler could fuse with the difference.
    deviation = lax.optimization_barrier(jnp.sqrt(statistics.variance + VARIANCE_FLOOR))
    slope = params.gain / deviation
    return slope, params.offset - statistics.mean * params.gain / deviation


def _store_kernel(layer, kernel):
    return store_kernel(kernel, layer.formats, layer.weight_bits, layer.site)


def _rectify(layer: Layer, y: Maps) -> Maps:
    if isinstance(layer.rectify, bool):
        return jnp.maximum(y, 0.0) if layer.rectify else y
    return jnp.where(layer.rectify, jnp.maximum(y, 0.0), y)


def _store_map(layer: Layer, y: Maps) -> StoredMap:
    rectified, linear = layer.formats.rectified, layer.formats.linear
    if isinstance(layer.rectify, bool):
        formats, choice = rectified if layer.rectify else linear, layer.activation_bits
    else:
        formats = rectified + linear
        choice = layer.activation_bits + jnp.where(layer.rectify, 0, len(rectified))
    peak = jnp.float32(ACTIVATION_PEAK)
    site = f"{layer.site}/output"
    return StoredMap(*_store(y, peak, formats, choice, "activation", site))


def store_kernel(
    kernel: Float[Array, "*inputs outputs"],
    formats: WordFormats,
    weight_bits: Choice,
    site: str,
) -> tuple[Float[Array, "*inputs outputs"], Float[Array, "*ones outputs"]]:
    """A kernel as it is read back from memory, and the step of each output channel."""
    inputs = tuple(range(kernel.ndim - 1))
    peak = power_of_two(jnp.max(jnp.abs(kernel), axis=inputs, keepdims=True))
    name = f"{site}/kernel"
    return _store(kernel, peak, formats.weight, weight_bits, "weight", name)


def store_bias(
    bias: Float[Array, " outputs"], step: Float[Array, " outputs"], site: str
) -> Float[Array, " outputs"]:
    """A bias read back from its 16-bit word, a multiple of the accumulator's `step`."""
    word = FixedPoint(bits=16)
    peak = power_of_two(jnp.max(jnp.abs(bias)))
    scale = jnp.maximum(peak / word.span, step)
    return quantize(bias, scale, word, stored="bias", site=site)


def _store(x, peak, formats, choice, stored, site):
    """`x` in the chosen format with power-of-two `peak`, and the step of its words."""

    def branch(format):
        def store(x, peak):
            peak = lax.stop_gradient(peak)
            scale = peak / format.span
            value = quantize(x, scale, format, stored=stored, site=site)
            return value, scale * _unit(format)

        return store

    return recomputed_switch(choice, [branch(format) for format in formats], x, peak)


def _unit(format: Format) -> float:
    """The step of which all numbers are multiples, in units of the scale, or 0."""
    match format:
        case FixedPoint():
            return 1.0
        case Logarithmic(fraction=int(fraction)):
            return 2.0**-fraction
    return 0.0


def apply_head(
    params: HeadParams, x: StoredMap, formats: WordFormats, weight_bits: Choice
) -> Float[Array, "batch classes"]:
    """Logits: the map's sum, shifted to about its mean, through a dense layer."""
    area = x.values.shape[1] * x.values.shape[2]
    shift = 0.5 ** (area - 1).bit_length()
    pooled = jnp.sum(x.values, axis=(1, 2)) * shift
    kernel, step = store_kernel(params.kernel, formats, weight_bits, "head")
    bias = store_bias(params.bias, step.reshape(-1) * x.step * shift, "head/bias")
    product = jnp.matmul(pooled, kernel, precision=lax.Precision.HIGHEST)
    return product + bias[None, :]


def per_channel(vector: Shaped[Array, " channels"]) -> Shaped[Array, "1 1 1 channels"]:
    """A vector over the last axis of a map or kernel."""
    return vector[None, None, None, :]

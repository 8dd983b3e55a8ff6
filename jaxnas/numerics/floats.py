"""Binary floats: IEEE 754-2019 ones of the machine, and small ones of any split.

The eight-bit kinds of small floats are those of Micikevicius et al., "FP8 formats for
deep learning", arXiv:2209.05433; those of four and six bits of Rouhani et al.,
"Microscaling data formats", arXiv:2310.10537; floats that give up subnormal numbers of
Tambe et al., "Algorithm-hardware co-design of adaptive floating-point encodings",
DAC 2020.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt

from jaxnas.numerics.formats import (
    Format,
    Pair,
    bracket,
    check_width,
    in_units,
    integers,
    opaque,
    word_dtype,
)
from jaxnas.types import Scale, Values, Words

Name = Literal["float32", "float16", "bfloat16"]
Specials = Literal["ieee", "nan_only", "finite"]


@dataclass(frozen=True, kw_only=True)
class IEEE:
    """A binary float: words are bit casts, and the scale is ignored.

    Infinities and NaN keep their words and meaning. Alias: a signalling NaN may come
    back quiet. Raises ValueError for an unknown name.
    """

    name: Name = "float32"

    def __post_init__(self):
        if self.name not in get_args(Name):
            raise ValueError(f"unknown float {self.name!r}; take {get_args(Name)}")

    @property
    def bits(self) -> int:
        return jnp.finfo(self.name).bits

    @property
    def fields(self) -> dict[str, int]:
        return _fields(self.bits, jnp.finfo(self.name).nmant)

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return False

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        rounded = self.quantize(x, scale).astype(self.name)
        return jax.lax.bitcast_convert_type(rounded, word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        words = jnp.asarray(words).astype(word_dtype(self.bits))
        floats = jax.lax.bitcast_convert_type(words, jnp.dtype(self.name))
        return floats.astype(jnp.float32)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        # Rounded within float32 first. A pair of casts would do eagerly, but XLA is
        # free to cancel it; here the casts that follow are exact, cancelled or not.
        x = jnp.asarray(x)
        info = jnp.finfo(self.name)
        if self.name == "float32":
            return x
        rounded = jax.lax.reduce_precision(x, info.nexp, info.nmant)
        if self.name == "bfloat16":
            return rounded
        # reduce_precision flushes what float16 stores as a subnormal.
        step = float(info.smallest_subnormal)
        subnormal = jnp.round(x * (1 / step)) * step
        return jnp.where(jnp.abs(x) < float(info.tiny), subnormal, rounded)

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        """See `Format.neighbours`; finite for all numbers, infinities included."""
        x = jnp.asarray(x)
        return (x, x) if self.name == "float32" else _neighbours(self, x, scale)

    def bounds(self, scale: Scale) -> Pair:
        largest = jnp.float32(jnp.finfo(self.name).max)
        return -largest, largest


@dataclass(frozen=True, kw_only=True)
class MiniFloat:
    """A binary float of any small split: value = +-scale * 2**(e-bias) * (1 + m/2**M).

    e and m are the fields below the sign, of `exponent` and `mantissa` = M bits; bias =
    2**(exponent-1) - 1. The nearest value is taken, of two the one with the even word.

    subnormals: e = 0 stands for 2**(1-bias) * m/2**M. Without them it is an exponent
        like any other, but for the word 0, which stays zero: numbers up to half of the
        least, 2**-bias * (1 + 2**-M), become zero.
    specials: "ieee": the largest e holds infinity (m = 0) and NaN. "nan_only": the
        largest word but for its sign is NaN, all others are numbers (e4m3fn, e5m2fn).
        "finite": all words are numbers, and NaN becomes zero.
    saturate: magnitudes beyond the largest number become that number, infinity too;
        otherwise what rounds beyond it becomes infinity or, with "nan_only", NaN.
        "finite" always saturates.

    At scale one, saturate=False and "ieee" or "nan_only" this is the cast to the float
    of that name (float16, float8_e5m2, float8_e4m3fn, ...), "finite" that to
    float4_e2m1fn and its like. Zeros keep their signs. Alias: NaN words, which are
    written as one, quiet and positive.

    Raises ValueError unless 1 <= exponent <= 7, 1 <= mantissa <= 14 and the word has at
    most 16 bits; for an unknown `specials`; for a single exponent bit with "ieee".
    """

    exponent: int
    mantissa: int
    specials: Specials = "ieee"
    subnormals: bool = True
    saturate: bool = True

    def __post_init__(self):
        if not 1 <= self.exponent <= 7 or not 1 <= self.mantissa:
            raise ValueError(
                f"MiniFloat with {self.exponent} exponent and {self.mantissa} mantissa "
                "bits; expected 1 to 7 and at least 1: take IEEE(name='bfloat16') for "
                "8 exponent bits, Logarithmic(base=2.0) for no mantissa"
            )
        check_width(self, 3)
        if self.specials not in get_args(Specials):
            raise ValueError(
                f"unknown specials {self.specials!r}; take one of {get_args(Specials)}"
            )
        if self.specials == "ieee" and self.exponent == 1:
            raise ValueError(
                "MiniFloat with one exponent bit, which specials='ieee' would reserve; "
                "take specials='finite' or 'nan_only'"
            )

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def fields(self) -> dict[str, int]:
        return _fields(self.bits, self.mantissa)

    @property
    def span(self) -> float:
        """The largest number."""
        exponent, mantissa = divmod(self._largest_word, 1 << self.mantissa)
        return 2.0 ** (exponent - self._bias) * (1 + mantissa / 2**self.mantissa)

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        rounded = self._rounded(in_units(x, opaque(scale)))
        whole = jax.lax.bitcast_convert_type(rounded, jnp.int32)
        sign = (whole < 0).astype(jnp.int32) << (self.bits - 1)
        word = ((whole & 0x7FFFFFFF) >> (23 - self.mantissa)) - self._rebias
        magnitude = jnp.abs(rounded)
        if self.subnormals:
            units = magnitude * 2.0 ** (self.mantissa - self._lowest)
            small = magnitude < 2.0**self._lowest
            word = jnp.where(small, units.astype(jnp.int32), word)
        word = jnp.where(magnitude > 0, word, 0)
        word = jnp.where(magnitude > self.span, self._largest_word + 1, word)
        word = jnp.where(jnp.isnan(rounded), self._nan_word, word | sign)
        return word.astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, self.bits)
        magnitude = word & ((1 << (self.bits - 1)) - 1)
        value = _float((magnitude + self._rebias) << (23 - self.mantissa))
        if self.subnormals:
            step = 2.0 ** (self._lowest - self.mantissa)
            subnormal = magnitude.astype(jnp.float32) * step
            value = jnp.where(magnitude < 1 << self.mantissa, subnormal, value)
        value = jnp.where(magnitude > 0, value, 0)
        if self.specials == "ieee":
            value = jnp.where(magnitude > self._largest_word, jnp.inf, value)
        value = jnp.where(word >> (self.bits - 1), -value, value)
        if self.specials != "finite":
            infinite = self._largest_word + (self.specials == "ieee")
            value = jnp.where(magnitude > infinite, jnp.nan, value)
        return value * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._rounded(in_units(x, scale)) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        """See `Format.neighbours`; finite for all numbers, infinities included."""
        return _neighbours(self, jnp.asarray(x), scale)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -self.span * scale, self.span * scale

    @property
    def _bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def _rebias(self) -> int:
        """What turns a magnitude into the upper bits of a float32 word."""
        return (127 - self._bias) << self.mantissa

    @property
    def _lowest(self) -> int:
        """The exponent of the smallest power of two that starts a full binade."""
        return self.subnormals - self._bias

    @property
    def _largest_word(self) -> int:
        words = 1 << (self.exponent + self.mantissa)
        reserved = {"ieee": 1 << self.mantissa, "nan_only": 1, "finite": 0}
        return words - reserved[self.specials] - 1

    @property
    def _nan_word(self) -> int:
        if self.specials == "ieee":
            return self._largest_word + 1 + (1 << (self.mantissa - 1))
        return self._largest_word + (self.specials == "nan_only")

    def _rounded(self, units: Float32[Array, "..."]) -> Float32[Array, "..."]:
        """The nearest number at scale one; every product here is exact."""
        # In the binade 2**k the numbers lie 2**(k-M) apart, in all below the lowest
        # as far as there; beyond the largest any step will do that finds it is beyond.
        bits = jax.lax.bitcast_convert_type(units, jnp.int32) & 0x7F800000
        highest = math.frexp(self.span)[1] - 1
        binade = jnp.clip(bits, (self._lowest + 127) << 23, (highest + 127) << 23)
        step = binade - (self.mantissa << 23)
        rounded = jnp.round(units * _float((254 << 23) - step)) * _float(step)
        magnitude = jnp.abs(units)
        if not self.subnormals:
            least = 2.0**-self._bias * (1 + 0.5**self.mantissa)
            small = jnp.where(magnitude > least / 2, least, 0.0)
            small = jnp.copysign(small, units)
            rounded = jnp.where(magnitude < least, small, rounded)
        return self._limited(rounded)

    def _limited(self, rounded: Float32[Array, "..."]) -> Float32[Array, "..."]:
        if self.saturate or self.specials == "finite":
            rounded = jnp.clip(rounded, -self.span, self.span)
        else:
            beyond = jnp.inf if self.specials == "ieee" else jnp.nan
            beyond = jnp.copysign(jnp.float32(beyond), rounded)
            rounded = jnp.where(jnp.abs(rounded) > self.span, beyond, rounded)
        nan = 0.0 if self.specials == "finite" else jnp.nan
        return jnp.where(jnp.isnan(rounded), nan, rounded)


def _fields(bits: int, mantissa_bits: int) -> dict[str, int]:
    sign, mantissa = 1 << (bits - 1), (1 << mantissa_bits) - 1
    return {"sign": sign, "exponent": sign - 1 - mantissa, "mantissa": mantissa}


def _float(word: Array) -> Float32[Array, "..."]:
    return jax.lax.bitcast_convert_type(word, jnp.float32)


def _neighbours(format: Format, x: Array, scale: Scale) -> Pair:
    """Neighbours where words are a sign and a magnitude, finite ones below others."""
    bounds = format.bounds(scale)
    largest = integers(format.encode(bounds[1], scale), format.bits)
    word = integers(format.encode(jnp.clip(x, *bounds), scale), format.bits)
    sign = 1 << (format.bits - 1)
    rank = jnp.where(word & sign, sign - word, word)

    def ranked(rank):
        return format.decode(_words(jnp.where(rank < 0, sign - rank, rank)), scale)

    below = ranked(jnp.maximum(rank - 1, -largest))
    return bracket(
        x,
        format.decode(_words(word), scale),
        below,
        ranked(jnp.minimum(rank + 1, largest)),
    )


def _words(word: Array) -> UInt[Array, "..."]:
    return word.astype(jnp.uint32)

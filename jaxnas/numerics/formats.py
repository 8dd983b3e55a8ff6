"""Number formats: what a memory word stands for, as frozen, hashable values.

A format maps real numbers to words (`encode`) and *every* word back to a real number
(`decode`), so that a flipped bit always has a meaning. Words are unsigned integers of
the smallest dtype that holds them; bits above the format's width are ignored.
All three formats obey, bit for bit, on every word w and every float32 x,

    encode(decode(w)) == w   but for aliases, which each format lists,
    quantize(x) == decode(encode(x)),

as long as the scale and every magnitude met are normal float32 numbers. NaN encodes
to zero where a format has no word for it; infinities saturate.

Fixed point is textbook arithmetic; logarithmic words with an arbitrary base follow
Vogel et al., ICCAD 2018 (doi 10.1145/3240765.3240803), floats IEEE 754-2019.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt

from jaxnas.types import Scale, Values, Words

Code = Literal["twos_complement", "sign_magnitude", "unsigned"]
Name = Literal["float32", "float16", "bfloat16"]


@runtime_checkable
class Format(Protocol):
    """What every number format offers; `scale` is a scalar or of the rank of x."""

    @property
    def bits(self) -> int:
        """Width of a word."""
        ...

    @property
    def fields(self) -> dict[str, int]:
        """Disjoint bit masks that together cover the word, by meaning."""
        ...

    @property
    def span(self) -> float:
        """Largest nominal magnitude in units of the scale: scale = peak / span."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether the value of a word depends on the scale."""
        ...

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        """The words that store x."""
        ...

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        """The numbers that the words stand for."""
        ...

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        """decode(encode(x, scale), scale), bit for bit."""
        ...

    def bounds(
        self, scale: Scale
    ) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
        """Smallest and largest finite number that a word can stand for."""
        ...


def word_dtype(bits: int) -> np.dtype:
    """Smallest unsigned integer dtype that holds a word of so many bits (1 to 32)."""
    if not 1 <= bits <= 32:
        raise ValueError(f"a word of {bits} bits; expected 1 to 32")
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Integers times a step: value = code * scale, nearest code, ties to even.

    With a power-of-two scale the arithmetic is exact. Codes saturate at
    [-2**(bits-1), 2**(bits-1)-1] in two's complement, +-(2**(bits-1)-1) in sign
    magnitude, [0, 2**bits-1] unsigned. Alias: the negative zero of sign magnitude
    decodes to 0. Raises ValueError for a width outside 2..16 or an unknown code.
    """

    bits: int
    code: Code = "twos_complement"

    def __post_init__(self):
        _check_width(self)
        if self.code not in get_args(Code):
            raise ValueError(
                f"unknown fixed-point code {self.code!r}; take one of {get_args(Code)}"
            )

    @property
    def fields(self) -> dict[str, int]:
        if self.code == "unsigned":
            return {"magnitude": (1 << self.bits) - 1}
        return _signed_fields(self.bits, "magnitude")

    @property
    def span(self) -> float:
        return float(1 << (self.bits - (self.code != "unsigned")))

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        code = self._code(x, _opaque(scale)).astype(jnp.int32)
        if self.code == "sign_magnitude":
            code = jnp.where(code < 0, (1 << (self.bits - 1)) - code, code)
        return (code & ((1 << self.bits) - 1)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        code = jnp.asarray(words).astype(jnp.int32) & ((1 << self.bits) - 1)
        sign = 1 << (self.bits - 1)
        if self.code == "twos_complement":
            code = (code ^ sign) - sign
        if self.code == "sign_magnitude":
            code = jnp.where(code & sign, sign - code, code)
        return code.astype(jnp.float32) * _opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = _opaque(scale)
        return self._code(x, scale) * scale

    def bounds(
        self, scale: Scale
    ) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
        scale = _opaque(scale)
        lowest, highest = self._range
        return lowest * scale, highest * scale

    @property
    def _range(self) -> tuple[int, int]:
        span = int(self.span)
        lowest = {"twos_complement": -span, "sign_magnitude": 1 - span, "unsigned": 0}
        return lowest[self.code], span - 1

    def _code(self, x: Values, scale: Float32[Array, "..."]) -> Float32[Array, "..."]:
        # Not x / scale: XLA turns a division by a constant into a product with its
        # reciprocal, so that a ratio near a tie would round one way with a constant
        # scale and the other way with an argument.
        nearest = jnp.clip(jnp.round(x * (1 / scale)), *self._range)
        # Drops NaN and the sign of a negative zero, neither of which has a word.
        return jnp.where(jnp.abs(nearest) > 0, nearest, 0)


@dataclass(frozen=True, kw_only=True)
class Logarithmic:
    """A sign and an exponent: value = +-scale * base**(m - M), nearest exponent.

    m is the exponent field, M its largest value, m = 0 stands for zero. The nearest
    exponent minimises the relative error (half-way in the logarithm); magnitudes below
    m = 1/2 become zero and those beyond M saturate. Without a sign, negative numbers
    become zero. Alias: the negative zero decodes to 0.
    Flipping bit k of m multiplies the value by base**(+-2**k) between nonzero words.

    Raises ValueError for a width outside 2..16 and for a base that is not finite and
    above 1, or whose powers collide or underflow in float32.
    """

    bits: int
    base: float
    signed: bool = True

    def __post_init__(self):
        _check_width(self)
        if not 1 < self.base < math.inf:
            raise ValueError(
                f"a logarithmic base of {self.base}; expected a finite number above 1, "
                "such as 2 ** 0.125"
            )
        powers = _powers(self.bits, self.base, self.signed)[: self._largest + 1]
        if powers[1] < np.finfo(np.float32).tiny or not (np.diff(powers) > 0).all():
            steepest = 2 ** (126 / max(self._largest - 1, 1))
            raise ValueError(
                f"base {self.base} with {self._largest} exponents leaves float32: some "
                "powers collide or underflow; take fewer bits or a base between "
                f"{1 + 2**-22:.8g} and {steepest:.8g}"
            )

    @property
    def fields(self) -> dict[str, int]:
        if not self.signed:
            return {"exponent": (1 << self.bits) - 1}
        return _signed_fields(self.bits, "exponent")

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        return self._word(x, _opaque(scale)).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        words = jnp.asarray(words).astype(jnp.int32) & ((1 << self.bits) - 1)
        return self._value(words) * _opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = _opaque(scale)
        return self._value(self._word(x, scale)) * scale

    def bounds(
        self, scale: Scale
    ) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
        scale = _opaque(scale)
        return (-scale if self.signed else jnp.zeros_like(scale)), scale

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    def _word(self, x: Values, scale: Float32[Array, "..."]) -> Array:
        # Rounded before M is added, so that no compiler can fuse the product and the
        # sum: a fused one would round ties in another way than the separate two.
        octaves = jnp.log(jnp.abs(x) * (1 / scale))
        exponent = self._largest + jnp.round(octaves * (1 / math.log(self.base)))
        exponent = jnp.clip(exponent, 0, self._largest)
        exponent = jnp.where(exponent > 0, exponent, 0).astype(jnp.int32)  # drops NaN
        negative = exponent | (self._largest + 1) if self.signed else 0
        return jnp.where((x < 0) & (exponent > 0), negative, exponent)

    def _value(self, word: Array) -> Float32[Array, "..."]:
        # Powers from a float64 table, not from exp2: the table is exact to half a unit
        # in the last place on every device, and measured as fast on CPU.
        table = jnp.asarray(_powers(self.bits, self.base, self.signed))
        return table.at[word].get(mode="promise_in_bounds")


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
        mantissa = (1 << jnp.finfo(self.name).nmant) - 1
        sign = 1 << (self.bits - 1)
        return {"sign": sign, "exponent": sign - 1 - mantissa, "mantissa": mantissa}

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

    def bounds(
        self, scale: Scale
    ) -> tuple[Float32[Array, "..."], Float32[Array, "..."]]:
        largest = jnp.float32(jnp.finfo(self.name).max)
        return -largest, largest


def _check_width(format: FixedPoint | Logarithmic) -> None:
    if not 2 <= format.bits <= 16:
        raise ValueError(
            f"{type(format).__name__} words of {format.bits} bits; expected 2 to 16"
        )


def _signed_fields(bits: int, rest: str) -> dict[str, int]:
    sign = 1 << (bits - 1)
    return {"sign": sign, rest: sign - 1}


@functools.lru_cache
def _powers(bits: int, base: float, signed: bool) -> Float32[np.ndarray, " words"]:
    """Value of every logarithmic word at scale one."""
    largest = (1 << (bits - signed)) - 1
    powers = np.float64(base) ** (np.arange(largest + 1) - largest)
    powers[0] = 0
    table = np.concatenate([powers, -powers]) if signed else powers
    return (table + 0.0).astype(np.float32)  # + 0.0: no negative zero


def _opaque(scale: Scale) -> Float32[Array, "..."]:
    """The scale as a float32 array that the compiler cannot see through.

    XLA reassociates (x * c1) * c2 when both are constants, which changes last bits.
    """
    return jax.lax.optimization_barrier(jnp.asarray(scale, jnp.float32))

"""Formats of integers: all their numbers are integers times one step.

So are fixed point, logarithms rounded to a binary fraction (`Logarithmic.fraction`),
two-term powers of two, few-valued words and small floats. What tells one number from
the next is read off the format itself: the largest float32 that it still rounds down,
found by bisection. An integer is then stored by comparing it with those, exactly.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from jaxnas.numerics.formats import Format
from jaxnas.numerics.words import all_words

LARGEST_CODE = 1 << 24
"""Codes of at least this size are no longer all float32 numbers."""


class IntegerValues(NamedTuple):
    """The numbers of a format at scale one, `codes * 2**-fraction`, ascending.

    A number belongs to the value whose index is how many thresholds lie below it.
    """

    codes: Int32[np.ndarray, " values"]
    fraction: int
    thresholds: Float32[np.ndarray, " values-1"]


@functools.lru_cache
def integer_values(format: Format) -> IntegerValues:
    """The integers that stand for the words of a format of at most 16 bits.

    Raises ValueError where a word stands for no number, or numbers are not integers
    below 2**24 times a common power of two.
    """
    if format.bits > 16:
        raise ValueError(
            f"{format} has more than 16 bits; integers need narrower words"
        )
    with jax.ensure_compile_time_eval():
        decoded = np.asarray(format.decode(all_words(format.bits), 1.0))
        values = np.unique(decoded + np.float32(0))
        fraction = _fraction(format, values)
        thresholds = _thresholds(format, values)
    codes = np.ldexp(values.astype(np.float64), fraction).astype(np.int32)
    return IntegerValues(codes, fraction, thresholds)


def _fraction(format: Format, values: np.ndarray) -> int:
    finite = np.isfinite(values).all()
    mantissa, exponent = np.frexp(values[values != 0].astype(np.float64))
    odd = np.ldexp(mantissa, 24).astype(np.int64) if finite else np.zeros(1, np.int64)
    trailing = np.log2(odd & -odd) - 24 if finite else np.zeros(1)
    fraction = max(int(-(exponent + trailing).min()), 0) if finite else 0
    if not finite or np.abs(values).max() * 2.0**fraction >= LARGEST_CODE:
        raise ValueError(
            f"not all numbers of {format} are integers below 2**24 times one step; "
            "take FixedPoint, or give Logarithmic a fraction, as fraction=8"
        )
    return fraction


def _thresholds(format: Format, values: np.ndarray) -> np.ndarray:
    """For each value but the last, the largest float32 that is stored as it."""
    low, high = _ordinal(values[:-1]), _ordinal(values[1:])
    quantize = jax.jit(format.quantize)
    while (high - low > 1).any():
        middle = (low + high) // 2
        down = np.asarray(quantize(_float(middle), 1.0)) <= values[:-1]
        low, high = np.where(down, middle, low), np.where(down, high, middle)
    return _float(low)


def _ordinal(x: np.ndarray) -> np.ndarray:
    """Integers in the order of float32 numbers, neighbours differing by one.

    Subnormal numbers, which XLA takes for zero, are left out.
    """
    magnitude = (np.abs(x) + np.float32(0)).view(np.int32).astype(np.int64)
    return np.sign(x).astype(np.int64) * np.maximum(magnitude - _SUBNORMAL, 0)


def _float(ordinal: np.ndarray) -> np.ndarray:
    magnitude = np.abs(ordinal) + np.where(ordinal == 0, 0, _SUBNORMAL)
    return np.where(ordinal < 0, -1, 1).astype(np.float32) * magnitude.astype(
        np.int32
    ).view(np.float32)


_SUBNORMAL = (1 << 23) - 1


def stored_code(
    codes: Int32[Array, "*shape"], left: Int32[Array, "..."], table: IntegerValues
) -> Int32[Array, "*shape"]:
    """The code that stores `codes * 2**left` in units of the scale, by comparisons."""
    return _search(codes, left, table.codes, *_split(table.thresholds))


@jax.jit
def _search(codes, left, values, mantissas, exponents):
    number, count = _normalised(codes, left), len(mantissas)
    index = jnp.zeros(codes.shape, jnp.int32)
    for step in (1 << k for k in reversed(range(count.bit_length()))):
        probe = index + step
        at = jnp.minimum(probe, count) - 1
        above = _greater(number, _normalised(mantissas[at], exponents[at]))
        index = jnp.where(above & (probe <= count), probe, index)
    return values[index]


class _Normalised(NamedTuple):
    negative: Bool[Array, "..."]
    leading: Int32[Array, "..."]  # the weight of the leading one
    mantissa: Int32[Array, "..."]  # 31 bits, the leading one first


def _normalised(codes: Array, left: Array) -> _Normalised:
    magnitude = jnp.abs(codes)
    zeros = jax.lax.clz(magnitude)
    leading = jnp.where(magnitude == 0, -(1 << 30), 31 - zeros + left)
    mantissa = magnitude << jnp.clip(zeros - 1, 0, 31)
    return _Normalised(codes < 0, leading, mantissa)


def _greater(x: _Normalised, y: _Normalised) -> Bool[Array, "..."]:
    same = x.leading == y.leading
    more = (x.leading > y.leading) | (same & (x.mantissa > y.mantissa))
    less = (x.leading < y.leading) | (same & (x.mantissa < y.mantissa))
    positive = ~x.negative & (y.negative | more)
    return jnp.where(x.negative & y.negative, less, positive)


def _split(x: Float32[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Integers m, e with m * 2**e == x, of 24 bits."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(mantissa, 24).astype(np.int32), (exponent - 24).astype(np.int32)

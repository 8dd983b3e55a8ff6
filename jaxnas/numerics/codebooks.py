"""Codebooks: formats that are lists of numbers.

Ternary words follow Li et al., "Ternary weight networks", arXiv:1605.04711; binary ones
Courbariaux et al., "BinaryConnect", arXiv:1511.00363.
"""

import functools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt

from jaxnas.numerics.formats import (
    Pair,
    bracket,
    in_units,
    integers,
    opaque,
    signed_fields,
    word_dtype,
)
from jaxnas.numerics.lookups import Lookup, entry, tabulate
from jaxnas.types import Scale, Values, Words

CLOSEST = 2.0**-20
"""A threshold nearer to one than this might stop a decoded scale from coming back."""


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """Word w stands for values[w] * scale: any list of numbers, in any order.

    The nearest value is taken; of two equally near ones that of smaller magnitude, of
    +-v the positive one. NaN counts as zero. With fewer values than words, repeat one
    to say what the surplus words read. Aliases: values that are equal in float32, of
    which the first is written. Scales that are no powers of two can round values beside
    one another to one number, which then has either word, and which of the two numbers
    around x is nearer is judged to 2**-22 of x.

    Raises ValueError unless there are 2, 4, 8, ... or 65536 values, all of them zero or
    normal float32 numbers and not all equal.
    """

    values: tuple[float, ...]

    def __post_init__(self):
        count, tiny = len(self.values), np.finfo(np.float32).tiny
        if not 2 <= count <= 1 << 16 or count & (count - 1):
            raise ValueError(
                f"a codebook of {count} values; expected a power of two from 2 to "
                "65536: repeat a value to say what the surplus words read"
            )
        largest = float(np.finfo(np.float32).max)
        wrong = [v for v in self.values if v and not tiny <= abs(v) <= largest]
        if wrong:
            raise ValueError(
                f"codebook values {wrong[:4]} are no normal float32 numbers; take "
                "finite ones and leave their magnitude to the scale"
            )
        if len(_listed(self.values).values) < 2:
            raise ValueError(
                f"all codebook values equal {self.values[0]}; expected at least two"
            )

    @property
    def bits(self) -> int:
        return len(self.values).bit_length() - 1

    @property
    def fields(self) -> dict[str, int]:
        return {"index": len(self.values) - 1}

    @property
    def span(self) -> float:
        return float(np.abs(np.float32(self.values)).max())

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        word = _listed(self.values).encode(x, opaque(scale))
        return word.astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, self.bits)
        return entry(_listed(self.values).decoded, word) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return _listed(self.values).quantize(x, opaque(scale))

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        return _listed(self.values).neighbours(x, opaque(scale))

    def bounds(self, scale: Scale) -> Pair:
        scale, values = opaque(scale), _listed(self.values).values
        return float(values[0]) * scale, float(values[-1]) * scale


@functools.lru_cache
def _listed(values: tuple[float, ...]) -> Lookup:
    return tabulate(np.asarray(values, np.float64))


@dataclass(frozen=True, kw_only=True)
class Ternary:
    """-scale, 0 or +scale: a sign bit and a magnitude bit.

    Magnitudes up to threshold * scale become zero, and so does NaN; 0.5 is nearest
    rounding. Alias: the negative zero, word 2, decodes to 0.
    Raises ValueError for a threshold that is not between 0 and 1.
    """

    threshold: float = 0.5

    def __post_init__(self):
        if not 0 < self.threshold < 1 - CLOSEST:
            raise ValueError(
                f"a ternary threshold of {self.threshold}; expected a number between 0 "
                "and 1, in units of the scale, such as 0.5"
            )

    @property
    def bits(self) -> int:
        return 2

    @property
    def fields(self) -> dict[str, int]:
        return signed_fields(2, "magnitude")

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        code = self._code(x, opaque(scale)).astype(jnp.int32)
        return jnp.where(code < 0, 3, code).astype(word_dtype(2))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, 2)
        code = jnp.where(word & 1, 1 - (word & 2), 0)
        return code.astype(jnp.float32) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        scale = opaque(scale)
        return self._code(x, scale) * scale

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale = opaque(scale)
        code = jnp.clip(jnp.round(in_units(x, scale)), -1, 1)
        code = jnp.where(jnp.abs(code) > 0, code, 0)
        below, above = jnp.maximum(code - 1, -1), jnp.minimum(code + 1, 1)
        return bracket(x, code * scale, below * scale, above * scale)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -scale, scale

    def _code(self, x: Values, scale: Float32[Array, "..."]) -> Float32[Array, "..."]:
        units = in_units(x, scale)
        code = jnp.where(units > self.threshold, 1.0, 0.0)
        return jnp.where(units < -self.threshold, -1.0, code)


@dataclass(frozen=True, kw_only=True)
class Binary:
    """+scale for word 0 and -scale for word 1: a sign bit alone.

    Zeros of either sign and NaN become +scale. No aliases; the flipped bit negates.
    """

    @property
    def bits(self) -> int:
        return 1

    @property
    def fields(self) -> dict[str, int]:
        return {"sign": 1}

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return True

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        return (jnp.asarray(x) < 0).astype(word_dtype(1))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        return (1 - 2 * integers(words, 1)).astype(jnp.float32) * opaque(scale)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return jnp.where(jnp.asarray(x) < 0, -1.0, 1.0) * opaque(scale)

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        scale = opaque(scale)
        low, high = x < scale, x <= -scale
        return jnp.where(low, -scale, scale), jnp.where(high, -scale, scale)

    def bounds(self, scale: Scale) -> Pair:
        scale = opaque(scale)
        return -scale, scale

"""Exponents that are words of their own: powers of two for scales and biases.

With 8 bits this is E8M0, the scale of Rouhani et al., "Microscaling data formats",
arXiv:2310.10537.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt

from jaxnas.numerics.formats import Pair, bracket, check_width, integers, word_dtype
from jaxnas.types import Scale, Values, Words


@dataclass(frozen=True, kw_only=True)
class PowerOfTwo:
    """An unsigned exponent: word w stands for 2**(w - bias), and the scale is ignored.

    The nearest power is taken, half-way ones up; zero and negative numbers become the
    least power. Flipping bit k multiplies the value by 2**(+-2**k).

    nan: the largest word is NaN, and NaN is written as it. Otherwise it is a power like
        any other, and NaN becomes the least.

    Alias: with bias 127 the word 0 would be 2**-127, which is no normal float32 number;
    it reads 2**-126 as word 1 does, and is never written.
    Raises ValueError for a width outside 2..8, or a bias with which more words leave
    normal float32.
    """

    bits: int = 8
    bias: int = 127
    nan: bool = True

    def __post_init__(self):
        check_width(self, 2, 8)
        if not self._largest - 127 <= self.bias <= 127:
            raise ValueError(
                f"powers of two from 2**{-self.bias} to 2**{self._largest - self.bias} "
                f"leave float32; take a bias between {self._largest - 127} and 127"
                f"{'' if self.nan or self.bits < 8 else ' and nan=True'}"
            )

    @property
    def fields(self) -> dict[str, int]:
        return {"exponent": (1 << self.bits) - 1}

    @property
    def span(self) -> float:
        return 1.0

    @property
    def scaled(self) -> bool:
        return False

    def encode(self, x: Values, scale: Scale) -> UInt[Array, "..."]:
        # Half of the mantissa's range, added, carries into the exponent from 1.5 on.
        bits = jax.lax.bitcast_convert_type(jnp.asarray(x, jnp.float32), jnp.int32)
        above = jnp.maximum(bits, 0)  # negative numbers have negative words
        exponent = ((above + 0x00400000) >> 23) - 127 + self.bias
        word = jnp.clip(exponent, self._least, self._largest)
        unknown = self._largest + 1 if self.nan else self._least
        return jnp.where(jnp.isnan(x), unknown, word).astype(word_dtype(self.bits))

    def decode(self, words: Words, scale: Scale) -> Float32[Array, "..."]:
        word = integers(words, self.bits)
        exponent = jnp.clip(word, self._least, self._largest) - self.bias + 127
        power = jax.lax.bitcast_convert_type(exponent << 23, jnp.float32)
        return jnp.where(word > self._largest, jnp.nan, power)

    def quantize(self, x: Values, scale: Scale) -> Float32[Array, "..."]:
        return self.decode(self.encode(x, scale), scale)

    def neighbours(self, x: Values, scale: Scale) -> Pair:
        x = jnp.asarray(x)
        word = self.encode(x, scale)
        below = jnp.maximum(word, self._least + 1) - 1
        above = jnp.minimum(word, self._largest - 1) + 1
        nearest, *around = (self.decode(w, scale) for w in (word, below, above))
        return bracket(x, nearest, *around)

    def bounds(self, scale: Scale) -> Pair:
        least, largest = (2.0 ** (w - self.bias) for w in (self._least, self._largest))
        return jnp.float32(least), jnp.float32(largest)

    @property
    def _least(self) -> int:
        return max(self.bias - 126, 0)

    @property
    def _largest(self) -> int:
        return (1 << self.bits) - 1 - self.nan

"""Numbers as the machine holds them: words that are bit casts of a dtype."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt

from jaxnas.numerics.floats import IEEE
from jaxnas.numerics.formats import Format, Pair, signed_fields, word_dtype
from jaxnas.types import Scale

FLOATS = ("float32", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


@dataclass(frozen=True, kw_only=True)
class MachineInteger:
    """Integers of the machine: words are bit casts, and the scale is ignored.

    What is encoded, and what comes back, are integers of the dtype, not floats: most
    words of 32 bits have no float32. Flipping bit k adds or takes 2**k; the sign bit of
    two's complement does so with the opposite sign. No aliases.
    Raises ValueError for another width than 8, 16 or 32.
    """

    bits: int
    signed: bool = True

    def __post_init__(self):
        if self.dtype not in INTEGERS:
            raise ValueError(
                f"machine integers of {self.bits} bits; expected 8, 16 or 32"
            )

    @property
    def dtype(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}"

    @property
    def fields(self) -> dict[str, int]:
        if self.signed:
            return signed_fields(self.bits, "magnitude")
        return {"magnitude": (1 << self.bits) - 1}

    @property
    def span(self) -> float:
        return float(1 << (self.bits - self.signed))

    @property
    def scaled(self) -> bool:
        return False

    def encode(self, x: Shaped[Array, "*shape"], scale: Scale) -> UInt[Array, "*shape"]:
        return to_words(x)

    def decode(
        self, words: UInt[Array, "*shape"], scale: Scale
    ) -> Shaped[Array, "*shape"]:
        return from_words(words, self.dtype)

    def quantize(
        self, x: Shaped[Array, "*shape"], scale: Scale
    ) -> Shaped[Array, "*shape"]:
        return x

    def neighbours(self, x: Shaped[Array, "*shape"], scale: Scale) -> tuple:
        return x, x

    def bounds(self, scale: Scale) -> Pair:
        info = jnp.iinfo(self.dtype)
        return jnp.float32(info.min), jnp.float32(info.max)


def machine_format(dtype) -> Format | None:
    """The format of a dtype's own words; None for those of other widths or kinds."""
    name = jnp.dtype(dtype).name
    if name in FLOATS:
        return IEEE(name=name)
    if name not in INTEGERS:
        return None
    return MachineInteger(
        bits=jnp.iinfo(name).bits, signed=jnp.issubdtype(name, jnp.signedinteger)
    )


def to_words(x: Shaped[Array, "*shape"]) -> UInt[Array, "*shape"]:
    """The bits of numbers as they stand: no NaN changes its word, as `encode` may."""
    return jax.lax.bitcast_convert_type(x, word_dtype(8 * x.dtype.itemsize))


def from_words(words: UInt[Array, "*shape"], dtype) -> Shaped[Array, "*shape"]:
    """The numbers of a dtype that have these bits."""
    return jax.lax.bitcast_convert_type(words, jnp.dtype(dtype))

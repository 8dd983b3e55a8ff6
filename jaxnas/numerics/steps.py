"""Numbers as integer codes times a step, as an accelerator keeps them.

A step is a power of two, or a power of two times a factor from 1 up to 2. Codes change
their step by a shift, or by a multiplication with a 31-bit multiplier and a shift; both
round half to even. After Jacob et al., "Quantization and training of neural networks
for efficient integer-arithmetic-only inference", arXiv:1712.05877, equations 5 and 6.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt32

from jaxnas.types import Scale

LARGEST_SHIFT = 30


class Step(NamedTuple):
    """`factor * 2**exponent`; arrays that broadcast against the codes."""

    exponent: Int32[Array, "*ones"]
    factor: Float32[Array, "*ones"] | None = None  # None: one, known beforehand

    def change(self, change: Callable[[Array], Array]) -> "Step":
        """The step with all its arrays changed in one way."""
        return jax.tree.map(change, self)

    def times(self, other: "Step") -> "Step":
        exponent = self.exponent + other.exponent
        if self.factor is None or other.factor is None:
            return Step(exponent, self.factor if other.factor is None else other.factor)
        factor = self.factor * other.factor
        carry = factor >= 2
        return Step(exponent + carry, jnp.where(carry, factor / 2, factor))

    def inverse(self) -> "Step":
        if self.factor is None:
            return Step(-self.exponent)
        carry = self.factor > 1
        return Step(-self.exponent - carry, jnp.where(carry, 2, 1) / self.factor)

    def shifted(self, left: int | Array) -> "Step":
        return self._replace(exponent=self.exponent + left)


class Scaled(NamedTuple):
    """The numbers `codes * step`."""

    codes: Int32[Array, "*shape"]
    step: Step


def step_of(scale: Scale, what: str, real: bool) -> Step:
    """A positive scale as a step, from the bits of the float.

    Raises ValueError, naming `what`, for a known scale that is no power of two unless
    real ones are meant.
    """
    scale = jnp.asarray(scale, jnp.float32)
    word = jax.lax.bitcast_convert_type(scale, jnp.int32)
    exponent = (word >> 23) - 127
    if real:
        mantissa = (word & 0x007FFFFF) | (127 << 23)
        return Step(exponent, jax.lax.bitcast_convert_type(mantissa, jnp.float32))
    if not isinstance(scale, jax.core.Tracer):
        found = np.asarray(scale).view(np.int32)
        wrong = (found & 0x007FFFFF != 0) | (found <= 0)
        if wrong.any():
            raise ValueError(
                f"{what} is {np.asarray(scale)[wrong].flat[0]}; integer arithmetic "
                "needs a power of two: calibrate with power_of_two=True, or call "
                'integer(fun, scales="real")'
            )
    return Step(exponent)


def least(steps: Sequence[Step]) -> Step:
    """The finest of some steps, elementwise."""
    finest = steps[0]
    for step in steps[1:]:
        if finest.factor is None:
            finest = Step(jnp.minimum(finest.exponent, step.exponent))
            continue
        finer = (step.exponent < finest.exponent) | (
            (step.exponent == finest.exponent) & (step.factor < finest.factor)
        )
        pairs = zip(step, finest, strict=True)
        finest = Step(*(jnp.where(finer, new, old) for new, old in pairs))
    return finest


def in_steps(x: Scaled, step: Step) -> Int32[Array, "*shape"]:
    """The codes of x in another step, rounded half to even.

    What leaves +-2**16 stays there or beyond where x is to be stored: see `shifted`.
    """
    left = x.step.exponent - step.exponent
    if step.factor is None:
        return shifted(x.codes, left)
    return multiplied(x.codes, x.step.factor / step.factor, left)


def finer(x: Scaled, step: Step) -> Int32[Array, "*shape"]:
    """The codes of x in a step that is no coarser, which int32 must hold."""
    left = x.step.exponent - step.exponent
    if step.factor is None:
        return x.codes << left
    return multiplied(x.codes, x.step.factor / step.factor, left)


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


@jax.jit
def multiplied(
    codes: Int32[Array, "*shape"],
    ratio: Float32[Array, "..."],
    left: Int32[Array, "..."],
) -> Int32[Array, "*shape"]:
    """`codes * m * 2**(left - 30)` with the multiplier m = ratio * 2**30, an integer.

    ratio: between 1/2 and 2. Rounded half to even; what leaves 30 bits is +-2**30.
    """
    multiplier = jnp.round(ratio * 2.0**30).astype(jnp.uint32)
    high, low = _product(jnp.abs(codes).astype(jnp.uint32), multiplier)
    magnitude = _rounded(high, low, jnp.clip(30 - left, 0, 63).astype(jnp.uint32))
    magnitude = jnp.where((left > 30) & (codes != 0), 1 << 30, magnitude)
    return jnp.where(codes < 0, -magnitude, magnitude)


Halves = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]


def _product(x: UInt32[Array, "..."], y: UInt32[Array, "..."]) -> Halves:
    """The 64 bits of x * y, both below 2**31, by halves of 16 bits."""
    (x1, x0), (y1, y0) = ((value >> 16, value & 0xFFFF) for value in (x, y))
    cross, crossed = x0 * y1, x1 * y0
    middle = (x0 * y0 >> 16) + (cross & 0xFFFF) + (crossed & 0xFFFF)
    high = x1 * y1 + (cross >> 16) + (crossed >> 16) + (middle >> 16)
    return high, x * y


def _rounded(high: Array, low: Array, right: UInt32[Array, "..."]) -> Array:
    """The 64 bits shifted right by 0 to 63, half to even, at most 2**30."""
    far = right >= 32
    # The bits that stay, and those that go as a fraction of 64 bits.
    near, rest = jnp.minimum(right, 31), right - jnp.where(far, 32, 0)
    opposite = 31 - jnp.minimum(near, 31)
    kept = jnp.where(far, high >> rest, low >> near | (high << opposite) << 1)
    over = jnp.where(far, 0, high >> near)
    turned = 31 - jnp.minimum(rest, 31)
    first = jnp.where(far, (high << turned) << 1 | low >> rest, (low << opposite) << 1)
    second = jnp.where(far, (low << turned) << 1, 0)
    half = jnp.uint32(1 << 31)
    up = (first > half) | ((first == half) & ((second > 0) | (kept & 1 == 1)))
    limit = jnp.uint32(1 << 30)
    rounded = jnp.minimum(jnp.minimum(kept, limit) + up.astype(jnp.uint32), limit)
    return jnp.where(over > 0, limit, rounded).astype(jnp.int32)

"""Fault models: what goes wrong with words and values, as pairs of pure functions.

All randomness is in `sample`; `apply` is a pure operation. A transient fault is sampled
anew for every use, a permanent one is sampled once and applied to many.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Shaped, UInt8, UInt32

from jaxnas.faults.masks import (
    Rate,
    bernoulli_masks,
    bernoulli_positions,
    flips_to_masks,
)
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.types import Key

On = Literal["words", "values"]
"""What a model changes: stored words, or the numbers that are read from them."""


class Sample(Protocol):
    """Draws a fault for words of this shape and format; consumes the key."""

    def __call__(
        self, key: Key, shape: tuple[int, ...], format: Format
    ) -> PyTree[Array]: ...


class Apply(Protocol):
    """What is read back under a fault of the words or values; shape and dtype stay."""

    def __call__(
        self, fault: PyTree[Array], stored: Shaped[Array, "*shape"]
    ) -> Shaped[Array, "*shape"]: ...


class FaultModel(NamedTuple):
    """A law of faults in one memory. Of words only the lowest `format.bits` change.

    on: whether `apply` takes words, unsigned integers, or values, floats.
    """

    sample: Sample
    apply: Apply
    on: On = "words"


class SamplePositions(Protocol):
    """Draws distinct bit positions below `total_bits`, which marks an unused slot."""

    def __call__(self, key: Key, total_bits: int) -> UInt32[Array, " flips"]: ...


class NetworkModel(NamedTuple):
    """A law of bit flips drawn once over all bits that a fault selects.

    Positions count through the selected sites in program order, through the words of a
    site in row-major order, and through the bits of a word from the lowest.
    """

    sample: SamplePositions


class Site(NamedTuple):
    """A quantisation site: where words of one kind and format are stored."""

    name: str
    stored: str
    format: Format
    shape: tuple[int, ...]


class Fault(NamedTuple):
    """A fault model and the words that it strikes.

    model: the law of the faults.
    stored: kinds of words, of "weight", "bias", "activation", "input", "scale" and
        "accumulator"; None is all.
    site: glob on the names of quantisation sites.
    layers: positions, in program order, among the sites that `stored`, `site` and
        `where` select; None is all of them.
    where: a predicate on sites; None is true.
    permanent: the same fault in every iteration of a loop, as a defect of the memory
        has it; otherwise every iteration draws its own.
    """

    model: FaultModel | NetworkModel
    stored: tuple[str, ...] | None = None
    site: str = "*"
    layers: tuple[int, ...] | None = None
    where: Callable[[Site], bool] | None = None
    permanent: bool = False


class Flips(NamedTuple):
    """Bits to invert, as a list: bit `bit[i]` of word `word[i]`, all pairs distinct.

    Words are numbered in row-major order; numbers beyond the last are unused slots.
    """

    word: UInt32[Array, " capacity"]
    bit: UInt8[Array, " capacity"]


DENSE_RATE = 0.125
"""From here on a number per bit is cheaper than a list of flips. Measured on one CPU
core for 2.4 million bits: 9 ms that way, lists 0.5 ms at 0.01, 4 at 0.1, 10 at 0.13."""


def bit_flips(rate: Rate, *, max_rate: float | None = None) -> FaultModel:
    """Every bit flips with probability `rate`, independently of all others.

    rate: probability per bit; an array may be traced, so that one compiled program
        serves all rates up to `max_rate`. Zero leaves every word as it is.
    max_rate: static upper bound of the rate, by default the rate itself. It sets the
        cost. Under one key and one `max_rate` the flips at a lower rate are a subset
        of those at a higher one; an array above it counts as `max_rate`.

    Raises:
      ValueError: an array as rate without `max_rate`; not 0 <= rate <= max_rate <= 1.
    """
    static = not isinstance(rate, jax.Array)
    if max_rate is None:
        if not static:
            raise ValueError(
                "bit_flips got an array as rate and no max_rate; pass the rate as a "
                "number, or max_rate as the largest rate to come: it fixes all shapes"
            )
        max_rate = float(rate)
    if not 0 <= (rate if static else 0) <= max_rate <= 1:
        raise ValueError(
            f"bit_flips got rate={rate} and max_rate={max_rate}; expected "
            "probabilities per bit, 0 <= rate <= max_rate <= 1"
        )
    if max_rate < DENSE_RATE:
        return _listed_flips(rate, max_rate)
    return _dense_flips(jnp.minimum(rate, max_rate))


def _listed_flips(rate: Rate, max_rate: float) -> FaultModel:
    def sample(key, shape, format):
        total_bits = math.prod(shape) * format.bits
        positions = bernoulli_positions(key, total_bits, rate, max_rate)
        bit = (positions % format.bits).astype(jnp.uint8)
        return Flips(word=positions // format.bits, bit=bit)

    def apply(flips, words):
        return words ^ flips_to_masks(*flips, words.shape, words.dtype)

    return FaultModel(sample, apply)


def _dense_flips(rate: Rate) -> FaultModel:
    def sample(key, shape, format):
        dtype = word_dtype(format.bits)
        return bernoulli_masks(key, shape, format.bits, rate, dtype)

    def apply(masks, words):
        return words ^ masks

    return FaultModel(sample, apply)


def chain(*models: FaultModel) -> FaultModel:
    """One model after the other on the same words; `chain()` leaves them as they are.

    Model `i` samples with `fold_in(key, i)`. A chain of value models is a value model.
    Raises ValueError for models of both kinds, and for a model of the whole network:
    each is to be a `Fault` of its own.
    """
    for model in models:
        if not isinstance(model, FaultModel):
            raise ValueError(
                f"chain takes FaultModels, got {model!r}; give it in a Fault of its own"
            )
    kinds = {model.on for model in models}
    if len(kinds) > 1:
        raise ValueError(
            "chain got models of words and of values, which act at different places; "
            "give each in a Fault of its own"
        )

    def sample(key, shape, format):
        keys = [jax.random.fold_in(key, i) for i in range(len(models))]
        pairs = zip(models, keys, strict=True)
        return tuple(model.sample(key, shape, format) for model, key in pairs)

    def apply(faults, stored):
        for model, fault in zip(models, faults, strict=True):
            stored = model.apply(fault, stored)
        return stored

    return FaultModel(sample, apply, on=kinds.pop() if kinds else "words")

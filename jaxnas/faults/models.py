"""Fault models: what goes wrong with words and values, as pairs of pure functions.

All randomness is in `sample`; `apply` is a pure operation. A transient fault is sampled
anew for every use, a permanent one is sampled once and applied to many.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import jax
from jaxtyping import Array, PyTree, Shaped, UInt32

from jaxnas.faults.bits import as_masks, strike_bits
from jaxnas.faults.rates import Rate, largest_rate, rate_per_bit
from jaxnas.numerics.formats import Format
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

    Positions count through the selected sites in program order, through the rounds of
    the loops around a site (the outermost first) and the devices of a `shard_map`,
    through its words in row-major order, and through the bits of a word from the
    lowest. All branches count, also those that are not taken.
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
        "accumulator"; None is all but accumulators, which are no memory.
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
    largest = largest_rate("bit_flips", rate, max_rate)

    def sample(key, shape, format):
        return strike_bits(key, shape, format, *rate_per_bit(rate, largest, format))

    def apply(struck, words):
        return words ^ as_masks(struck, words)

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

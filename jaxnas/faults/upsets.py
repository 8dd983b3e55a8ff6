"""Upsets of several adjacent bits by one event, such as one particle.

Events are independent and rare; the bits that one of them flips are not independent,
which is what defeats codes that correct one bit per word (Ibe et al., "Impact of
scaling on neutron-induced soft error in SRAMs", IEEE Trans. Electron Devices, 2010).
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.faults.bits import listed
from jaxnas.faults.masks import bernoulli_positions, distinct, flips_to_masks
from jaxnas.faults.models import FaultModel
from jaxnas.faults.rates import Rate, largest_rate

NOWHERE = 2**31
"""An offset that leads out of every memory, and is no overflow of uint32."""


def upsets(
    rate: Rate,
    patterns: Mapping[tuple[int, ...], float],
    *,
    across_words: bool = False,
    max_rate: float | None = None,
) -> FaultModel:
    """At every bit an event starts with probability `rate`; it flips a pattern of bits.

    patterns: probability of each pattern given the event; a pattern lists offsets from
        the bit of the event upwards, as {(0,): 0.9, (0, 1): 0.08, (0, 1, 2): 0.02}.
    across_words: what lies above the highest bit of a word is the lowest bit of the
        next one, in row-major order; otherwise it is nothing, and such flips are lost,
        as are those beyond the last word.
    max_rate: as for `bit_flips`. Events nest, and their flips do.

    A bit that several events strike flips once.

    Raises:
      ValueError: rates as in `bit_flips`; probabilities that are negative or do not sum
        up to one; offsets that are negative, repeat or, when sampled, reach beyond
        the width of the word though `across_words` is false.
    """
    largest = largest_rate("upsets", rate, max_rate)
    offsets, thresholds = _table(patterns)
    reach = int(offsets[offsets < NOWHERE].max())

    def sample(key, shape, format):
        if reach >= format.bits and not across_words:
            raise ValueError(
                f"a pattern reaches {reach} bits up, beyond words of {format.bits} "
                "bits; expected less, or across_words=True"
            )
        total_bits = math.prod(shape) * format.bits
        key_of_events, key_of_patterns = jax.random.split(key)
        events = bernoulli_positions(key_of_events, total_bits, rate, largest)
        levels = jax.random.bits(key_of_patterns, events.shape)
        which = jnp.searchsorted(jnp.asarray(thresholds), levels, side="left")
        start = events[:, None]
        bits = start + jnp.asarray(offsets)[which]
        inside = (start < total_bits) & (bits < total_bits)
        if not across_words:
            inside &= bits // format.bits == start // format.bits
        bits = jnp.where(inside, bits, jnp.uint32(total_bits))
        return listed(distinct(bits.reshape(-1), total_bits), format.bits)

    def apply(flips, words):
        return words ^ flips_to_masks(*flips, words.shape, words.dtype)

    return FaultModel(sample, apply)


def bursts(
    rate: Rate,
    length: int,
    *,
    across_words: bool = False,
    max_rate: float | None = None,
) -> FaultModel:
    """At every bit a burst starts with probability `rate`: `length` adjacent bits flip.

    As `upsets` with one pattern, of the bit itself and those above it.
    """
    if length < 1:
        raise ValueError(f"bursts of {length} bits; expected 1 or more")
    pattern = {tuple(range(length)): 1.0}
    return upsets(rate, pattern, across_words=across_words, max_rate=max_rate)


def _table(
    patterns: Mapping[tuple[int, ...], float],
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets, a row for each pattern, and the largest level at which it is chosen.

    Levels are uniform 32-bit numbers: probabilities are met to 2**-32.
    """
    total = math.fsum(patterns.values())
    if not abs(total - 1) < 1e-6 or not all(share >= 0 for share in patterns.values()):
        raise ValueError(
            f"probabilities of patterns {list(patterns.values())}; expected numbers, 0 "
            f"or more, that sum up to 1, not {total}: those of a pattern given an event"
        )
    for pattern in patterns:
        if not pattern or min(pattern) < 0 or len(set(pattern)) < len(pattern):
            raise ValueError(
                f"pattern {pattern}; expected distinct offsets of bits, 0 or more"
            )
    patterns = {pattern: share for pattern, share in patterns.items() if share > 0}
    offsets = np.full((len(patterns), max(map(len, patterns))), NOWHERE, np.uint32)
    for row, pattern in zip(offsets, patterns, strict=True):
        row[: len(pattern)] = pattern
    ends = np.round(np.cumsum(list(patterns.values())) / total * 2.0**32)
    ends[-1] = 2.0**32
    return offsets, (np.maximum(ends, 1) - 1).astype(np.uint32)

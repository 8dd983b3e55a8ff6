"""Fault models that one rate describes, by name: what a command line can ask for."""

from collections.abc import Callable

from jaxnas.faults.defects import stuck_at, word_faults
from jaxnas.faults.flips import directed_flips, selective_flips
from jaxnas.faults.models import FaultModel, bit_flips
from jaxnas.faults.noise import dead_elements
from jaxnas.faults.rates import Rate
from jaxnas.faults.upsets import bursts


def top_bit_flips(rate: Rate, *, max_rate: float | None = None) -> FaultModel:
    """The highest bit of every word flips with probability `rate`, others never.

    In signed words that is the sign, in unsigned ones the bit of most weight. Raises
    ValueError as `bit_flips`.
    """

    def of(format):
        return selective_flips({format.bits - 1: rate}, max_rate=max_rate)

    def sample(key, shape, format):
        return of(format).sample(key, shape, format)

    # All flips are applied alike, and a bad rate is to be refused here.
    return FaultModel(sample, selective_flips({0: rate}, max_rate=max_rate).apply)


KINDS: dict[str, Callable[[Rate, float], FaultModel]] = {
    "bit_flips": lambda rate, most: bit_flips(rate, max_rate=most),
    "top_bit_flips": lambda rate, most: top_bit_flips(rate, max_rate=most),
    "rising_flips": lambda rate, most: directed_flips(rate, 0.0, max_rate=most),
    "falling_flips": lambda rate, most: directed_flips(0.0, rate, max_rate=most),
    "double_flips": lambda rate, most: bursts(rate, 2, max_rate=most),
    "stuck_at": lambda rate, most: stuck_at(rate / 2, rate / 2, max_rate=most),
    "stuck_at_zero": lambda rate, most: stuck_at(rate, 0.0, max_rate=most),
    "stuck_at_one": lambda rate, most: stuck_at(0.0, rate, max_rate=most),
    "word_faults": lambda rate, most: word_faults(rate, max_rate=most),
    "dead_elements": lambda rate, most: dead_elements(rate, max_rate=most),
}
"""`KINDS[name](rate, max_rate)`; the rate may be traced.

Per bit: flips of all bits, of the highest one of every word, of zeros only (rising) or
ones only (falling); two adjacent bits of a word that flip together, per bit at which
the pair starts; cells stuck, half of them at zero and half at one or all alike. Per
word: words replaced by random ones, and values that read as zero.
"""

"""Faults of whole rows, columns and banks of the memory that holds a tensor.

An address map says where each bit of each word lies. A unit that fails takes all its
bits along, so that a row fault strikes neighbouring words, and a column fault the same
bit of many.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, UInt

from jaxnas.faults.bits import listed
from jaxnas.faults.defects import act, check_action
from jaxnas.faults.masks import bernoulli_positions, flips_to_masks
from jaxnas.faults.models import FaultModel
from jaxnas.faults.rates import Rate, largest_rate
from jaxnas.numerics.formats import word_dtype

Index = int | Integer[Array | np.ndarray, "..."]
Unit = Literal["row", "column", "bank"]
Spread = Literal["word", "row", "block"]


class Place(NamedTuple):
    """Where a bit lies in memory."""

    bank: Index
    row: Index
    column: Index


@dataclass(frozen=True, kw_only=True)
class AddressMap:
    """How the words of a tensor, in row-major order, lie in banks of rows and columns.

    words_per_row: words side by side in one row of a bank.
    banks: number of banks.
    rows: rows of a bank; by default as many as the tensor needs.
    spread: what lies in one bank before the next bank follows: a "word", a "row" of
        words, or a whole "block", the bank being filled first.
    interleaved: whether bit k of all words of a row lie side by side, so that
        neighbouring columns belong to different words; otherwise words are contiguous.

    Raises ValueError for sizes below one and an unknown spread.
    """

    words_per_row: int
    banks: int = 1
    rows: int | None = None
    spread: str = "row"
    interleaved: bool = False

    def __post_init__(self):
        sizes = (self.words_per_row, self.banks, 1 if self.rows is None else self.rows)
        if min(sizes) < 1:
            raise ValueError(f"{self}; expected sizes of 1 or more")
        if self.spread not in get_args(Spread):
            raise ValueError(
                f"spread={self.spread!r}; expected one of {get_args(Spread)}"
            )

    def rows_for(self, words: int) -> int:
        """Rows of each bank for so many words. Raises ValueError if they do not fit."""
        needed = -(-words // (self.words_per_row * self.banks))
        if self.rows is None:
            return needed
        if self.rows < needed:
            raise ValueError(
                f"{words} words in {self.banks} banks of {self.rows} rows of "
                f"{self.words_per_row} words; expected at least {needed} rows: split "
                "the tensor or leave rows out"
            )
        return self.rows

    def slots(self, word: Index, words: int) -> Place:
        """The place of a word of so many: its column counts the words of a row."""
        if self.spread == "word":
            row, slot = divmod(word // self.banks, self.words_per_row)
            return Place(word % self.banks, row, slot)
        line, slot = word // self.words_per_row, word % self.words_per_row
        if self.spread == "row":
            return Place(line % self.banks, line // self.banks, slot)
        rows = self.rows_for(words)
        return Place(line // rows, line % rows, slot)

    def locate(self, word: Index, bit: Index, *, words: int, bits: int) -> Place:
        """The place of a bit of a word, of so many words of so many bits."""
        bank, row, slot = self.slots(word, words)
        if self.interleaved:
            return Place(bank, row, bit * self.words_per_row + slot)
        return Place(bank, row, slot * bits + bit)


def unit_faults(
    unit: str,
    rate: Rate,
    memory: AddressMap,
    action: str = "flip",
    *,
    max_rate: float | None = None,
) -> FaultModel:
    """Rows, columns or banks are struck, each with probability `rate`, independently.

    action: what becomes of all bits of the tensor that lie in such a unit. Random bits
        are drawn for the whole tensor.
    max_rate: as for `bit_flips`.

    Raises ValueError for rates as `bit_flips`, for an unknown unit or action and, when
    sampled, for words that do not fit in the memory.
    """
    check_action(action)
    if unit not in get_args(Unit):
        raise ValueError(f"unit={unit!r}; expected one of {get_args(Unit)}")
    largest = largest_rate("unit_faults", rate, max_rate)

    def sample(key, shape, format):
        key_of_units, key_of_values = jax.random.split(key)
        words, dtype = int(np.prod(shape, dtype=np.int64)), word_dtype(format.bits)
        table = _table(key_of_units, unit, rate, largest, memory, words, format.bits)
        if action != "random":
            return table, None
        return table, jax.random.bits(key_of_values, shape, dtype)

    def apply(fault, words):
        table, value = fault
        bank, row, slot = memory.slots(jnp.arange(words.size), words.size)
        place = {
            "row": bank * memory.rows_for(words.size) + row,
            "column": bank * memory.words_per_row + slot,
            "bank": bank,
        }
        return act(words, table[place[unit]].reshape(words.shape), action, value)

    return FaultModel(sample, apply)


def _table(key, unit, rate, largest, memory, words, bits) -> UInt[Array, " entries"]:
    """Masks of struck bits, for each place of a word that makes a difference."""
    dtype = word_dtype(bits)
    if unit == "column":
        entries = memory.banks * memory.words_per_row
        units = bernoulli_positions(key, entries * bits, rate, largest)
        if not memory.interleaved:
            return flips_to_masks(*listed(units, bits), (entries,), dtype)
        # Columns of a bank count bits first: (bank, bit, slot).
        slots = jnp.uint32(memory.words_per_row)
        line, slot = units // slots, units % slots
        bank, bit = line // bits, (line % bits).astype(jnp.uint8)
        return flips_to_masks(bank * slots + slot, bit, (entries,), dtype)
    entries = memory.banks * (memory.rows_for(words) if unit == "row" else 1)
    units = bernoulli_positions(key, entries, rate, largest)
    full = jnp.asarray((1 << bits) - 1, dtype)
    return jnp.zeros(entries, dtype).at[units].set(full, mode="drop")

"""Units of memory: every bit has one place, and goes down with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.memory import AddressMap, unit_faults
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=5)
BITS, WORDS = 5, 45
MAPS = [
    AddressMap(words_per_row=4, banks=3, rows=rows, spread=spread, interleaved=mixed)
    for spread, mixed, rows in [
        ("word", False, None),
        ("row", True, None),
        ("block", False, None),
        ("block", True, 7),
    ]
]


def places(memory, words=WORDS):
    """Bank, row and column of every bit, as arrays of shape (words, bits)."""
    word, bit = np.mgrid[:words, :BITS]
    place = memory.locate(word, bit, words=words, bits=BITS)
    return [np.broadcast_to(part, word.shape) for part in place]


@pytest.mark.parametrize("memory", MAPS, ids=str)
def test_every_bit_has_a_place_of_its_own_within_the_memory(memory):
    bank, row, column = (part.ravel() for part in places(memory))
    assert len(set(zip(bank, row, column, strict=True))) == WORDS * BITS
    assert (0 <= bank).all() and bank.max() < memory.banks
    assert (0 <= row).all() and row.max() < memory.rows_for(WORDS)
    assert (0 <= column).all() and column.max() < memory.words_per_row * BITS
    if memory.rows is None:  # As small as can be: one row fewer would not do.
        assert (memory.rows_for(WORDS) - 1) * 4 * memory.banks < WORDS


def test_a_small_memory_by_hand():
    memory = AddressMap(words_per_row=2, banks=2, spread="row", interleaved=True)
    found = [memory.locate(word, 1, words=8, bits=3) for word in range(6)]
    assert found == [(0, 0, 2), (0, 0, 3), (1, 0, 2), (1, 0, 3), (0, 1, 2), (0, 1, 3)]
    memory = AddressMap(words_per_row=2, banks=2, spread="block")
    assert memory.locate(5, 1, words=8, bits=3) == (1, 0, 4)
    memory = AddressMap(words_per_row=2, banks=2, spread="word")
    assert memory.locate(5, 1, words=8, bits=3) == (1, 1, 1)


def unit_of(unit, memory):
    """The number of the unit of every bit, and how many units there are."""
    bank, row, column = places(memory)
    rows, columns = memory.rows_for(WORDS), memory.words_per_row * BITS
    return {
        "row": (bank * rows + row, memory.banks * rows),
        "column": (bank * columns + column, memory.banks * columns),
        "bank": (bank, memory.banks),
    }[unit]


@pytest.mark.parametrize(
    "unit, memory",
    [("row", memory) for memory in MAPS[:3]]
    + [("column", MAPS[0]), ("column", MAPS[3]), ("bank", MAPS[1]), ("bank", MAPS[2])],
    ids=str,
)
def test_units_are_struck_as_wholes_independently_at_the_rate(unit, memory):
    model = unit_faults(unit, 0.3, memory)
    words = jnp.zeros((9, 5), jnp.uint8)

    def masks(key):
        return model.apply(model.sample(key, words.shape, FORMAT), words)

    found = np.asarray(jax.jit(jax.vmap(masks))(jax.random.split(KEY, 300)))
    bits = found.reshape(300, WORDS, 1) >> np.arange(BITS) & 1
    units, number = unit_of(unit, memory)
    struck = np.stack([bits[:, units == n].max(1, initial=0) for n in range(number)], 1)
    np.testing.assert_array_equal(bits, struck[:, units])
    used = np.unique(units)
    count = int(struck[:, used].sum())
    assert stats.binomtest(count, 300 * used.size, 0.3).pvalue > 1e-4
    per_trial = struck[:, used].sum(1)
    spread = per_trial.var() / (used.size * 0.3 * 0.7)
    assert 0.7 < spread < 1.35  # 3.5 standard deviations of a variance of 300 counts


@pytest.mark.parametrize("action", ["zero", "one", "random"])
def test_actions_reach_the_bits_of_the_unit_only(action):
    words = jax.random.bits(KEY, (9, 500), jnp.uint8)  # Bits above the word are set.
    memory = AddressMap(words_per_row=10)

    def faulted(action):
        model = unit_faults("row", 0.3, memory, action)
        return np.asarray(model.apply(model.sample(KEY, words.shape, FORMAT), words))

    masks = faulted("flip") ^ np.asarray(words)
    found = faulted(action)
    np.testing.assert_array_equal(found & ~masks, words & ~masks)
    if action == "random":
        values = np.bincount(found[masks == 31] & 31, minlength=32)
        assert stats.chisquare(values).pvalue > 1e-4
    else:
        np.testing.assert_array_equal(found & masks, masks if action == "one" else 0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: AddressMap(words_per_row=0), "1 or more"),
        (lambda: AddressMap(words_per_row=1, rows=0), "1 or more"),
        (lambda: AddressMap(words_per_row=1, spread="bit"), "spread='bit'"),
        (lambda: MAPS[3].rows_for(85), "85 words in 3 banks of 7 rows.*8 rows"),
        (lambda: unit_faults("cell", 0.1, MAPS[0]), "unit='cell'"),
        (lambda: unit_faults("row", 0.1, MAPS[0], "off"), "action='off'"),
        (lambda: unit_faults("row", 1.1, MAPS[0]), "0 <= rate"),
    ],
)
def test_impossible_memories_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""What every name stands for, by the words that it makes of words of all kinds."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.kinds import KINDS, top_bit_flips
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.options import Kind

FORMAT = FixedPoint(bits=5)
WORDS = jnp.asarray(np.arange(4096) % 32, jnp.uint8)
RATE, MOST = 0.03, 0.06


@pytest.fixture(scope="module")
def after():
    """Words by kind, before and after faults; values stand for words of theirs."""

    def struck(kind, rate):
        model = KINDS[kind](rate, MOST)
        stored = WORDS if model.on == "words" else WORDS.astype(jnp.float32)
        fault = model.sample(jax.random.key(1), WORDS.shape, FORMAT)
        return model.apply(fault, stored)

    @jax.jit
    def all_kinds(rate):
        return {kind: struck(kind, rate) for kind in KINDS}

    found = all_kinds(jnp.float32(RATE))
    return {kind: np.asarray(words).astype(np.uint8) for kind, words in found.items()}


def expected_share(kind):
    """Of words that change, from the law of each kind; all 32 words are as frequent."""
    half = 1 - (1 - RATE / 2) ** 5  # a bit is one, or zero, in half of the words
    flips = 1 - (1 - RATE) ** 5
    return {
        "bit_flips": flips,
        "top_bit_flips": RATE,
        "rising_flips": half,
        "falling_flips": half,
        "double_flips": flips,
        "stuck_at": half,
        "stuck_at_zero": half,
        "stuck_at_one": half,
        "word_faults": RATE * 31 / 32,
        "dead_elements": RATE * 31 / 32,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_words_change_as_the_law_says(kind, after):
    share = expected_share(kind)
    changed = np.sum(after[kind] != np.asarray(WORDS))
    deviation = np.sqrt(WORDS.size * share * (1 - share))
    assert abs(changed - WORDS.size * share) < 4.5 * deviation


def test_only_the_bits_of_the_kind_change(after):
    before = np.asarray(WORDS)
    changed = {kind: words ^ before for kind, words in after.items()}
    assert set(changed["top_bit_flips"]) == {0, 16}
    for kind in ("rising_flips", "stuck_at_one"):
        assert np.all(before & changed[kind] == 0), "ones stay"
    for kind in ("falling_flips", "stuck_at_zero"):
        assert np.all(before & changed[kind] == changed[kind]), "zeros stay"
    assert np.any(before & changed["stuck_at"]) and np.any(
        ~before & changed["stuck_at"]
    )
    doubles = changed["double_flips"][changed["double_flips"] > 0]
    pairs = {0b00011, 0b00110, 0b01100, 0b11000, 0b10000}
    assert np.mean(np.isin(doubles, list(pairs))) > 0.85, "but for several at once"
    dead = changed["dead_elements"] > 0
    assert np.all(after["dead_elements"][dead] == 0)


def test_a_bad_rate_is_refused_when_the_model_is_made():
    with pytest.raises(ValueError, match="rate=2.0"):
        top_bit_flips(2.0)


def test_the_command_line_knows_all_names():
    assert get_args(Kind) == tuple(KINDS)

"""Every bit by its number: what flips, where it is, and back from what was listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import outcomes
from jaxnas.faults.campaigns import campaign, exhaustive
from jaxnas.faults.exhaustion import flip_each
from jaxnas.faults.injection import Strike, inject, strikes
from jaxnas.faults.models import Fault, FaultModel, NetworkModel
from jaxnas.faults.trials import trial_key
from jaxnas.numerics import FixedPoint, quantize

KEY = jax.random.key(11)
WIDE, NARROW = FixedPoint(bits=8), FixedPoint(bits=5)
RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(-128, 128, (3, 4)).astype(np.float32)
BIAS = RNG.integers(-16, 16, 4).astype(np.float32)
X = RNG.integers(-9, 10, (5, 3)).astype(np.float32)


def linear(weights, bias, x):
    weights = quantize(weights, 1, WIDE, stored="weight", site="dense/kernel")
    bias = quantize(bias, 1, NARROW, stored="bias", site="dense/bias")
    return x @ weights + bias[None]


def changes(golden, faulty, labels):
    return jnp.sum(faulty - golden)


GOLDEN = X @ WEIGHTS + BIAS


@pytest.fixture(scope="module")
def census():
    args = WEIGHTS, BIAS, X
    trial, bits = flip_each(linear, args, stored=("weight", "bias"))
    metrics = (changes, outcomes.sdc1)
    options = {"metrics": metrics, "golden": GOLDEN, "chunk": 60}
    return bits, exhaustive(trial, args, positions=bits.total, **options)


def steps(words, bits):
    """By how much flipping each bit changes each two's complement word."""
    place = 1 << np.arange(bits)
    signed = np.where(np.arange(bits) == bits - 1, -place, place)
    is_one = words.astype(int)[..., None] >> np.arange(bits) & 1
    return np.where(is_one == 1, -signed, signed)


def test_every_bit_of_a_linear_layer_by_the_closed_form(census):
    bits, found = census
    assert bits.total == 12 * 8 + 4 * 5 == found.trials
    weights = X.sum(0)[:, None, None] * steps(WEIGHTS, 8)
    bias = len(X) * steps(BIAS, 5)
    expected = np.concatenate([weights.ravel(), bias.ravel()])
    np.testing.assert_array_equal(found.columns["changes"], expected)
    delta = steps(WEIGHTS, 8)
    for i in (0, 37, 95):
        row, column, bit = np.unravel_index(i, delta.shape)
        struck = GOLDEN.copy()
        struck[:, column] += X[:, row] * delta[row, column, bit]
        np.testing.assert_array_equal(found.replay(i), struck)


def test_every_position_is_one_bit_of_one_word(census):
    bits, _ = census
    where = bits.locate(np.arange(bits.total))
    rows = list(zip(where.site, where.word, where.bit, strict=True))
    expected = [("dense/kernel", w, b) for w in range(12) for b in range(8)]
    expected += [("dense/bias", w, b) for w in range(4) for b in range(5)]
    assert rows == expected
    np.testing.assert_array_equal(where.number, [0] * 96 + [1] * 20)
    np.testing.assert_array_equal(where.channel, where.word % 4)
    assert not where.iteration.any()


def test_tables_by_layer_bit_and_channel_sum_up(census):
    bits, found = census
    where = bits.locate(np.arange(bits.total))
    column = found.columns["sdc1"].astype(float)
    assert 0 < column.mean() < 1
    for labels in (("site",), ("bit",), ("site", "bit"), ("site", "channel", "bit")):
        table = found.vulnerability("sdc1", {n: getattr(where, n) for n in labels})
        assert table.trials.sum() == bits.total
        assert np.sum(table.trials * table.share) == pytest.approx(column.sum())
    kernel = column[:96].reshape(3, 4, 8).mean(0)
    shares = table.share[table.labels["site"] == "dense/kernel"]
    np.testing.assert_allclose(shares.reshape(4, 8), kernel, rtol=1e-6)


def repeated(weights, x):
    """A site in a loop, behind one whose faults change what it stores."""
    weights = quantize(weights, 1 / 16, WIDE, stored="weight", site="w")

    def step(carry, row):
        carry = quantize(carry + row, 1 / 16, NARROW, site="sum")
        return carry, carry

    return jax.lax.scan(step, x, weights)[1]


ARGS = (jnp.asarray(WEIGHTS[:, :2] / 64), jnp.asarray(BIAS[:2] / 64))


# One random word for all words of a site: cheap to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask,
)
# Two neighbouring bits, likewise.
PAIR = NetworkModel(
    lambda key, total: (
        jax.random.randint(key, (), 0, total - 1).astype(jnp.uint32)
        + jnp.arange(2, dtype=jnp.uint32)
    )
)


def first(golden, faulty, labels):
    return faulty[0, 0]


@pytest.mark.parametrize("permanent, trials", [(False, (0, 11)), (True, (3,))])
def test_what_strikes_lists_is_what_a_trial_flips(permanent, trials):
    drawn = Fault(PAIR, stored=("activation",), permanent=permanent)
    faults = Fault(SCRAMBLE, stored=("weight",)), drawn
    faulty = inject(repeated, *faults)
    found = campaign(faulty, ARGS, key=KEY, trials=12, metrics=(first,), chunk=12)
    flip, bits = flip_each(repeated, ARGS, permanent=permanent)
    _, some = flip_each(repeated, ARGS, stored=("activation",), permanent=permanent)
    expected = some.drawn(drawn.model, KEY, 12, fault=1)
    flip, listing = jax.jit(flip), strikes(repeated, *faults)
    for i in trials:
        listed = listing(trial_key(KEY, i), *ARGS)
        positions = bits.positions_of(listed)
        # Slots beyond the last bit flip nothing: one program for any number.
        row = np.full(64, bits.total, np.uint32)
        row[: len(positions)] = positions
        np.testing.assert_array_equal(flip(jnp.asarray(row), *ARGS), found.replay(i))
        assert masks(bits.locate(positions)) == {
            (s.site, 0 if permanent else sum(s.iteration), s.word): s.before ^ s.after
            for s in listed
        }
        sums = [strike for strike in listed if strike.site == "sum"]
        np.testing.assert_array_equal(some.positions_of(sums), expected[i])


def masks(where):
    """The struck bits of each word in each iteration."""
    struck = {}
    for site, iteration, word, bit in zip(
        where.site, where.iteration, where.word, where.bit, strict=True
    ):
        place = site, iteration, word
        struck[place] = struck.get(place, 0) | 1 << int(bit)
    return struck


def test_what_cannot_be_located_is_refused():
    _, bits = flip_each(repeated, ARGS, permanent=True)
    with pytest.raises(ValueError, match="position 58; expected 0 to 57"):
        bits.locate(np.array([3, 58]))
    with pytest.raises(ValueError, match="at 'v', number 0.*'w', 'sum'"):
        bits.positions_of([Strike("v", 0, (), 0, 0, 1)])
    rows = [Strike("sum", 1, (i,), 0, 0, 1 + i) for i in range(2)]
    with pytest.raises(ValueError, match="permanent=False"):
        bits.positions_of(rows)
    with pytest.raises(ValueError, match="no site matches"):
        flip_each(repeated, ARGS, site="v")

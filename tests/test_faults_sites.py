"""Which sites faults select, and where the bits of a network fault lie."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import (
    Fault,
    FaultModel,
    NetworkModel,
    bit_flips,
    inject,
    sites,
    strikes,
)
from jaxnas.numerics import IEEE, FixedPoint, MachineInteger, integer, quantize

KEY = jax.random.key(0)
BYTE, NIBBLE = FixedPoint(bits=8), FixedPoint(bits=4)
FLIPS = bit_flips(0.1)
TOGGLE = FaultModel(lambda *_: (), lambda _, words: words ^ 1)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.integers(-7, 7, (3, 3)) / 8, jnp.float32)


def q(x, site, stored="activation", format=BYTE):
    return quantize(x, 1 / 8, format, stored=stored, site=site)


def network(w, branch):
    """Sites of two widths outside of loops, in one, in two, and in branches."""
    first = q(w, "first", "weight")

    def outer(c, row):
        def inner(c, _):
            return q(c * first, "inner", format=NIBBLE), None

        c = q(c + row, "outer")
        return jax.lax.scan(inner, c, None, length=2)[0], None

    c, _ = jax.lax.scan(outer, w, w[:, None], reverse=True)
    branches = [lambda c, n=n: q(c, f"branch {n}", format=NIBBLE) for n in range(2)]
    return q(jax.lax.switch(branch, branches, c), "last")


# Sites in program order: rounds of the loops around, and bits per word.
LAID_OUT = {
    "first": ((), 8),
    "outer": ((3,), 8),
    "inner": ((3, 2), 4),
    "branch 0": ((), 4),
    "branch 1": ((), 4),
    "last": ((), 8),
}


def every_bit(names, permanent=False):
    """Name, iteration, word and bit of each position, by brute force."""
    return [
        (name, iteration, word, bit, rounds)
        for name in names
        for rounds, bits in [LAID_OUT[name]]
        for iteration in itertools.product(*map(range, () if permanent else rounds))
        for word in range(9)
        for bit in range(bits)
    ]


def at(positions):
    """A law that always flips these bits, and one more slot that is not used."""
    totals = []

    def sample(key, total_bits):
        totals.append(total_bits)
        return jnp.asarray([*positions, total_bits], jnp.uint32)

    return NetworkModel(sample), totals


def flipped_bits(found):
    return {
        (s.site, s.iteration, s.word, bit)
        for s in found
        for bit in range(32)
        if (s.before ^ s.after) >> bit & 1
    }


@pytest.mark.parametrize("selection", ["*", "[fil]*"])
def test_positions_count_sites_then_rounds_then_words_then_bits(selection):
    names = list(LAID_OUT) if selection == "*" else ["first", "inner", "last"]
    table = every_bit(names)
    positions = RNG.permutation(len(table))[:60]
    model, totals = at(positions)
    found = strikes(network, Fault(model, site=selection))(KEY, W, jnp.int32(1))
    expected = {table[p][:4] for p in positions}
    # The branch that is not taken has bits all the same; they change nothing.
    assert flipped_bits(found) == {e for e in expected if e[0] != "branch 0"}
    assert set(totals) == {len(table)}


def test_permanent_positions_are_the_same_in_all_rounds():
    table = every_bit(LAID_OUT, permanent=True)
    positions = RNG.permutation(len(table))[:20]
    model, totals = at(positions)
    fault = Fault(model, permanent=True)
    found = strikes(network, fault)(KEY, W, jnp.int32(1))
    expected = {
        (name, iteration, word, bit)
        for name, _, word, bit, rounds in (table[p] for p in positions)
        if name != "branch 0"
        for iteration in itertools.product(*map(range, rounds))
    }
    assert flipped_bits(found) == expected
    assert set(totals) == {len(table)}


def test_each_network_fault_is_drawn_once_and_with_its_own_key():
    keys = []

    def sample(key, total_bits):
        keys.append(key)
        return jax.random.randint(key, (40,), 0, total_bits).astype(jnp.uint32)

    fault = Fault(NetworkModel(sample), site="first")
    alone, both = (
        inject(lambda w: q(w, "first"), *faults)(KEY, W)
        for faults in ([fault], [fault, fault])
    )
    assert len(keys) == 3
    data = [jax.random.key_data(key).tolist() for key in keys]
    assert data[0] == data[1] != data[2]
    assert (alone != both).any()


def while_loop(w):
    return jax.lax.while_loop(
        lambda w: w.max() < 4, lambda w: q(w + 1, "body"), q(w, "w")
    )


def test_bits_of_unknown_number_are_refused_unless_they_are_permanent():
    model, totals = at([])
    with pytest.raises(ValueError, match="'body' lies in a while loop.*permanent=True"):
        inject(while_loop, Fault(model))(KEY, W)
    inject(while_loop, Fault(model, site="w"))(KEY, W)
    inject(while_loop, Fault(model, permanent=True))(KEY, W)
    assert totals == [9 * 8, 2 * 9 * 8]


def test_more_bits_than_positions_are_refused():
    words = jax.ShapeDtypeStruct((2**30,), jnp.float32)
    faulty = inject(lambda w: q(w, "w"), Fault(at([])[0]))
    with pytest.raises(ValueError, match=f"over {2**33} bits.*select fewer"):
        jax.eval_shape(faulty, KEY, words)


def struck(fault, fun=network, args=(W, 1)):
    """The sites that a fault of all their words strikes."""
    return list(dict.fromkeys(s.site for s in strikes(fun, fault)(KEY, *args)))


def test_faults_select_by_place_and_by_predicate():
    flips = TOGGLE
    taken = [name for name in LAID_OUT if name != "branch 0"]
    assert struck(Fault(flips)) == taken
    assert struck(Fault(flips, layers=(0, 2))) == ["first", "inner"]
    assert struck(Fault(flips, layers=(1,), site="*r")) == ["inner"]
    narrow = Fault(flips, where=lambda site: site.format.bits == 4)
    assert struck(narrow) == ["inner", "branch 1"]
    assert struck(narrow._replace(layers=(0,))) == ["inner"]
    weights = Fault(flips, ("weight",), where=lambda site: math.prod(site.shape) == 9)
    assert struck(weights) == ["first"]


def product(w, x):
    y = q(x, "x", "input") @ q(w, "w", "weight")
    z, kernel = y.astype(jnp.bfloat16)[:1, None], jnp.ones((2, 1, 2), jnp.bfloat16)
    convolved = jax.lax.conv_general_dilated(
        z, kernel.transpose(0, 1, 2), (1,), "VALID"
    )
    return q(y @ w, "y"), convolved


def test_accumulators_are_listed_when_asked_and_numbered_apart():
    assert [site.name for site in sites(product, W, W)] == ["x", "w", "y"]
    found = sites(product, W, W, accumulators=True)
    names = ["x", "w", "dot_0", "convolution_1", "dot_2", "y"]
    assert [site.name for site in found] == names
    assert {s.stored for s in found if "_" in s.name} == {"accumulator"}
    assert found[3].format == IEEE(name="bfloat16") and found[3].shape == (1, 2, 2)
    partial_sums = sites(integer(lambda w, x: q(x, "x") @ q(w, "w")), W, W)
    assert partial_sums == []
    (site,) = sites(
        integer(lambda w, x: q(x, "x") @ q(w, "w")), W, W, accumulators=True
    )
    assert site.format == MachineInteger(bits=32) and site.shape == (3, 3)


def test_only_faults_that_name_accumulators_strike_them():
    flips, args = TOGGLE, (W, W)
    assert struck(Fault(flips), product, args) == ["x", "w", "y"]
    everything = Fault(flips, ("accumulator",))
    names = ["dot_0", "convolution_1", "dot_2"]
    assert struck(everything, product, args) == names
    assert struck(everything._replace(layers=(2,)), product, args) == ["dot_2"]
    assert struck(everything._replace(site="conv*"), product, args) == names[1:2]


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            Fault(FLIPS, site="conv*"),
            r"'conv\*'; the sites are: 'x' \(input\), 'w'",
        ),
        (Fault(FLIPS, where=lambda site: False), "and where; the sites are: 'x'"),
        (
            Fault(FLIPS, layers=(3,)),
            r"layers=\(3,\) of .*the 3 sites selected are",
        ),
        (Fault(FLIPS, layers=(-1,)), r"layers=\(-1,\) of"),
        (Fault(FLIPS, layers=()), r"layers=\(\) of"),
        (Fault(FLIPS, ("accumulator",), site="x"), r"'dot_0' \(accumulator\)"),
        (Fault(FLIPS, ("acumulator",)), "'accumulator'"),
        (Fault(FLIPS._replace(on="bits")), "on='bits'; expected one of"),
        (Fault(bit_flips), "a Fault of <function bit_flips"),
    ],
)
def test_faults_that_select_nothing_are_refused_with_the_sites(fault, message):
    with pytest.raises(ValueError, match=message):
        inject(product, fault)(KEY, W, W)

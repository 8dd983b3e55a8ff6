"""What happens at a site: words, then values; accumulators; and the list of it all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import (
    Fault,
    FaultModel,
    bit_flips,
    chain,
    given_flips,
    inject,
    network_flips,
    sites,
    strikes,
)
from jaxnas.numerics import IEEE, FixedPoint, integer, quantize

KEY = jax.random.key(0)
STEP = 2.0**-4
BYTE = FixedPoint(bits=8)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.integers(-16, 16, (4, 4)) * STEP, jnp.float32)
X = jnp.asarray(RNG.integers(-16, 16, (3, 4)) * STEP, jnp.float32)
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)
SHIFT = FaultModel(
    sample=lambda key, shape, format: jax.random.normal(key, shape),
    apply=lambda noise, values: 2 * values + noise,
    on="values",
)


def q(x, site, stored="activation"):
    return quantize(x, STEP, BYTE, stored=stored, site=site)


def product(w, x):
    return q(x, "x", "input") @ q(w, "w", "weight")


def site_key(number):
    return jax.random.fold_in(KEY, number)


def faulted(x, model, key):
    words = BYTE.encode(x, STEP)
    return BYTE.decode(model.apply(model.sample(key, x.shape, BYTE), words), STEP)


def test_faults_of_values_act_on_what_was_read():
    """Whatever the order of the faults, each drawing by its place among them."""
    words, values = Fault(SCRAMBLE, site="x"), Fault(SHIFT, site="x")
    own = [jax.random.fold_in(site_key(0), i) for i in range(2)]
    for faults, keys in (((words, values), own), ((values, words), own[::-1])):
        found = inject(lambda x: q(x, "x"), *faults)(KEY, X)
        read = faulted(X, SCRAMBLE, keys[0])
        expected = SHIFT.apply(SHIFT.sample(keys[1], X.shape, BYTE), read)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_faults_of_values_are_differentiated_and_words_are_not():
    faults = Fault(SCRAMBLE, site="x"), Fault(SHIFT, site="x")
    slope = jax.grad(lambda x: inject(product, *faults)(KEY, W, x).sum())(X)
    expected = jax.grad(lambda x: product(W, x).sum())(X)
    np.testing.assert_array_equal(slope, 2 * expected)


def test_a_fault_of_values_keeps_shape_and_dtype():
    wider = FaultModel(lambda *_: (), lambda _, v: v.astype(jnp.float16), "values")
    flatter = FaultModel(lambda *_: (), lambda _, v: v.reshape(-1), "values")
    for model, message in ((wider, r"float16\[3,4\]"), (flatter, r"float32\[12\]")):
        message = rf"float32\[3,4\] at 'x' into {message}"
        with pytest.raises(ValueError, match=message.replace(",", ", ")):
            inject(product, Fault(model, site="x"))(KEY, W, X)


def test_weights_activations_inputs_and_values_fail_in_one_run():
    def layers(w, x):
        return q(jax.nn.relu(product(w, x)), "y")

    faults = [
        Fault(SCRAMBLE, ("weight",)),
        Fault(SHIFT, ("input",)),
        Fault(chain(SCRAMBLE, SCRAMBLE), ("activation",)),
        Fault(network_flips(3), ("weight", "activation")),
    ]
    found = jax.jit(inject(layers, *faults))(KEY, W, X)
    alone = inject(layers, *faults[:3])
    listed = strikes(layers, *faults)(KEY, W, X)
    assert {s.site for s in listed} == {"x", "w", "y"}
    x = SHIFT.apply(SHIFT.sample(site_key(0), X.shape, BYTE), X)
    w = faulted(W, SCRAMBLE, site_key(1))
    words = BYTE.encode(w, STEP)
    for s in listed:
        if s.site == "w":
            words = words.at[np.unravel_index(s.word, (4, 4))].set(s.after)
    y = jax.nn.relu(x @ BYTE.decode(words, STEP))
    words = BYTE.encode(y, STEP)
    for s in listed:
        if s.site == "y":
            place = np.unravel_index(s.word, (3, 4))
            assert words[place] == s.before
            words = words.at[place].set(s.after)
    np.testing.assert_array_equal(found, BYTE.decode(words, STEP))
    assert (found != alone(KEY, W, X)).any()


def looped(x):
    """Three rounds of a scan, three of a while loop, and a site outside."""
    x, rows = jax.lax.scan(lambda c, _: (c, q(c, "scan")), x, None, length=3)
    start = 0, jnp.zeros((3, *x.shape))
    _, more = jax.lax.while_loop(
        lambda s: s[0] < 3,
        lambda s: (s[0] + 1, s[1].at[s[0]].set(q(x, "while"))),
        start,
    )
    return rows, more, q(x, "out")


@pytest.mark.parametrize("model", [SCRAMBLE, SHIFT], ids=["words", "values"])
def test_permanent_faults_are_the_same_in_all_rounds_and_differ_between_sites(model):
    scan, while_, out = inject(looped, Fault(model, permanent=True))(KEY, X)
    np.testing.assert_array_equal(scan, jnp.stack([scan[0]] * 3))
    np.testing.assert_array_equal(while_, jnp.stack([while_[0]] * 3))
    assert (
        len({each.tobytes() for each in map(np.asarray, (scan[0], while_[0], out))})
        == 3
    )
    fresh, _, same = inject(looped, Fault(model))(KEY, X)
    assert len({row.tobytes() for row in np.asarray(fresh)}) == 3
    # Outside of loops permanent and transient are one.
    np.testing.assert_array_equal(out, same)


def test_accumulators_are_struck_in_the_words_of_their_dtype():
    def fun(dtype, w, x):
        return (x.astype(dtype) @ w.astype(dtype)).astype(jnp.float32)

    for name in ("float32", "bfloat16", "float16"):
        model = given_flips([IEEE(name=name).bits - 1])  # the first sign
        found = inject(fun, Fault(model, ("accumulator",)))(KEY, name, W, X)
        clean = fun(name, W, X)
        assert clean[0, 0] and found[0, 0] == -clean[0, 0]
        np.testing.assert_array_equal(found.ravel()[1:], clean.ravel()[1:])


def test_partial_sums_of_integer_functions_are_struck_bit_for_bit():
    """An int32 sum, its bit k flipped, is off by 2**k products of two steps."""
    computed = integer(product)
    clean = computed(W, X)
    np.testing.assert_array_equal(clean, product(W, X))

    @jax.jit
    def flipped(bit):
        fault = Fault(given_flips(bit[None]), ("accumulator",))
        return inject(computed, fault)(KEY, W, X)

    sums = np.asarray(clean / STEP**2, np.int32)
    for bit in range(31):
        change = (sums[0, 0] ^ np.int32(1 << bit)) - int(sums[0, 0])
        difference = flipped(jnp.uint32(bit)) - clean
        assert difference[0, 0] == change * STEP**2 or bit > 23
        assert not difference.ravel()[1:].any()
    last = Fault(given_flips([32 + 30]), ("accumulator",))
    (s,) = strikes(computed, last)(KEY, W, X)
    assert (s.site, s.word) == ("dot_0", 1)
    assert s.before == int(sums[0, 1]) % 2**32 and s.after == s.before ^ 1 << 30


def test_accumulators_change_nothing_of_what_the_words_draw():
    alone = inject(product, Fault(SCRAMBLE))
    zero = Fault(bit_flips(0.0), ("accumulator",))
    both = inject(product, Fault(SCRAMBLE), zero)
    np.testing.assert_array_equal(alone(KEY, W, X), both(KEY, W, X))


def test_accumulators_draw_apart_and_keep_their_derivative():
    def fun(w, x):
        return q(x @ w, "y")

    bits = []

    def sample(key, shape, format):
        bits.append(jax.random.bits(key))
        return bits[-1] * 0

    model = FaultModel(sample, lambda zero, words: words ^ 1 ^ zero.astype(words.dtype))
    faults = Fault(model, ("accumulator",)), Fault(model, site="y")
    inject(fun, *faults)(KEY, W, X)
    assert bits[0] != bits[1]
    faulty = inject(lambda w, x: (x @ w) ** 2, Fault(SCRAMBLE, ("accumulator",)))
    found = jax.jit(jax.grad(lambda w: faulty(KEY, w, X).sum()))(W)
    y = jnp.sqrt(faulty(KEY, W, X)) * jnp.sign(X @ W)
    np.testing.assert_allclose(found, X.T @ (2 * y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [SCRAMBLE, SHIFT], ids=["words", "values"])
def test_faulty_functions_have_the_sites_of_the_clean_one(model):
    faults = [Fault(model), Fault(model, ("accumulator",))]
    faulty = inject(product, *faults)
    assert sites(faulty, KEY, W, X, accumulators=True) == sites(
        product, W, X, accumulators=True
    )


def everything(w, x, branch):
    """A site in every construct."""
    x = jax.jit(lambda x: q(x @ q(w, "w", "weight"), "jit"))(q(x, "x", "input"))
    x = jax.checkpoint(lambda x: q(jnp.maximum(x, -1), "remat"))(x)
    x, _ = jax.lax.scan(lambda c, row: (q(c + row, "scan"), None), x, w[:, None])

    def step(state):
        return state[0] + 1, q(state[1] + 0.5, "body")

    _, x = jax.lax.while_loop(
        lambda s: (s[0] < 3) & (q(s[1], "test").sum() < 1e9), step, (0, x)
    )
    branches = [lambda x, n=n: q(x, f"branch {n}") for n in range(2)]
    return q(jax.lax.switch(branch, branches, x), "last")


ORDER = ["x", "w", "jit", "remat", "scan", "test", "body", "branch 1", "last"]


def test_the_list_of_strikes_is_complete_ordered_and_repeatable():
    faults = Fault(SCRAMBLE), Fault(SCRAMBLE, site="w")
    listing, args = strikes(everything, *faults), (KEY, W, X, jnp.int32(1))
    found = listing(*args)
    assert found == listing(*args)
    places = [(ORDER.index(s.site), s.iteration, s.word) for s in found]
    assert places == sorted(places) and len(set(places)) == len(places)
    assert {s.site for s in found} == set(ORDER)
    assert {s.iteration for s in found if s.site == "scan"} == {(i,) for i in range(4)}
    assert {s.iteration for s in found if s.site == "body"} == {(i,) for i in range(3)}
    assert all(s.before != s.after and max(s.before, s.after) < 256 for s in found)


def test_strikes_put_in_by_hand_give_the_faulty_result():
    """The list says all there is to say about a trial."""
    args = W, X, jnp.int32(1)
    fault = Fault(SCRAMBLE, where=lambda site: site.name not in ("body", "test"))
    words, rounds = {"w": 16}, {"scan": 4}
    starts, total = {}, 0
    for site in sites(everything, *args):
        if fault.where(site):
            starts[site.name] = total
            total += words.get(site.name, 12) * rounds.get(site.name, 1)
    positions = [
        8 * (starts[s.site] + sum(s.iteration) * words.get(s.site, 12) + s.word) + bit
        for s in strikes(everything, fault)(KEY, *args)
        for bit in range(8)
        if (s.before ^ s.after) >> bit & 1
    ]
    replayed = inject(everything, fault._replace(model=given_flips(positions)))
    expected = jax.jit(inject(everything, fault))(KEY, *args)
    np.testing.assert_array_equal(jax.jit(replayed)(KEY, *args), expected)
    assert (expected != everything(*args)).any()


def test_faults_of_values_are_listed_by_the_nearest_words():
    dead = FaultModel(lambda *_: (), lambda _, values: 0 * values, "values")
    found = strikes(product, Fault(dead, site="x"))(KEY, W, X)
    words = np.asarray(BYTE.encode(X, STEP)).ravel()
    assert [(s.word, s.before) for s in found] == [
        (n, word) for n, word in enumerate(words) if word
    ]
    assert {s.after for s in found} == {0}


def test_strikes_are_listed_outside_of_transformations_only():
    listing = strikes(product, Fault(SCRAMBLE))
    with pytest.raises(ValueError, match="traced key; call it outside"):
        jax.jit(lambda key: listing(key, W, X))(KEY)

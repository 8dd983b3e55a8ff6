"""Injection: the same under every transform, exact where it can be told by hand."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.injection import inject, sites
from jaxnas.faults.models import Fault, FaultModel, Site, bit_flips, chain
from jaxnas.numerics import IEEE, FixedPoint, Logarithmic, quantize

KEY = jax.random.key(0)
STEP = 2.0**-4
FORMAT = FixedPoint(bits=8)
FLIPS = bit_flips(0.03)
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)
RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.integers(-16, 16, (4, 4)) * STEP, jnp.float32)
X = jnp.asarray(RNG.integers(-16, 16, (3, 4)) * STEP, jnp.float32)


def q(x, site, stored="activation"):
    return quantize(x, STEP, FORMAT, stored=stored, site=site)


def network(q):
    """A function with a site in every construct that injection rebuilds."""

    @jax.custom_jvp
    def doubled(x):
        return 2 * q(x, "custom_jvp")

    doubled.defjvp(lambda primals, tangents: (doubled(*primals), 5 * tangents[0]))

    @jax.custom_vjp
    def tripled(x):
        return 3 * q(x, "custom_vjp")

    tripled.defvjp(lambda x: (tripled(x), None), lambda _, pulled: (7 * pulled,))

    def scanned(w, x):
        def step(carry, row):
            return q(carry + row, "scan"), carry.sum()

        return jax.lax.scan(step, x, w[:, None], reverse=True)

    def repeated(x):
        return jax.lax.fori_loop(0, 2, lambda i, c: q(0.75 * c + i, "fori"), x)

    def looped(x):
        def proceed(state):
            return (state[0] < 4) & (q(state[1], "condition").sum() < 30)

        def step(state):
            return state[0] + 1, q(state[1] + 1, "body")

        return jax.lax.while_loop(proceed, step, (0, x))[1]

    def everything(w, x, branch):
        w = q(w, "w", "weight")
        x = jax.jit(lambda x: q(x @ w, "jit"))(q(x, "x", "input"))
        x = tripled(doubled(x))
        x = jax.checkpoint(lambda x: q(jnp.maximum(x, -1) + w[:1], "remat"))(x)
        x, sums = scanned(w, x)
        branches = [functools.partial(q, site=f"branch {i}") for i in range(3)]
        x = jax.lax.switch(branch, branches, looped(repeated(x)))
        return {"x": q(x, "last"), "sums": sums}

    return everything


NAMES = ["w", "x", "jit", "custom_jvp", "custom_vjp", "remat", "scan", "fori"]
NAMES += ["condition", "body", "branch 0", "branch 1", "branch 2", "last"]


def test_sites_are_listed_in_program_order_without_running():
    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (W, X, jnp.int32(0))]
    found = sites(network(q), *specs)
    assert [site.name for site in found] == NAMES
    assert [site.stored for site in found[:3]] == ["weight", "input", "activation"]
    assert found[0] == Site("w", "weight", FORMAT, (4, 4))
    assert {site.shape for site in found[1:]} == {(3, 4)}


def toggled(bit):
    return FaultModel(lambda *_: (), lambda _, words: words ^ (1 << bit))


def test_every_site_is_struck_where_it_stands():
    bits = {name: n % 4 for n, name in enumerate(NAMES)}

    def struck(x, site, stored="activation"):
        words = FORMAT.encode(x, STEP) ^ (1 << bits[site])
        return FORMAT.decode(words, STEP)

    faults = [Fault(toggled(bits[name]), site=name) for name in NAMES]
    faulty = jax.jit(inject(network(q), *faults))
    reference = jax.jit(network(struck))
    for branch in range(3):
        found = faulty(KEY, W, X, jnp.int32(branch))
        expected = reference(W, X, jnp.int32(branch))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def product(w, x, _):
    return q(x @ q(w, "w", "weight"), "out")


@pytest.mark.parametrize("fun, model", [(network(q), SCRAMBLE), (product, FLIPS)])
def test_eager_jit_vmap_map_and_loop_agree(fun, model):
    def faulty(key):
        return inject(fun, Fault(model))(key, W, X, jnp.int32(1))

    keys, compiled = jax.random.split(KEY, 3), jax.jit(faulty)
    loop = [compiled(key) for key in keys]
    jax.tree.map(np.testing.assert_array_equal, faulty(keys[2]), loop[2])
    loop = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    mapped = jax.jit(lambda keys: jax.lax.map(faulty, keys))(keys)
    for found in (jax.jit(jax.vmap(faulty))(keys), mapped):
        jax.tree.map(np.testing.assert_array_equal, found, loop)
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(loop))


@pytest.mark.parametrize(
    "format",
    [FORMAT, FixedPoint(bits=5, code="sign_magnitude"), Logarithmic(bits=6, base=1.2)]
    + [IEEE(name="float16"), IEEE()],
)
def test_rate_zero_is_the_identity_bit_for_bit(format):
    def fun(x):
        return quantize(x, jnp.float32(0.3), format)

    x = jnp.asarray(RNG.normal(0, 2, 500), jnp.float32)
    for model in (bit_flips(0.0), bit_flips(jnp.float32(0), max_rate=0.1), chain()):
        found = inject(fun, Fault(model))(KEY, x)
        np.testing.assert_array_equal(
            np.asarray(found).view(np.uint32), np.asarray(fun(x)).view(np.uint32)
        )


@pytest.mark.parametrize(
    "format",
    [FixedPoint(bits=4), FixedPoint(bits=12, code="unsigned")]
    + [Logarithmic(bits=8, base=1.1), IEEE(name="float16"), IEEE(name="bfloat16")],
)
def test_what_is_read_is_the_faulted_word(format):
    scale = jnp.full((1, 10), 0.3, jnp.float32)
    x = jnp.asarray(RNG.normal(0, 1, (50, 10)), jnp.float32)
    found = inject(lambda x: quantize(x, scale, format), Fault(SCRAMBLE))(KEY, x)
    mask = SCRAMBLE.sample(jax.random.fold_in(KEY, 0), x.shape, format)
    mask &= 2**format.bits - 1
    expected = format.decode(SCRAMBLE.apply(mask, format.encode(x, scale)), scale)
    np.testing.assert_array_equal(found, expected)


def one_flip(index, bit):
    return FaultModel(
        sample=lambda key, shape, format: None,
        apply=lambda _, words: words.at[index].set(words[index] ^ (1 << bit)),
    )


@pytest.mark.parametrize("bit, change", [(0, STEP), (3, 8 * STEP), (7, -128 * STEP)])
def test_one_flip_in_a_linear_layer_changes_the_output_by_x_dw(bit, change):
    def linear(w, x):
        return x @ q(w, "kernel", "weight")

    w = W.at[1, 2].set(0)
    fault = Fault(one_flip((1, 2), bit), stored=("weight",))
    difference = inject(linear, fault)(KEY, w, X) - linear(w, X)
    np.testing.assert_array_equal(difference[:, 2], X[:, 1] * change)
    np.testing.assert_array_equal(jnp.delete(difference, 2, 1), 0)


def test_flips_in_a_million_words_are_binomial():
    faulty = jax.jit(inject(lambda x: q(x, ""), Fault(bit_flips(0.002))))
    words = FORMAT.encode(faulty(KEY, jnp.zeros(1_000_000)), STEP)
    flips = int(np.bitwise_count(words).sum())
    assert stats.binomtest(flips, 8_000_000, 0.002).pvalue > 1e-4


def test_rates_share_one_program_and_nest():
    traces = []

    @jax.jit
    def faulty(rate):
        traces.append(rate)
        flips = Fault(bit_flips(rate, max_rate=0.1))
        return inject(lambda x: q(x, ""), flips)(KEY, jnp.zeros(2000))

    words = [FORMAT.encode(faulty(jnp.float32(r)), STEP) for r in (0, 0.01, 0.05, 0.1)]
    assert len(traces) == 1 and not words[0].any()
    for fewer, more in zip(words, words[1:], strict=False):
        assert not (fewer & ~more).any() and (fewer != more).any()


def replayed(model, x, key, number):
    fault = model.sample(jax.random.fold_in(key, number), x.shape, FORMAT)
    return FORMAT.decode(model.apply(fault, FORMAT.encode(x, STEP)), STEP)


def test_sites_and_iterations_draw_from_keys_that_can_be_replayed():
    def fun(x):
        first = q(x, "first")
        stacked = jax.lax.map(lambda row: q(row, "row") + q(row, "again"), x)
        return first, stacked, q(x, "last")

    first, stacked, last = inject(fun, Fault(SCRAMBLE))(KEY, X)
    np.testing.assert_array_equal(first, replayed(SCRAMBLE, X, KEY, 0))
    np.testing.assert_array_equal(last, replayed(SCRAMBLE, X, KEY, 3))
    for i, row in enumerate(X):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), i)
        expected = replayed(SCRAMBLE, row, key, 1) + replayed(SCRAMBLE, row, key, 2)
        np.testing.assert_array_equal(stacked[i], expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_iterations_get_different_faults(reverse):
    def scan(x):
        def step(carry, _):
            return carry, q(carry, "site")

        return jax.lax.scan(step, x, None, length=5, reverse=reverse)[1]

    def loop(x):
        def body(state):
            i, rows = state
            return i + 1, rows.at[i].set(q(x, "site"))

        return jax.lax.while_loop(lambda s: s[0] < 5, body, (0, jnp.stack([x] * 5)))[1]

    for fun in (scan, loop):
        rows = inject(fun, Fault(SCRAMBLE))(KEY, jnp.zeros(20))
        assert len({row.tobytes() for row in np.asarray(rows)}) == 5


def test_calls_are_transparent():
    def fun(w, x):
        return q(q(x, "x") @ q(w, "w"), "y")

    expected = inject(fun, Fault(SCRAMBLE))(KEY, W, X)
    for wrapped in (jax.jit(fun), jax.checkpoint(fun), jax.jit(jax.checkpoint(fun))):
        np.testing.assert_array_equal(
            inject(wrapped, Fault(SCRAMBLE))(KEY, W, X), expected
        )


def test_only_selected_words_are_struck():
    def fun(w, x):
        return q(w, "block/kernel", "weight"), q(x, "block/out"), q(x, "image", "input")

    def changed(**selection):
        found = inject(fun, Fault(toggled(5), **selection))(KEY, W, X)
        pairs = zip(found, fun(W, X), strict=True)
        return [bool((a != b).any()) for a, b in pairs]

    assert changed() == [True, True, True]
    assert changed(stored=("weight",)) == [True, False, False]
    assert changed(stored=("activation", "input")) == [False, True, True]
    assert changed(site="block/*") == [True, True, False]
    assert changed(stored=("activation",), site="block/*") == [False, True, False]


def test_faults_at_one_site_are_chained_and_others_do_not_interfere():
    def fun(w, x):
        return q(w, "w", "weight"), q(x, "x")

    everywhere, there = Fault(SCRAMBLE), Fault(toggled(3), site="x")
    alone = inject(fun, everywhere)(KEY, W, X)
    both = inject(fun, everywhere, there)(KEY, W, X)
    np.testing.assert_array_equal(both[0], alone[0])
    expected = replayed(chain(SCRAMBLE, toggled(3)), X, KEY, 1)
    np.testing.assert_array_equal(both[1], expected)


def test_injections_can_be_nested():
    def fun(x):
        return q(x, "x")

    inner = inject(fun, Fault(SCRAMBLE))
    assert sites(inner, KEY, X) == sites(fun, X)
    other = jax.random.key(1)
    found = inject(inner, Fault(SCRAMBLE))(other, KEY, X)
    np.testing.assert_array_equal(found, replayed(SCRAMBLE, inner(KEY, X), other, 0))


def test_arguments_that_are_no_arrays_reach_the_function_as_they_are():
    def fun(x, flag, *, name, offset=0):
        return (q(x, name) if flag else x) + offset

    faulty = inject(fun, Fault(bit_flips(0.0)))
    np.testing.assert_array_equal(faulty(KEY, np.asarray(X), True, name="a"), X)
    assert sites(fun, X, True, name="b", offset=1)[0].name == "b"
    with pytest.raises(ValueError, match="sites are: none"):
        faulty(KEY, X, False, name="a")


@pytest.mark.parametrize(
    "fault, message",
    [
        (Fault(FLIPS, site="conv*"), r"site='conv\*'.*'a' \(weight\), 'b' \(input\)"),
        (Fault(FLIPS, stored=("bias",)), r"stored=\('bias',\)"),
        (Fault(FLIPS, stored=("weights",)), r"\('weight', 'bias'"),
        (Fault(FLIPS, stored="weight"), "expected None or a tuple"),
        (FLIPS, "Fault\\(model\\)"),
    ],
)
def test_faults_that_cannot_strike_are_refused(fault, message):
    def fun(x):
        return q(x, "a", "weight") + q(x, "b", "input")

    # Without the annotations, which are checked in tests only.
    unchecked = inspect.unwrap(inject)
    with pytest.raises(ValueError, match=message):
        unchecked(fun, fault)(KEY, X)


def test_sites_that_cannot_be_rebuilt_are_refused():
    def solve(matvec, b):
        return q(b, "inside")

    def fun(x):
        return jax.lax.custom_linear_solve(lambda v: v, x, solve)

    assert [site.name for site in sites(fun, X)] == ["inside"]
    with pytest.raises(ValueError, match="custom_linear_solve"):
        inject(fun, Fault(FLIPS))(KEY, X)


def test_derivatives_are_straight_through_at_the_faulted_values():
    def fun(scale, x):
        return (quantize(x, scale, FORMAT) ** 2).sum()

    def value(scale, x):
        return quantize(x, scale, FORMAT)

    scale, x = jnp.float32(STEP), 20 * X + 0.01  # some saturate
    model = bit_flips(0.2)
    faulted = replayed(model, x, KEY, 0)
    _, pull = jax.vjp(value, scale, x)
    expected = pull(2 * faulted)
    for transform in (lambda f: f, jax.jit):
        gradient = jax.grad(inject(fun, Fault(model)), (1, 2))
        found = transform(gradient)(KEY, scale, x)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        np.testing.assert_array_equal(found[1], expected[1])


def test_custom_derivatives_are_kept():
    def gradient(fun):
        return jax.grad(lambda x: inject(fun, Fault(SCRAMBLE))(KEY, x).sum())(X)

    @jax.custom_jvp
    def doubled(x):
        return 2 * q(x, "")

    @jax.custom_vjp
    def tripled(x):
        return 3 * q(x, "")

    doubled.defjvp(lambda primals, tangents: (doubled(*primals), 5 * tangents[0]))
    tripled.defvjp(lambda x: (tripled(x), None), lambda _, pulled: (7 * pulled,))
    np.testing.assert_array_equal(gradient(doubled), jnp.full_like(X, 5))
    np.testing.assert_array_equal(gradient(tripled), jnp.full_like(X, 7))
    faulty = functools.partial(inject(doubled, Fault(toggled(4))), KEY)
    value, tangent = jax.jvp(faulty, [X], [X])
    np.testing.assert_array_equal(tangent, 5 * X)
    np.testing.assert_array_equal(value, 2 * replayed(toggled(4), X, KEY, 0))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_gradients_through_loops_equal_those_of_the_unrolled_function(wrap):
    half = jnp.float32(0.5)

    def body(c, w):
        return q(c @ w * half, "site")

    def scan(ws, x):
        return jax.lax.scan(lambda c, w: (wrap(body)(c, w), None), x, ws)[0]

    def unrolled(ws, x):
        for i, w in enumerate(ws):
            key = jax.random.fold_in(jax.random.fold_in(KEY, 0), i)
            clean = body(x, w)
            faulted = replayed(SCRAMBLE, x @ w * half, key, 0)
            x = clean + jax.lax.stop_gradient(faulted - clean)
        return x

    ws = jnp.stack([W, W + 1, -W])
    found = jax.grad(lambda ws: inject(scan, Fault(SCRAMBLE))(KEY, ws, X).sum())(ws)
    expected = jax.grad(lambda ws: unrolled(ws, X).sum())(ws)
    np.testing.assert_allclose(found, expected, rtol=1e-6)

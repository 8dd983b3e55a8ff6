"""Models of every kind become functions of memory words, and stay what they were."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxnas.faults import Fault, FaultModel, inject, sites
from jaxnas.numerics import (
    IEEE,
    FixedPoint,
    Logarithmic,
    Rule,
    absmax_scale,
    quantize,
    quantize_model,
)
from jaxnas.tracing import trace_topology

KEY = jax.random.key(0)
INT8 = FixedPoint(bits=8)
RULE = Rule(weight=INT8, activation=INT8)
FLOATS = Rule(weight=IEEE(), activation=IEEE())
RNG = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RNG.normal(0, 0.5, shape), jnp.float32)


X = array(2, 4)


def names(fun, *args):
    return [site.name for site in sites(fun, *args)]


def assert_same_bits(found, expected):
    def check(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

    jax.tree.map(check, found, expected)


def read(x, axis=None):
    scale = absmax_scale(jax.lax.stop_gradient(x), INT8, axis)
    return quantize(x, scale, INT8)


def clip(x):
    return jnp.clip(x, -1, 1)


def network(dot):
    """A function with a product in everything that holds jaxprs."""

    @jax.custom_jvp
    def doubled(w, x):
        return 2 * dot(x, w)

    @jax.custom_vjp
    def tripled(w, x):
        return 3 * dot(x, w)

    doubled.defjvp(lambda p, t: (doubled(*p), 5 * (t[0] + t[1] @ p[0])[:2]))
    tripled.defvjp(lambda *p: (tripled(*p), None), lambda _, t: (7 * t, t))

    def everything(w, x, branch):
        x = clip(jax.jit(dot)(x, w["jit"]))
        x = clip(tripled(w["vjp"], clip(doubled(w["jvp"], x))))
        x = jax.checkpoint(lambda w, x: clip(dot(x, w)))(w["remat"], x)
        x, sums = jax.lax.scan(
            lambda x, w: (clip(dot(x, w)), x.sum()), x, w["scan"], reverse=True
        )
        x = jax.lax.fori_loop(0, 2, lambda i, x: clip(dot(x, w["fori"]) + i), x)

        def proceed(state):
            return (state[0] < 3) & (dot(state[1], w["test"]).sum() < 30)

        def step(state):
            return state[0] + 1, clip(dot(state[1], w["while"]))

        x = jax.lax.while_loop(proceed, step, (0, x))[1]
        branches = [lambda x, name=name: dot(x, w[name]) for name in "abc"]
        return dot(clip(jax.lax.switch(branch, branches, x)), w["last"]), sums

    return everything


FLOWS = ["jit", "jvp", "vjp", "remat", "fori", "test", "while", "a", "b", "c", "last"]
WEIGHTS = {name: array(4, 4) for name in FLOWS} | {"scan": array(3, 4, 4)}
EVERYTHING = network(lambda x, w: x @ w)


def test_every_construct_reads_words_as_if_written_by_hand():
    quantized = quantize_model(EVERYTHING, RULE)
    by_hand = jax.jit(network(lambda x, w: read(x) @ read(w)))
    compiled = jax.jit(quantized)
    for branch in range(3):
        expected = by_hand(WEIGHTS, X, jnp.int32(branch))
        assert_same_bits(compiled(WEIGHTS, X, jnp.int32(branch)), expected)
    assert_same_bits(quantized(WEIGHTS, X, jnp.int32(2)), expected)
    found = names(quantized, WEIGHTS, X, jnp.int32(0))
    inputs = {f"{name}/input" for name in WEIGHTS} - {"b/input", "c/input"}
    assert sorted(found) == sorted({*WEIGHTS, *inputs})


def test_float32_words_change_no_bit_of_any_construct():
    rule = Rule(operation="*", weight=IEEE(), activation=IEEE())
    quantized = quantize_model(EVERYTHING, rule)
    assert len(names(quantized, WEIGHTS, X, jnp.int32(0))) > 24
    for transform in (lambda fun: fun, jax.jit):
        found, expected = transform(quantized), transform(EVERYTHING)
        arguments = WEIGHTS, X, jnp.int32(1)
        assert_same_bits(found(*arguments), expected(*arguments))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.relu(nn.Dense(4)(x)), None


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.BatchNorm(use_running_average=not train)(x).mean((1, 2))
        blocks = nn.scan(
            nn.remat(Block), {"params": 0}, split_rngs={"params": True}, length=2
        )
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(3)(x)


IMAGES = array(2, 4, 4, 1)


@functools.cache
def linen():
    model = Linen()
    return model, jax.jit(model.init)(KEY, IMAGES)


def test_a_linen_model_is_quantised_in_one_line():
    model, variables = linen()
    quantized = quantize_model(model.apply, RULE)
    found = sites(quantized, variables, IMAGES)
    assert [(site.name, site.stored, site.shape) for site in found] == [
        ("params/Conv_0/kernel/input", "input", (2, 4, 4, 1)),
        ("params/Conv_0/kernel", "weight", (3, 3, 1, 4)),
        ("params/blocks/Dense_0/kernel", "weight", (2, 4, 4)),
        ("params/blocks/Dense_0/kernel/input", "activation", (2, 4)),
        ("params/Dense_0/kernel/input", "activation", (2, 4)),
        ("params/Dense_0/kernel", "weight", (4, 3)),
    ]
    identity = quantize_model(model.apply, FLOATS)
    expected = jax.jit(model.apply)(variables, IMAGES)
    assert_same_bits(jax.jit(identity)(variables, IMAGES), expected)
    table = trace_topology(quantized, variables, IMAGES[:1])
    np.testing.assert_array_equal(table.weight_bits, 8)
    np.testing.assert_array_equal(table.input_bits, 8)
    assert len(table.weight_bits) == 4  # the scanned block is two layers
    loss = jax.jit(jax.grad(lambda v: (quantized(v, IMAGES) ** 2).sum()))
    gradient = loss(variables)["params"]
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert all(
        (g["kernel"] != 0).any() for g in (gradient["Conv_0"], gradient["Dense_0"])
    )
    training = quantize_model(model.apply, Rule(path="*Conv*", weight=INT8))
    _, updated = training(variables, IMAGES, True, mutable=["batch_stats"])
    assert "batch_stats" in updated


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, tokens):
        return self.embed.attend(nnx.relu(self.linear(self.embed(tokens))))


def test_an_nnx_model_is_an_argument_and_its_tied_table_one_word():
    model, tokens = Nnx(), jnp.arange(3)
    quantized = quantize_model(lambda model, tokens: model(tokens), RULE)
    graph, state = nnx.split(model)
    pure = quantize_model(lambda state, t: nnx.merge(graph, state)(t), RULE)
    found = sites(quantized, model, tokens)
    (table,) = [site for site in found if site.name.startswith("embed/embedding")][:1]
    assert [site.stored for site in found].count("weight") == 2
    assert_same_bits(quantized(model, tokens), pure(state, tokens))
    assert table.stored == "weight" and table.shape == (5, 4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    kernel: jax.Array
    name: str = dataclasses.field(metadata={"static": True})

    def __call__(self, x):
        return x @ self.kernel


def test_a_callable_pytree_has_paths_of_its_fields():
    model = [Linear(WEIGHTS["a"], "first"), Linear(WEIGHTS["b"], "second")]

    def fun(model, x):
        for layer in model:
            x = jax.nn.relu(layer(x))
        return x

    quantized = quantize_model(fun, Rule(path="1/*", weight=INT8))
    assert names(quantized, model, X) == ["1/kernel"]
    stored = Linear(read(WEIGHTS["b"]), "second")
    assert_same_bits(quantized(model, X), fun([model[0], stored], X))


def cell(w, x):
    """A recurrent network: one weight for all steps, another for all inputs."""

    def step(h, x):
        h = clip(h @ w["hidden"] + x @ w["input"])
        return h, None

    return jax.lax.scan(step, jnp.zeros((4,)), x)[0]


RECURRENT = {"hidden": array(4, 4), "input": array(4, 4)}
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)


def struck(x, number):
    scale = absmax_scale(x, INT8)
    mask = SCRAMBLE.sample(jax.random.fold_in(KEY, number), x.shape, INT8)
    return INT8.decode(SCRAMBLE.apply(mask, INT8.encode(x, scale)), scale)


def test_a_weight_that_a_loop_reads_is_one_word_for_all_its_rounds():
    quantized = quantize_model(cell, Rule(weight=INT8))
    found = names(quantized, RECURRENT, X)
    assert sorted(found) == ["hidden", "input"]
    faulty = inject(quantized, Fault(SCRAMBLE))(KEY, RECURRENT, X)
    hit = {name: struck(w, found.index(name)) for name, w in RECURRENT.items()}
    assert_same_bits(faulty, cell(hit, X))
    read_too = names(quantize_model(cell, RULE), RECURRENT, X)
    assert sorted(read_too) == ["hidden", "hidden/input", "input", "input/input"]


def test_one_fault_reaches_all_readers_of_a_word():
    def fun(w, x):
        h = x @ w["a"]
        return h @ w["b"], h.T, h.reshape(4, 2).T @ w["a"].T

    quantized = quantize_model(fun, RULE)
    found = names(quantized, WEIGHTS, X)
    assert found == ["a/input", "a", "b/input", "b"]
    faulty = inject(quantized, Fault(SCRAMBLE, site="b/input"))(KEY, WEIGHTS, X)
    h = read(X) @ read(WEIGHTS["a"])
    s = struck(h, 2)
    again = s.reshape(4, 2).T @ read(WEIGHTS["a"]).T
    assert_same_bits(faulty, (s @ read(WEIGHTS["b"]), h.T, again))


def test_layers_of_a_stack_have_scales_of_their_own_scanned_or_not():
    stack = WEIGHTS["scan"] * jnp.asarray([1, 0.1, 0.01])[:, None, None]

    def scanned(w, x):
        body = jax.checkpoint(lambda x, w: (clip(x @ w["w"].T), None))
        return jax.lax.scan(body, x, w)[0]

    def transposed(w, x):  # layers along the last axis, as flax can keep them
        return scanned(jax.tree.map(lambda w: jnp.moveaxis(w, -1, 0), w), x)

    def unrolled(w, x):
        for layer in w:
            x = clip(x @ layer["w"].T)
        return x

    for axis in (None, -1):
        rule = dataclasses.replace(RULE, weight_axis=axis)
        found = quantize_model(scanned, rule)({"w": stack}, X)
        layers = [{"w": w} for w in stack]
        expected = quantize_model(unrolled, rule)(layers, X)
        assert_same_bits(found, expected)
        found = quantize_model(transposed, rule)({"w": jnp.moveaxis(stack, 0, -1)}, X)
        assert_same_bits(found, expected)


CONVOLUTIONAL = {"conv": array(3, 3, 1, 4), "bias": array(4), "dense": array(64, 3)}


def convolutional(w, x, q=lambda x, *_: x):
    layout = ("NHWC", "HWIO", "NHWC")
    kernel = q(w["conv"], "weight", -1)
    x = jax.lax.conv_general_dilated(
        q(x, "input"), kernel, (1, 1), "SAME", dimension_numbers=layout
    )
    x = jax.nn.relu(x + q(w["bias"], "bias").reshape(1, 1, 1, 4))
    return q(x, "activation").reshape(x.shape[0], -1) @ q(w["dense"], "weight")


def test_value_and_gradient_equal_those_of_the_network_quantised_by_hand():
    rules = [
        Rule(operation="conv*", weight=INT8, activation=INT8, weight_axis=-1),
        Rule(operation="add", path="bias", weight=INT8),
        Rule(weight=INT8, activation=INT8),
    ]
    quantized = quantize_model(convolutional, rules)
    kinds = {site.name: site.stored for site in sites(quantized, CONVOLUTIONAL, IMAGES)}
    assert kinds == {
        "conv": "weight",
        "conv/input": "input",
        "bias": "bias",
        "dense": "weight",
        "dense/input": "activation",
    }

    def by_hand(w, x):
        return convolutional(w, x, lambda x, stored, axis=None: read(x, axis))

    def value_and_gradient(fun):
        def loss(w):
            return (fun(w, IMAGES) ** 2).sum()

        return jax.jit(jax.value_and_grad(loss))(CONVOLUTIONAL)

    assert_same_bits(value_and_gradient(quantized), value_and_gradient(by_hand))


def test_jit_vmap_scan_and_the_loop_agree():
    quantized = quantize_model(convolutional, RULE)
    xs = IMAGES[:, None]
    expected = jnp.stack([quantized(CONVOLUTIONAL, x) for x in xs])
    mapped = functools.partial(jax.vmap, in_axes=(None, 0))
    assert_same_bits(mapped(quantized)(CONVOLUTIONAL, xs), expected)
    scanned = jax.lax.map(functools.partial(quantized, CONVOLUTIONAL), xs)
    assert_same_bits(scanned, expected)
    within = quantize_model(mapped(convolutional), FLOATS)
    assert_same_bits(
        within(CONVOLUTIONAL, xs), mapped(convolutional)(CONVOLUTIONAL, xs)
    )


def test_half_precision_is_stored_as_it_is_read():
    def fun(w, x):
        return x @ w["a"].astype(jnp.bfloat16).T

    x = X.astype(jnp.bfloat16)
    found = quantize_model(fun, RULE)(WEIGHTS, x)
    expected = fun(
        {"a": read(WEIGHTS["a"])}, read(x.astype(jnp.float32)).astype(x.dtype)
    )
    assert_same_bits(found, expected)


def test_scales_are_given_by_name():
    scales = {"dense": 2.0**-6, "dense/input": jnp.float32(2.0**-5)}
    rule = dataclasses.replace(RULE, operation="dot")
    found = quantize_model(convolutional, rule, scales)(CONVOLUTIONAL, IMAGES)

    def q(x, stored, *_):
        format_scale = {"weight": 2.0**-6, "activation": 2.0**-5}
        given = stored in format_scale and x.shape != (3, 3, 1, 4)
        return quantize(x, format_scale[stored], INT8) if given else x

    assert_same_bits(found, convolutional(CONVOLUTIONAL, IMAGES, q))
    for wrong in ({}, scales | {"conv": 1.0}):
        with pytest.raises(ValueError, match=r"'dense', 'dense/input'"):
            quantize_model(convolutional, rule, wrong)(CONVOLUTIONAL, IMAGES)
    floats = quantize_model(convolutional, FLOATS, {})
    assert_same_bits(
        floats(CONVOLUTIONAL, IMAGES), convolutional(CONVOLUTIONAL, IMAGES)
    )


def test_mixed_formats_follow_the_first_rule_that_matches():
    logarithmic = Logarithmic(bits=4, base=2.0)
    rules = [Rule(path="dense", weight=logarithmic), Rule(path="none*"), RULE]
    with pytest.raises(ValueError, match=r"none\*.*convolution 'conv'.*dot 'dense'"):
        quantize_model(convolutional, rules)(CONVOLUTIONAL, IMAGES)
    found = sites(quantize_model(convolutional, rules[::2]), CONVOLUTIONAL, IMAGES)
    formats = {site.name: site.format for site in found}
    assert formats == {"conv": INT8, "conv/input": INT8, "dense": logarithmic}


def test_custom_derivatives_are_kept():
    @jax.custom_jvp
    def product(w, x):
        return x @ w

    product.defjvp(lambda p, t: (product(*p), 5 * t[0][:2]))
    found = quantize_model(product, RULE)
    value, tangent = jax.jvp(lambda w: found(w, X), [WEIGHTS["a"]], [WEIGHTS["b"]])
    assert_same_bits(value, read(X) @ read(WEIGHTS["a"]))
    assert_same_bits(tangent, 5 * WEIGHTS["b"][:2])

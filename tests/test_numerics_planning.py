"""Words are where they should be, by names that say so. Nothing here is computed."""

import dataclasses
import inspect
import types

import jax
import jax.numpy as jnp
import pytest

from jaxnas.faults import sites
from jaxnas.numerics import IEEE, FixedPoint, Rule, quantize, quantize_model
from jaxnas.numerics.rules import LAYERS

INT8 = FixedPoint(bits=8)
RULE = Rule(weight=INT8, activation=INT8)


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, K = spec(2, 4), spec(4, 4)


def placed(fun, *args, rules=RULE, **options):
    found = sites(quantize_model(fun, rules, **options), *args)
    return {site.name: (site.stored, site.shape) for site in found}


def shifted(w, x):
    return (x @ w["k"] + w["b"].reshape(1, 4)) @ (w["gain"] * w["k"])


def tied(w, tokens):
    return (w["table"][tokens] + 1) @ w["table"].T


def indexed(w, x):
    return jax.lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ w["stack"][i]), x)


def shared(w, x):
    return jnp.tanh(x @ w["k"]) @ w["k"]


def attention(w, x):
    scores = (x @ w["k"]) @ x.T
    return scores @ x


def joined(w, x):
    return x @ w["k"] + x


def carried(w, x):
    """A weight that a loop carries unchanged, and a state that begins as a weight."""

    def step(carry, _):
        k, h = carry
        return (k, jnp.tanh((h + x) @ k)), None

    return jax.lax.scan(step, (w["k"], w["h"]), None, length=3)[0]


def decoded(w, x):
    return jax.lax.scan(lambda h, t: (h, t @ w["k"] + h), x[:1], x[:, None])[1]


def reshaped(w, x):
    kernel = w["k"].reshape(2, 8)
    return jax.lax.fori_loop(0, 2, lambda i, x: x @ kernel.reshape(4, 4), x)


def chosen(w, x, index):
    kernels = [lambda: w["a"], lambda: w["b"]]
    return x @ jax.lax.switch(index, kernels)


TOKENS, INDEX = spec(3, dtype=jnp.int32), spec(dtype=jnp.int32)
CASES = {
    "computed weights": (
        shifted,
        ({"k": K, "b": spec(4), "gain": spec(1, 4)}, X),
        {
            "k/input": ("input", (2, 4)),
            "k": ("weight", (4, 4)),
            "gain/input": ("activation", (2, 4)),
            "gain/mul": ("weight", (4, 4)),
        },
    ),
    "an embedding": (
        tied,
        ({"table": spec(5, 4)}, TOKENS),
        {"table": ("weight", (5, 4)), "table/input": ("activation", (3, 4))},
    ),
    "an index of parameters": (
        indexed,
        ({"stack": spec(3, 4, 4)}, X),
        {"stack/input": ("activation", (2, 4)), "stack": ("weight", (3, 4, 4))},
    ),
    "a layer that is called twice": (
        shared,
        ({"k": K}, X),
        {
            "k/input": ("input", (2, 4)),
            "k": ("weight", (4, 4)),
            "k/input_1": ("activation", (2, 4)),
        },
    ),
    "products without a weight": (
        attention,
        ({"k": K}, X),
        {
            "k/input": ("input", (2, 4)),
            "k": ("weight", (4, 4)),
            "dot_0/input_0": ("activation", (2, 4)),
            "dot_1/input_0": ("activation", (2, 2)),
        },
    ),
    "a loop that carries a weight": (
        carried,
        ({"k": K, "h": X}, X),
        {"k": ("weight", (4, 4)), "k/input": ("activation", (2, 4))},
    ),
    "slices of an argument": (
        decoded,
        ({"k": K}, X),
        {"k/input": ("input", (2, 4)), "k": ("weight", (4, 4))},
    ),
    "a choice by data": (
        chosen,
        ({"a": K, "b": K}, X, INDEX),
        {"dot_0/input_0": ("input", (2, 4)), "dot_0/input_1": ("activation", (4, 4))},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_words_are_where_memory_is(case):
    fun, args, expected = CASES[case]
    assert placed(fun, *args) == expected
    assert placed(jax.jit(jax.checkpoint(fun)), *args) == expected


def test_operations_go_by_the_names_of_primitives():
    rule = Rule(operation=("add", "dot"), activation=INT8)
    expected = {"k/input": ("input", (2, 4)), "add_0/input_0": ("activation", (2, 4))}
    assert placed(joined, {"k": K}, X, rules=rule) == expected


def test_parameters_are_where_they_are_said_to_be():
    def fun(x, w, *, shift):
        return (x + shift) @ w

    quantized = quantize_model(fun, RULE, params_argnums=1)
    assert [s.name for s in sites(quantized, X, K, shift=1.0)] == ["1/input", "1"]
    both = quantize_model(lambda a, b, x: x @ a["k"] @ b, RULE, params_argnums=(0, 1))
    names = [site.name for site in sites(both, {"k": K}, K, X)]
    assert names == ["0/k/input", "0/k", "1/input", "1"]


def test_what_is_stored_already_is_not_stored_again():
    def fun(w, x):
        block = jax.checkpoint(lambda x: quantize(jnp.tanh(x), 0.1, INT8, site="own"))
        return block(x).reshape(4, 2).T @ w["k"]

    assert set(placed(fun, {"k": K}, X)) == {"own", "k"}
    once = quantize_model(attention, RULE)
    assert placed(once, {"k": K}, X) == placed(attention, {"k": K}, X)


def test_constants_are_not_stored():
    fixed = jnp.ones((4, 4))
    found = placed(lambda w, x: x @ fixed @ w["k"], {"k": K}, X)
    assert set(found) == {"dot_0/input_0", "k/input", "k"}


@pytest.mark.parametrize(
    "fun, rules, message",
    [
        (shared, [Rule(path="none")], "no operation matches .*dot 'k'"),
        (shared, [Rule(weight=INT8, weight_axis=2)], "weight_axis=2 for 'k'"),
        (
            lambda w, x: x @ w["k"] + (x - w["k"][:2]),
            [Rule(weight=INT8), Rule(operation="sub", weight=IEEE())],
            "'k' is read as .* and as",
        ),
        (
            lambda w, x: jax.lax.custom_linear_solve(
                lambda v: v @ w["k"], x, lambda matvec, b: matvec(b) @ w["k"]
            ),
            [RULE],
            "found 'dot' inside a 'custom_linear_solve'",
        ),
        (
            reshaped,
            [Rule(weight=INT8, weight_axis=-1)],
            "'?k'? is reshaped before",
        ),
    ],
)
def test_what_cannot_be_placed_is_refused(fun, rules, message):
    with pytest.raises(ValueError, match=message):
        placed(fun, {"k": K}, X, rules=rules)


def test_a_rule_takes_formats():
    # Without the annotations, which are checked in tests only.
    wrong = types.SimpleNamespace(weight="int8", activation=None)
    with pytest.raises(ValueError, match="'int8' is not a number Format"):
        inspect.unwrap(Rule.__post_init__)(wrong)
    assert RULE.operation == LAYERS and hash(RULE) == hash(dataclasses.replace(RULE))

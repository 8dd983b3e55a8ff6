"""Equations hold what they seem to hold, on every supported version of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import primitives as core

from jaxnas.jaxprs import (
    bind,
    called,
    contains,
    equations,
    interpret,
    scan_operands,
    subjaxprs,
    while_operands,
)

X = jnp.asarray([0.5, -1.0, 2.0])


@jax.custom_jvp
def with_jvp(x):
    return 2 * x


with_jvp.defjvp(lambda primals, tangents: (2 * primals[0], 5 * tangents[0]))


@jax.custom_vjp
def with_vjp(x):
    return jnp.sin(x)


with_vjp.defvjp(lambda x: (jnp.sin(x), None), lambda _, cotangent: (7 * cotangent,))

CALLS = {
    "jit": jax.jit(jnp.sin),
    "remat": jax.checkpoint(jnp.sin),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
}
FLOWS = {
    "carry only": lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * 2, x),
    "scan": lambda x: jax.lax.scan(lambda c, y: (c * y, c + x[0]), x, x)[0],
    "while": lambda x: jax.lax.while_loop(
        lambda c: c.sum() < x[2], lambda c: c + x[2] * x[0], x - 9
    ),
    "cond": lambda x: jax.lax.cond(x[0] > 0, jnp.sin, lambda y: 2 * y, x),
    "switch": lambda x: jax.lax.switch(
        x[2].astype(int), [jnp.sin, jnp.cos, jnp.negative], x
    ),
}


def last_equation(fun, *args):
    return jax.make_jaxpr(fun)(*args).jaxpr.eqns[-1]


@pytest.mark.parametrize("name", CALLS)
def test_calls_evaluate_one_jaxpr_on_their_operands(name):
    eqn = last_equation(CALLS[name], X)
    (body,) = subjaxprs(eqn)
    np.testing.assert_array_equal(
        interpret(called(eqn), [X], bind)[0], bind(eqn, [X])[0]
    )
    assert body.jaxpr.eqns


@pytest.mark.parametrize("name", FLOWS)
def test_loops_and_branches_are_no_calls(name):
    eqns = jax.make_jaxpr(FLOWS[name])(X).jaxpr.eqns
    flows = [eqn for eqn in eqns if subjaxprs(eqn) and called(eqn) is None]
    assert len(flows) == 1


def test_plain_equations_hold_nothing_and_call_nothing():
    eqn = last_equation(jnp.sin, X)
    assert subjaxprs(eqn) == () and called(eqn) is None


def test_scan_operands_are_split_into_constants_carry_and_slices():
    def fun(a, b, c, xs):
        def step(carry, x):
            return (carry[0] + a, carry[1] * b), x * b

        return jax.lax.scan(step, (c, c), xs)

    eqn = last_equation(fun, 1.0, 2.0, 3.0, X)
    assert eqn.primitive is core.scan_p and len(eqn.invars) == 5
    assert scan_operands(eqn) == (2, 2)
    eqn = last_equation(lambda xs: jax.lax.map(jnp.sin, xs), X)
    assert scan_operands(eqn) == (0, 0)


def test_while_operands_and_jaxprs_come_condition_first():
    def fun(limit, a, b, x):
        return jax.lax.while_loop(lambda c: c < limit, lambda c: c * a + b, x)

    eqn = last_equation(fun, 1.0, 2.0, 3.0, 4.0)
    assert while_operands(eqn) == (1, 2)
    condition, body = subjaxprs(eqn)
    assert condition.jaxpr.outvars[0].aval.dtype == bool
    assert body.jaxpr.outvars[0].aval.dtype == jnp.float32


def test_branches_come_in_the_order_of_the_index():
    eqn = last_equation(FLOWS["switch"], X)
    names = [branch.jaxpr.eqns[0].primitive.name for branch in subjaxprs(eqn)]
    assert names == ["sin", "cos", "neg"]


def test_equations_are_found_at_any_depth_in_program_order():
    def fun(x):
        inner = jax.checkpoint(lambda c: jax.jit(jnp.cos)(c))
        x = jax.lax.scan(lambda c, _: (inner(c), None), jnp.sin(x), None, length=2)[0]
        return jnp.tanh(x)

    closed = jax.make_jaxpr(fun)(X)
    names = [eqn.primitive.name for eqn in equations(closed)]
    found = [name for name in names if name in ("sin", "scan", "cos", "tanh")]
    assert found == ["sin", "scan", "cos", "tanh"]
    assert contains(closed, lambda eqn: eqn.primitive is core.cos_p)
    assert not contains(closed, lambda eqn: eqn.primitive is core.log_p)


@pytest.mark.parametrize("fun", [*CALLS.values(), *FLOWS.values()])
def test_interpretation_with_bind_is_evaluation(fun):
    constant = np.arange(3, dtype=np.float32)

    def whole(x):
        y = fun(x) + constant
        key = jax.random.wrap_key_data(jnp.uint32([0, 1]))
        return y + jax.random.uniform(key, y.shape), x

    closed = jax.make_jaxpr(whole)(X)

    def interpreted(x):
        return interpret(closed, [x], bind)

    for found, expected in zip(interpreted(X), whole(X), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CALLS)
def test_bound_equations_keep_their_derivatives(name):
    closed = jax.make_jaxpr(CALLS[name])(X)
    found = jax.grad(lambda x: interpret(closed, [x], bind)[0].sum())(X)
    np.testing.assert_array_equal(found, jax.grad(lambda x: CALLS[name](x).sum())(X))

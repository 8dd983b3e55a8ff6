"""Rebuilt equations compute what they did, and pass a state through every round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.jaxprs import bind, interpret, subjaxprs
from jaxnas.rewriting import (
    can_be_rebuilt,
    combine,
    entries,
    evaluated_in_place,
    partition,
    rebuild,
    replace,
    trace,
)

X = jnp.asarray([0.5, -1.0, 2.0])


def counted(closed, inputs, state):
    """Evaluation that counts the sines on its way, with everything rebuilt."""

    def visit(eqn, operands):
        nonlocal state
        bodies = subjaxprs(eqn)

        def evaluate(number, inputs, iteration, state):
            return counted(bodies[number], inputs, state)

        if bodies:
            results, state = rebuild(eqn, operands, evaluate, state)
            return results
        state = state + (eqn.primitive.name == "sin")
        return bind(eqn, operands)

    return interpret(closed, inputs, visit), state


@jax.custom_jvp
def with_jvp(x):
    return jnp.sin(x)


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), 5 * tangents[0]))

FUNCTIONS = {
    "jit": (jax.jit(jnp.sin), 1),
    "remat": (jax.checkpoint(jnp.sin), 1),
    "custom_jvp": (with_jvp, 1),
    "scan": (lambda x: jax.lax.scan(lambda c, y: (c, jnp.sin(y) * c), x[0], x)[1], 3),
    "fori": (lambda x: jax.lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) + x, x), 4),
    "cond": (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), 1),
    "other branch": (lambda x: jax.lax.cond(x[0] < 0, jnp.sin, jnp.cos, x), 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_stay_and_the_state_sees_every_round(name):
    fun, count = FUNCTIONS[name]
    call = trace(fun, (X,), {})
    results, state = jax.jit(lambda x: counted(call.closed, [x], 0))(X)
    np.testing.assert_array_equal(call.structure.unflatten(results), jax.jit(fun)(X))
    assert state == count


def test_a_while_passes_on_all_tests_but_the_last():
    def fun(n):
        return jax.lax.while_loop(lambda c: jnp.sin(c) * 0 + c < 3, lambda c: c + 1, n)

    call = trace(fun, (jnp.float32(0),), {})
    results, state = counted(call.closed, [jnp.float32(0)], 0)
    assert results == [3] and state == 3


def test_custom_derivatives_are_those_at_the_given_operands():
    call = trace(with_jvp, (X,), {})
    derivative = jax.grad(lambda x: counted(call.closed, [x], 0)[0][0].sum())(X)
    np.testing.assert_array_equal(derivative, jnp.full_like(X, 5))
    value, tangent = jax.jvp(
        lambda x: replace(lambda xs: [3 * xs[0]], [x], [jnp.zeros_like(x)])[0], [X], [X]
    )
    assert not value.any()
    np.testing.assert_array_equal(tangent, 3 * X)


def test_inputs_of_inner_jaxprs_are_told_by_their_roles():
    def equation(fun, *args):
        return jax.make_jaxpr(fun)(*args).jaxpr.eqns[-1]

    def loop(a, b, c):
        return jax.lax.while_loop(lambda x: x < a, lambda x: x * b, c)

    def scan(a, c, xs):
        return jax.lax.scan(lambda c, x: (c + a, x), c, xs)

    def cond(index, x):
        return jax.lax.switch(index, [jnp.sin, jnp.cos], x)

    assert entries(equation(loop, 1.0, 2.0, 3.0)) == [
        [(0, "constant"), (2, "carry")],
        [(1, "constant"), (2, "carry")],
    ]
    assert entries(equation(scan, 1.0, 2.0, X)) == [
        [(0, "constant"), (1, "carry"), (2, "slice")]
    ]
    assert entries(equation(cond, 0, X)) == [[(1, "constant")]] * 2
    call = equation(jax.jit(jnp.sin), X)
    assert entries(call) == [[(0, "constant")]]
    assert evaluated_in_place(call)
    assert not evaluated_in_place(equation(jax.checkpoint(jnp.sin), X))


def test_what_cannot_be_rebuilt_is_refused():
    def solve(x):
        return jax.lax.custom_linear_solve(lambda v: v, x, lambda _, b: jnp.sin(b))

    (eqn,) = jax.make_jaxpr(solve)(X).jaxpr.eqns
    assert not can_be_rebuilt(eqn)
    with pytest.raises(ValueError, match="custom_linear_solve"):
        rebuild(eqn, [X], lambda number, inputs, iteration, state: ([], state))


def test_arrays_are_parted_from_the_rest_of_a_call():
    tree = {"x": X, "flag": True, "shape": jax.ShapeDtypeStruct((2,), jnp.float32)}
    arrays, static = partition(tree)
    assert len(arrays) == 2 and hash(static) == hash(partition(tree)[1])
    assert combine(arrays, static) == tree
    call = trace(lambda x, flag, *, name: x if flag else name, (X, True), {"name": "n"})
    assert len(call.arrays) == len(call.paths) == 1
    assert [part.idx for part in call.paths[0]] == [0, 0]

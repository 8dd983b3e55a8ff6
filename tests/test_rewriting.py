"""Rebuilt equations compute what they did, and pass a state through every round."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.jaxprs import bind, interpret, is_shard_map, subjaxprs
from jaxnas.rewriting import (
    can_be_rebuilt,
    combine,
    entries,
    evaluated_in_place,
    on_shards,
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


MESH = jax.sharding.Mesh(np.asarray(jax.devices()), ("d",))
ROWS, WHOLE = jax.sharding.PartitionSpec("d"), jax.sharding.PartitionSpec()


def rebuilt(fun, *args):
    """The results of a function with everything in it rebuilt."""

    def run(closed, inputs):
        def visit(eqn, operands):
            bodies = subjaxprs(eqn)
            if not bodies:
                return bind(eqn, operands)

            def evaluate(number, inputs, iteration, state):
                return run(bodies[number], inputs), state

            return rebuild(eqn, operands, evaluate)[0]

        return interpret(closed, inputs, visit)

    call = trace(fun, args, {})
    return call.structure.unflatten(run(call.closed, call.arrays))


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_shard_map_stays_one_with_its_derivative(check_vma):
    def shards(w, x):
        y = jax.jit(jnp.sin)(x * w) + jax.lax.axis_index("d")
        return y, jax.lax.psum(y.sum(), "d")

    def fun(w, x):
        options = {"in_specs": (WHOLE, ROWS), "out_specs": (ROWS, WHOLE)}
        return jax.shard_map(shards, mesh=MESH, check_vma=check_vma, **options)(w, x)

    def slopes(fun):
        return jax.grad(lambda w, x: (fun(w, x)[0] * 2).sum() + fun(w, x)[1], (0, 1))

    args = jnp.float32(3), jnp.arange(4.0 * MESH.size)
    again = functools.partial(rebuilt, fun)
    for mine, expected in [
        (jax.jit(again)(*args), jax.jit(fun)(*args)),
        (jax.jit(slopes(again))(*args), jax.jit(slopes(fun))(*args)),
    ]:
        jax.tree.map(np.testing.assert_array_equal, mine, expected)
    (eqn,) = jax.make_jaxpr(again)(*args).jaxpr.eqns
    assert is_shard_map(eqn) and not evaluated_in_place(eqn)
    assert entries(eqn) == [[(0, "shard"), (1, "shard")]]


def test_a_shard_map_of_replicated_arrays_is_no_call():
    """Its jaxpr has the types of the equation, and names that only it binds."""

    def fun(x):
        total = lambda x: jax.lax.psum(x, "d")  # noqa: E731
        return jax.shard_map(total, mesh=MESH, in_specs=WHOLE, out_specs=WHOLE)(x)

    np.testing.assert_array_equal(rebuilt(fun, X), MESH.size * X)


def test_a_state_does_not_leave_a_shard_map():
    fun = jax.shard_map(jnp.sin, mesh=MESH, in_specs=WHOLE, out_specs=WHOLE)
    call = trace(fun, (X,), {})
    with pytest.raises(ValueError, match="outside of shard_map"):
        counted(call.closed, [X], 0)


def samples(key):
    """Loops and branches that start from constants and go on with the key."""
    bits = jax.random.bits(key, (4,))
    total, sums = jax.lax.scan(lambda c, b: (c + b, c), jnp.uint32(0), bits)
    drawn = jax.random.binomial(key, 1000.0, 0.3)
    even = jax.lax.cond(
        bits[0] % 2 == 0, lambda k: jax.random.bits(k), lambda _: jnp.uint32(7), key
    )
    start = (jnp.uint32(0), jnp.int32(0))
    spun = jax.lax.while_loop(
        lambda s: s[1] < 3, lambda s: (s[0] + bits[0], s[1] + 1), start
    )
    return total, sums, drawn, even, spun, jnp.uint32(3)


def test_functions_that_know_no_mesh_run_on_shards():
    def shards(number):
        key = jax.random.fold_in(jax.random.key(0), number[0])
        return jax.tree.map(lambda x: x[None], on_shards(samples, key))

    numbers = jnp.arange(MESH.size)
    run = jax.shard_map(shards, mesh=MESH, in_specs=ROWS, out_specs=ROWS)
    found = jax.jit(run)(numbers)
    for n in numbers:
        expected = jax.jit(samples)(jax.random.fold_in(jax.random.key(0), n))
        mine = jax.tree.map(lambda x, n=n: x[n], found)
        jax.tree.map(np.testing.assert_array_equal, mine, expected)


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

"""A recomputing switch is `lax.switch` in value and in reverse-mode derivative."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.switches import recomputed_switch

pytestmark = pytest.mark.usefixtures("compiled_fully")


def power(state, shift, parts):
    """Reads its integer operand, nests its results, is nonlinear in every float."""
    product = jnp.sin(state) * parts["gain"] ** 2
    return {"y": product + shift, "pair": (parts["gain"] * 3, jnp.sum(product))}


def mixed(state, shift, parts):
    y = jnp.where(jnp.arange(3) < shift, state * parts["gain"], state**3)
    return {"y": y, "pair": (jnp.exp(-parts["gain"]), jnp.max(state))}


def constant(state, shift, parts):
    return {"y": jnp.full(3, 2.0), "pair": (state * 0.5, jnp.float32(1.0) * shift)}


BRANCHES = (power, mixed, constant)
STATE = jnp.array([0.3, -1.2, 2.0])
PARTS = {"gain": jnp.array([0.7, 1.5, -0.4])}


def loss(switch):
    """A scalar that weighs every result differently, as a function of all operands."""

    def value(state, parts, index, shift=2):
        out = switch(index, BRANCHES, state, jnp.int32(shift), parts)
        first, second = out["pair"]
        weights = jnp.array([1.0, -2.0, 0.5])
        return jnp.sum(weights * out["y"] ** 2) + jnp.sum(first**2) + 3 * second

    return value


def assert_trees_close(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 7])
def test_values_are_those_of_the_clamped_branch(index):
    operands = STATE, jnp.int32(2), PARTS
    found = recomputed_switch(jnp.int32(index), BRANCHES, *operands)
    assert_trees_close(found, BRANCHES[min(max(index, 0), 2)](*operands))


def test_gradients_are_those_of_lax_switch():
    expected, found = (
        jax.jit(jax.grad(loss(switch), argnums=(0, 1)))
        for switch in (lax.switch, recomputed_switch)
    )
    results = [expected(STATE, PARTS, index) for index in range(3)]
    for index, result in enumerate(results):
        assert_trees_close(found(STATE, PARTS, index), result)
    eager = jax.grad(loss(recomputed_switch), argnums=(0, 1))
    assert_trees_close(eager(STATE, PARTS, jnp.int32(1)), results[1])
    # The branches differ, so that the gradient of a wrong one would not pass.
    for one, other in itertools.combinations(results, 2):
        assert np.abs(np.asarray(one[0] - other[0])).max() > 1e-2


def test_a_python_index_picks_its_branch_at_once():
    def never(*operands):
        raise AssertionError("a branch that was not chosen ran")

    branches = [never, power, never]
    operands = STATE, jnp.int32(2), PARTS
    jaxpr = jax.make_jaxpr(lambda *o: recomputed_switch(1, branches, *o))(*operands)
    assert "cond" not in str(jaxpr)
    assert_trees_close(recomputed_switch(1, branches, *operands), power(*operands))
    fixed = jax.grad(loss(recomputed_switch))(STATE, PARTS, 1)
    assert_trees_close(fixed, jax.grad(loss(lax.switch))(STATE, PARTS, jnp.int32(1)))


def walk(switch):
    """A scan whose step switches, with a second switch nested in two branches."""

    def inner(choice, x):
        return switch(choice, [jnp.tanh, lambda x: x * jnp.sum(x)], x)

    def add(x, weight, choice):
        return x + weight * inner(choice, x)

    def scale(x, weight, choice):
        return inner(1 - choice, x * weight) - x

    def skip(x, weight, choice):
        return x

    def value(x, weights, choices):
        def step(x, slot):
            weight, index, choice = slot
            x = switch(index, [add, scale, skip], x, weight, choice)
            return x, jnp.sum(x)

        x, sums = lax.scan(step, x, (weights, *choices))
        return jnp.sum(x**2) + jnp.sum(jnp.cos(sums))

    return value


WEIGHTS = jnp.array([[0.5, -1.0, 0.3], [1.1, 0.2, -0.7], [0.4, 0.6, 0.8], [2.0, 1, 1]])
CHOICES = jnp.array([0, 1, 2, 0]), jnp.array([1, 0, 1, 0])


def test_nested_switches_in_a_scan():
    x = jnp.array([0.2, -0.5, 0.9])
    expected = jax.value_and_grad(walk(lax.switch), argnums=(0, 1))
    found = jax.value_and_grad(walk(recomputed_switch), argnums=(0, 1))
    for choices in (CHOICES, CHOICES[::-1]):
        reference = expected(x, WEIGHTS, choices)
        assert_trees_close(jax.jit(found)(x, WEIGHTS, choices), reference)


def test_gradients_inside_lax_map_and_vmap():
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    indices = jnp.array([2, 0, 1, 1, 0])
    gradient = jax.grad(loss(recomputed_switch))
    plain = jax.jit(jax.grad(loss(lax.switch)))
    pairs = zip(states, indices, strict=True)
    expected = jnp.stack([plain(state, PARTS, index) for state, index in pairs])
    mapped = lax.map(lambda pair: gradient(pair[0], PARTS, pair[1]), (states, indices))
    assert_trees_close(mapped, expected)
    batched = jax.vmap(lambda state, index: gradient(state, PARTS, index))
    assert_trees_close(batched(states, indices), expected)


def test_backward_pass_keeps_only_the_operands():
    """The branch makes large intermediates; none of them is saved for its backward."""

    def wide(x):
        return jnp.sum(jnp.sin(jnp.tile(x, (100, 1)) ** 2), axis=0)

    def saved(switch):
        branches = [wide, lambda x: x * x]
        _, pull = jax.vjp(lambda x: switch(jnp.int32(0), branches, x), STATE)
        return max(leaf.size for leaf in jax.tree.leaves(pull))

    assert saved(lax.switch) >= 100 * STATE.size
    assert saved(recomputed_switch) <= STATE.size


def test_integer_operands_only_read():
    """Integers and booleans pass through; a float of zero gradient gets zeros."""

    def pick(x, unused, index, flag):
        return jnp.where(flag, x[index], 2 * x[index])

    def value(x, unused):
        branches = [pick, lambda x, unused, index, flag: -x[index]]
        operands = x, unused, jnp.int32(1), jnp.bool_(False)
        return recomputed_switch(jnp.int32(0), branches, *operands)

    gradient = jax.grad(value, argnums=(0, 1))(STATE, jnp.ones((2, 2)))
    np.testing.assert_array_equal(gradient[0], [0, 2, 0])
    np.testing.assert_array_equal(gradient[1], np.zeros((2, 2)))

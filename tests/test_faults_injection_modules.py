"""Injection into modules of flax and equinox: they are functions like others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxnas.faults import (
    Fault,
    FaultModel,
    corrupt,
    fixed_flips,
    inject,
    network_flips,
    sites,
)
from jaxnas.numerics import IEEE, FixedPoint, Rule, quantize, quantize_model
from jaxnas.rewriting import combine, partition
from jaxnas.trees import leaf_paths

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).integers(-16, 16, (3, 4)) / 16, jnp.float32)
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)


def q(x, site, stored="activation"):
    return quantize(x, 2.0**-4, FixedPoint(bits=8), stored=stored, site=site)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        kernel = self.param("kernel", nn.initializers.normal(0.5), (4, 4))
        return q(nn.relu(x @ q(kernel, "kernel", "weight")), "block"), None


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        scanned = nn.scan(
            nn.remat(Block), {"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scanned()(x, None)
        return q(nn.Dense(2)(x), "logits") if train else x


class Nnx(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        kernel = q(self.linear.kernel[...], "kernel", "weight")
        return q(nnx.relu(x @ kernel), "out")


def test_linen_modules_are_functions():
    model = Linen()
    variables = model.init(KEY, X, True)
    names = [site.name for site in sites(model.apply, variables, X, True)]
    assert names == ["kernel", "block", "logits"]
    faulty = inject(model.apply, Fault(SCRAMBLE))
    eager = faulty(KEY, variables, X, True)
    compiled = jax.jit(faulty, static_argnums=3)(KEY, variables, X, True)
    np.testing.assert_array_equal(eager, compiled)
    assert (eager != model.apply(variables, X, True)).any()
    gradient = jax.grad(lambda v: faulty(KEY, v, X, True).sum())(variables)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_nnx_modules_are_arguments():
    model = Nnx()
    faulty = inject(lambda model, x: model(x), Fault(SCRAMBLE))
    found = faulty(KEY, model, X)
    graph, state = nnx.split(model)

    def pure(state, x):
        return nnx.merge(graph, state)(x)

    again = jax.jit(inject(pure, Fault(SCRAMBLE)))(KEY, state, X)
    np.testing.assert_array_equal(found, again)
    assert (found != model(X)).any()


class ScannedDense(nn.Module):
    """A model without a site: three layers from one stack, rematerialised."""

    @nn.compact
    def __call__(self, x):
        layer = nn.scan(
            nn.remat(Layer), {"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = layer(name="layers")(x, None)
        return nn.Dense(2, name="head")(x)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(4, name="dense")(x)), None


def linen():
    model = ScannedDense()
    return model.apply, model.init(KEY, X), "params/layers/dense/kernel"


def from_nnx():
    class Model(nnx.Module):
        def __init__(self):
            self.first = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.second = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.second(nnx.tanh(self.first(x)))

    graph, state = nnx.split(Model())
    return lambda state, x: nnx.merge(graph, state)(x), state, "first/kernel/value"


def from_equinox():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(4, 2, 4, 2, activation=jnp.tanh, key=KEY)
    return lambda model, x: jax.vmap(model)(x), model, "layers/0/weight"


def plain():
    def fun(params, x):
        def layer(x, w):
            return jax.checkpoint(lambda x: jnp.tanh(x @ w))(x), None

        return jax.lax.scan(layer, x, params["stack"])[0]

    return fun, {"stack": jax.random.normal(KEY, (3, 4, 4))}, "stack"


FRAMEWORKS = [linen, from_nnx, from_equinox, plain]
FLOATS = Rule(weight=IEEE(), activation=IEEE())
BYTES = Rule(weight=FixedPoint(bits=8), activation=FixedPoint(bits=8))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fault_in_a_parameter_is_that_of_the_tree(framework):
    """In one line words in any model; struck there, or in the pytree: the same."""
    fun, params, path = framework()
    stored = quantize_model(fun, FLOATS)
    assert path in [site.name for site in sites(stored, params, X)]
    fault = fixed_flips(2)

    arrays, rest = partition(params)
    number = [site.name for site in sites(stored, params, X)].index(path)

    @jax.jit
    def struck(key, arrays):
        return inject(stored, Fault(fault, site=path))(key, combine(arrays, rest), X)

    @jax.jit
    def by_hand(key, arrays):
        own = jax.random.fold_in(key, number)
        return fun(_with_faults(combine(arrays, rest), path, fault, own), X)

    found, expected = struck(KEY, arrays), by_hand(KEY, arrays)
    np.testing.assert_array_equal(found, expected)
    assert (found != fun(params, X)).any()


def _with_faults(params, path, model, key):
    leaves, structure = jax.tree.flatten(params)
    n = leaf_paths(params).index(path)
    leaf = leaves[n]
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    words = model.apply(model.sample(key, leaf.shape, IEEE()), words)
    leaves[n] = jax.lax.bitcast_convert_type(words, jnp.float32)
    return structure.unflatten(leaves)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_faulty_models_can_be_batched_and_differentiated(framework):
    fun, params, _ = framework()
    faulty = inject(quantize_model(fun, BYTES), Fault(SCRAMBLE, ("weight",)))
    arrays, rest = partition(params)

    def loss(arrays, key):
        return (faulty(key, combine(arrays, rest), X) ** 2).sum()

    step = jax.jit(jax.value_and_grad(loss))
    keys = jax.random.split(KEY, 2)
    batched = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(arrays, keys)
    each = [step(arrays, key) for key in keys]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        batched,
        expected,
    )
    assert expected[0][0] != expected[0][1]
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(expected[1]))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trees_of_any_framework_are_corrupted_and_still_run(framework):
    fun, params, path = framework()
    found = corrupt(KEY, params, network_flips(3), site=path)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    before, after = partition(params)[0], partition(found)[0]
    flips = [
        np.bitwise_count(np.asarray(a).view(np.uint32) ^ np.asarray(b).view(np.uint32))
        for a, b in zip(before, after, strict=True)
        if a.dtype == jnp.float32
    ]
    assert sum(int(each.sum()) for each in flips) == 3
    assert fun(found, X).shape == fun(params, X).shape

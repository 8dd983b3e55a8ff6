"""Injection into modules of both flax APIs: they are functions like others."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from jaxnas.faults.injection import inject, sites
from jaxnas.faults.models import Fault, FaultModel
from jaxnas.numerics import FixedPoint, quantize

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

"""What an expensive objective will be, guessed from those already measured.

An ensemble of small neural networks, each trained on its own Bayesian bootstrap (Rubin,
"The Bayesian bootstrap", 1981) of everything measured; where its members disagree, not
enough is known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxnas.types import Key

MEMBERS, HIDDEN, STEPS, RATE, DECAY = 5, 32, 400, 1e-2, 1e-3
BLOCK = 64
"""Rows whose gradients are computed together."""


class Ensemble(NamedTuple):
    """Two layers per member, `[members]` leading, and the scales of what they see."""

    first: Float[Array, "members features hidden"]
    bias: Float[Array, "members hidden"]
    second: Float[Array, "members hidden targets"]
    feature_scales: Float[Array, "2 features"]
    target_scales: Float[Array, "2 targets"]


@jax.jit
def fit_ensemble(
    key: Key,
    features: Float[Array, "rows features"],
    targets: Float[Array, "rows targets"],
    mask: Bool[Array, " rows"],
) -> Ensemble:
    """An ensemble that predicts targets from features, of the rows in the mask.

    Time grows with the last row in the mask, not with all rows.
    """
    targets = jnp.where(mask[:, None], targets, 0.0)
    scales = _scales(features, mask), _scales(targets, mask)
    seen = _scaled(features, scales[0]), _scaled(targets, scales[1])
    key_weights, key_rows = jax.random.split(key)
    start = _initial(key_weights, features.shape[1], targets.shape[1])
    gradient = _gradients(*seen, _shares(key_rows, mask), mask)
    optimizer = optax.adam(RATE)

    def step(_, carry):
        layers, state = carry
        updates, state = optimizer.update(gradient(layers), state)
        return optax.apply_updates(layers, updates), state

    begun = start, optimizer.init(start)
    layers, _ = jax.lax.fori_loop(0, STEPS, step, begun)
    return Ensemble(*layers, *scales)


def _shares(key, mask):
    """What every row weighs for each member, `[rows, members]`: each sums to one."""
    draw = lambda row: jax.random.exponential(  # noqa: E731
        jax.random.fold_in(key, row), (MEMBERS,)
    )
    shares = jax.vmap(draw)(jnp.arange(mask.size)) * mask[:, None]
    return shares / jnp.maximum(jnp.sum(shares, axis=0, keepdims=True), 1e-9)


def _gradients(inputs, wanted, shares, mask):
    """The gradient of all members' losses, as a function of their layers.

    Rows are taken in blocks, of which those behind the last row in the mask are not
    touched: a long memory costs nothing until it is full.
    """
    rows = mask.size + -mask.size % BLOCK
    padded = [
        jnp.pad(one, ((0, rows - mask.size), (0, 0)))
        for one in (inputs, wanted, shares)
    ]
    blocks = -(-jnp.max((jnp.arange(mask.size) + 1) * mask) // BLOCK)

    def misfit(layers, inputs, wanted, shares):
        return jnp.sum(shares[:, None] * (_forward(layers, inputs) - wanted) ** 2)

    of_all = jax.vmap(jax.grad(misfit), (0, None, None, 1))

    def gradient(layers):
        def add(number, total):
            block = [
                jax.lax.dynamic_slice_in_dim(one, number * BLOCK, BLOCK)
                for one in padded
            ]
            return jax.tree.map(jnp.add, total, of_all(layers, *block))

        decay = jax.tree.map(lambda leaf: 2 * DECAY * leaf, layers)
        return jax.lax.fori_loop(0, blocks, add, decay)

    return gradient


@jax.jit
def predict(
    ensemble: Ensemble, features: Float[Array, "rows features"]
) -> Float[Array, "members rows targets"]:
    """What each member expects of the targets."""
    inputs = _scaled(features, ensemble.feature_scales)
    layers = ensemble.first, ensemble.bias, ensemble.second
    outputs = jax.vmap(_forward, (0, None))(layers, inputs)
    mean, deviation = ensemble.target_scales
    return outputs * deviation[None, None] + mean[None, None]


def _scales(values, mask):
    """Mean and deviation of the rows in the mask; constant columns keep their unit."""
    count = jnp.maximum(jnp.sum(mask), 1)
    mean = jnp.sum(jnp.where(mask[:, None], values, 0.0), axis=0) / count
    squares = jnp.where(mask[:, None], (values - mean[None]) ** 2, 0.0)
    deviation = jnp.sqrt(jnp.sum(squares, axis=0) / count)
    return jnp.stack([mean, jnp.where(deviation > 1e-6, deviation, 1.0)])


def _scaled(values, scales):
    return (values - scales[0][None]) / scales[1][None]


def _initial(key, features, targets):
    one, other = jax.random.split(key)
    shapes = (MEMBERS, features, HIDDEN), (MEMBERS, HIDDEN, targets)
    first, second = (
        jax.random.normal(k, shape) / jnp.sqrt(shape[1])
        for k, shape in zip((one, other), shapes, strict=True)
    )
    return first, jnp.zeros((MEMBERS, HIDDEN)), second


def _forward(layers, inputs):
    first, bias, second = layers
    return jnp.tanh(inputs @ first + bias[None]) @ second

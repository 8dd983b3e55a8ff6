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
    """An ensemble that predicts targets from features, of the rows in the mask."""
    targets = jnp.where(mask[:, None], targets, 0.0)
    scales = _scales(features, mask), _scales(targets, mask)
    inputs, wanted = _scaled(features, scales[0]), _scaled(targets, scales[1])
    key_weights, key_rows = jax.random.split(key)
    shape = MEMBERS, features.shape[0]
    shares = jax.random.exponential(key_rows, shape) * mask[None, :]
    shares /= jnp.maximum(jnp.sum(shares, axis=1, keepdims=True), 1e-9)
    start = _initial(key_weights, features.shape[1], targets.shape[1])

    def loss(layers, shares):
        error = _forward(layers, inputs) - wanted
        decay = sum(jnp.sum(leaf**2) for leaf in layers)
        return jnp.sum(shares[:, None] * error**2) + DECAY * decay

    optimizer = optax.adam(RATE)

    def step(_, carry):
        layers, state = carry
        gradients = jax.vmap(jax.grad(loss))(layers, shares)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(layers, updates), state

    begun = start, optimizer.init(start)
    layers, _ = jax.lax.fori_loop(0, STEPS, step, begun)
    return Ensemble(*layers, *scales)


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

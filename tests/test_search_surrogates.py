"""An ensemble learns what it is shown and doubts the rest."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search.surrogates import (
    DECAY,
    MEMBERS,
    _forward,
    _gradients,
    _initial,
    _shares,
    fit_ensemble,
    predict,
)

ROWS, SEEN = 160, 100


def data():
    """A smooth function of four features; the last sixty rows are not to be used."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, 4)).astype(np.float32)
    targets = np.stack(
        [np.sin(features[:, 0]) + features[:, 1], 50 + 9 * features[:, 2]], axis=1
    )
    mask = np.arange(ROWS) < SEEN
    poisoned = np.where(mask[:, None], targets, np.inf).astype(np.float32)
    return features, targets, poisoned, mask


def test_unseen_rows_are_predicted_and_what_is_masked_is_not_seen():
    features, targets, poisoned, mask = data()
    ensemble = fit_ensemble(jax.random.key(0), features, poisoned, mask)
    guesses = np.asarray(predict(ensemble, features))
    assert np.isfinite(guesses).all()
    mean = guesses.mean(axis=0)[~mask]
    for column in range(2):
        truth = targets[~mask, column]
        residual = np.mean((mean[:, column] - truth) ** 2)
        assert residual < 0.1 * np.var(truth)


def test_room_for_more_rows_changes_nothing():
    features, _, poisoned, mask = data()
    key, few = jax.random.key(0), slice(SEEN)
    alone = fit_ensemble(key, features[few], poisoned[few], mask[few])
    guesses = predict(fit_ensemble(key, features, poisoned, mask), features)
    np.testing.assert_allclose(guesses, predict(alone, features), rtol=0.02, atol=0.02)


def test_gradients_are_those_of_the_whole_loss():
    features, targets, _, mask = data()
    keys = jax.random.split(jax.random.key(1))
    layers, shares = _initial(keys[0], 4, 2), _shares(keys[1], mask)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-5)
    assert not shares[SEEN:].any()

    def loss(layers):
        total = DECAY * sum(jnp.sum(leaf**2) for leaf in layers)
        for member in range(MEMBERS):
            answers = _forward([leaf[member] for leaf in layers], features)
            total += jnp.sum(shares[:, member, None] * (answers - targets) ** 2)
        return total

    found = _gradients(features, targets, shares, mask)(layers)
    for one, expected in zip(found, jax.grad(loss)(layers), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


def test_members_disagree_most_far_from_what_was_seen():
    features, _, poisoned, mask = data()
    ensemble = fit_ensemble(jax.random.key(0), features, poisoned, mask)
    spread = lambda x: np.asarray(predict(ensemble, x)).std(axis=0).mean()  # noqa: E731
    assert spread(6 * features) > 3 * spread(features)


def test_no_rows_predict_nothing_but_finite_numbers():
    features, _, poisoned, mask = data()
    ensemble = fit_ensemble(jax.random.key(0), features, poisoned, 0 * mask > 0)
    assert np.isfinite(predict(ensemble, features)).all()

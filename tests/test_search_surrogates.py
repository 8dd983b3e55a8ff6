"""An ensemble learns what it is shown, doubts the rest, and children are chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search.surrogates import fit_ensemble, most_promising, predict

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


def test_members_disagree_most_far_from_what_was_seen():
    features, _, poisoned, mask = data()
    ensemble = fit_ensemble(jax.random.key(0), features, poisoned, mask)
    spread = lambda x: np.asarray(predict(ensemble, x)).std(axis=0).mean()  # noqa: E731
    assert spread(6 * features) > 3 * spread(features)


def test_no_rows_predict_nothing_but_finite_numbers():
    features, _, poisoned, mask = data()
    ensemble = fit_ensemble(jax.random.key(0), features, poisoned, 0 * mask > 0)
    assert np.isfinite(predict(ensemble, features)).all()


def test_members_fill_places_in_turn_with_the_best_new_child():
    known = jnp.array([[2.0, 2.0], [9.0, 9.0]])
    mask = jnp.array([True, False])
    one = jnp.array([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0], [4.0, 4.0]])
    other = jnp.array([[5.0, 5.0], [1.0, 1.0], [0.0, 0.0], [4.0, 4.0]])
    new = jnp.array([True, True, False, True])
    rows = most_promising(jnp.stack([one, other]), new, known, mask, 4)
    assert rows.tolist() == [0, 1, 3, 2]


def test_on_a_front_the_lonely_child_is_preferred():
    known = jnp.array([[0.0, 10.0], [10.0, 0.0], [5.0, 5.0]])
    children = jnp.array([[[4.9, 5.1], [2.0, 8.0], [6.0, 6.0]]])
    rows = most_promising(children, jnp.ones(3, bool), known, jnp.ones(3, bool), 3)
    assert rows.tolist() == [1, 0, 2]

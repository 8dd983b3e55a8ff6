"""Groups of networks are trained as each is alone, and by the textbook's AdamW."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from search_helpers import (
    GROUP,
    assert_same,
    fresh,
    genotype_of,
    genotypes,
    logits,
    member,
    recipe,
    space,
    stage,
    train_set,
    trained,
)

from jaxnas import training
from jaxnas.networks import supernet
from jaxnas.networks.space import CONVOLUTION
from jaxnas.training import (
    NO_LABEL,
    Weights,
    evaluate_group,
    fit_group,
    initial_weights,
    taught_labels,
)

KEYS = jax.random.split(jax.random.key(3), GROUP)
CONV, INVERTED = 1, 3


def train(
    keys=KEYS,
    weights=None,
    rows=range(GROUP),
    scheme=0,
    images=None,
    taught=None,
    **changes,
):
    """A short training of some rows of the shared group."""
    rows = np.array(rows)
    pictures, labels = train_set() if images is None else images
    start = fresh() if weights is None else weights
    return fit_group(
        keys[rows],
        space(),
        member(start, rows),
        genotypes()[rows],
        pictures,
        labels,
        recipe(**{"steps": 5} | changes),
        taught=taught,
        scheme=scheme,
    )


def validation_set():
    problem = stage().problem
    return problem.validation_images, problem.validation_labels


def errors(weights, images=None, **options):
    images = validation_set() if images is None else images
    return np.asarray(evaluate_group(space(), weights, genotypes(), *images, **options))


def moved(before, after):
    """By how much each network's weights changed, `[networks]`."""
    squares = jax.tree.map(
        lambda a, b: np.sum((np.asarray(a) - b).reshape(GROUP, -1) ** 2, axis=1),
        before.params,
        after.params,
    )
    return np.sqrt(sum(jax.tree.leaves(squares)))


def test_a_network_of_a_group_is_trained_as_it_is_alone():
    group = train()
    assert np.all(moved(fresh(), group) > 0.01)
    for row in range(GROUP):
        assert_same(train(rows=[row]), member(group, np.array([row])))


def test_the_order_of_a_group_does_not_matter():
    order = np.array([2, 0, 3, 1])
    assert_same(train(rows=order), member(train(), order))


def test_the_same_key_gives_the_same_weights_and_another_key_others():
    assert_same(train(), train())
    others = jax.random.split(jax.random.key(4), GROUP)
    assert np.all(moved(train(), train(keys=others)) > 1e-3)
    one = KEYS.at[INVERTED].set(others[0])
    difference = moved(train(), train(keys=one))
    assert difference[INVERTED] > 1e-3 and np.sum(difference) == difference[INVERTED]


def test_both_schemes_train_and_differ():
    assert np.all(moved(train(scheme=0), train(scheme=1)) > 1e-3)


def test_steps_rates_and_scheme_share_one_program(monkeypatch):
    train()
    traced = []
    augment = training.augment
    monkeypatch.setattr(
        training, "augment", lambda *a, **k: traced.append(1) or augment(*a, **k)
    )
    changed = {"steps": 9}, {"learning_rate": 1e-3}, {"warmup": 0.5}, {"scheme": 1}
    for changes in changed:
        train(**changes)
    # Fresh, computed and host arrays are one program, too.
    train(weights=train())
    train(weights=jax.device_get(fresh()))
    assert not traced
    with pytest.raises(ZeroDivisionError):
        monkeypatch.setattr(training, "augment", lambda *a, **k: 1 / 0)
        train(batch=2)


def test_no_steps_change_nothing():
    assert_same(train(steps=0), fresh())


def test_networks_learn():
    before, after = errors(fresh(), train_set()), errors(trained(), train_set())
    assert np.all(after < before - 0.2)
    assert np.all(errors(trained()) < 0.8), "chance is 0.9"


@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_unused_weights_decay_by_the_schedule(warmup):
    """Without a gradient AdamW only multiplies: 1 - rate * decay * (1 + cos) / 2, with
    a rate that rises linearly in the first steps, the first of which does something."""
    steps, rate, decay = 30, 0.5, recipe().weight_decay
    changed = train(steps=steps, learning_rate=rate, warmup=warmup)
    cosine = (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    rising = np.ones(steps)
    first = round(warmup * steps)
    rising[:first] = np.arange(1, first + 1) / max(first, 1)
    factor = np.prod(1 - rate * decay * cosine * rising)
    assert factor < 0.95
    start, end = (tree.params.stages[0].expand.kernel for tree in (fresh(), changed))
    np.testing.assert_allclose(end[CONV], factor * start[CONV], rtol=1e-5)
    assert not np.allclose(end[INVERTED], factor * start[INVERTED], rtol=1e-2)


def test_a_step_is_that_of_optax():
    """Against `optax.adamw` with its own schedule, on images that are all the same."""
    steps, rate, decay = 4, 0.01, recipe().weight_decay
    pictures, labels = train_set()
    one = jnp.broadcast_to(pictures[:1], pictures.shape), labels * 0 + labels[0]
    batch = recipe().batch
    found = train(images=one, steps=steps, learning_rate=rate)

    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.adamw(schedule, weight_decay=decay)
    # The same network in a space without the other words, which compiles faster.
    eight = dataclasses.replace(space(), word_bits=(8,))
    fixed = {"schemes": ("fixed_point",)}
    block = {"operation": CONVOLUTION, "width": 1, "residual": 1}
    genotype = genotype_of(eight, block, stem=(1, 0, 0), head=0)
    params, statistics = member(fresh(), CONV)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slope(params, statistics, frozen):
        images, options = one[0][:batch], {"train": True, "frozen": frozen} | fixed
        answer, statistics = supernet.apply(
            eight, params, statistics, genotype, images, **options
        )
        return -jnp.mean(jax.nn.log_softmax(answer)[:, labels[0]]), statistics

    state = optimizer.init(params)
    for step in range(steps):
        # The last quarter of the steps.
        gradients, statistics = slope(params, statistics, step == 3)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    expected = Weights(params, statistics)
    pairs = map(jax.tree.leaves, (member(found, CONV), expected))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def taught(share):
    return taught_labels(space(), trained(), genotypes(), *train_set(), share)


def test_teachers_share_their_probabilities_where_they_are_right():
    images, labels = train_set()
    true = np.asarray(jax.nn.one_hot(labels, space().classes))
    np.testing.assert_array_equal(taught(0.0), np.stack([true] * GROUP))
    found = np.asarray(taught(0.25))
    assert found.shape == (GROUP, len(labels), space().classes)
    for row in (CONV, INVERTED):
        answers = logits(member(trained(), row), genotypes()[row], images)
        mixed = 0.25 * np.asarray(jax.nn.softmax(answers)) + 0.75 * true
        right = np.argmax(answers, axis=1) == np.asarray(labels)
        assert 0 < right.sum() < len(labels)
        expected = np.where(right[:, None], mixed, true)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_every_network_learns_from_its_own_teacher():
    """True labels as shares train as they do as numbers; a teacher's train otherwise,
    and each network by its own alone."""
    true = taught(0.0)
    plain, same = train(), train(taught=true)
    assert np.all(moved(plain, same) < 1e-3 * moved(fresh(), plain))
    mixed = train(taught=true.at[INVERTED].set(taught(0.9)[INVERTED]))
    difference = moved(same, mixed)
    assert difference[INVERTED] > 1e-2
    assert np.sum(difference) == difference[INVERTED]


def test_a_share_is_a_fraction():
    with pytest.raises(ValueError, match="share=1.5, expected 0 to 1"):
        taught(1.5)


def test_errors_are_shares_of_wrong_answers():
    images, labels = validation_set()
    for scheme in (0, 1):
        found = errors(trained(), scheme=scheme)
        for row in range(GROUP):
            one = member(trained(), row), genotypes()[row]
            answers = logits(*one, images, scheme=scheme).argmax(axis=1)
            assert abs(found[row] - np.mean(answers != labels)) < 1e-6
    assert len(set(errors(trained()))) > 1


def test_images_without_a_label_do_not_count():
    images, labels = validation_set()
    kept = 100
    padded = images, labels.at[kept:].set(NO_LABEL)
    found = errors(trained(), padded)
    for row in range(GROUP):
        answers = logits(member(trained(), row), genotypes()[row], images)
        wrong = answers.argmax(axis=1)[:kept] != labels[:kept]
        assert abs(found[row] - np.mean(wrong)) < 1e-6
    noise = images.at[kept:].set(255 - images[kept:])
    np.testing.assert_array_equal(errors(trained(), (noise, padded[1])), found)


def test_logits_that_are_not_finite_are_wrong():
    weights = trained()
    bias = weights.params.head.bias.at[CONV, 0].set(jnp.nan)
    head = weights.params.head._replace(bias=bias)
    broken = weights._replace(params=weights.params._replace(head=head))
    found, whole = errors(broken), errors(weights)
    assert found[CONV] == 1 and whole[CONV] < 1
    np.testing.assert_array_equal(np.delete(found, CONV), np.delete(whole, CONV))


def test_initial_weights_are_random_kernels_and_neutral_statistics():
    first, second = (initial_weights(jax.random.key(seed), space()) for seed in (0, 1))
    assert_same(first.statistics, second.statistics)
    assert not np.array_equal(first.params.head.kernel, second.params.head.kernel)
    assert not np.array_equal(first.params.stem.kernel, second.params.stem.kernel)

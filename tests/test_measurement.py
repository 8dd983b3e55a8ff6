"""Finalists are trained like all others; faults are counted as by another count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_helpers import (
    CONFIG,
    GROUP,
    assert_same,
    genotypes,
    logits,
    member,
    recipe,
    report_set,
    space,
    stage,
    train_set,
    trained,
)

from jaxnas.faults.statistics import clustered_wilson_interval
from jaxnas.faults.trials import count_outcomes
from jaxnas.measurement import (
    TARGETS,
    Faults,
    measure_faults,
    summary,
    train_finalists,
)
from jaxnas.networks import space as spaces
from jaxnas.training import evaluate_group, fit_group

RATES = CONFIG.faults.rates
TINY, MODERATE, HIGH = RATES
FAULTS = Faults(RATES, CONFIG.faults.trials, CONFIG.faults.images)
KEY = jax.random.key(5)


def measure(row, scheme=0, key=KEY, **options):
    return measure_faults(
        key,
        space(),
        member(trained(), row),
        genotypes()[row],
        *report_set(),
        FAULTS,
        scheme=scheme,
        **options,
    )


@functools.cache
def measured(row, scheme):
    """Records by target and rate."""
    records = measure(row, scheme)
    return {(record["target"], record["rate"]): record for record in records}


def clean_counts(row, scheme):
    """Right answers per trial without any fault, from logits computed elsewhere."""
    images, labels = report_set()
    answers = logits(member(trained(), row), genotypes()[row], images, scheme=scheme)
    known = {
        image.tobytes(): a for image, a in zip(np.asarray(images), answers, strict=True)
    }

    def look_up(key, chosen):
        return jnp.stack([known[image.tobytes()] for image in np.asarray(chosen)])

    return np.array(
        [
            count_outcomes(
                look_up,
                jax.random.fold_in(KEY, i),
                images,
                labels,
                jnp.argmax(jnp.asarray(answers), axis=1),
                FAULTS.images,
            ).right
            for i in range(FAULTS.trials)
        ]
    )


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("row", [1, 3])
def test_a_tiny_rate_leaves_the_clean_predictions(row, scheme):
    expected = summary(clean_counts(row, scheme), TINY, FAULTS.images)
    assert 0.2 < expected["accuracy"] < 1
    for target in TARGETS:
        about = {"target": target, "fault": "bit_flips", "sdc1": 0.0, "due": 0.0}
        assert measured(row, scheme)[target, TINY] == about | expected


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("target", TARGETS)
def test_faults_cost_accuracy(target, scheme):
    """On average over the networks, and more of them at a higher rate."""
    accuracy = {
        rate: np.mean(
            [measured(row, scheme)[target, rate]["accuracy"] for row in range(GROUP)]
        )
        for rate in RATES
    }
    assert accuracy[HIGH] < accuracy[TINY] - 0.05
    assert accuracy[HIGH] <= accuracy[MODERATE] <= accuracy[TINY] + 0.02


def test_targets_and_schemes_are_struck_by_different_faults():
    values = [
        measured(row, scheme)[target, HIGH]["accuracy"]
        for row in range(GROUP)
        for scheme in (0, 1)
        for target in TARGETS
    ]
    assert len(set(values)) > len(values) / 2


def test_there_is_a_record_for_every_target_and_rate():
    told = []
    records = measure(1, advance=told.append)
    found = [(record["target"], record["rate"]) for record in records]
    assert found == [(target, rate) for target in TARGETS for rate in RATES]
    assert told == [FAULTS.trials] * len(records)
    for record in records:
        assert record["trials"] == FAULTS.trials
        assert record["images_per_trial"] == FAULTS.images
        assert 0 <= record["low"] <= record["accuracy"] <= record["high"] <= 1


def test_a_key_repeats_a_measurement_and_another_one_does_not():
    assert measure(3) == list(measured(3, 0).values())
    assert measure(3, key=jax.random.key(6)) != measure(3)


def test_a_summary_by_hand():
    counts = np.array([4, 8, 0, 4])
    found = summary(counts, 0.25, 8)
    low, high = clustered_wilson_interval(counts, 8)
    # p = 1/2, so independent outcomes vary by 1/32 between trials; these do by 1/6.
    assert found == {
        "rate": 0.25,
        "trials": 4,
        "images_per_trial": 8,
        "accuracy": 0.5,
        "low": float(low),
        "high": float(high),
        "effective_trials": pytest.approx(32 / (1 / 6 * 32)),
    }
    kinds = [type(value) for value in found.values()]
    assert kinds == [float, int, int, float, float, float, float]


@pytest.mark.parametrize("right", [0, 8])
def test_a_summary_without_spread_reaches_its_end(right):
    found = summary(np.full(5, right), 1e-3, 8)
    assert found["accuracy"] == right / 8
    assert found["effective_trials"] == 40
    assert (found["low"] == 0) == (right == 0) and (found["high"] == 1) == (right == 8)
    assert found["high"] - found["low"] > 0.01


COUNT = GROUP + 2


@functools.cache
def finalists(scheme=0):
    """More networks than a group: rows of the trained ones, some of them again."""
    rows, told = np.arange(COUNT) % GROUP, []
    found = train_finalists(
        KEY,
        space(),
        member(trained(), rows),
        genotypes()[rows],
        *train_set(),
        stage().evaluation,
        recipe(steps=6),
        scheme=scheme,
        group=GROUP,
        advance=told.append,
    )
    assert told == [GROUP, COUNT - GROUP]
    return found


@pytest.mark.parametrize("scheme", [0, 1])
def test_finalists_are_trained_as_in_any_group(scheme):
    rows = np.arange(COUNT - GROUP, COUNT)
    keys = jax.random.split(KEY, COUNT)[rows]
    again = member(trained(), rows % GROUP), genotypes()[rows % GROUP]
    expected = fit_group(
        keys, space(), *again, *train_set(), recipe(steps=6), scheme=scheme
    )
    assert_same(member(finalists(scheme).weights, rows), expected)


@pytest.mark.parametrize("scheme", [0, 1])
def test_finalists_are_evaluated_on_validation_and_test_images(scheme):
    found = finalists(scheme)
    rows = np.arange(GROUP)
    images = stage().evaluation
    words = jnp.stack([spaces.widest_words(space(), g) for g in genotypes()])
    cases = {
        "validation_error": (genotypes(), *images[:2]),
        "test_error": (genotypes(), *images[2:]),
        "widest_test_error": (words, *images[2:]),
    }
    for name, case in cases.items():
        expected = evaluate_group(
            space(), member(found.weights, rows), *case, scheme=scheme
        )
        errors = np.asarray(getattr(found, name))
        assert errors.shape == (COUNT,)
        np.testing.assert_array_equal(errors[rows], expected, err_msg=name)
    assert not np.array_equal(found.validation_error, found.test_error)
    assert not np.array_equal(words, genotypes())

"""Metrics against a loop over inputs; every input is due, corrupted or masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxnas.faults.outcomes import (
    accuracy,
    accuracy_drop,
    critical_sdc,
    due,
    loss_difference,
    masked,
    output_distance,
    sdc1,
    sdc5,
)

METRICS = (
    accuracy,
    accuracy_drop,
    critical_sdc,
    due,
    loss_difference,
    masked,
    output_distance,
    sdc1,
    sdc5,
)
BATCH, CLASSES = 40, 8


def cases(seed):
    """Few distinct values, so that there are ties; some inputs are not finite."""
    rng = np.random.default_rng(seed)
    golden = rng.integers(0, 5, (BATCH, CLASSES)).astype(np.float32)
    faulty = golden + rng.integers(-3, 4, golden.shape) * (
        rng.random(golden.shape) < 0.2
    )
    for value in (np.nan, np.inf, -np.inf):
        faulty[rng.integers(BATCH, size=2), rng.integers(CLASSES, size=2)] = value
    labels = np.where(
        rng.random(BATCH) < 0.7, golden.argmax(1), rng.integers(CLASSES, size=BATCH)
    )
    return golden, faulty.astype(np.float32), labels.astype(np.int32)


def best(row, count):
    """Classes of the largest outputs, of equal ones the first."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]


def by_loop(golden, faulty, labels):
    found = {metric.__name__: 0.0 for metric in METRICS}
    finite = 0
    for clean, struck, label in zip(golden, faulty, labels, strict=True):
        (was,) = best(clean, 1)
        found["accuracy_drop"] += was == label
        if not all(map(np.isfinite, struck)):
            found["due"] += 1
            continue
        finite += 1
        (now,) = best(struck, 1)
        found["accuracy"] += now == label
        found["accuracy_drop"] -= now == label
        found["critical_sdc"] += was == label != now
        found["masked"] += now == was
        found["sdc1"] += now != was
        found["sdc5"] += now not in best(clean, 5)
        wide = clean.astype(np.float64), struck.astype(np.float64)
        losses = [-log_softmax(row)[label] for row in wide]
        found["loss_difference"] += losses[1] - losses[0]
        found["output_distance"] += np.linalg.norm(wide[1] - wide[0])
    over = {"loss_difference": finite, "output_distance": finite}
    return {name: total / over.get(name, BATCH) for name, total in found.items()}


@jax.jit
def compute(golden, faulty, labels):
    return {metric.__name__: metric(golden, faulty, labels) for metric in METRICS}


@pytest.mark.parametrize("seed", range(20))
def test_metrics_are_those_of_a_loop(seed):
    expected = by_loop(*cases(seed))
    found = compute(*map(jnp.asarray, cases(seed)))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=1e-6)
    assert 0 < expected["due"] < 1 and 0 < expected["sdc1"] < 1


@pytest.mark.parametrize("seed", range(20))
def test_every_input_is_due_corrupted_or_masked(seed):
    found = {name: float(v) for name, v in compute(*cases(seed)).items()}
    assert found["due"] + found["sdc1"] + found["masked"] == pytest.approx(1, abs=3e-7)
    assert found["sdc5"] <= found["sdc1"] and found["critical_sdc"] <= found["sdc1"]
    assert found["accuracy"] <= 1 - found["due"]


def test_sdc5_looks_the_faulty_prediction_up_in_the_golden_best_five():
    """Li et al.; the golden prediction among the faulty best five is another number."""
    golden = jnp.arange(8.0)[None]
    # The last class of the golden run wins; the golden prediction stays the second.
    faulty = golden.at[0, 0].set(9)
    assert sdc5(golden, faulty, None) == 1 and sdc5(faulty, golden, None) == 0
    fifth = golden.at[0, 3].set(9)
    assert sdc1(golden, fifth, None) == 1 and sdc5(golden, fifth, None) == 0


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_network_without_finite_outputs_is_due_and_nothing_else(value):
    golden, _, labels = map(jnp.asarray, cases(0))
    found = compute(golden, jnp.full_like(golden, value), labels)
    assert found["due"] == 1
    for name in ("accuracy", "critical_sdc", "masked", "sdc1", "sdc5"):
        assert found[name] == 0, name
    assert jnp.isnan(found["loss_difference"]) and jnp.isnan(found["output_distance"])
    clean = accuracy(None, golden, labels)
    np.testing.assert_allclose(found["accuracy_drop"], clean, rtol=1e-6)


def test_distances_of_outputs_that_an_exponent_bit_left():
    golden = jnp.zeros((3, 4))
    faulty = golden.at[:, 1:].set(1e38)
    distance = output_distance(golden, faulty, None)
    np.testing.assert_allclose(distance, np.sqrt(3) * 1e38, rtol=1e-6)


def test_due_and_distance_of_outputs_of_any_shape():
    golden = jnp.ones((4, 3, 2, 5))
    faulty = golden.at[1, 2, 0, 3].set(jnp.nan).at[0, 0, 0, 0].add(3)
    assert due(golden, faulty, None) == 0.25
    np.testing.assert_allclose(output_distance(golden, faulty, None), 1, rtol=1e-6)


LOGITS, LABELS = jnp.ones((4, 6)), jnp.zeros(4, jnp.int32)


@pytest.mark.parametrize(
    "metric", [accuracy_drop, critical_sdc, loss_difference, masked, sdc1, sdc5]
)
def test_a_missing_or_other_golden_run_is_refused(metric):
    with pytest.raises(ValueError, match="pass golden="):
        metric(None, LOGITS, LABELS)
    with pytest.raises(ValueError, match=r"golden outputs \(4, 5\)"):
        metric(LOGITS[:, :5], LOGITS, LABELS)


@pytest.mark.parametrize(
    "metric", [accuracy, accuracy_drop, critical_sdc, loss_difference]
)
def test_missing_or_other_labels_are_refused(metric):
    with pytest.raises(ValueError, match="pass labels="):
        metric(LOGITS, LOGITS, None)
    for labels in (LABELS[:3], LABELS.astype(jnp.float32)):
        with pytest.raises(ValueError, match="integers"):
            metric(LOGITS, LOGITS, labels)


def test_sdc5_of_five_classes_is_refused():
    with pytest.raises(ValueError, match="six or more"):
        sdc5(LOGITS[:, :5], LOGITS[:, :5], LABELS)

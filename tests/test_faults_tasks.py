"""What a trial computes is known, and described, before any is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.tasks import prepare_task

KEY = jax.random.key(0)


def network(key, x):
    return x + jax.random.normal(key, x.shape)


def largest(golden, faulty, labels):
    return jnp.max(faulty)


def above(golden, faulty, labels):
    return jnp.sum(faulty > golden["limit"]) > labels


X, GOLDEN, LABEL = np.ones((4, 2), np.float32), {"limit": np.float32(1)}, np.int32(3)


def prepare(metrics=(largest, above), x=X, golden=GOLDEN, labels=LABEL, key=KEY):
    return prepare_task(
        network, (x,), key, metrics, golden=golden, labels=labels, batch=1
    )


def test_columns_are_those_of_the_metrics():
    """In their order, of their dtypes; golden and labels reach them as they are."""
    task = prepare()
    kinds = {"largest": np.dtype("float32"), "above": np.dtype(bool)}
    assert list(task.dtypes.items()) == list(kinds.items()) and task.inputs == 4
    assert list(prepare({"a": above, "b": largest}).dtypes) == ["a", "b"]
    outputs = network(jax.random.fold_in(KEY, 6), X)
    np.testing.assert_array_equal(task.output(6, *task.operands), outputs)
    row = task.measure(6, *task.operands)
    assert row["largest"] == outputs.max() and row["above"] == (np.sum(outputs > 1) > 3)


def test_one_function_object_serves_all_campaigns_of_a_function():
    """So that it is compiled once."""
    assert prepare().measure is prepare(x=X + 1).measure
    assert prepare().measure is not prepare((largest,)).measure


def test_the_description_tells_data_apart():
    about = prepare().about
    assert about == prepare(x=jnp.asarray(X)).about
    others = [
        prepare(x=X + np.float32(1e-7)),
        prepare(x=X[:3]),
        prepare(x=X.astype(np.float16)),
        prepare(golden={"limit": np.float32(2)}),
        prepare(labels=np.int32(2)),
        prepare(key=jax.random.key(1)),
        prepare(key=jax.random.key(0, impl="rbg")),
    ]
    texts = [str(task.about) for task in others]
    assert len({str(about), *texts}) == 1 + len(others)


def test_metrics_must_be_real_scalars():
    cases = {
        r"shape \(2,\)": lambda golden, faulty, labels: faulty[0],
        "complex64": lambda golden, faulty, labels: 1j * faulty[0, 0],
        "bfloat16": lambda golden, faulty, labels: faulty[0, 0].astype(jnp.bfloat16),
    }
    for match, metric in cases.items():
        with pytest.raises(ValueError, match=match):
            prepare({"metric": metric})

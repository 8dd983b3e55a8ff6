"""What a fault did to the outputs of a network: one number per trial.

A metric is any function `(golden, faulty, labels) -> scalar`: the outputs without and
with a fault, and the labels of the inputs. Those here take outputs `[batch, classes]`,
golden ones all finite (a campaign sees to that), and leave one case per input:

    due      detectable: the faulty output holds a NaN or an infinity
    sdc      silent data corruption: it is finite, and its prediction has changed
    masked   it is finite, and the prediction is that of the golden run

so that `due + sdc1 + masked` is one (but for the rounding of the shares). An input that
is due never counts as rightly predicted, nor as silently corrupted. A prediction is the
largest output, of equal ones the first.

SDC-1 and SDC-5: Li et al., "Understanding error propagation in deep learning neural
network (DNN) accelerators and applications", SC 2017, section 4.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Shaped

Share = Float[Array, ""]
"""Of the inputs of a trial: 0 to 1."""


def accuracy(
    golden: object, faulty: Shaped[Array, "batch ..."], labels: Array | None
) -> Share:
    """Share of inputs whose faulty output is finite and largest at the label."""
    return jnp.mean(_right("accuracy", faulty, labels))


def accuracy_drop(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: Array | None
) -> Float[Array, ""]:
    """Accuracy of the golden outputs less that of the faulty ones; may be negative."""
    golden = _golden("accuracy_drop", golden, faulty)
    was_right = _right("accuracy_drop", golden, labels)
    is_right = _right("accuracy_drop", faulty, labels)
    # Differences before the mean: sums of whole numbers round alike in all programs.
    return jnp.mean(was_right.astype(jnp.float32) - is_right)


def due(golden: object, faulty: Shaped[Array, "batch ..."], labels: object) -> Share:
    """Share of inputs with a NaN or an infinity in the faulty output, of any shape."""
    return jnp.mean(~_finite(faulty))


def masked(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: object
) -> Share:
    """Share of inputs with a finite faulty output and the prediction of the golden."""
    golden = _golden("masked", golden, faulty)
    same = _prediction(faulty) == _prediction(golden)
    return jnp.mean(_finite(faulty) & same)


def sdc1(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: object
) -> Share:
    """SDC-1: share of inputs with a finite faulty output and another prediction."""
    golden = _golden("sdc1", golden, faulty)
    changed = _prediction(faulty) != _prediction(golden)
    return jnp.mean(_finite(faulty) & changed)


def sdc5(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: object
) -> Share:
    """SDC-5: share of inputs whose faulty prediction is none of the golden best five.

    By Li et al. the top element of the faulty run is looked up among the top five of
    the fault-free run, not the other way round. Only finite faulty outputs count.
    Raises ValueError for fewer than six classes, which always are among the best five.
    """
    golden = _golden("sdc5", golden, faulty)
    classes = golden.shape[1]
    if classes < 6:
        raise ValueError(
            f"sdc5 of {classes} classes; expected six or more, as fewer are always "
            "among the best five: use sdc1"
        )
    best = jax.lax.top_k(golden, 5)[1]
    outside = jnp.all(best != _prediction(faulty)[:, None], axis=1)
    return jnp.mean(_finite(faulty) & outside)


def critical_sdc(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: Array | None
) -> Share:
    """Share of inputs rightly predicted in the golden run, now finite and wrong."""
    golden = _golden("critical_sdc", golden, faulty)
    was_right = _right("critical_sdc", golden, labels)
    is_right = _right("critical_sdc", faulty, labels)
    return jnp.mean(was_right & _finite(faulty) & ~is_right)


def loss_difference(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: Array | None
) -> Float[Array, ""]:
    """Mean cross entropy, in nats, of the faulty outputs less that of the golden ones.

    Over the inputs that are not `due`; NaN where all are. Infinite where logits lie
    further apart than their dtype reaches.
    """
    golden = _golden("loss_difference", golden, faulty)
    labels = _labels("loss_difference", faulty, labels)
    entropy = optax.softmax_cross_entropy_with_integer_labels
    change = entropy(_wide(faulty), labels) - entropy(_wide(golden), labels)
    return _mean_where(_finite(faulty), change)


def output_distance(
    golden: Array | None, faulty: Shaped[Array, "batch ..."], labels: object
) -> Float[Array, ""]:
    """Mean Euclidean distance of the faulty outputs, of any shape, to the golden ones.

    Over the inputs that are not `due`; NaN where all are, infinite where one is beyond
    the range of float32.
    """
    golden = _golden("output_distance", golden, faulty, any_shape=True)
    batch = faulty.shape[0]
    change = (_wide(faulty) - _wide(golden)).reshape(batch, -1)
    # Squares of what an exponent bit leaves overflow; a power of two rounds nothing.
    large = jnp.max(jnp.abs(change), axis=1) > 2.0**40
    unit = jnp.where(large, 2.0**80, 1.0)
    norms = unit * jnp.linalg.norm(change * (1 / unit)[:, None], axis=1)
    return _mean_where(_finite(faulty), norms)


def _finite(outputs: Array) -> Bool[Array, " batch"]:
    return jnp.all(jnp.isfinite(outputs).reshape(outputs.shape[0], -1), axis=1)


def _prediction(outputs):
    return jnp.argmax(outputs, axis=1)


def _right(name, outputs, labels) -> Bool[Array, " batch"]:
    labels = _labels(name, outputs, labels)
    return _finite(outputs) & (_prediction(outputs) == labels)


def _wide(outputs):
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _mean_where(kept, values):
    """The mean of some values; divided first, as a sum of large ones overflows."""
    count = jnp.sum(kept)
    mean = jnp.sum(jnp.where(kept, values / count, 0))
    return jnp.where(count > 0, mean, jnp.nan)


def _golden(name, golden, faulty, *, any_shape=False) -> Array:
    if golden is None:
        raise ValueError(
            f"{name} compares with the golden run; pass golden=, the outputs of the "
            "same inputs without faults"
        )
    if golden.shape != faulty.shape or (golden.ndim != 2 and not any_shape):
        kind = "[batch, ...]" if any_shape else "[batch, classes]"
        raise ValueError(
            f"{name} of golden outputs {golden.shape} and faulty ones {faulty.shape}; "
            f"expected the same shape {kind}"
        )
    return golden


def _labels(name, outputs, labels) -> Array:
    if labels is None:
        raise ValueError(f"{name} needs the right answers; pass labels=, [batch]")
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or not integers:
        raise ValueError(
            f"{name} of outputs {outputs.shape} and {labels.dtype} labels "
            f"{labels.shape}; expected [batch, classes] and integers [batch]"
        )
    return labels

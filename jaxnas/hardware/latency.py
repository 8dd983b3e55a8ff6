"""Latency of a network out of the measured latencies of its layers.

    latency(network) = slope * sum over layers of latency(layer) + bias

Layers are measured alone; what they do not show (data moved between them, overheads of
calls, what the compiler fuses) is the same sort of thing in all networks of a device.
HSCoNAS (Luo et al., "HSCoNAS: hardware-software co-design of efficient DNNs via neural
architecture search", DATE 2021) adds a mean bias; a slope beside it corrects overheads
that are counted once per layer. Both are fitted to measured networks.

Two layers are one where their shapes agree: word widths are left aside, as a device
that computes in floats does not see them. All functions accept tables with any leading
axes, and are traceable but for the fits. `profiling` measures.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num
from scipy import stats

from jaxnas.topology import LayerTable, products

SHAPE = (
    "kind",
    "in_height",
    "in_width",
    "in_channels",
    "out_height",
    "out_width",
    "out_channels",
    "kernel_height",
    "kernel_width",
    "stride_height",
    "stride_width",
    "dilation_height",
    "dilation_width",
    "upsampling_height",
    "upsampling_width",
    "groups",
)
"""The columns of a layer table that tell measured layers apart."""

Latency = Float[Array, "*batch"]
Measured = Num[np.ndarray | Array, " _"]  # one per network; the lengths are checked


class LayerLatencies(NamedTuple):
    """Measured layers, one per entry, no two of the same shape."""

    shapes: Int[np.ndarray | Array, "entries shape"]  # columns as in `SHAPE`
    latency_us: Float[np.ndarray | Array, " entries"]


class LatencyModel(NamedTuple):
    """Latencies of layers, and what turns their sum into that of a network."""

    layers: LayerLatencies
    slope: float
    bias_us: float


class Accuracy(NamedTuple):
    """How far predictions lie from measurements.

    relative_rmse: root of the mean of ((predicted - measured) / measured)**2.
    """

    relative_rmse: float
    spearman: float
    networks: int


def distinct_shapes(table: LayerTable) -> Int[np.ndarray, "entries shape"]:
    """Every shape that a product of the networks has, once; not traceable."""
    present = np.asarray(products(table).mask)
    return np.unique(np.asarray(layer_shapes(table))[present], axis=0)


def layer_shapes(table: LayerTable) -> Int[Array, "*batch layers shape"]:
    """The columns `SHAPE` of every row."""
    return jnp.stack([jnp.asarray(getattr(table, name)) for name in SHAPE], axis=-1)


def summed_us(table: LayerTable, layers: LayerLatencies) -> Latency:
    """Sum of the measured latencies of all products of a table, in microseconds.

    NaN where a layer of the network has not been measured.
    """
    table = products(table)
    wanted = layer_shapes(table)[..., None, :]
    known = jnp.asarray(layers.shapes)[(None,) * (wanted.ndim - 2)]
    same = jnp.all(wanted == known, axis=-1)
    found = jnp.asarray(layers.latency_us, jnp.float32)[jnp.argmax(same, axis=-1)]
    found = jnp.where(jnp.any(same, axis=-1), found, jnp.nan)
    return jnp.sum(jnp.where(table.mask, found, 0.0), axis=-1)


def predicted_us(table: LayerTable, model: LatencyModel) -> Latency:
    """Latency of the network in microseconds; NaN where a layer is not known."""
    return model.slope * summed_us(table, model.layers) + model.bias_us


def fit_bias(summed: Measured, measured: Measured) -> float:
    """The bias of HSCoNAS in microseconds: the mean of what the sums leave out.

    Raises ValueError as `fit_line`, but takes a single network.
    """
    summed, measured = _pairs(summed, measured, least=1)
    return float(np.mean(measured - summed))


def fit_line(summed: Measured, measured: Measured) -> tuple[float, float]:
    """Slope and bias, in microseconds, of the least squared relative error.

    Raises:
      ValueError: for fewer than three networks, unequal lengths, numbers that are not
        finite, latencies that are not positive, and sums that are all equal.
    """
    summed, measured = _pairs(summed, measured, least=3)
    if np.ptp(summed) == 0:
        raise ValueError(
            f"found the same sum of {summed[0]} microseconds for all networks, from "
            "which no slope follows: measure networks of several sizes"
        )
    rows = np.stack([summed, np.ones_like(summed)], axis=1) / measured[:, None]
    slope, bias = np.linalg.lstsq(rows, np.ones_like(measured))[0]
    return float(slope), float(bias)


def accuracy(predicted: Measured, measured: Measured) -> Accuracy:
    """Agreement of predicted with measured latencies; raises as `fit_line`."""
    predicted, measured = _pairs(predicted, measured, least=3)
    relative = (predicted - measured) / measured
    rmse = float(np.sqrt(np.mean(relative**2)))
    spearman = float(stats.spearmanr(predicted, measured).statistic)
    return Accuracy(rmse, spearman, len(measured))


def save_latencies(path: str | os.PathLike, model: LatencyModel) -> None:
    """Writes the layers by column name, the slope and the bias as JSON."""
    layers = [
        dict(zip(SHAPE, map(int, shape), strict=True)) | {"latency_us": float(latency)}
        for shape, latency in zip(*map(np.asarray, model.layers), strict=True)
    ]
    plain = {"slope": model.slope, "bias_us": model.bias_us, "layers": layers}
    Path(path).write_text(json.dumps(plain, indent=1) + "\n")


def load_latencies(path: str | os.PathLike) -> LatencyModel:
    """What `save_latencies` wrote; ValueError for a file that does not hold it."""
    try:
        plain = json.loads(Path(path).read_text())
        layers = plain["layers"]
        shapes = np.array([[row[name] for name in SHAPE] for row in layers], np.int32)
        latency_us = np.array([row["latency_us"] for row in layers], np.float32)
        found = LayerLatencies(shapes, latency_us)
        return LatencyModel(found, float(plain["slope"]), float(plain["bias_us"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"found no measured latencies in {path} ({error!r}): give the "
            "latency.json that 'jaxnas profile' wrote"
        ) from None


def _pairs(first, measured, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, measured = (np.asarray(a, np.float64) for a in (first, measured))
    if len(first) != len(measured) or len(measured) < least:
        raise ValueError(
            f"found {len(first)} predictions and {len(measured)} measurements, "
            f"expected equally many and at least {least}: give one pair per network"
        )
    if not (np.isfinite(first).all() and np.isfinite(measured).all()):
        raise ValueError(
            "found latencies that are not finite: measure all layers of these networks "
            "first, or leave the networks out"
        )
    if not (measured > 0).all():
        raise ValueError(
            f"found a measured latency of {measured.min()} microseconds, expected more "
            "than 0: leave that network out"
        )
    return first, measured

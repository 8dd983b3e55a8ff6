"""Latencies measured on the present device: of layers alone, and of whole networks.

`profile` draws random networks of a search space, measures every layer that occurs in
them alone, and the networks; fits slope and bias to some of the networks and predicts
the others. Words are float32, what a device computes with; weights are constants of the
programs, as in a network that is shipped. Every measurement is a line on disk before
the next one begins.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from jaxnas import runs
from jaxnas.hardware.latency import (
    SHAPE,
    Accuracy,
    LatencyModel,
    LayerLatencies,
    accuracy,
    distinct_shapes,
    fit_bias,
    fit_line,
    layer_shapes,
    save_latencies,
    summed_us,
)
from jaxnas.networks import space as spaces
from jaxnas.networks.compact import CompactNetwork
from jaxnas.networks.layers import FLOAT, per_channel
from jaxnas.networks.materialize import network_spec
from jaxnas.networks.space import SearchSpace
from jaxnas.networks.tables import layer_table
from jaxnas.plots import plot_latency
from jaxnas.progress import progress_bar
from jaxnas.topology import MAP_PRODUCT

PASSES = 6
"""Everything is measured so often, in passes over all of it, and the least counts: a
machine that is shared is slow for seconds at a time, hardly in every pass."""
SECONDS = 0.05
"""In a pass, a program is called over and over for about so long,"""
ROUND = 1e-3
"""timed in rounds of so many seconds or one call: short ones, of which some are left
alone by whatever else the machine does,"""
ROUNDS = 5
"""and in at least so many."""

Shape = Sequence[int] | Int[np.ndarray, " shape"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """What is measured.

    batch: images in one call; latencies are those of the whole batch.
    networks: how many are measured, and fitted: how many of these the fit may see.

    Raises ValueError for counts with nothing to fit or nothing to predict.
    """

    space: SearchSpace
    batch: int = 32
    networks: int = 150
    fitted: int = 50
    seed: int = 0

    def __post_init__(self):
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}, expected at least one image")
        if not 3 <= self.fitted <= self.networks - 3:
            raise ValueError(
                f"found {self.networks} networks of which {self.fitted} are fitted, "
                "expected at least three to fit and three others to predict"
            )


def profile(
    config: Profile,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> dict[str, Accuracy]:
    """Measures layers and networks into the run directory `out`.

    Writes `layers.jsonl`, `networks.jsonl`, `latency.json` (the `LatencyModel`, see
    `load_latencies`), `accuracy.json` and a figure. Returns how well networks that the
    fit did not see are predicted: by the sum alone, with a bias, with slope and bias.

    Raises ValueError, before anything is measured, as `runs.open_run` does.
    """
    options = {"resume": resume, "overwrite": overwrite, "command": command}
    runs.open_run(out, out.name, config, **options)
    genotypes = distinct_genotypes(config.space, config.networks, config.seed)
    tables = jax.tree.map(np.asarray, _tables(config.space, genotypes))
    shapes = distinct_shapes(tables)
    network = functools.partial(network_clock, config.space, batch=config.batch)
    least_us = _measure(
        out,
        {"layers": shapes, "networks": genotypes},
        {
            "layers": functools.partial(layer_clock, batch=config.batch),
            "networks": network,
        },
    )
    known = LayerLatencies(shapes, np.array(least_us["layers"], np.float32))
    summed = np.asarray(summed_us(tables, known), np.float64)
    return _conclude(config, out, known, summed, np.array(least_us["networks"]))


def _conclude(config, out, layers, summed, measured) -> dict[str, Accuracy]:
    """Fits the first networks, predicts the others, and writes both down."""
    seen, unseen = slice(config.fitted), slice(config.fitted, None)
    slope, bias = fit_line(summed[seen], measured[seen])
    predictions = {
        "sum": summed,
        "sum_and_bias": summed + fit_bias(summed[seen], measured[seen]),
        "slope_and_bias": slope * summed + bias,
    }
    found = {
        name: accuracy(predicted[unseen], measured[unseen])
        for name, predicted in predictions.items()
    }
    save_latencies(out / "latency.json", LatencyModel(layers, slope, bias))
    plain = {name: one._asdict() for name, one in found.items()}
    runs.write_text(out / "accuracy.json", json.dumps(plain, indent=2) + "\n")
    shown = {name: predicted[unseen] for name, predicted in predictions.items()}
    (out / "figures").mkdir(exist_ok=True)
    plot_latency(out / "figures" / "latency.png", shown, measured[unseen])
    return found


def _measure(out: Path, items: dict, clocks: dict) -> dict[str, list[float]]:
    """The least latency of every item; what a file has is not measured again."""
    items = {name: [tuple(map(int, one)) for one in items[name]] for name in items}
    clocks = {name: functools.cache(clocks[name]) for name in clocks}
    known = {name: _measured(out / f"{name}.jsonl") for name in items}
    total = PASSES * sum(map(len, items.values()))
    with progress_bar() as bar:
        done = sum(map(len, known.values()))
        task = bar.add_task("layers and networks", total=total, completed=done)
        for number, name in itertools.product(range(PASSES), items):
            for item in items[name]:
                if (item, number) not in known[name]:
                    latency_us = clocks[name](item)()
                    known[name][item, number] = latency_us
                    line = {"item": item, "pass": number, "latency_us": latency_us}
                    runs.append_lines(out / f"{name}.jsonl", [line])
                    bar.advance(task)
    return {
        name: [min(known[name][one, n] for n in range(PASSES)) for one in items[name]]
        for name in items
    }


def _measured(path: Path) -> dict[tuple, float]:
    lines = runs.keep_lines(path, lambda line: True)
    return {(tuple(line["item"]), line["pass"]): line["latency_us"] for line in lines}


def distinct_genotypes(
    space: SearchSpace, count: int, seed: int
) -> Int[np.ndarray, "count genes"]:
    """Random canonical genotypes whose networks have different layers or sizes.

    Raises ValueError where the space seems not to have so many.
    """
    found: dict[bytes, np.ndarray] = {}
    draw = jax.jit(jax.vmap(functools.partial(spaces.sample, space=space)))
    for attempt in range(10):
        key = jax.random.fold_in(jax.random.key(seed), attempt)
        genotypes = draw(jax.random.split(key, 2 * count))
        shapes = np.asarray(layer_shapes(_tables(space, genotypes)))
        for genotype, one in zip(np.asarray(genotypes), shapes, strict=True):
            found.setdefault(one.tobytes(), genotype)
        if len(found) >= count:
            return np.stack(list(found.values())[:count])
    raise ValueError(
        f"found only {len(found)} networks of different layers in the space, expected "
        f"{count}: ask for fewer networks"
    )


def _tables(space: SearchSpace, genotypes):
    return jax.jit(jax.vmap(functools.partial(layer_table, space)))(genotypes)


def layer_clock(shape: Shape, *, batch: int = 1) -> Callable[[], float]:
    """Measures microseconds of one layer (product, bias, maximum with zero) by itself.

    shape: its columns `latency.SHAPE`. What calling any program costs is taken off.
    """
    fun, (maps, weights) = layer_program(shape, batch=batch)
    call = _compiled(lambda *x: fun(*x, *weights), *maps)
    return lambda: max(time_us(call) - _call_us(), 0.0)


def network_clock(
    space: SearchSpace, genotype: Shape, *, batch: int = 1
) -> Callable[[], float]:
    """Measures microseconds of a genotype's network, in float32, random weights."""
    genotype = jnp.asarray(genotype, jnp.int32)
    module = CompactNetwork(network_spec(space, genotype, scheme=FLOAT))
    images = jnp.asarray(
        np.random.default_rng(0).integers(0, 256, (batch, *space.image)), jnp.uint8
    )
    declared = jax.eval_shape(module.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype), declared
    )
    call = _compiled(lambda images: module.apply(variables, images), images)
    return lambda: time_us(call)


@functools.cache
def _call_us() -> float:
    """Of a program that does nothing."""
    call = _compiled(lambda x: x + 1, jnp.zeros(8))
    return min(time_us(call) for _ in range(PASSES))


def _compiled(fun: Callable, *args: Any) -> Callable[[], Any]:
    return functools.partial(jax.jit(fun).lower(*args).compile(), *args)


def time_us(call: Callable[[], Any]) -> float:
    """Microseconds of one call of a compiled function: the least mean of a round.

    The least, as whatever else a machine does only ever adds.
    """
    jax.block_until_ready(call())
    began = time.perf_counter()
    jax.block_until_ready(call())
    once = max(time.perf_counter() - began, 1e-7)
    count = max(1, int(ROUND / once))
    rounds = max(ROUNDS, int(SECONDS / (count * once)))

    def mean() -> float:
        began = time.perf_counter()
        for _ in range(count):
            result = call()
        jax.block_until_ready(result)
        return (time.perf_counter() - began) / count

    return 1e6 * min(mean() for _ in range(rounds))


def layer_program(
    shape: Shape, *, batch: int
) -> tuple[Callable, tuple[list[Array], list[Array]]]:
    """The layer of a shape as a function, and random maps and weights for it."""
    row = dict(zip(SHAPE, map(int, shape), strict=True))
    rng = np.random.default_rng(0)

    def array(*sides) -> Float[Array, "..."]:
        return jnp.asarray(rng.normal(size=sides), jnp.float32)

    groups, outputs = row["groups"], row["out_channels"]
    inputs = row["in_channels"] // groups
    pixels = row["in_height"] * row["in_width"]
    if row["kind"] == MAP_PRODUCT:
        left = array(batch, groups, pixels, inputs)
        right = array(batch, groups, inputs, outputs // groups)
        return _matmul, ([left, right], [])
    bias = array(outputs)
    sides = row["in_height"], row["in_width"]
    kernel = array(row["kernel_height"], row["kernel_width"], inputs, outputs)
    if kernel.shape[:2] == sides == (1, 1) and groups == 1:
        return _dense, ([array(batch, inputs)], [kernel[0, 0], bias])
    x = array(batch, *sides, row["in_channels"])
    return functools.partial(_convolution, row), ([x], [kernel, bias])


def _matmul(left, right):
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)


def _dense(x, kernel, bias):
    return _matmul(x, kernel) + bias[None, :]


def _convolution(row: dict[str, int], x, kernel, bias) -> Shaped[Array, "..."]:
    def both(name):
        return row[f"{name}_height"], row[f"{name}_width"]

    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=both("stride"),
        padding=[_padding(row, axis) for axis in ("height", "width")],
        lhs_dilation=both("upsampling"),
        rhs_dilation=both("dilation"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=row["groups"],
        precision=lax.Precision.HIGHEST,
    )
    return jax.nn.relu(y + per_channel(bias))


def _padding(row: dict[str, int], axis: str) -> tuple[int, int]:
    """Pixels before and behind, from the sizes; one more behind where it is odd."""
    spread = (row[f"in_{axis}"] - 1) * row[f"upsampling_{axis}"] + 1
    window = (row[f"kernel_{axis}"] - 1) * row[f"dilation_{axis}"] + 1
    missing = (row[f"out_{axis}"] - 1) * row[f"stride_{axis}"] + window - spread
    return missing // 2, missing - missing // 2

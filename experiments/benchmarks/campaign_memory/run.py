"""Does the memory of a campaign stay constant over a million trials?

The network is a small CNN (28x28x1, 3x3 convolutions of 16, 32 and 32 channels, the
last two with stride 2, mean, dense layer; 14,378 parameters) with random weights. Every
trial flips each bit of the float32 parameters with a probability that makes one flip a
trial on average, and evaluates few random images: what is measured is the memory of
the campaign, not the network. Columns go to disk. Usage:

    python experiments/benchmarks/campaign_memory/run.py [--trials N] [--images N]
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnas.faults import (
    bit_flips,
    campaign,
    corrupt,
    due,
    masked,
    output_distance,
    sdc1,
    sdc5,
)

HERE = Path(__file__).parent
METRICS = (sdc1, sdc5, due, masked, output_distance)
LAYERS = ((1, 16, 1), (16, 32, 2), (32, 32, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10**6)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="between readings")
    arguments = parser.parse_args()
    weights, images = problem(arguments.images)
    readings, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        ended = threading.Event()

        def watch():
            while not ended.wait(arguments.seconds):
                readings.append(reading(records, began))
                print(readings[-1], flush=True)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        found = campaign(
            faulty,
            (weights, images),
            key=jax.random.key(0),
            trials=arguments.trials,
            metrics=METRICS,
            golden=network(weights, images),
            records=records,
        )
        ended.set()
        watcher.join()
        readings.append(reading(records, began))
        means = {name: float(found.columns[name].mean()) for name in ("sdc1", "due")}
    write(arguments, readings, means)


def problem(count: int):
    keys = iter(jax.random.split(jax.random.key(1), 5))
    weights = {}
    for number, (inputs, outputs, _) in enumerate(LAYERS):
        shape, spread = (3, 3, inputs, outputs), (2 / (9 * inputs)) ** 0.5
        weights[f"conv{number}"] = spread * jax.random.normal(next(keys), shape)
        weights[f"bias{number}"] = jnp.zeros(outputs)
    weights["dense"] = jax.random.normal(next(keys), (32, 10)) / 32**0.5
    weights["bias"] = jnp.zeros(10)
    return weights, jax.random.normal(next(keys), (count, 28, 28, 1))


@jax.jit
def network(weights, x):
    for number, (_, _, stride) in enumerate(LAYERS):
        x = jax.lax.conv_general_dilated(
            x,
            weights[f"conv{number}"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + weights[f"bias{number}"])
    return x.mean((1, 2)) @ weights["dense"] + weights["bias"]


def faulty(key, weights, images):
    bits = 32 * sum(leaf.size for leaf in jax.tree.leaves(weights))
    return network(corrupt(key, weights, bit_flips(1 / bits)), images)


def reading(records: Path, began: float) -> dict:
    """Rows on the disk, and the resident memory of this process, mapped files in it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    column = records / "sdc1.bin"
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "trials": column.stat().st_size // 4 if column.exists() else 0,
        "resident_mib": round(pages * resource.getpagesize() / 2**20, 1),
    }


def write(arguments, readings: list[dict], means: dict) -> None:
    # The compilation and the first chunks, of growing length, come before.
    settled = [r for r in readings if r["trials"] >= arguments.trials / 10]
    sizes = [reading["resident_mib"] for reading in settled]
    results = {
        "trials": arguments.trials,
        "images": arguments.images,
        "means": means,
        "resident_mib_after_a_tenth": sizes[0],
        "resident_mib_highest_since": max(sizes),
        "resident_mib_at_the_end": sizes[-1],
        "readings": readings,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": os.cpu_count(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "campaign_memory.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps({**results, "readings": len(readings)}, indent=2))


if __name__ == "__main__":
    main()

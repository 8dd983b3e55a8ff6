"""How much accuracy do the words of each number scheme cost, after training with them?

One architecture is trained with float32 words. From there it is trained on, at a lower
rate and on the same batches, with float32 words and with 8-bit and 4-bit words in fixed
point and in logarithms; seeds are paired. Every case is written down when it is done,
and a run with the same settings goes on where it was interrupted. Usage:

    python experiments/quantization_accuracy/run.py digits
    python experiments/quantization_accuracy/run.py FOLDER  # parquet, such as MNIST
"""

import argparse
import csv
import json
import os
import platform
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from jaxnas.data import load_images  # noqa: E402
from jaxnas.networks import space as spaces  # noqa: E402
from jaxnas.networks.layers import FLOAT, SCHEMES  # noqa: E402
from jaxnas.networks.space import SearchSpace, Stage  # noqa: E402
from jaxnas.training import (  # noqa: E402
    Recipe,
    evaluate_group,
    fit_group,
    initial_weights,
)

HERE = Path(__file__).parent
FORMATS = (FLOAT, *SCHEMES)
BITS = (4, 8)


class Case(NamedTuple):
    """A number scheme and the widths of its words."""

    scheme: str
    bits: int
    ends: int  # of the first and the last layer


BASELINE = Case(FLOAT, 8, 8)
WIDTHS = ((8, 8), (4, 4), (4, 8))
CASES = [BASELINE] + [Case(scheme, *bits) for scheme in SCHEMES for bits in WIDTHS]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="'digits' or a folder of parquet files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500, help="of the floats")
    parser.add_argument("--tuning", type=int, default=750, help="steps after those")
    parser.add_argument("--rate", type=float, default=2e-3, help="of tuning")
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    images = load_images(arguments.data)
    space = SearchSpace(
        image=images.train_images.shape[1:],
        classes=images.classes,
        stages=tuple(Stage(widths=(w,), blocks=1) for w in (8, 16, 32)),
        kernels=(3,),
        expansions=(1,),
        word_bits=BITS,
    )
    accuracy = read(images.name, arguments)
    floats = pretrain(images, space, arguments)
    for case in CASES:
        if case not in accuracy:
            accuracy[case] = tune(images, space, floats, case, arguments)
            write(images.name, accuracy, arguments)


def genotype(space: SearchSpace, case: Case) -> jax.Array:
    """One convolution with a shortcut in every stage."""
    counts = np.asarray(spaces.cardinalities(space))
    genes = np.zeros(len(counts), np.int32)
    stem, head = len(spaces.STEM_GENES), len(spaces.HEAD_GENES)
    rows = genes[stem:-head].reshape(-1, len(spaces.BLOCK_GENES))
    for name in ("present", "residual"):
        rows[:, spaces.BLOCK_GENES.index(name)] = 1
    names = (*spaces.STEM_GENES, *spaces.BLOCK_GENES * space.slots, *spaces.HEAD_GENES)
    widths = np.array([name.endswith("_bits") for name in names])
    genes[widths] = BITS.index(case.bits)
    at_ends = np.ones(len(names), bool)
    at_ends[stem:-head] = False
    genes[widths & at_ends] = BITS.index(case.ends)
    return spaces.canonical(space, jnp.asarray(genes))


def pretrain(images, space, arguments):
    """One network of float32 words per seed."""
    keys = seeds(arguments, 0)
    weights = jax.vmap(lambda key: initial_weights(key, space))(keys)
    recipe = Recipe(arguments.steps, 1e-2, batch=arguments.batch, shift=0)
    return train(images, space, weights, BASELINE, keys, recipe)


def tune(images, space, weights, case, arguments) -> list[float]:
    """Test accuracy of one network per seed, trained on with the words of a case."""
    recipe = Recipe(arguments.tuning, arguments.rate, batch=arguments.batch, shift=0)
    keys = seeds(arguments, 1)
    trained = train(images, space, weights, case, keys, recipe)
    test = jnp.asarray(images.test_images), jnp.asarray(images.test_labels)
    group, options = setting(space, case, arguments.seeds)
    error = evaluate_group(space, trained, group, *test, **options)
    found = [float(1 - one) for one in error]
    print(*case, np.round(found, 4), flush=True)
    return found


def train(images, space, weights, case, keys, recipe):
    group, options = setting(space, case, len(keys))
    data = jnp.asarray(images.train_images), jnp.asarray(images.train_labels)
    return fit_group(keys, space, weights, group, *data, recipe, **options)


def seeds(arguments, phase: int) -> jax.Array:
    keys = [jax.random.key(seed) for seed in range(arguments.seeds)]
    return jnp.stack([jax.random.fold_in(key, phase) for key in keys])


def setting(space, case: Case, count: int) -> tuple[jax.Array, dict]:
    """Genotypes for every seed, and the number scheme."""
    group = jnp.stack([genotype(space, case)] * count)
    return group, {"scheme": FORMATS.index(case.scheme), "schemes": FORMATS}


def settings(arguments) -> dict:
    """What all cases of one file of results have in common."""
    return {
        "seeds": arguments.seeds,
        "steps": arguments.steps,
        "tuning": arguments.tuning,
        "rate": arguments.rate,
        "batch": arguments.batch,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def read(name: str, arguments) -> dict[Case, list[float]]:
    """The cases that earlier runs with these settings have finished."""
    described = HERE / "results" / f"{name}.json"
    if not described.is_file():
        return {}
    found = json.loads(described.read_text())
    if any(found[key] != value for key, value in settings(arguments).items()):
        return {}
    accuracy: dict[Case, list[float]] = {}
    with described.with_suffix(".csv").open() as file:
        for row in csv.DictReader(file):
            case = Case(row["scheme"], int(row["bits"]), int(row["ends"]))
            accuracy.setdefault(case, []).append(float(row["accuracy"]))
    return accuracy


def write(name: str, accuracy: dict[Case, list[float]], arguments) -> None:
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / f"{name}.json"
    float32 = np.array(accuracy[BASELINE])
    rows, summary = [], []
    for case, found in accuracy.items():
        rows += [
            case._asdict() | {"seed": seed, "accuracy": one}
            for seed, one in enumerate(found)
        ]
        if case != BASELINE:
            low, mean, high = interval(100 * (np.array(found) - float32))
            points = {"points": mean, "low": low, "high": high}
            summary.append(case._asdict() | points)
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    described = {
        "float32_accuracy": float(float32.mean()),
        "difference_to_float32": summary,
    }
    path.write_text(json.dumps(described | settings(arguments), indent=2) + "\n")


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Student's 95 % interval of the mean around it."""
    mean, error = differences.mean(), stats.sem(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    return float(mean - half), float(mean), float(mean + half)


if __name__ == "__main__":
    main()

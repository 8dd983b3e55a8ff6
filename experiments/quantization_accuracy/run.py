"""How much accuracy do the words of each number scheme cost, after training with them?

One architecture is trained with float32 words. From there it is trained on, at a lower
rate and on the same batches, with float32 words and with 8-bit and 4-bit words in fixed
point and in logarithms; seeds are paired. Usage:

    python experiments/quantization_accuracy/run.py digits
    python experiments/quantization_accuracy/run.py FOLDER  # parquet, such as MNIST
"""

import argparse
import csv
import json
import os
import platform
from pathlib import Path

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
CASES = [(FLOAT, 8)] + [(scheme, bits) for scheme in SCHEMES for bits in (8, 4)]
BITS = (4, 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="'digits' or a folder of parquet files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1500, help="of the floats")
    parser.add_argument("--tuning", type=int, default=750, help="steps after those")
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
    floats = pretrain(images, space, arguments)
    accuracy = {case: tune(images, space, floats, case, arguments) for case in CASES}
    write(images.name, accuracy, arguments)


def genotype(space: SearchSpace, bits: int) -> jax.Array:
    """One convolution with a shortcut in every stage, all words of this width."""
    counts = np.asarray(spaces.cardinalities(space))
    genes = np.zeros(len(counts), np.int32)
    rows = genes[len(spaces.STEM_GENES) : -len(spaces.HEAD_GENES)]
    rows = rows.reshape(-1, len(spaces.BLOCK_GENES))
    for name in ("present", "residual"):
        rows[:, spaces.BLOCK_GENES.index(name)] = 1
    names = (*spaces.STEM_GENES, *spaces.BLOCK_GENES * space.slots, *spaces.HEAD_GENES)
    widths = [name.endswith("_bits") for name in names]
    genes[widths] = BITS.index(bits)
    return spaces.canonical(space, jnp.asarray(genes))


def pretrain(images, space, arguments):
    """One network of float32 words per seed."""
    keys = seeds(arguments, 0)
    weights = jax.vmap(lambda key: initial_weights(key, space))(keys)
    recipe = Recipe(arguments.steps, 1e-2, batch=arguments.batch, shift=0)
    return train(images, space, weights, CASES[0], keys, recipe)


def tune(images, space, weights, case, arguments) -> list[float]:
    """Test accuracy of one network per seed, trained on with the words of a case."""
    recipe = Recipe(arguments.tuning, 2e-3, batch=arguments.batch, shift=0)
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


def setting(space, case, count: int) -> tuple[jax.Array, dict]:
    """Genotypes for every seed, and the number scheme."""
    scheme, bits = case
    group = jnp.stack([genotype(space, bits)] * count)
    return group, {"scheme": FORMATS.index(scheme), "schemes": FORMATS}


def write(name: str, accuracy: dict, arguments) -> None:
    (HERE / "results").mkdir(exist_ok=True)
    float32 = np.array(accuracy[CASES[0]])
    rows, summary = [], []
    for (scheme, bits), found in accuracy.items():
        rows += [
            {"scheme": scheme, "bits": bits, "seed": seed, "accuracy": one}
            for seed, one in enumerate(found)
        ]
        if scheme != FLOAT:
            low, mean, high = interval(100 * (np.array(found) - float32))
            one = {"scheme": scheme, "bits": bits, "points": mean}
            summary.append({**one, "low": low, "high": high})
    with (HERE / "results" / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    described = {
        "float32_accuracy": float(float32.mean()),
        "difference_to_float32": summary,
        "seeds": arguments.seeds,
        "steps": arguments.steps,
        "tuning": arguments.tuning,
        "batch": arguments.batch,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
    }
    path = HERE / "results" / f"{name}.json"
    path.write_text(json.dumps(described, indent=2) + "\n")
    print(path.read_text())


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Student's 95 % interval of the mean around it."""
    mean, error = differences.mean(), stats.sem(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    return float(mean - half), float(mean), float(mean + half)


if __name__ == "__main__":
    main()

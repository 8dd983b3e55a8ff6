"""How much faster is one call that trains K networks than K separate trainings?

One call: the supernet's training program, compiled once, trains K genotypes. Separate:
each genotype's compact flax network gets its own program, compiled and run, as one
would train a network by itself. Same networks, data, steps, batch and number scheme;
compilation counts in both; the persistent compilation cache is off. The calls are
spread among the separate trainings, so that both meet the same neighbours. Usage:

    python experiments/benchmarks/population_training/run.py [--sizes 1 8 32]
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from jaxnas.cli import load_config  # noqa: E402
from jaxnas.networks import space as spaces  # noqa: E402
from jaxnas.networks.materialize import materialize  # noqa: E402
from jaxnas.preparation import prepare  # noqa: E402
from jaxnas.training import Weights, fit_group, initial_weights  # noqa: E402

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32])
    arguments = parser.parse_args()
    root = HERE.parents[2]
    stage = prepare(load_config(root / "configs" / "digits.py"), Path())
    recipe, space = stage.problem.child_recipe, stage.problem.space
    keys = jax.random.split(jax.random.key(0), max(arguments.sizes))
    genotypes = jax.vmap(lambda key: spaces.sample(key, space))(keys)
    weights = jax.vmap(lambda key: initial_weights(key, space))(keys)
    alone, together = [], {size: [] for size in arguments.sizes}
    for i in range(max(arguments.sizes)):
        if i % (max(arguments.sizes) // 2) == 0:
            for size in arguments.sizes:
                parts = keys[:size], genotypes[:size], row(weights, slice(size))
                together[size].append(group(stage, *parts))
        alone.append(separate(stage, keys[i], genotypes[i], row(weights, i), recipe))
    rows = [compared(size, alone, together[size]) for size in arguments.sizes]
    write(rows, recipe)


def compared(size: int, alone: list[dict], together: list[float]) -> dict:
    apart = {name: sum(one[name] for one in alone[:size]) for name in alone[0]}
    call = sum(together) / len(together)
    result = {
        "networks": size,
        "one_call_seconds": together,
        "separate_compile_seconds": apart["compile"],
        "separate_run_seconds": apart["run"],
        "ratio": (apart["compile"] + apart["run"]) / call,
    }
    print(result, flush=True)
    return result


def row(weights, index):
    return jax.tree.map(lambda leaf: leaf[index], weights)


def group(stage, keys, genotypes, weights) -> float:
    """Seconds of one call, compilation included."""
    jax.clear_caches()
    problem = stage.problem
    began = time.perf_counter()
    trained = fit_group(
        keys,
        problem.space,
        weights,
        genotypes,
        problem.train_images,
        problem.train_labels,
        problem.child_recipe,
        schemes=("fixed_point",),
    )
    jax.block_until_ready(trained)
    return time.perf_counter() - began


def separate(stage, key, genotype, weights: Weights, recipe) -> dict:
    """Seconds to compile and to run the training of one compact network."""
    module, variables = materialize(stage.problem.space, genotype, *weights)
    train = jax.jit(trainer(module, recipe))
    images, labels = stage.problem.train_images, stage.problem.train_labels
    began = time.perf_counter()
    program = train.lower(key, variables, images, labels).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(program(key, variables, images, labels))
    return {"compile": compiled - began, "run": time.perf_counter() - compiled}


def trainer(module, recipe):
    """The same training as `jaxnas.training.fit` for any flax module."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    optimizer = optax.adamw(schedule, weight_decay=recipe.weight_decay)

    def loss(params, statistics, images, labels):
        variables = {"params": params, "batch_stats": statistics}
        logits, moved = module.apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), moved["batch_stats"]

    def train(key, variables, images, labels):
        def step(carry, number):
            params, statistics, state = carry
            draw = jax.random.fold_in(key, number)
            chosen = jax.random.randint(draw, (recipe.batch,), 0, images.shape[0])
            gradients, statistics = jax.grad(loss, has_aux=True)(
                params, statistics, images[chosen], labels[chosen]
            )
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), statistics, state), None

        params = variables["params"]
        start = params, variables["batch_stats"], optimizer.init(params)
        return jax.lax.scan(step, start, jnp.arange(recipe.steps))[0]

    return train


def write(rows: list[dict], recipe) -> None:
    results = {
        "rows": rows,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": os.cpu_count(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "population_training.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

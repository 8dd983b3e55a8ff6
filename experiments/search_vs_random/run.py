"""Does LEMONADE find a better front than random search with the same training?

Both start from the same trained networks of one seed, then train the same number of
children for the same number of steps; only where children come from differs. Usage:

    python experiments/search_vs_random/run.py [--seeds 6] [--smoke]
"""

import argparse
import csv
import dataclasses
import json
import time
from pathlib import Path

from jaxnas.cli import load_config, set_jax_defaults

set_jax_defaults()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from scipy import stats  # noqa: E402

from jaxnas.networks import space as spaces  # noqa: E402
from jaxnas.preparation import GENERATION, START, Stage, prepare  # noqa: E402
from jaxnas.search import evolution  # noqa: E402
from jaxnas.search.hypervolume import hypervolume  # noqa: E402
from jaxnas.search.objectives import (  # noqa: E402
    EXPENSIVE,
    HYPERVOLUME_REFERENCE,
    hypervolume_points,
)
from jaxnas.search.random import RandomSearch  # noqa: E402
from jaxnas.training import Weights, evaluate_group  # noqa: E402

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    digits = HERE.parents[1] / "configs" / "digits.py"
    config = load_config(digits, "smoke" if arguments.smoke else "config")
    rows = []
    for seed in range(arguments.seeds):
        rows += compare(dataclasses.replace(config, seed=seed))
        for row in rows[-2:]:
            print({k: v for k, v in row.items() if k != "curve"}, flush=True)
    if not arguments.smoke:
        write(rows)


def compare(config) -> list[dict]:
    """One row for each method, from the same initial networks."""
    stage = prepare(config, Path())
    lemonade = stage.problem
    begun, individuals = evolution.start(stage.key(START), lemonade)
    initial = matrix([one.objectives for one in individuals], lemonade.objectives)
    random = lemonade._replace(algorithm=random_search(lemonade))
    problems = {"lemonade": lemonade, "random": random}
    return [
        {"seed": config.seed, "method": name, **run(stage, problem, begun, initial)}
        for name, problem in problems.items()
    ]


def random_search(problem) -> RandomSearch:
    """Random search with the front, the memory and the budget of the other one."""
    like = problem.algorithm
    return RandomSearch(
        like.population_size,
        spaces.smallest(problem.space),
        num_objectives=like.num_objectives,
        sample=lambda key: spaces.sample(key, problem.space),
        accepted=like.accepted,
        memory=like.memory,
    )


def run(stage: Stage, problem, state, initial) -> dict:
    began = time.perf_counter()
    curve = [volume(problem, state, initial)]
    for number in range(1, stage.config.evolution.generations + 1):
        key = stage.key(GENERATION, number)
        state, _ = evolution.generation(key, problem, state)
        curve.append(volume(problem, state, initial))
    return {
        "evaluated": int(state.evaluated),
        "front_size": int(state.algorithm.mask.sum()),
        "hypervolume": curve[-1],
        "hypervolume_test": volume(problem, on_test(stage, problem, state), initial),
        "best_error": float(state.algorithm.fitness.min(axis=0)[0]),
        "seconds": time.perf_counter() - began,
        "curve": curve,
    }


def volume(problem, state, initial) -> float:
    """Hypervolume of the front on the scales of the initial networks."""
    front = state.algorithm
    fitness = np.where(front.mask[:, None], front.fitness, 1.0)
    points = hypervolume_points(fitness, initial, problem.objectives)
    reference = jnp.full(len(problem.objectives), HYPERVOLUME_REFERENCE)
    return float(hypervolume(jnp.asarray(points, jnp.float32), reference, front.mask))


def on_test(stage: Stage, problem, state):
    """The same front with its error measured on the test images."""
    front, group = state.algorithm, problem.algorithm.accepted
    errors = []
    for first in range(0, front.population.shape[0], group):
        rows = np.arange(first, first + group).clip(max=front.population.shape[0] - 1)
        weights = Weights(*jax.tree.map(lambda leaf: leaf[rows], state.weights))  # noqa: B023
        test = stage.evaluation.test_images, stage.evaluation.test_labels
        genotypes = front.population[rows]
        errors.append(evaluate_group(problem.space, weights, genotypes, *test))
    error = jnp.concatenate(errors)[: front.population.shape[0]]
    column = problem.objectives.index(EXPENSIVE)
    fitness = jnp.asarray(front.fitness).at[:, column].set(error)
    return state._replace(algorithm=front.replace(fitness=fitness))


def matrix(objectives, names) -> np.ndarray:
    return np.array([[one[name] for name in names] for one in objectives])


def write(rows: list[dict]) -> None:
    """Tables, the paired summary and the figure."""
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    table = [{k: v for k, v in row.items() if k != "curve"} for row in rows]
    with (results / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    summary = {name: paired(rows, name) for name in ("hypervolume", "hypervolume_test")}
    summary["jax"] = jax.__version__
    summary["devices"] = [device.device_kind for device in jax.devices()]
    (results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))
    draw(rows)


def paired(rows, name) -> dict:
    """Differences over the seeds, their mean with a 95 % t interval, and wins."""
    values = {
        method: np.array([row[name] for row in rows if row["method"] == method])
        for method in ("lemonade", "random")
    }
    differences = values["lemonade"] - values["random"]
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    return {
        "seeds": len(differences),
        "lemonade": float(values["lemonade"].mean()),
        "random": float(values["random"].mean()),
        "difference": float(differences.mean()),
        "low": float(differences.mean() - half),
        "high": float(differences.mean() + half),
        "wins": int((differences > 0).sum()),
    }


def draw(rows) -> None:
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    ax = figure.subplots()
    for method, colour in (("lemonade", "tab:blue"), ("random", "tab:orange")):
        curves = np.array([row["curve"] for row in rows if row["method"] == method])
        generations = np.arange(curves.shape[1])
        ax.plot(generations, curves.T, color=colour, alpha=0.3, lw=0.8)
        ax.plot(generations, curves.mean(0), color=colour, lw=2, label=method)
    ax.set_xlabel("generation")
    ax.set_ylabel("hypervolume of the front")
    ax.legend(frameon=False)
    figure.savefig(HERE / "hypervolume.png", dpi=150)


if __name__ == "__main__":
    main()

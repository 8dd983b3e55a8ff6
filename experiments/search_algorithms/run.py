"""Which algorithm finds the best front for the same training?

All start from the same trained networks of one seed and then train the same number of
networks for the same number of steps; only where children come from, and who survives,
differs. Every finished search is a line of `results/runs.jsonl` and is not repeated.
Usage:

    python experiments/search_algorithms/run.py --mnist FOLDER [--seeds 5] [--smoke]
"""

import argparse
import csv
import dataclasses
import json
import platform
import time
from pathlib import Path

from jaxnas.cli import load_config, set_jax_defaults

set_jax_defaults()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from scipy import stats  # noqa: E402

from jaxnas.config import DataConfig, SpaceConfig, TrainingConfig  # noqa: E402
from jaxnas.networks.space import Stage as SpaceStage  # noqa: E402
from jaxnas.preparation import GENERATION, START, prepare  # noqa: E402
from jaxnas.search import evolution  # noqa: E402
from jaxnas.search.evolution import front_of  # noqa: E402
from jaxnas.search.objectives import EXPENSIVE, front_hypervolume  # noqa: E402
from jaxnas.training import evaluate_group, groups_of  # noqa: E402

HERE = Path(__file__).parent
METHODS = {
    "LEMONADE": dict(algorithm="lemonade"),
    "LEMONADE, 256 proposals": dict(algorithm="lemonade", proposals=256),
    "LEMONADE without surrogate": dict(algorithm="lemonade", screening=0),
    "LEMONADE without filter": dict(algorithm="lemonade", proposals=8),
    "NSGA-II": dict(algorithm="nsga2"),
    "NSGA-II with surrogate": dict(algorithm="nsga2", screening=256),
    "aging evolution": dict(algorithm="aging"),
    "random search": dict(algorithm="random"),
}
ABLATIONS = ("LEMONADE, 256 proposals", "NSGA-II with surrogate")
"""Run on digits alone."""
CHILDREN = 64
TRAINING = TrainingConfig(initial_steps=80, child_steps=40, batch=16)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", help="folder of MNIST's parquet files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    lines = results / "runs.jsonl"
    done = [] if arguments.smoke else read(lines)
    for seed in range(arguments.seeds):
        for name, config in configurations(arguments).items():
            config = dataclasses.replace(config, seed=seed)
            for row in searches(name, config, done, arguments.smoke):
                print({k: v for k, v in row.items() if k != "curve"}, flush=True)
                done.append(row)
                if not arguments.smoke:
                    with lines.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    if not arguments.smoke:
        write(done, results)


def configurations(arguments) -> dict:
    """The space of configs/digits.py, and one like that of configs/mnist.py but small
    enough for two cores, with 2,000 training images; short trainings in both."""
    kind = "smoke" if arguments.smoke else "config"
    configs = HERE.parents[1] / "configs"
    digits = load_config(configs / "digits.py", kind)
    found = {"digits": dataclasses.replace(digits, training=TRAINING)}
    if arguments.mnist:
        found["mnist"] = dataclasses.replace(
            load_config(configs / "mnist.py", kind),
            data=DataConfig(path=arguments.mnist, limit=2500),
            space=SpaceConfig(
                stages=tuple(
                    SpaceStage(widths=widths, blocks=1)
                    for widths in ((2, 4), (4, 8), (8, 16))
                ),
            ),
            training=TRAINING,
        )
    return found


def searches(data: str, config, done: list[dict], smoke: bool):
    """One row for each method that is not done, all from the same first networks."""
    known = [(row["data"], row["method"], row["seed"]) for row in done]
    wanted = [name for name in METHODS if data == "digits" or name not in ABLATIONS]
    missing = [name for name in wanted if (data, name, config.seed) not in known]
    trained = None
    for name in missing:
        options = METHODS[name] if not smoke else METHODS[name] | {"proposals": 8}
        changed = dataclasses.replace(config.evolution, **options)
        stage = prepare(dataclasses.replace(config, evolution=changed), Path())
        if trained is None:
            trained = evolution.train_founders(stage.key(START), stage.problem)
        about = {"data": data, "method": name, "seed": config.seed}
        yield about | search(stage, trained, 8 if smoke else CHILDREN)


def search(stage, trained, children: int) -> dict:
    """Generations until so many children were trained."""
    began, problem = time.perf_counter(), stage.problem
    state, _ = evolution.begin(stage.key(START), problem, trained)
    initial = np.stack([trained.objectives[n] for n in problem.objectives], axis=1)
    curve = [[0, volume(problem, front_of(state), initial)]]
    number = 0
    while curve[-1][0] < children and number < children:
        number += 1
        key = stage.key(GENERATION, number)
        state, _ = evolution.generation(key, problem, state)
        born = int(state.evaluated) - problem.initial
        curve.append([born, volume(problem, front_of(state), initial)])
    front = front_of(state)
    return {
        "children": curve[-1][0],
        "generations": number,
        "front_size": int(front.mask.sum()),
        "hypervolume": curve[-1][1],
        "hypervolume_test": volume(problem, on_test(stage, front), initial),
        "best_error": float(state.algorithm.best_fitness[0]),
        "seconds": time.perf_counter() - began,
        "curve": curve,
    }


def volume(problem, front, initial) -> float:
    """Hypervolume of the front on the scales of the initial networks."""
    names = problem.objectives
    return front_hypervolume(front.fitness, front.mask, initial, names)


def on_test(stage, front):
    """The same front with its error measured on the test images."""
    group, size = stage.problem.group, len(front.mask)
    errors = []
    for rows in groups_of(size, group):
        weights = jax.tree.map(lambda leaf: leaf[rows], front.weights)  # noqa: B023
        test = stage.evaluation.test_images, stage.evaluation.test_labels
        genotypes = front.genotypes[rows]
        errors.append(evaluate_group(stage.problem.space, weights, genotypes, *test))
    column = stage.problem.objectives.index(EXPENSIVE)
    fitness = jnp.asarray(front.fitness).at[:, column]
    return front._replace(fitness=fitness.set(jnp.concatenate(errors)[:size]))


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.open()] if path.exists() else []


def write(rows: list[dict], results: Path) -> None:
    """The table of all comparisons and a figure for each set of images."""
    table = [
        {"data": data, "method": method, **compared(rows, data, method)}
        for data in dict.fromkeys(row["data"] for row in rows)
        for method in methods_of(rows, data)
    ]
    with (results / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    for row in table:
        print(row)
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    about = versions | {"devices": [one.device_kind for one in jax.devices()]}
    (results / "versions.json").write_text(json.dumps(about, indent=2) + "\n")
    draw(rows)


def methods_of(rows, data) -> list[str]:
    found = {row["method"] for row in rows if row["data"] == data}
    return [method for method in METHODS if method in found]


def values(rows, data, method, name) -> np.ndarray:
    """One value a seed, in the order of the seeds; curves at the budget."""
    chosen = [r for r in rows if r["data"] == data and r["method"] == method]
    chosen = sorted(chosen, key=lambda row: row["seed"])
    if name == "hypervolume":
        return np.array([np.interp(CHILDREN, *np.array(r["curve"]).T) for r in chosen])
    return np.array([r[name] for r in chosen])


def compared(rows, data, method) -> dict:
    """Means over the seeds, and how much LEMONADE is ahead with a 95 % t interval."""
    found = {"seeds": len(values(rows, data, method, "seed"))}
    for name in ("hypervolume", "hypervolume_test"):
        own = values(rows, data, method, name)
        ahead = values(rows, data, "LEMONADE", name) - own
        half = stats.t.ppf(0.975, len(ahead) - 1) * stats.sem(ahead)
        found |= {
            name: round(float(own.mean()), 4),
            f"{name}_lemonade_ahead": round(float(ahead.mean()), 4),
            f"{name}_low": round(float(ahead.mean() - half), 4),
            f"{name}_high": round(float(ahead.mean() + half), 4),
            f"{name}_seeds_ahead": int((ahead > 0).sum()),
        }
    return found


def draw(rows) -> None:
    """Mean hypervolume against networks trained, with bands of 95 % (Student's t)."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(4 * len(sets) + 2.5, 3.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sets)))
    for ax, data in zip(panels, sets, strict=True):
        for method in methods_of(rows, data):
            curves = [
                np.interp(np.arange(CHILDREN + 1), *np.array(row["curve"]).T)
                for row in rows
                if row["data"] == data and row["method"] == method
            ]
            mean = np.mean(curves, axis=0)
            half = stats.t.ppf(0.975, len(curves) - 1) * stats.sem(curves)
            color = f"C{list(METHODS).index(method)}"
            ax.plot(mean, lw=1.8, label=method, color=color)
            band = mean - half, mean + half
            ax.fill_between(np.arange(CHILDREN + 1), *band, color=color, alpha=0.08)
        ax.set_title(data)
        ax.set_xlabel("children trained")
        ax.set_ylabel("hypervolume of the front")
    # The digits had every method; colours are the same in all panels.
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside right", frameon=False, fontsize=8)
    figure.savefig(HERE / "hypervolume.png", dpi=150)


if __name__ == "__main__":
    main()

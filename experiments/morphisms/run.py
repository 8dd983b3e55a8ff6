"""How much training does a child spare that starts from its parent's weights?

Parents are random networks of the digits space after the initial training. Every child
is one mutation away, and is trained with several numbers of steps: from random weights,
from inherited ones, and from inherited ones with the parent's answers as half of its
labels. Usage:

    JAX_NUM_CPU_DEVICES=2 python experiments/morphisms/run.py [--groups N] [--seed N]
"""

import argparse
import csv
import functools
import json
import platform
import runpy
import statistics
from pathlib import Path

import jax
import numpy as np

from jaxnas.networks import space as spaces
from jaxnas.networks.space import BLOCK_GENES, HEAD_GENES, STEM_GENES
from jaxnas.preparation import prepare
from jaxnas.progress import progress_bar
from jaxnas.search.morphisms import inherit, mutate
from jaxnas.training import evaluate_group, fit_group, initial_weights, taught_labels

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "configs" / "digits.py"
GROUP = 8
INHERITED = (0, 5, 10, 20, 40, 80)
SCRATCH = (10, 20, 40, 80, 160)
SHARE = 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = runpy.run_path(str(DIGITS))["config"]()
    problem = prepare(config, HERE / "never-written").problem
    rows = []
    with progress_bar() as bar:
        for number in bar.track(range(arguments.groups), description="groups"):
            key = jax.random.fold_in(jax.random.key(arguments.seed), number)
            rows += group_of_children(key, problem)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    with open(results / "children.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    summary = summarised(rows)
    (results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def group_of_children(key, problem) -> list[dict]:
    """One row per child of a group: what changed, and errors by number of steps."""
    space, keys = problem.space, jax.random.split(key, 6)
    parents = jitted(spaces.sample, space)(jax.random.split(keys[0], GROUP))
    fresh = jitted(initial_weights, space)(jax.random.split(keys[1], GROUP))
    train = functools.partial(trained, problem, jax.random.split(keys[2], GROUP))
    learned = train(fresh, parents, problem.initial_recipe.steps)
    children = jax.jit(jax.vmap(lambda k, p: mutate(k, space, p)))(
        jax.random.split(keys[3], GROUP), parents
    )
    moved = jax.jit(jax.vmap(lambda k, p, c, w: inherit(k, space, p, c, w)))(
        jax.random.split(keys[4], GROUP), parents, children, learned
    )
    images = problem.train_images, problem.train_labels
    taught = taught_labels(space, learned, parents, *images, SHARE)
    random = jitted(initial_weights, space)(jax.random.split(keys[5], GROUP))
    kinds = [kind(space, p, c) for p, c in zip(parents, children, strict=True)]
    columns = {"change": kinds, "parent": error(problem, learned, parents)}
    ways = {
        "scratch": (SCRATCH, random, None),
        "inherited": (INHERITED, moved, None),
        "taught": (INHERITED, moved, taught),
    }
    for way, (budgets, start, labels) in ways.items():
        for steps in budgets:
            weights = train(start, children, steps, labels) if steps else start
            columns[f"{way}_{steps}"] = error(problem, weights, children)
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def jitted(draw, space):
    """A function of one key and the space, over many keys."""
    return jax.jit(jax.vmap(functools.partial(draw, space=space)))


def trained(problem, keys, weights, genotypes, steps, taught=None):
    recipe = problem.child_recipe._replace(steps=steps)
    data = problem.train_images, problem.train_labels, recipe
    return fit_group(keys, problem.space, weights, genotypes, *data, taught=taught)


def error(problem, weights, genotypes) -> list[float]:
    images = problem.validation_images, problem.validation_labels
    found = evaluate_group(problem.space, weights, genotypes, *images)
    return [round(float(one), 5) for one in found]


def kind(space, parent, child) -> str:
    """Which gene changed and which way; `several` for more than one."""
    names = [f"stem {name}" for name in STEM_GENES]
    names += [name for _ in range(space.slots) for name in BLOCK_GENES]
    names += [f"head {name}" for name in HEAD_GENES]
    parent, child = np.asarray(parent), np.asarray(child)
    present = len(STEM_GENES) + np.arange(space.slots) * len(BLOCK_GENES)
    flipped = present[parent[present] != child[present]]
    if flipped.size:
        return "insert" if child[flipped[0]] else "remove"
    changed = np.flatnonzero(parent != child)
    if len(changed) != 1:
        return "several"
    (gene,) = changed
    if names[gene] == "operation":
        return "operation"
    way = "more" if child[gene] > parent[gene] else "less"
    return f"{way} {names[gene].split()[-1]}"


def steps_to(row: dict, way: str, budgets: tuple[int, ...], target: float) -> float:
    """The fewest steps of a way that reach an error; infinite if none does."""
    reached = [steps for steps in budgets if row[f"{way}_{steps}"] <= target]
    return min(reached, default=np.inf)


def summarised(rows: list[dict]) -> dict:
    """Steps spared by inheriting, per error to be reached, and accuracy kept."""
    found = {"children": len(rows), "jax": jax.__version__}
    found |= {"python": platform.python_version(), "devices": len(jax.devices())}
    for way in ("inherited", "taught"):
        found[f"{way}_steps_spared"] = {
            steps: spared(rows, way, f"scratch_{steps}") for steps in SCRATCH
        }
        found[f"{way}_accuracy_kept"] = {
            steps: kept(rows, f"{way}_{steps}") for steps in INHERITED
        }
    return found


def spared(rows: list[dict], way: str, goal: str) -> dict:
    """Ratios of the steps that reach the error of `goal`: from scratch to inherited."""
    ratios = []
    for row in rows:
        needed = steps_to(row, way, INHERITED, row[goal])
        # A child that needs no step at all counts as one that needs one.
        whole = steps_to(row, "scratch", SCRATCH, row[goal])
        ratios.append(whole / max(needed, 1))
    return {
        "median_ratio": statistics.median(ratios),
        "at_least_3": sum(ratio >= 3 for ratio in ratios),
        "never_reached": sum(ratio == 0 for ratio in ratios),
    }


def kept(rows: list[dict], way: str) -> dict:
    """Accuracies of children as shares of their parents'."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        share = (1 - row[way]) / (1 - row["parent"])
        shares.setdefault(row["change"], []).append(share)
    everyone = sum(shares.values(), [])
    return {
        "median": round(statistics.median(everyone), 4),
        "at_least_95_percent": sum(share >= 0.95 for share in everyone),
        "median_by_change": {
            change: round(statistics.median(shares[change]), 4)
            for change in sorted(shares)
        },
    }


if __name__ == "__main__":
    main()

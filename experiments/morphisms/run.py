"""How much training does a child spare that starts from its parent's weights?

Parents are random networks of the digits space, trained from random weights and then
once more as a child, as the parents of a search are after its first generations. Of
each there are two children: one of any mutation, and one of an approximate morphism. A
child is trained with several numbers of steps, each a training of its own, whose rate
falls to zero: from random weights, and from inherited ones with the search's warm-up.
Either way has the best of several peak rates for each number of steps. Children of
approximate morphisms heal for longer, with the labels and with their parents' answers;
what their architectures can reach at all, a long training from random weights tells.
Usage:

    python experiments/morphisms/run.py [--groups N] [--seed N]
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
import jax.numpy as jnp
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
DRAWS = 64
SCRATCH = {0.02: (40, 80, 160), 0.04: (40, 80, 160)}
"""Numbers of steps by peak learning rate."""
INHERITED = {0.02: (5, 10, 20, 40, 80), 0.005: (10, 20, 40), 0.04: (40, 80)}
HEALING = {0.04: (80, 160, 320, 640)}
"""Numbers of steps after an approximate morphism."""
WHOLE = {0.04: (1280,)}
"""Twice as many, from random weights."""
UNTRAINED = "inherited_0"
SHARE = 0.5
APPROXIMATE = (
    "remove",
    "less width",
    "less kernel",
    "less expansion",
    "operation",
    "less residual",
    "more residual",
)
FIXED = {"schemes": ("fixed_point",)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = runpy.run_path(str(DIGITS))["config"]()
    problem = prepare(config, HERE / "never-written").problem
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    rows = {"mutants": [], "approximate": []}
    with progress_bar() as bar:
        for number in bar.track(range(arguments.groups), description="groups"):
            key = jax.random.fold_in(jax.random.key(arguments.seed), number)
            for name, found in group_of_children(key, number, problem).items():
                rows[name] += found
                write_rows(results / f"{name}.csv", rows[name])
            summary = summarised(rows)
            (results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


def write_rows(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def group_of_children(key, number: int, problem) -> dict[str, list[dict]]:
    """One row per child: what changed, and errors by number of steps."""
    space, keys = problem.space, jax.random.split(key, 6)
    train = functools.partial(trained, problem, keys[0])
    parents, learned = grown_parents(keys[1], problem, train)
    drawn = candidates(keys[2], space, parents)

    mutants = drawn[:, 0]
    columns = described(problem, learned, parents, mutants)
    random = random_weights(keys[3], space)
    for rate, steps in trainings(SCRATCH):
        weights = train(random, mutants, steps, learning_rate=rate, warmup=0.0)
        columns[f"scratch_{rate}_{steps}"] = error(problem, weights, mutants)
    start = inherited(keys[4], space, parents, mutants, learned)
    columns[UNTRAINED] = error(problem, start, mutants)
    for rate, steps in trainings(INHERITED):
        weights = train(start, mutants, steps, learning_rate=rate)
        columns[f"inherited_{rate}_{steps}"] = error(problem, weights, mutants)
    found = {"mutants": as_rows(columns)}

    children = approximate(space, number, parents, drawn)
    columns = described(problem, learned, parents, children)
    start = inherited(keys[5], space, parents, children, learned)
    images = problem.train_images, problem.train_labels
    taught = taught_labels(space, learned, parents, *images, SHARE, **FIXED)
    columns[UNTRAINED] = error(problem, start, children)
    for rate, steps in trainings(HEALING):
        weights = train(start, children, steps, learning_rate=rate)
        columns[f"inherited_{steps}"] = error(problem, weights, children)
        weights = train(start, children, steps, learning_rate=rate, taught=taught)
        columns[f"taught_{steps}"] = error(problem, weights, children)
    for rate, steps in trainings(WHOLE):
        weights = train(random, children, steps, learning_rate=rate, warmup=0.0)
        columns[f"scratch_{steps}"] = error(problem, weights, children)
    return found | {"approximate": as_rows(columns)}


def trainings(budgets: dict[float, tuple[int, ...]]) -> list[tuple[float, int]]:
    return [(rate, steps) for rate, counts in budgets.items() for steps in counts]


def grown_parents(key, problem, train):
    """Genotypes and weights of children of random networks, trained as children are."""
    space, keys = problem.space, jax.random.split(key, 4)
    first = sampled(keys[0], space)
    steps = problem.initial_recipe.steps
    weights = train(random_weights(keys[1], space), first, steps, warmup=0.0)
    second = candidates(keys[2], space, first)[:, 0]
    weights = inherited(keys[3], space, first, second, weights)
    return second, train(weights, second, problem.child_recipe.steps)


@functools.partial(jax.jit, static_argnames="space")
def sampled(key, space):
    keys = jax.random.split(key, GROUP)
    return jax.vmap(lambda key: spaces.sample(key, space))(keys)


@functools.partial(jax.jit, static_argnames="space")
def random_weights(key, space):
    keys = jax.random.split(key, GROUP)
    return jax.vmap(lambda key: initial_weights(key, space))(keys)


@functools.partial(jax.jit, static_argnames="space")
def candidates(key, space, parents):
    """Many mutants of every parent, `[GROUP, DRAWS, genes]`."""
    keys = jax.random.split(key, (GROUP, DRAWS))

    def draw(keys, parent):
        return jax.vmap(lambda key: mutate(key, space, parent))(keys)

    return jax.vmap(draw)(keys, parents)


@functools.partial(jax.jit, static_argnames="space")
def inherited(key, space, parents, children, weights):
    def one(key, *member):
        return inherit(key, space, *member)

    return jax.vmap(one)(jax.random.split(key, GROUP), parents, children, weights)


def approximate(space, number, parents, drawn):
    """A child of every parent by one approximate morphism; the kinds take turns."""
    children = []
    for row, (parent, mutants) in enumerate(zip(parents, drawn, strict=True)):
        kinds = [kind(space, parent, mutant) for mutant in mutants]
        turn = (number + row) % len(APPROXIMATE)
        order = APPROXIMATE[turn:] + APPROXIMATE[:turn]
        chosen = next(one for one in order if one in kinds)
        children.append(mutants[kinds.index(chosen)])
    return jnp.stack(children)


def trained(problem, key, weights, genotypes, steps, taught=None, **changes):
    recipe = problem.child_recipe._replace(steps=steps, **changes)
    if taught is None:
        # As shares, for the program that also learns from teachers.
        true = jax.nn.one_hot(problem.train_labels, problem.space.classes)
        taught = jnp.broadcast_to(true, (GROUP, *true.shape))
    data = problem.train_images, problem.train_labels, recipe
    members = jax.random.split(key, GROUP), problem.space, weights, genotypes
    return fit_group(*members, *data, taught=taught, **FIXED)


def error(problem, weights, genotypes) -> list[float]:
    images = problem.validation_images, problem.validation_labels
    found = evaluate_group(problem.space, weights, genotypes, *images, **FIXED)
    return [round(float(one), 5) for one in found]


def described(problem, learned, parents, children) -> dict[str, list]:
    pairs = zip(parents, children, strict=True)
    kinds = [kind(problem.space, *pair) for pair in pairs]
    return {"change": kinds, "parent": error(problem, learned, parents)}


def as_rows(columns: dict[str, list]) -> list[dict]:
    values = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def kind(space, parent, child) -> str:
    """Which gene changed and which way; `several` for more than one."""
    names = [f"stem {name}" for name in STEM_GENES]
    names += [name for _ in range(space.slots) for name in BLOCK_GENES]
    names += [f"head {name}" for name in HEAD_GENES]
    parent, child = np.asarray(parent), np.asarray(child)
    changed = np.flatnonzero(parent != child)
    slots = {(gene - len(STEM_GENES)) // len(BLOCK_GENES) for gene in changed}
    flipped = [gene for gene in changed if names[gene] == "present"]
    if flipped and len(slots) == 1:
        return "insert" if child[flipped[0]] else "remove"
    if len(changed) != 1:
        return "several"
    (gene,) = changed
    if names[gene] == "operation":
        return "operation"
    way = "more" if child[gene] > parent[gene] else "less"
    return f"{way} {names[gene].split()[-1]}"


def summarised(rows: dict[str, list[dict]]) -> dict:
    """Steps spared by inheriting, per error to be reached, and accuracy kept."""
    mutants, approximate = rows["mutants"], rows["approximate"]
    found = {"mutants": len(mutants), "approximate": len(approximate)}
    found |= {"jax": jax.__version__, "python": platform.python_version()}
    whole = best_columns(mutants, "scratch", SCRATCH)
    spent = {0: UNTRAINED} | best_columns(mutants, "inherited", INHERITED)
    for way, columns in (("scratch", whole), ("inherited", spent)):
        found[way] = {
            steps: {"column": name, "median_error": median_error(mutants, name)}
            for steps, name in columns.items()
        }
    found["steps_spared"] = {
        steps: spared(mutants, whole, spent, steps) for steps in whole
    }
    found["accuracy_kept"] = {
        name: kept(mutants, name) for name in mutants[0] if name.startswith("inherited")
    }
    ways = [name for name in approximate[0] if "_" in name]
    found["approximate_accuracy_kept"] = {way: kept(approximate, way) for way in ways}
    return found


def median_error(rows: list[dict], name: str) -> float:
    return round(statistics.median(row[name] for row in rows), 5)


def best_columns(rows, way, budgets) -> dict[int, str]:
    """By number of steps, the trainings with the peak rate that suits it best."""
    columns = {}
    for rate, steps in trainings(budgets):
        columns.setdefault(steps, []).append(f"{way}_{rate}_{steps}")
    return {
        steps: min(columns[steps], key=lambda name: median_error(rows, name))
        for steps in sorted(columns)
    }


def spared(rows, whole: dict[int, str], spent: dict[int, str], steps: int) -> dict:
    """Ratios of steps, from scratch to inherited, to the error after so many steps."""
    ratios = []
    for row in rows:
        target = row[whole[steps]]
        # A child that needs no step at all counts as one that needs one.
        needed = max(fewest(row, spent, target), 1)
        ratios.append(fewest(row, whole, target) / needed)
    return {
        "median_ratio": statistics.median(ratios),
        "at_least_3": sum(ratio >= 3 for ratio in ratios),
        "never_reached": sum(ratio == 0 for ratio in ratios),
    }


def fewest(row: dict, columns: dict[int, str], target: float) -> float:
    """The fewest steps that reach an error; infinite if none do."""
    reached = [steps for steps, name in columns.items() if row[name] <= target]
    return min(reached, default=np.inf)


def kept(rows: list[dict], name: str) -> dict:
    """Accuracies of children as shares of their parents'."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        share = (1 - row[name]) / (1 - row["parent"])
        shares.setdefault(row["change"], []).append(share)
    everyone = sum(shares.values(), [])
    return {
        "median": round(statistics.median(everyone), 4),
        "at_least_95_percent": sum(share >= 0.95 for share in everyone),
        "by_change": {
            change: {
                "children": len(shares[change]),
                "median": round(statistics.median(shares[change]), 4),
                "at_least_95_percent": sum(one >= 0.95 for one in shares[change]),
            }
            for change in sorted(shares)
        },
    }


if __name__ == "__main__":
    main()

"""How many children a second are proposed, costed and ranked without training?

NSGA-II on the networks of `configs/mnist.py` sizes: 28x28x1 images, three stages of
three slots, and three objectives that follow from a genotype by arithmetic. The whole
search is one compiled program; compiling is timed apart. Usage:

    python experiments/benchmarks/cheap_search/run.py [--populations 256] [--broods 1 8]
"""

import argparse
import itertools
import json
import platform
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnas.hardware.systolic import SystolicArray
from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace, Stage
from jaxnas.search import Categorical, Nsga2, cheap_search
from jaxnas.search.objectives import cheap_objectives

HERE = Path(__file__).parent
SPACE = SearchSpace(
    image=(28, 28, 1),
    classes=10,
    stages=tuple(
        Stage(widths=widths, blocks=3)
        for widths in ((8, 12, 16), (16, 24, 32), (32, 48, 64))
    ),
)
ARRAY = SystolicArray(rows=16, columns=16)
OBJECTIVES = ("activation_fragility", "weight_bytes", "latency_cycles")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--populations", type=int, nargs="+", default=[256])
    parser.add_argument("--children", type=int, default=100_000, help="of one search")
    parser.add_argument("--broods", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    cost = cheap_objectives(SPACE, ARRAY, OBJECTIVES)
    pairs = itertools.product(arguments.populations, arguments.broods)
    rows = [measured(cost, *pair, arguments) for pair in pairs]
    record = {
        "machine": platform.machine(),
        "device": str(jax.devices()[0]),
        "jax": jax.__version__,
        "objectives": OBJECTIVES,
        "genes": SPACE.genes,
        "costing_alone_per_second": costing(cost, arguments.repetitions),
        "searches": rows,
    }
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "speed.json").write_text(json.dumps(record, indent=2) + "\n")


def measured(cost, size, brood, arguments):
    """One search with `brood` children per row, timed by the wall and by all cores."""
    algorithm = Nsga2(
        size,
        jnp.zeros(SPACE.genes, jnp.int32),
        variables=Categorical(spaces.cardinalities(SPACE)),
        num_objectives=len(OBJECTIVES),
        accepted=size * brood,
        repair=partial(spaces.canonical, SPACE),
    )
    generations = max(arguments.children // algorithm.accepted, 1)
    began = time.process_time()
    search = cheap_search.lower(
        jax.random.key(0),
        algorithm,
        cost,
        algorithm.default_params,
        generations=generations,
    ).compile()
    compiling = time.process_time() - began
    walls, cores = [], []
    for number in range(arguments.repetitions):
        wall, core = time.perf_counter(), time.process_time()
        state, metrics = search(jax.random.key(number), algorithm.default_params)
        jax.block_until_ready(state)
        walls.append(time.perf_counter() - wall)
        cores.append(time.process_time() - core)
    # All are costed and ranked; those that turned out to repeat a row do not survive.
    children = generations * algorithm.accepted
    row = {
        "population": size,
        "children_per_generation": algorithm.accepted,
        "generations": generations,
        "children": children,
        "new": int(state.evaluated) - size,
        "front": int(metrics["front_size"][-1]),
        "compile_cpu_seconds": round(compiling, 1),
        "children_per_second_best": round(children / min(walls)),
        "children_per_second_median": round(children / sorted(walls)[len(walls) // 2]),
        "children_per_cpu_second_best": round(children / min(cores)),
    }
    print(row, flush=True)
    return row


def costing(cost, repetitions, count=10_000):
    """Genotypes a second through the objectives alone."""
    keys = jax.random.split(jax.random.key(0), count)
    genotypes = jax.vmap(lambda key: spaces.sample(key, SPACE))(keys)
    evaluate = jax.jit(jax.vmap(cost))
    jax.block_until_ready(evaluate(genotypes))
    walls = []
    for _ in range(repetitions):
        began = time.perf_counter()
        jax.block_until_ready(evaluate(genotypes))
        walls.append(time.perf_counter() - began)
    return round(count / min(walls))


if __name__ == "__main__":
    main()

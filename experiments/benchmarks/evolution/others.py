"""NSGA-II against pymoo on sixteen more of pymoo's problems, which pymoo evaluates.

As `run.py quality`, with real genes and, in nine of the problems, constraints; here the
search asks and tells, and every genome is evaluated in float64 by pymoo. Hypervolume is
that of the last feasible population up to 1.1, in units of the range of the front of
all populations of all seeds. Usage:

    python experiments/benchmarks/evolution/others.py [--seeds 11] [--generations 100]
"""

import argparse
import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import moocore
import numpy as np
from pymoo.problems import get_problem
from run import POPULATION, compared, lists_in_line, peer_front, peer_operators

from jaxnas.search import Nsga2, Real

RESULTS = Path(__file__).parent / "results" / "others.json"
PROBLEMS = {
    "dtlz4": {"n_var": 12, "n_obj": 3},
    "dtlz5": {"n_var": 12, "n_obj": 3},
    "dtlz6": {"n_var": 12, "n_obj": 3},
    "wfg1": {"n_var": 11, "n_obj": 2},
    "wfg2": {"n_var": 12, "n_obj": 3},
    "wfg9": {"n_var": 11, "n_obj": 3},
    "kursawe": {},
    "osy": {},
    "tnk": {},
    "bnh": {},
    "srn": {},
    "welded_beam": {},
    "truss2d": {},
    "carside": {},
    "ctp1": {},
    "dascmop1": {"difficulty": 1},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--generations", type=int, default=100)
    arguments = parser.parse_args()
    # pymoo's problems divide by zero in infeasible places.
    warnings.filterwarnings("ignore")
    found = {}
    for name, options in PROBLEMS.items():
        problem = get_problem(name, **options)
        seeds, generations = range(arguments.seeds), arguments.generations
        peer = peer_operators(problem.n_var)
        fronts = {
            "jaxnas": [our_front(problem, generations, seed) for seed in seeds],
            "pymoo": [peer_front(problem, peer, generations, seed) for seed in seeds],
        }
        volumes = {method: scored(each, fronts) for method, each in fronts.items()}
        row = compared(volumes["jaxnas"], volumes["pymoo"])
        row["pymoo"] = round(float(np.median(volumes["pymoo"])), 5)
        print(name, row, flush=True)
        volumes = {name: np.round(each, 5).tolist() for name, each in volumes.items()}
        found[name] = row | {"volumes": volumes}
    record = vars(arguments) | {"problems": found}
    RESULTS.write_text(lists_in_line(json.dumps(record, indent=2)) + "\n")


def our_front(problem, generations, seed):
    """The objectives of the last feasible population, `[rows, objectives]`."""
    low, high = (np.broadcast_to(b, problem.n_var) for b in (problem.xl, problem.xu))
    bounds = (jnp.asarray(bound, jnp.float32) for bound in (low, high))
    algorithm = Nsga2(
        POPULATION,
        jnp.zeros(problem.n_var, jnp.float32),
        variables=Real(*bounds),
        num_objectives=problem.n_obj,
        num_constraints=problem.n_ieq_constr,
    )
    params, key = algorithm.default_params, jax.random.key(seed)
    first = np.random.default_rng(seed).uniform(low, high, (POPULATION, problem.n_var))
    first = jnp.asarray(first, jnp.float32)
    state = algorithm.init(key, first, evaluated(problem, first), params)
    for generation in range(generations):
        asking, telling = jax.random.split(jax.random.fold_in(key, generation))
        children, state = algorithm.ask(asking, state, params)
        fitness = evaluated(problem, children)
        state, _ = algorithm.tell(telling, children, fitness, state, params)
    feasible = np.asarray(state.mask & (state.violation <= 0))
    return np.asarray(evaluated(problem, state.population))[feasible, : problem.n_obj]


def evaluated(problem, genomes):
    """Objectives and then constraints, computed in float64."""
    genomes = np.clip(np.asarray(genomes, np.float64), problem.xl, problem.xu)
    values = problem.evaluate(genomes, return_values_of=["F", "G"])
    return np.concatenate(values, axis=1)


def scored(fronts, of_all):
    """The volume of every front in units of the front of all."""
    points = np.concatenate([front for each in of_all.values() for front in each])
    best = points[moocore.is_nondominated(points)]
    low, width = best.min(axis=0), np.ptp(best, axis=0)
    width = np.where(width > 0, width, 1.0)
    reference = np.full(low.size, 1.1)
    return [
        moocore.hypervolume((front - low) / width, ref=reference) if len(front) else 0.0
        for front in fronts
    ]


if __name__ == "__main__":
    main()

"""NSGA-II against pymoo: quality at equal evaluations, and time per generation.

Both run NSGA-II with a population of 100 and as many children, simulated binary
crossover (rate 0.9, index 15) and polynomial mutation (rate 1 / genes, index 20), or
uniform crossover and bit flips for the knapsack. pymoo evaluates its own problems (ours
are checked against them first), the knapsack excepted, which it evaluates in NumPy.
Hypervolume is that of the last population, by moocore in float64, for both. Usage:

    python experiments/benchmarks/evolution/run.py [quality] [time]
        [--qdax PYTHON] [--evomo PYTHON]

QDax and EvoMO are timed by interpreters of environments of their own (see `peer_*.py`).
"""

import argparse
import json
import re
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import moocore
import numpy as np
from problems import ITEMS, items, problems, zdt1
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize
from pymoo.problems import get_problem
from timing import TURNS, best, spent

from jaxnas.search import Nsga2, Real, cheap_search

HERE = Path(__file__).parent
POPULATION = 100
# Generations timed per population; QDax compiles for a minute at 1000 already.
OTHERS = {
    "qdax": {100: 1000, 1000: 10},
    "evomo": {100: 200, 1000: 10, 4000: 2},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["time", "quality"])
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--populations", type=int, nargs="+", default=[100, 1000, 4000])
    parser.add_argument("--qdax", help="Python with qdax")
    parser.add_argument("--evomo", help="Python with evomo")
    parser.add_argument("--only", nargs="+", help="names of problems")
    arguments = parser.parse_args()
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    for part in arguments.parts:
        {"quality": quality, "time": times}[part](arguments)


def quality(arguments):
    """Every problem, with the volumes of every seed; only new ones of pymoo's are run.

    The file keeps what an earlier call found of other problems.
    """
    path = HERE / "results" / "quality.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for problem in problems():
        if arguments.only and problem.name not in arguments.only:
            continue
        peer = peer_problem(problem)
        evaluations = POPULATION * (problem.generations + 1)
        known = found.get(problem.name, {})
        same = known.get("evaluations") == evaluations
        theirs = known["volumes"]["pymoo"] if same else []
        algorithm, generations = peer_algorithm(problem), problem.generations
        theirs += [
            volume(problem, peer_front(peer, algorithm, generations, seed))
            for seed in range(len(theirs), arguments.seeds)
        ]
        row = {
            "evaluations": evaluations,
            "objectives_differ": check(problem, peer),
            "seeds": len(theirs),
            "pymoo": round(float(np.median(theirs)), 5),
        }
        volumes = {"pymoo": theirs}
        for name, by_front in (("front", True), ("dominance", False)):
            volumes[name] = our_volumes(problem, len(theirs), by_front)
            row[name] = compared(volumes[name], theirs)
        print(problem.name, row, flush=True)
        volumes = {name: np.round(each, 6).tolist() for name, each in volumes.items()}
        found[problem.name] = row | {"volumes": volumes}
        path.write_text(lists_in_line(json.dumps(found, indent=2)) + "\n")


def lists_in_line(text):
    in_line = lambda found: f"[{' '.join(found[1].split())}]"  # noqa: E731
    return re.sub(r"\[([^][]*)\]", in_line, text)


def compared(ours, theirs):
    """Our median, how far it is from theirs, and 95 % by bootstrap over seeds."""
    rng = np.random.default_rng(0)
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    draws = [
        np.median(rng.choice(each, (10_000, len(each))), axis=1)
        for each in (ours, theirs)
    ]
    low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
    difference = np.median(ours) - np.median(theirs)
    found = {"median": np.median(ours), "difference": difference}
    found |= {"low": low, "high": high}
    return {name: round(float(value), 5) for name, value in found.items()}


def algorithm_for(problem, population=POPULATION, by_front=True):
    dtype = jnp.float32 if isinstance(problem.variables, Real) else jnp.int32
    return Nsga2(
        population,
        jnp.zeros(problem.genes, dtype),
        variables=problem.variables,
        num_objectives=problem.objectives,
        num_constraints=problem.constraints,
        by_front=by_front,
    )


def one_row(problem):
    return lambda genome: problem.evaluate(genome[None])[0]


def our_volumes(problem, seeds, by_front):
    algorithm = algorithm_for(problem, by_front=by_front)
    params, cost = algorithm.default_params, one_row(problem)
    found = []
    for seed in range(seeds):
        state, _ = cheap_search(
            jax.random.key(seed),
            algorithm,
            cost,
            params,
            generations=problem.generations,
        )
        evaluations = POPULATION * (problem.generations + 1)
        assert int(state.evaluated) <= evaluations
        good = np.asarray(state.mask & (state.violation <= 0))
        found.append(volume(problem, np.asarray(state.fitness, np.float64)[good]))
    return found


def volume(problem, front):
    if len(front) == 0:
        return 0.0
    return moocore.hypervolume(front, ref=np.asarray(problem.reference))


class Knapsacks(PymooProblem):
    def __init__(self):
        super().__init__(n_var=ITEMS, n_obj=2, n_ieq_constr=2, xl=0, xu=1, vtype=bool)
        self.profits, self.weights, self.capacities = items()

    def _evaluate(self, x, out, *arguments, **options):
        chosen = x.astype(int)
        out["F"] = -(chosen @ self.profits.T).astype(float)
        out["G"] = (chosen @ self.weights.T - self.capacities).astype(float)


def peer_problem(problem):
    if problem.name == "knapsack":
        return Knapsacks()
    if problem.name.startswith("zdt"):
        return get_problem(problem.name)
    return get_problem(problem.name, n_var=problem.genes, n_obj=problem.objectives)


def check(problem, peer):
    """The largest relative difference of our objectives from pymoo's."""
    rng = np.random.default_rng(0)
    if problem.name == "knapsack":
        genomes = rng.integers(0, 2, (200, problem.genes)).astype(bool)
        values = peer.evaluate(genomes, return_values_of=["F", "G"])
        theirs, dtype = np.concatenate(values, axis=1), jnp.int32
    else:
        genomes, dtype = rng.uniform(peer.xl, peer.xu, (200, peer.n_var)), jnp.float32
        theirs = peer.evaluate(genomes)
    ours = np.asarray(problem.evaluate(jnp.asarray(genomes, dtype)), np.float64)
    difference = float(np.max(np.abs(ours - theirs) / (1 + np.abs(theirs))))
    if difference > 1e-3:
        raise ValueError(f"{problem.name} differs from pymoo's by {difference}")
    return difference


def peer_algorithm(problem, population=POPULATION):
    if problem.name == "knapsack":
        return NSGA2(
            pop_size=population,
            sampling=BinaryRandomSampling(),
            crossover=UX(prob=0.9),
            mutation=BitflipMutation(prob=1.0, prob_var=1 / problem.genes),
        )
    return peer_operators(problem.genes, population)


def peer_operators(genes, population=POPULATION):
    return NSGA2(
        pop_size=population,
        crossover=SBX(prob=0.9, eta=15),
        mutation=PM(prob=1.0, prob_var=1 / genes, eta=20),
    )


def peer_front(peer, algorithm, generations, seed):
    """The objectives of the last feasible population, `[rows, objectives]`."""
    # pymoo counts the first population as a generation.
    found = minimize(peer, algorithm, ("n_gen", generations + 1), seed=seed)
    population = found.pop
    feasible = population.get("FEAS").reshape(-1)
    return population.get("F")[feasible]


def times(arguments):
    """Milliseconds a generation, evaluation included, in turns in one process."""
    problem = problems()[0]
    assert problem.evaluate is zdt1
    rows = []
    for size in arguments.populations:
        generations = {100: 1000, 1000: 40}.get(size, 8)
        ours, compiling = our_time(problem, size, generations)
        turns = [
            (ours(), peer_time(problem, size, max(generations // 4, 2)))
            for _ in range(TURNS)
        ]
        own, peer = (best(each) for each in zip(*turns, strict=True))
        rows.append(
            {
                "population": size,
                "jaxnas": own,
                "pymoo": peer,
                "ratio": round(peer["ms"] / own["ms"], 1),
                "cpu_ratio": round(peer["cpu_ms"] / own["cpu_ms"], 1),
                "jaxnas_compile_cpu_s": round(compiling, 1),
            }
        )
        print(rows[-1], flush=True)
    others = {name: other_times(name, arguments) for name in OTHERS}
    record = {"problem": "zdt1", "generations": rows, **others}
    text = json.dumps(record, indent=2) + "\n"
    (HERE / "results" / "time.json").write_text(text)


def other_times(name, arguments):
    """What the script of a peer in another environment prints; None without one."""
    interpreter, generations = getattr(arguments, name), OTHERS[name]
    if interpreter is None:
        return None
    chosen = {n: generations[n] for n in arguments.populations if n in generations}
    command = [interpreter, str(HERE / f"peer_{name}.py"), json.dumps(chosen)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(name, found, flush=True)
    return found


def our_time(problem, size, generations):
    algorithm = algorithm_for(problem, size)
    params = algorithm.default_params
    began = time.process_time()
    search = cheap_search.lower(
        jax.random.key(0),
        algorithm,
        one_row(problem),
        params,
        generations=generations,
    ).compile()
    compiling = time.process_time() - began

    def run():
        jax.block_until_ready(search(jax.random.key(1), params))

    # The first population is sampled, evaluated and ranked within this time.
    return lambda: spent(run, generations), compiling


def peer_time(problem, size, generations):
    peer, algorithm = peer_problem(problem), peer_algorithm(problem, size)
    algorithm.setup(peer, termination=("n_gen", generations + 1), seed=1)
    algorithm.next()

    def run():
        for _ in range(generations):
            algorithm.next()

    return spent(run, generations)


if __name__ == "__main__":
    main()

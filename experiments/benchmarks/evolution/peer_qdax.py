"""Milliseconds a generation of QDax 0.5.0's NSGA-II on ZDT1, as JSON on the last line.

    python peer_qdax.py '{"100": 200, "1000": 20}'

Each population is run for so many generations as one compiled scan; compiling is timed
apart. Polynomial mutation and QDax's own crossover make half of the children each. Runs
in an environment of its own, without jaxnas: pip install qdax==0.5.0
"""

import functools
import json
import sys
import time

import jax
import jax.numpy as jnp
from qdax.baselines.nsga2 import NSGA2
from qdax.core.emitters.mutation_operators import (
    polynomial_crossover,
    polynomial_mutation,
)
from qdax.core.emitters.standard_emitters import MixingEmitter
from timing import TURNS, best, spent

GENES = 30


def main():
    rows = [measured(int(size), n) for size, n in json.loads(sys.argv[1]).items()]
    print(json.dumps(rows))


def score(genotypes, key):
    """QDax maximises."""
    g = 1 + 9 * jnp.mean(genotypes[:, 1:], axis=1)
    second = g * (1 - jnp.sqrt(genotypes[:, 0] / g))
    return -jnp.stack([genotypes[:, 0], second], axis=1), {}


def measured(size: int, generations: int) -> dict:
    mutate = functools.partial(
        polynomial_mutation,
        proportion_to_mutate=1 / GENES,
        eta=20.0,
        minval=0.0,
        maxval=1.0,
    )
    cross = functools.partial(polynomial_crossover, proportion_var_to_change=0.5)
    emitter = MixingEmitter(mutate, cross, variation_percentage=0.5, batch_size=size)
    algorithm = NSGA2(score, emitter, metrics_function=lambda repertoire: {})

    @jax.jit
    def search(repertoire, emitter_state, key):
        def generation(carry, key):
            repertoire, emitter_state, _ = algorithm.update(*carry, key)
            return (repertoire, emitter_state), None

        keys = jax.random.split(key, generations)
        return jax.lax.scan(generation, (repertoire, emitter_state), keys)[0]

    genotypes = jax.random.uniform(jax.random.key(0), (size, GENES))
    began = time.process_time()
    repertoire, state, _ = algorithm.init(genotypes, size, jax.random.key(1))
    compiled = search.lower(repertoire, state, jax.random.key(2)).compile()
    compiling = time.process_time() - began

    def run():
        jax.block_until_ready(compiled(repertoire, state, jax.random.key(2)))

    found = best([spent(run, generations) for _ in range(TURNS)])
    return {"population": size, **found, "compile_cpu_s": round(compiling, 1)}


if __name__ == "__main__":
    main()

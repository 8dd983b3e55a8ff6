"""Can the widths of a network be tuned to a latency budget by gradient?

Convolutions of 3x3, five or ten of them, on maps of 32x32, 16x16 and 8x8 and a 16x16
weight-stationary array. The widest network (largest mean logarithm of the widths)
within a budget of cycles is sought: by gradient ascent through the smooth model, from
random starts and sharpened as it goes; on a grid, through the exact model; and at
random, with as many evaluations as the ascent. The exact model says what fits. Usage:

    python experiments/width_tuning/run.py [--starts N] [--steps N]
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
import numpy as np
import optax

from jaxnas.hardware import SystolicArray, latency_cycles, smooth
from jaxnas.topology import LayerTable

HERE = Path(__file__).parent
ARRAY = SystolicArray(rows=16, columns=16, dataflow="ws", convention="realistic")
# Sides of the maps, the budget in cycles, and the widths of the grid.
TASKS = (
    ((32, 32, 16, 16, 8), 100_000.0, tuple(range(8, 97, 8))),
    ((32, 32, 32, 32, 16, 16, 16, 8, 8, 8), 200_000.0, (16, 48, 80)),
)
SMALLEST, LARGEST = 4.0, 96.0
# Widths of folds: the temperature falls, so that the last steps see the staircase.
TEMPERATURES = (1.0, 0.3, 0.1, 0.05, 0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    rows = []
    for sides, budget, grid in TASKS:
        searches = {
            "gradient": lambda s=sides, b=budget: by_gradient(s, b, arguments),
            "grid": lambda s=sides, b=budget, g=grid: by_grid(s, b, g),
            "random": lambda s=sides, b=budget: by_chance(s, b, rows),
        }
        for name, search in searches.items():
            rows.append(measured(name, search, sides, budget))
    results = {
        "starts": arguments.starts,
        "steps": arguments.steps,
        "rows": rows,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "width_tuning.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def measured(name: str, search, sides, budget) -> dict:
    began = time.perf_counter()
    widths, evaluations = search()
    return {
        "search": name,
        "layers": len(sides),
        "budget_cycles": budget,
        "widths": [int(width) for width in widths],
        "mean_width": float(np.exp(np.log(widths).mean())),
        "cycles": float(exact_cycles(jnp.asarray(widths, jnp.float32), sides)),
        "evaluations": evaluations,
        "seconds": time.perf_counter() - began,
    }


def network(widths, sides) -> LayerTable:
    """The table of the convolutions; widths may be fractions."""
    ones, sides = jnp.ones(len(sides), jnp.int32), jnp.array(sides, jnp.int32)
    table = LayerTable(*([ones] * len(LayerTable._fields)))
    inputs = jnp.concatenate([jnp.array([3.0], jnp.float32), widths[:-1]])
    return table._replace(
        mask=ones == 1,
        out_height=sides,
        out_width=sides,
        kernel_height=3 * ones,
        kernel_width=3 * ones,
        in_channels=inputs,
        out_channels=widths,
    )


@partial(jax.jit, static_argnames="sides")
def exact_cycles(widths, sides):
    table = network(widths, sides)
    whole = [table.in_channels.astype(jnp.int32), table.out_channels.astype(jnp.int32)]
    return latency_cycles(
        table._replace(in_channels=whole[0], out_channels=whole[1]), ARRAY
    )


def by_gradient(sides, budget, arguments):
    """Ascent from many starts at once; the best rounding that fits."""
    shape = (arguments.starts, len(sides))
    span = np.log([SMALLEST, LARGEST])
    logs = jnp.asarray(np.random.default_rng(0).uniform(*span, shape), jnp.float32)
    options = dict(sides=sides, budget=budget, steps=arguments.steps)
    for temperature in TEMPERATURES:
        logs = jax.jit(jax.vmap(partial(ascent, temperature=temperature, **options)))(
            logs
        )
    corners = np.array(list(itertools.product((0, 1), repeat=len(sides))))
    candidates = np.floor(np.exp(logs))[:, None] + corners[None]
    candidates = np.clip(candidates, SMALLEST, LARGEST).reshape(-1, len(sides))
    steps = len(TEMPERATURES) * arguments.steps * arguments.starts
    return widest(candidates, sides, budget), steps + len(candidates)


def ascent(logs, *, sides, budget, steps: int, temperature: float):
    """Wider within the budget, whose excess is penalised more and more."""
    arithmetic = smooth(temperature=temperature)

    def loss(logs, weight):
        widths = jnp.exp(jnp.clip(logs, np.log(SMALLEST), np.log(LARGEST)))
        table = network(widths, sides)
        spent = latency_cycles(table, ARRAY, arithmetic=arithmetic)
        excess = jnp.maximum(jnp.log(spent / budget), 0)
        return weight * excess - jnp.mean(logs)

    optimiser = optax.adam(0.02)

    def step(carry, weight):
        logs, state = carry
        updates, state = optimiser.update(jax.grad(loss)(logs, weight), state)
        return (optax.apply_updates(logs, updates), state), None

    weights = jnp.linspace(1.0, 10.0, steps)
    (logs, _), _ = jax.lax.scan(step, (logs, optimiser.init(logs)), weights)
    return jnp.clip(logs, np.log(SMALLEST), np.log(LARGEST))


def by_grid(sides, budget, grid):
    """Every network of the grid."""
    candidates = np.array(list(itertools.product(grid, repeat=len(sides))))
    return widest(candidates, sides, budget), len(candidates)


def by_chance(sides, budget, rows):
    """As many networks as the ascent has evaluated, uniform in their logarithms."""
    count = [row["evaluations"] for row in rows if row["search"] == "gradient"][-1]
    span = np.log([SMALLEST, LARGEST + 1])
    logs = np.random.default_rng(1).uniform(*span, (count, len(sides)))
    return widest(np.floor(np.exp(logs)), sides, budget), count


def widest(candidates, sides, budget):
    """The widest of the candidates that fit the budget by the exact model."""
    candidates = candidates.astype(np.float32)
    spent = jax.vmap(partial(exact_cycles, sides=sides))(candidates)
    score = np.log(candidates).mean(axis=1)
    return candidates[np.argmax(np.where(spent <= budget, score, -np.inf))]


if __name__ == "__main__":
    main()

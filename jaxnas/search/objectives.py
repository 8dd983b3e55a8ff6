"""Named objectives in one matrix: the only place where faults and hardware meet.

All are minimised. The cheap ones follow from a layer table by arithmetic; the expensive
ones need a trained network: `validation_error` and, measured under bit faults,
`struck_error`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxnas.analysis.resilience import activation_fragility, weight_fragility
from jaxnas.hardware.accelerators import Hardware, accelerator
from jaxnas.hardware.bandwidth import latency_us
from jaxnas.hardware.dram import dram_bytes
from jaxnas.hardware.energy import energy_pj
from jaxnas.hardware.exposure import expected_upsets
from jaxnas.hardware.memory import (
    peak_activation_bytes,
    traffic_bytes,
    weight_bytes,
)
from jaxnas.hardware.systolic import latency_cycles
from jaxnas.networks.space import SearchSpace
from jaxnas.networks.tables import layer_table
from jaxnas.search.hypervolume import hypervolume
from jaxnas.topology import (
    LAYER,
    macs,
    over_layers,
    parameters,
)
from jaxnas.types import Genotype

EXPENSIVE = "validation_error"
STRUCK = "struck_error"
CHEAP = (
    "activation_fragility",
    "weight_fragility",
    "macs",
    "parameters",
    "weight_bytes",
    "traffic_bytes",
    "peak_activation_bytes",
    "latency_cycles",
    "latency_us",
    "dram_bytes",
    "energy_pj",
    "expected_upsets",
)

HYPERVOLUME_REFERENCE = 1.1
"""Coordinates of the point up to which hypervolume counts; see `hypervolume_points`."""


@functools.cache
def cheap_objectives(
    space: SearchSpace, hardware: Hardware, names: tuple[str, ...] = CHEAP
) -> Callable[[Genotype], Float[Array, " objectives"]]:
    """A function from a genotype to its cheap objectives, in the order of `names`.

    Around an array alone the last four assume the buffers, links and energies that
    `Accelerator` has by default. Equal arguments give the same function, so that
    programs made of it are shared. Raises ValueError for a name that is not in `CHEAP`.
    """
    unknown = [name for name in names if name not in CHEAP]
    if unknown:
        raise ValueError(f"unknown cheap objectives {unknown}: choose from {CHEAP}")
    device = accelerator(hardware)
    functions = {
        "activation_fragility": activation_fragility,
        "weight_fragility": weight_fragility,
        "macs": lambda table: over_layers(macs(table)),
        "parameters": lambda table: over_layers(parameters(table)),
        "weight_bytes": weight_bytes,
        "traffic_bytes": traffic_bytes,
        "peak_activation_bytes": peak_activation_bytes,
        "latency_cycles": lambda table: latency_cycles(table, device),
    }
    # These share what is moved, which is worth computing once.
    moving = {
        "latency_us": latency_us,
        "dram_bytes": lambda table, device, traffic: traffic.total,
        "energy_pj": energy_pj,
        "expected_upsets": expected_upsets,
    }

    def evaluate(genotype: Genotype) -> Float[Array, " objectives"]:
        table = layer_table(space, genotype)
        # Known here: as a constant it spares the program all questions for the kind.
        table = table._replace(kind=np.full(table.mask.shape, LAYER, np.int32))
        found = {name: functions[name](table) for name in names if name in functions}
        rest = [name for name in names if name in moving]
        traffic = dram_bytes(table, device) if rest else None
        found |= {name: moving[name](table, device, traffic=traffic) for name in rest}
        return jnp.stack([found[name] for name in names])

    return evaluate


@functools.partial(jax.jit, static_argnames="function")
def of_each(function: Callable, genotypes: Int[Array, "networks genes"]) -> Array:
    """A function of one genotype, such as `cheap_objectives`, for each of several."""
    return jax.vmap(function)(genotypes)


def front_hypervolume(
    fitness: Float[Array | np.ndarray, "networks objectives"],
    mask: Bool[Array | np.ndarray, " networks"],
    initial: Float[np.ndarray, "initial objectives"],
    objectives: tuple[str, ...],
) -> float:
    """Hypervolume of the rows in the mask, on the scales of `hypervolume_points`."""
    fitness = np.where(np.asarray(mask)[:, None], fitness, 1.0)
    points = hypervolume_points(fitness, initial, objectives)
    reference = jnp.full(len(objectives), HYPERVOLUME_REFERENCE)
    return float(_hypervolume(jnp.asarray(points, jnp.float32), reference, mask))


_hypervolume = jax.jit(hypervolume)


def hypervolume_points(
    fitness: Float[np.ndarray, "networks objectives"],
    initial: Float[np.ndarray, "initial objectives"],
    objectives: tuple[str, ...],
) -> Float[np.ndarray, "networks objectives"]:
    """Objectives on scales that can be multiplied: 0 is the best initial network's
    value and 1 the worst one's; logarithms of all but errors come first."""
    is_error = np.isin(objectives, (EXPENSIVE, STRUCK))[None, :]
    fitness, initial = (
        np.where(is_error, values, np.log(np.where(is_error, 1.0, values)))
        for values in (fitness, initial)
    )
    best, worst = initial.min(axis=0), initial.max(axis=0)
    return (fitness - best) / np.maximum(worst - best, 1e-6)

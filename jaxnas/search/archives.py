"""An archive: the Pareto front of all that was ever offered to it, up to a capacity."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .crowding import thin
from .ordering import partitioned
from .pareto import nondominated
from .repeats import first_of_equals, hashes


class Archive(NamedTuple):
    """Rows that do not dominate each other; empty ones have +inf fitness."""

    population: Any  # a pytree of leaves [archive, ...]
    fitness: Any  # float32 [archive, objectives]
    mask: Any  # bool [archive]
    survivors: Any  # int32 [archive]: rows of archive ++ what was offered last


def empty_archive(solution: Any, size: int, objectives: int) -> Archive:
    """Room for `size` genomes like the solution."""
    return Archive(
        population=jax.tree.map(
            lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), solution
        ),
        fitness=jnp.full((size, objectives), jnp.inf, jnp.float32),
        mask=jnp.zeros(size, bool),
        survivors=jnp.zeros(size, jnp.int32),
    )


def offered(
    archive: Archive,
    population: Any,
    fitness: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"],
) -> Archive:
    """The front of the archive and new rows, thinned by crowding to its capacity.

    Rows leave one by one (`crowding.thin`), which suits archives of hundreds. Genomes
    that repeat are kept once. Rows in the mask must be finite.
    """
    size = archive.mask.size
    if not size:
        return archive
    fitness = jnp.concatenate([archive.fitness, fitness])
    population = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new]), archive.population, population
    )
    mask = first_of_equals(hashes(population), jnp.append(archive.mask, mask))
    front = nondominated(fitness, mask)
    keep = thin(fitness, size, front)
    rows = partitioned(keep)[:size]
    kept = keep[rows]
    return Archive(
        population=jax.tree.map(lambda leaf: leaf[rows], population),
        fitness=jnp.where(kept[:, None], fitness[rows], jnp.inf),
        mask=kept,
        survivors=rows.astype(jnp.int32),
    )

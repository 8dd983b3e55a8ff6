"""An archive holds the front of all that it was offered."""

import jax
import jax.numpy as jnp
import numpy as np
from pareto_oracles import better

from jaxnas.search.archives import empty_archive, offered

ROWS, OFFERS = 10, 12


def offers():
    rng = np.random.default_rng(0)
    genes = rng.integers(0, 12, (OFFERS, ROWS, 2)).astype(np.int32)
    left, waste = genes[..., 0], genes[..., 1]
    fitness = np.stack([left + waste / 16, 11 - left + waste / 8], axis=-1)
    return genes, fitness.astype(np.float32), rng.random((OFFERS, ROWS)) < 0.8


def test_a_large_archive_is_the_front_of_everything_and_a_small_one_a_part():
    genes, fitness, mask = offers()
    add = jax.jit(offered)
    for size in (40, 3):
        archive = empty_archive(jnp.zeros(2, jnp.int32), size, 2)
        for each in zip(genes, fitness, mask, strict=True):
            archive = add(archive, *each)
        every = {
            tuple(g): f
            for g, f in zip(genes[mask].tolist(), fitness[mask], strict=True)
        }
        front = {
            g for g, f in every.items() if not any(better(h, f) for h in every.values())
        }
        kept = np.asarray(archive.population)[archive.mask].tolist()
        assert len(kept) == len(set(map(tuple, kept)))
        assert 3 < len(front) < 40
        if size == 40:
            assert set(map(tuple, kept)) == front
        else:
            # What a small archive dropped may have hidden others: only its own count.
            assert len(kept) == 3
        for row, values in zip(kept, archive.fitness[archive.mask], strict=True):
            np.testing.assert_array_equal(every[tuple(row)], values)
        values = np.asarray(archive.fitness[archive.mask])
        assert not any(better(a, b) for a in values for b in values)
        assert jnp.isinf(archive.fitness[~archive.mask]).all()


def test_an_archive_without_room_stays_empty():
    archive = empty_archive(jnp.zeros(2), 0, 2)
    after = offered(archive, jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3, bool))
    assert after.fitness.shape == (0, 2)

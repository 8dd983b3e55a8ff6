"""Hashes of genomes: equal ones agree, and the first of them is found."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.search.repeats import first_of_equals, hashes


def test_all_of_a_large_regular_set_differ():
    grid = np.stack(np.indices((64, 64, 64), np.int32), axis=-1).reshape(-1, 3)
    keys = np.asarray(jax.jit(hashes)(grid)).astype(np.uint64)
    joined = (keys[:, 0] << 32) | keys[:, 1]
    assert len(np.unique(joined)) == len(grid)
    # Every bit is set in about half of the rows.
    bits = (joined[:, None] >> np.arange(64, dtype=np.uint64)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


def test_genes_of_every_type_and_place_count():
    one = {
        "a": jnp.array([[1.0, 2.0]]),
        "b": jnp.array([[1, 2]], jnp.int8),
        "c": jnp.array([[[0.5], [1.5]]], jnp.bfloat16),
    }
    swapped = [{**one, name: jnp.flip(leaf, axis=1)} for name, leaf in one.items()]
    rows = [hashes(each)[0].tolist() for each in (one, *swapped)]
    assert len({tuple(row) for row in rows}) == 4
    assert hashes(jax.tree.map(jnp.array, one))[0].tolist() == rows[0]


def test_the_first_of_equal_rows_is_found_wherever_they_lie():
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 1, (20, 24, 3)).astype(np.int32)
    mask = rng.random((20, 24)) < 0.7
    find = jax.jit(jax.vmap(lambda r, m: first_of_equals(hashes(r), m)))
    for found, trial, used in zip(find(rows, mask), rows, mask, strict=True):
        seen, expected = set(), []
        for row, taken in zip(map(tuple, trial.tolist()), used, strict=True):
            expected.append(bool(taken) and row not in seen)
            seen |= {row} if taken else set()
        assert found.tolist() == expected

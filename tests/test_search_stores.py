"""Slots against numbers that say which network every row holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.search.stores import Members, Store, counted, settled, taken
from jaxnas.search.strikes import Tally, no_tally

POPULATION, ARCHIVE, BORN, GENERATIONS = 6, 3, 4, 40


def born(first):
    """Networks whose weights tell their numbers."""
    identity = jnp.arange(first, first + BORN, dtype=jnp.int32)
    weights = {"kernel": identity[:, None] * jnp.ones((1, 2)), "bias": -identity}
    return Members(weights, identity, no_tally(BORN))


def empty():
    slots = jax.tree.map(
        lambda leaf: jnp.resize(
            leaf[:1], (POPULATION + ARCHIVE + BORN, *leaf.shape[1:])
        ),
        born(0),
    )
    rows = jnp.zeros(POPULATION, jnp.int32), jnp.zeros(ARCHIVE, jnp.int32)
    return Store(slots, *rows)


@functools.cache
def lives():
    """Random selections: of each the rows in use before, who survives, and who that
    is, by number, of the population and of the archive."""
    rng = np.random.default_rng(0)
    masks = [np.zeros(size, bool) for size in (POPULATION, ARCHIVE)]
    names = [np.zeros(size, int) for size in (POPULATION, ARCHIVE)]
    found = []
    for number in range(GENERATIONS):
        new = np.arange(BORN) + BORN * number
        before, kept, after = masks, [], []
        for mask, name in zip(masks, names, strict=True):
            rows = np.append(np.flatnonzero(mask), len(mask) + np.arange(BORN))
            chosen = rng.permutation(rows)[: rng.integers(1, len(mask) + 1)]
            survivors = np.zeros(len(mask), np.int32)
            survivors[: len(chosen)] = chosen
            kept.append(survivors)
            after.append(np.arange(len(mask)) < len(chosen))
            name[:] = np.append(name, new)[survivors]
        masks = after
        names_after = [name.copy() for name in names]
        found.append((arrays(before), arrays(kept), after, names_after))
    return found


def arrays(pair):
    return tuple(map(jnp.asarray, pair))


def walked():
    """The store after each of the selections, copied as the next one uses it up."""
    store = empty()
    for number, (before, kept, *_) in enumerate(lives()):
        store = settled(store, before, born(BORN * number), kept)
        yield jax.tree.map(jnp.copy, store)


def test_every_row_has_the_weights_of_its_network():
    for store, (_, _, masks, names) in zip(walked(), lives(), strict=True):
        for slots, mask, name in zip(store[1:], masks, names, strict=True):
            members = taken(store, slots)
            np.testing.assert_array_equal(members.identity[mask], name[mask])
            kernel = np.broadcast_to(name[:, None], (len(name), 2))
            np.testing.assert_array_equal(members.weights["kernel"][mask], kernel[mask])
            np.testing.assert_array_equal(members.weights["bias"][mask], -name[mask])


def test_what_population_and_archive_keep_is_there_once():
    shared = 0
    for store, (_, _, masks, names) in zip(walked(), lives(), strict=True):
        homes = {}
        for slots, mask, name in zip(store[1:], masks, names, strict=True):
            for network, slot in zip(name[mask], np.asarray(slots)[mask], strict=True):
                shared += network in homes
                assert homes.setdefault(network, slot) == slot
        assert len(set(homes.values())) == len(homes)
    assert shared


def test_the_memory_of_the_slots_is_used_again():
    store = empty()
    before, kept, *_ = lives()[0]
    kernel = store.slots.weights["kernel"]
    place = kernel.unsafe_buffer_pointer()
    store = settled(store, before, born(0), kept)
    assert kernel.is_deleted()
    assert store.slots.weights["kernel"].unsafe_buffer_pointer() == place


@pytest.mark.parametrize("slots", [[2], [5, 0, 3]])
def test_trials_are_added_to_those_of_a_network(slots):
    store, slots = empty(), jnp.array(slots)
    fresh = Tally(*(jnp.arange(3 * slots.size).reshape(3, slots.size) + 1))
    for times in (1, 2):
        store = counted(store, slots, fresh)
        found = taken(store, slots).tally
        for counts, expected in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(counts, times * expected)
    assert int(store.slots.tally.trials.sum()) == 2 * int(fresh.trials.sum())

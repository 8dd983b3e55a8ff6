"""A search whose children a surrogate chooses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from search_helpers import CONFIG, GROUP, assert_same, following, stage

from jaxnas.preparation import prepare
from jaxnas.search.evolution import front_of, generation, start
from jaxnas.search.objectives import EXPENSIVE
from jaxnas.search.screening import no_history, screens

KEY = jax.random.key(2)
GENERATIONS = 2


@functools.cache
def problem():
    evolution = dataclasses.replace(
        CONFIG.evolution, screening=3, objectives=(EXPENSIVE, "weight_bytes")
    )
    config = dataclasses.replace(CONFIG, evolution=evolution)
    return prepare(config, stage().out).problem


@functools.cache
def history():
    """The state and the individuals of the start and of every generation."""
    states = [start(KEY, problem())]
    for number in range(GENERATIONS):
        key = jax.random.fold_in(KEY, number)
        states.append(following(key, problem(), states[-1][0]))
    return states


def test_a_group_of_the_children_is_trained():
    assert screens(problem()) and problem().algorithm.accepted == 3 * GROUP
    assert not screens(stage().problem)
    assert no_history(stage().problem).genotypes.shape[0] == 0
    for before, (state, children) in zip(history(), history()[1:], strict=False):
        assert 0 < len(children) <= GROUP
        assert int(state.evaluated) == int(before[0].evaluated) + len(children)
    everyone = [one for _, individuals in history() for one in individuals]
    assert [one.id for one in everyone] == list(range(len(everyone)))
    assert len({one.genotype for one in everyone}) == len(everyone)


def test_the_surrogate_remembers_all_that_was_measured():
    everyone = [one for _, individuals in history() for one in individuals]
    found = history()[-1][0].history
    assert int(found.count) == len(everyone)
    genotypes = np.asarray(found.genotypes[: len(everyone)])
    np.testing.assert_array_equal(genotypes, [one.genotype for one in everyone])
    values = [[one.objectives[EXPENSIVE]] for one in everyone]
    np.testing.assert_array_equal(found.expensive[: len(everyone)], np.float32(values))


def test_the_state_is_all_that_a_generation_depends_on():
    stored = jax.tree.map(jnp.asarray, jax.device_get(history()[1][0]))
    again = generation(jax.random.fold_in(KEY, 1), problem(), stored)
    assert again[1] == history()[2][1]
    assert_same(again[0], history()[2][0])


def test_the_front_holds_no_network_that_another_dominates():
    front = front_of(history()[-1][0])
    values = np.asarray(front.fitness)[np.asarray(front.mask)]
    worse = np.all(values[:, None] >= values[None], axis=2)
    worse &= np.any(values[:, None] > values[None], axis=2)
    assert len(values) > 1 and not worse.any()

"""Measured error under faults: exact tallies, equal trials for all, honest limits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from search_helpers import (
    CONFIG,
    GROUP,
    assert_same,
    following,
    genotypes,
    logits,
    member,
    space,
    stage,
    trained,
)

from jaxnas.faults.statistics import clustered_wilson_interval
from jaxnas.preparation import prepare
from jaxnas.search.evolution import generation, start
from jaxnas.search.objectives import EXPENSIVE, STRUCK
from jaxnas.search.strikes import (
    CONFIDENCE,
    Strikes,
    Tally,
    no_tally,
    strike,
    upper_error,
)

STRIKES = Strikes(seed=CONFIG.seed, rate=1e-2, trials=4, images=CONFIG.faults.images)
KEY = jax.random.key(2)
GENERATIONS = 2


def validation_set():
    problem = stage().problem
    return problem.validation_images, problem.validation_labels


def struck(weights, networks, generation):
    data = *validation_set(), STRIKES, generation
    return strike(space(), weights, networks, *data)


@functools.cache
def tally(generation=1):
    return struck(trained(), genotypes(), generation)


def test_tallies_count_images_and_bound_their_squares():
    trials, wrong, squares = map(np.asarray, tally())
    assert (trials == 4).all() and wrong.shape == (GROUP,)
    assert (wrong >= 0).all() and (wrong <= 4 * 16).all() and len(set(wrong)) > 1
    assert (squares * 4 >= wrong**2).all() and (squares <= 16 * wrong).all()


def test_a_network_meets_the_same_trials_wherever_it_stands():
    order = np.array([2, 0, 3, 1])
    moved = struck(member(trained(), order), genotypes()[order], 1)
    for found, expected in zip(moved, tally(), strict=True):
        np.testing.assert_array_equal(found, np.asarray(expected)[order])
    other = tally(2)
    assert not np.array_equal(other.squares, tally().squares)


def test_faults_do_harm():
    images, labels = validation_set()
    wrong = 0
    for row in range(GROUP):
        answers = logits(member(trained(), row), genotypes()[row], images)
        wrong += np.sum((answers.argmax(axis=1) != labels) & (labels >= 0))
    clean = wrong / GROUP / np.sum(labels >= 0)
    faulty = np.sum([tally(g).wrong for g in range(8)]) / GROUP / 8 / 4 / 16
    assert faulty > clean + 0.05


def test_the_limit_is_that_of_the_clustered_interval():
    rng = np.random.default_rng(0)
    counts = rng.binomial(8, rng.beta(2, 3, (5, 30)))
    counts[0] = 0
    found = upper_error(
        Tally(np.full(5, 30), counts.sum(axis=1), (counts**2).sum(axis=1)), 8
    )
    expected = [clustered_wilson_interval(one, 8, CONFIDENCE).high for one in counts]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_more_trials_bring_the_limit_nearer_and_none_leave_the_worst():
    few = Tally(*(jnp.array([n]) for n in (4, 8, 20)))
    many = Tally(*(10 * one for one in few))
    assert 8 / 4 / 8 < upper_error(many, 8)[0] < upper_error(few, 8)[0] < 1
    np.testing.assert_array_equal(upper_error(no_tally(3), 8), [1, 1, 1])


@functools.cache
def problem():
    evolution = dataclasses.replace(
        CONFIG.evolution,
        objectives=(EXPENSIVE, "weight_bytes", STRUCK),
        strike_trials=STRIKES.trials,
        strike_rate=STRIKES.rate,
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


def test_survivors_are_struck_in_every_generation_that_they_live():
    born = {
        one.id: number
        for number, (_, individuals) in enumerate(history())
        for one in individuals
    }
    column = problem().objectives.index(STRUCK)
    ages = set()
    for number, (state, _) in enumerate(history()):
        rows = np.flatnonzero(state.algorithm.mask)
        store = state.population
        for row in rows:
            age = number - born[int(store.identity[row])]
            assert int(store.tally.trials[row]) == 4 * (age + 1)
            ages.add(age)
        limits = upper_error(store.tally, CONFIG.faults.images)
        fitness = np.asarray(state.algorithm.fitness)[:, column]
        np.testing.assert_array_equal(fitness[rows], limits[rows])
    assert ages == set(range(GENERATIONS + 1))


def test_a_struck_search_goes_on_from_its_state():
    stored = jax.tree.map(jnp.asarray, jax.device_get(history()[1][0]))
    again = generation(jax.random.fold_in(KEY, 1), problem(), stored)
    assert again[1] == history()[2][1]
    assert_same(again[0], history()[2][0])

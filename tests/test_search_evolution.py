"""Who descends from whom, whose weights lie where, and what a generation depends on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pareto_oracles import better
from search_helpers import CONFIG, GROUP, assert_same, following, member, space, stage

from jaxnas.networks import space as spaces
from jaxnas.preparation import prepare
from jaxnas.search.evaluation import measured
from jaxnas.search.evolution import front_of, generation, start
from jaxnas.search.objectives import CHEAP, EXPENSIVE
from jaxnas.search.strikes import no_tally
from jaxnas.training import evaluate_group

KEY = jax.random.key(9)
GENERATIONS = 3


@functools.cache
def history():
    """The state after the start and after every generation, with who was new."""
    states = [start(KEY, stage().problem)]
    for number in range(1, GENERATIONS + 1):
        states.append(step(number, states[-1][0]))
    return states


def step(number, before, key=KEY):
    return following(jax.random.fold_in(key, number), stage().problem, before)


def everyone():
    return [one for _, individuals in history() for one in individuals]


def column(names, individuals):
    return np.array([[one.objectives[name] for name in names] for one in individuals])


def test_ids_count_the_evaluated():
    assert [one.id for one in everyone()] == list(range(len(everyone())))
    evaluated = [int(state.evaluated) for state, _ in history()]
    born = np.cumsum([len(individuals) for _, individuals in history()])
    np.testing.assert_array_equal(evaluated, born)
    assert len(history()[0][1]) == CONFIG.evolution.initial
    assert all(0 < len(new) <= GROUP for _, new in history()[1:])


def test_no_network_is_evaluated_twice():
    assert len({one.genotype for one in everyone()}) == len(everyone())


def test_genotypes_are_canonical_networks_of_the_space():
    counts = spaces.cardinalities(space())
    genotypes = np.array([one.genotype for one in everyone()], np.int32)
    assert np.all((genotypes >= 0) & (genotypes < counts[None, :]))
    for genotype in genotypes:
        same = spaces.canonical(space(), jnp.asarray(genotype))
        np.testing.assert_array_equal(same, genotype)


def test_the_first_networks_are_the_trivial_one_and_others_without_parents():
    first = history()[0][1]
    assert first[0].genotype == tuple(np.asarray(spaces.smallest(space())))
    assert all(one.parents == () for one in first)


def test_parents_were_on_the_front_before():
    for (before, _), (_, children) in zip(history(), history()[1:], strict=False):
        front = set(
            np.asarray(before.population.identity)[np.asarray(before.algorithm.mask)]
        )
        for child in children:
            assert len(child.parents) == 1 and set(child.parents) <= front
    # Different ones: the lineage is not just the first row's.
    assert len({one.parents for one in everyone() if one.parents}) > 2


def test_children_differ_from_their_parents_by_a_mutation():
    genotype = {one.id: np.array(one.genotype) for one in everyone()}
    for one in everyone():
        for parent in one.parents:
            kin = np.sum(genotype[parent] != genotype[one.id])
            assert kin > 0
            # Two changes, the insertion of a block among them, leave the ends alone.
            ends = np.r_[0:3, -1]
            changed = genotype[parent][ends] != genotype[one.id][ends]
            assert changed.sum() <= 2


def rows_of(state):
    return np.flatnonzero(np.asarray(state.algorithm.mask))


def test_rows_hold_the_individual_that_they_name():
    people = {one.id: one for one in everyone()}
    names = CONFIG.evolution.objectives
    for state, _ in history():
        for row in rows_of(state):
            one = people[int(state.population.identity[row])]
            assert tuple(np.asarray(state.algorithm.population[row])) == one.genotype
            found = np.asarray(state.algorithm.fitness[row])
            np.testing.assert_array_equal(found, column(names, [one])[0].astype("f4"))


def test_weights_follow_their_network():
    """Every row evaluates again to the error that was recorded at its birth."""
    people = {one.id: one for one in everyone()}
    problem, checked = stage().problem, 0
    for state, _ in history():
        rows = rows_of(state)
        for group in np.split(rows, range(GROUP, len(rows), GROUP)):
            padded = np.resize(group, GROUP)
            errors = evaluate_group(
                problem.space,
                member(state.population.weights, padded),
                state.algorithm.population[padded],
                problem.validation_images,
                problem.validation_labels,
            )
            for row, error in zip(group, np.asarray(errors), strict=False):
                one = people[int(state.population.identity[row])]
                assert error == one.objectives[EXPENSIVE]
                checked += 1
    late = {int(i) for i in np.asarray(history()[-1][0].population.identity)}
    assert checked > GROUP and max(late) >= CONFIG.evolution.initial


def test_the_population_is_the_front_of_all_that_were_evaluated():
    """By brute force; the capacity is large enough for all of them."""
    names = CONFIG.evolution.objectives
    capacity = CONFIG.evolution.population
    born = []
    for state, individuals in history():
        born += individuals
        values = column(names, born)
        worse = values[:, None] >= values[None]
        dominated = np.any(
            np.all(worse, axis=2) & np.any(values[:, None] > values[None], axis=2),
            axis=1,
        )
        front = {one.id for one, out in zip(born, dominated, strict=True) if not out}
        assert len(front) <= capacity
        found = np.asarray(state.population.identity)[rows_of(state)]
        assert set(found.tolist()) == front and len(found) == len(front)


def test_objectives_are_measured_for_every_individual():
    for one in everyone():
        assert tuple(one.objectives) == (EXPENSIVE, *CHEAP)
        assert 0 <= one.objectives[EXPENSIVE] <= 1
        assert all(one.objectives[name] > 0 for name in CHEAP)
    genotypes = jnp.array([one.genotype for one in everyone()[:GROUP]], jnp.int32)
    tally = no_tally(GROUP)
    found = measured(stage().problem, genotypes, jnp.arange(GROUP) / 8, tally)
    np.testing.assert_array_equal(found[EXPENSIVE], np.arange(GROUP) / 8)
    for name in CHEAP:
        np.testing.assert_array_equal(
            found[name], column([name], everyone()[:GROUP])[:, 0].astype("f4")
        )


def test_the_start_and_a_generation_repeat_themselves():
    state, individuals = start(KEY, stage().problem)
    assert individuals == history()[0][1]
    assert_same(state, history()[0][0])
    again = step(1, state)
    assert again[1] == history()[1][1]
    assert_same(again[0], history()[1][0])


def test_a_state_read_back_goes_on_in_the_same_bits():
    stored = jax.device_get(history()[1][0])
    state, individuals = step(2, jax.tree.map(jnp.asarray, stored))
    assert individuals == history()[2][1]
    assert_same(state, history()[2][0])


def test_another_key_gives_other_networks():
    _, individuals = step(1, history()[0][0], jax.random.key(10))
    found = {one.genotype for one in individuals}
    assert found != {one.genotype for one in history()[1][1]}


def test_children_may_learn_from_their_parents():
    """The same children, which end with other weights."""
    before, (plain, expected) = history()[0][0], history()[1]
    problem = stage().problem._replace(distillation=0.9)
    taught, individuals = following(jax.random.fold_in(KEY, 1), problem, before)
    assert [one.genotype for one in individuals] == [one.genotype for one in expected]
    kernels = [
        np.asarray(one.population.weights.params.head.kernel) for one in (plain, taught)
    ]
    assert not np.array_equal(*kernels)


def test_a_space_with_too_few_networks_is_refused():
    few = dataclasses.replace(
        CONFIG.space,
        stages=(dataclasses.replace(CONFIG.space.stages[0], widths=(2,)),),
        word_bits=(8,),
    )
    evolution = dataclasses.replace(CONFIG.evolution, initial=16)
    config = dataclasses.replace(CONFIG, space=few, evolution=evolution)
    problem = prepare(config, stage().out).problem
    with pytest.raises(ValueError) as error:
        start(KEY, problem)
    text = (
        "distinct networks for an initial population of 16: enlarge the space, raise "
        "the limits or lower evolution.initial"
    )
    assert text in str(error.value) and "the space gave only " in str(error.value)


@pytest.mark.parametrize("name", ["aging", "nsga2"])
def test_the_front_of_any_algorithm_has_its_weights(name):
    """Of an archive, where that is the front, as of a population."""
    evolution = dataclasses.replace(
        CONFIG.evolution, algorithm=name, initial=GROUP, population=GROUP
    )
    problem = prepare(dataclasses.replace(CONFIG, evolution=evolution), stage().out)
    problem = problem.problem
    state, individuals = start(KEY, problem)
    for number in range(2):
        key = jax.random.fold_in(KEY, number)
        state, children = generation(key, problem, state)
        individuals += children
    front = front_of(state)
    assert len(front.mask) == GROUP and front.mask.any()
    people = {one.id: one for one in individuals}
    data = problem.validation_images, problem.validation_labels
    errors = evaluate_group(problem.space, front.weights, front.genotypes, *data)
    names = CONFIG.evolution.objectives
    for row in np.flatnonzero(front.mask):
        one = people[int(front.identity[row])]
        assert tuple(np.asarray(front.genotypes[row])) == one.genotype
        assert errors[row] == one.objectives[EXPENSIVE]
        found = column(names, [one])[0].astype("f4")
        np.testing.assert_array_equal(front.fitness[row], found)
    values = np.asarray(front.fitness)[np.asarray(front.mask)]
    assert not any(better(a, b) for a in values for b in values)
    if name == "nsga2":
        assert max(len(one.parents) for one in individuals) == 2

"""A search on disk: limits, its early end, and starting from another search."""

import dataclasses
import functools

import numpy as np
import pytest
from search_helpers import CONFIG, GROUP

from jaxnas import evolving, runs
from jaxnas.evolving import ancestors_of, evolve
from jaxnas.preparation import prepare
from jaxnas.runs import read_lines
from jaxnas.search.evolution import front_of


def configured(**changes):
    evolution = dataclasses.replace(CONFIG.evolution, **changes)
    return dataclasses.replace(CONFIG, evolution=evolution)


def evolved(out, config):
    """The search of a configuration, in a run directory of its own."""
    stage = prepare(config, out)
    runs.open_run(out, out.name, config, resume=False, overwrite=False, command="")
    return stage, evolve(stage)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A search of one generation that others start from."""
    out = tmp_path_factory.mktemp("evolving") / "first"
    return *evolved(out, configured(generations=1)), out


def records(out):
    return read_lines(out / "records.jsonl")


def test_no_network_of_a_search_breaks_a_limit(first, tmp_path):
    costs = [one["objectives"]["weight_bytes"] for one in records(first[2])]
    most = float(np.median(costs))
    assert max(costs) > most
    limited = configured(generations=1, limits=(f"weight_bytes<={most}",))
    evolved(tmp_path / "limited", limited)
    found = records(tmp_path / "limited")
    assert len(found) > CONFIG.evolution.initial
    assert max(one["objectives"]["weight_bytes"] for one in found) <= most


def test_limits_that_nothing_keeps_say_so_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(evolving, "generation", None)
    with pytest.raises(
        ValueError, match="distinct networks within the limits .* raise"
    ):
        evolved(tmp_path / "none", configured(limits=("weight_bytes<=1",)))
    assert not records(tmp_path / "none")


def test_a_front_lives_on_with_its_weights(first, tmp_path):
    """With a learning rate of next to nothing the ancestors stay what they were."""
    before, out = first[1], first[2]
    config = configured(generations=0, warm_start=str(out), initial=2 * GROUP)
    still = dataclasses.replace(CONFIG.training, initial_steps=1, learning_rate=1e-12)
    config = dataclasses.replace(config, training=still)
    stage, after = evolved(tmp_path / "second", config)
    mask = np.asarray(before.algorithm.mask)
    rows = np.flatnonzero(mask)[: 2 * GROUP]
    front = np.asarray(before.algorithm.population)[rows]
    found = [tuple(one["genotype"]) for one in records(tmp_path / "second")]
    assert found[: len(rows)] == [tuple(map(int, one)) for one in front]
    assert len(set(found)) == 2 * GROUP
    given = ancestors_of(stage)
    assert len(given.genotypes) == mask.sum()
    kernel = np.asarray(front_of(before).weights.params.stem.kernel)[mask]
    np.testing.assert_array_equal(given.weights.params.stem.kernel, kernel)
    found = front_of(after)
    survivors = np.asarray(found.identity)[np.asarray(found.mask)]
    old = [number for number in survivors if number < len(rows)]
    assert old
    for number in old:
        (row,) = np.flatnonzero(
            (np.asarray(found.identity) == number) & np.asarray(found.mask)
        )
        stem = np.asarray(found.weights.params.stem.kernel)[row]
        np.testing.assert_allclose(stem, kernel[number], atol=1e-6)


@pytest.mark.parametrize("run", ["nowhere", "empty"])
def test_a_search_to_start_from_must_be_there(run, tmp_path):
    (tmp_path / "empty").mkdir()
    stage = prepare(configured(warm_start=str(tmp_path / run)), tmp_path / "new")
    with pytest.raises(ValueError, match="found no search to start from .* expected"):
        ancestors_of(stage)


def test_a_search_to_start_from_has_the_same_space(first, tmp_path):
    space = dataclasses.replace(CONFIG.space, word_bits=(8,))
    config = configured(warm_start=str(first[2]))
    config = dataclasses.replace(config, space=space)
    with pytest.raises(ValueError, match="searched another space"):
        ancestors_of(prepare(config, tmp_path / "new"))


@pytest.fixture
def scripted(first, monkeypatch):
    """Generations that only write hypervolumes, and how many there were."""
    made = []

    def one_generation(stage, number, before, volumes):
        made.append(number)
        line = {"generation": number, "hypervolume": volumes[number]}
        runs.append_lines(stage.out / "progress.jsonl", [line])
        return first[1]

    def script(*volumes):
        step = functools.partial(one_generation, volumes=volumes)
        monkeypatch.setattr(evolving, "_one_generation", step)
        monkeypatch.setattr(evolving.checkpoints, "save", lambda *_: None)
        return made

    return script


VOLUMES = (0.3, 0.5, 0.5, 0.6, 0.6, 0.55, 0.9)


@pytest.mark.parametrize("patience, last", [(0, 6), (1, 2), (2, 5), (3, 6)])
def test_a_search_ends_when_it_no_longer_improves(patience, last, scripted, tmp_path):
    made = scripted(*VOLUMES)
    evolved(tmp_path / "run", configured(generations=6, patience=patience))
    assert made == list(range(last + 1))

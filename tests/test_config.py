"""Configurations survive JSON, and refuse every value that would cost a training."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxnas.cli import load_config
from jaxnas.config import (
    DataConfig,
    EvolutionConfig,
    FaultConfig,
    SearchConfig,
    SpaceConfig,
    TrainingConfig,
    from_plain,
)
from jaxnas.hardware import Accelerator
from jaxnas.networks.space import Stage
from jaxnas.search.objectives import CHEAP

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
UNUSUAL = SearchConfig(
    seed=2**31 - 1,
    data=DataConfig(path="folder/of images", limit=7, test_share=0.25),
    space=SpaceConfig(
        stages=(Stage(widths=(3,), blocks=4), Stage(widths=(1, 2), blocks=1)),
        kernels=(1,),
        expansions=(1, 16),
        word_bits=(2, 3, 16),
    ),
    evolution=EvolutionConfig(
        objectives=("macs", "validation_error"), generations=0, initial=1, population=1
    ),
    training=TrainingConfig(learning_rate=1 / 3, shift=2, flip=True),
    hardware=Accelerator(rows=3, columns=5, dataflow="best"),
    faults=FaultConfig(rates=(1e-12, 0.5, 1 - 1e-6)),
)


def through_json(config):
    return from_plain(type(config), json.loads(json.dumps(dataclasses.asdict(config))))


def test_a_configuration_survives_json():
    for config in (SearchConfig(), UNUSUAL):
        found = through_json(config)
        assert found == config
        # Equal and hashable: a list in place of a tuple would be neither.
        assert hash(found) == hash(config)
        assert found.space.stages[0] == config.space.stages[0]
    assert through_json(UNUSUAL) != SearchConfig()


@pytest.mark.parametrize("function", ["config", "smoke"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_survive_json(path, function):
    config = load_config(path, function)
    assert through_json(config) == config


def test_keys_that_are_missing_take_their_defaults():
    plain = {"seed": 4, "faults": {"trials": 9}}
    expected = SearchConfig(seed=4, faults=FaultConfig(trials=9))
    assert from_plain(SearchConfig, plain) == expected


UNKNOWN = {
    "SearchConfig": {"sede": 1, "data": {}, "bits": 2},
    "SpaceConfig": {"space": {"bits": [8], "sede": 0}},
    "Stage": {
        "space": {"stages": [{"widths": [4], "blocks": 1}, {"bits": 1, "sede": 0}]}
    },
}


@pytest.mark.parametrize("owner", UNKNOWN)
def test_unknown_keys_are_named_with_their_owner(owner):
    with pytest.raises(ValueError) as error:
        from_plain(SearchConfig, UNKNOWN[owner])
    text = (
        f"unknown configuration keys ['bits', 'sede'] of {owner}: the run was made by"
    )
    assert text in str(error.value)


def test_values_of_a_stored_configuration_are_checked_too():
    with pytest.raises(ValueError, match="seed is -3"):
        from_plain(SearchConfig, {"seed": -3})


@pytest.mark.parametrize(
    "options, candidates",
    [
        ({}, 60),
        ({"screening": 0}, 4),
        ({"screening": 3}, 12),
        ({"algorithm": "nsga2"}, 4),
        ({"algorithm": "nsga2", "screening": 3}, 12),
    ],
)
def test_a_surrogate_chooses_from_all_proposals_of_lemonade(options, candidates):
    options = {"children": 4, "proposals": 60} | options
    assert EvolutionConfig(**options).candidates == candidates


POSITIVE = [
    *[(EvolutionConfig, n) for n in ("initial", "population", "proposals", "children")],
    *[(TrainingConfig, f"{n}_steps") for n in ("initial", "child", "final")],
    (TrainingConfig, "batch"),
    (FaultConfig, "images"),
]
RATES = [(TrainingConfig, n) for n in ("learning_rate", "final_learning_rate")]
CASES = [
    *[(*case, value) for case in POSITIVE for value in (0, -1)],
    *[(*case, value) for case in RATES for value in (0.0, -1.0, float("nan"))],
]


@pytest.mark.parametrize("kind, name, value", CASES)
def test_counts_and_rates_must_be_positive(kind, name, value):
    with pytest.raises(ValueError) as error:
        kind(**{name: value})
    assert str(error.value) == f"{name} is {value}, expected more than 0"


CHOICE = ("struck_error", *CHEAP)
NAMES = f"expected validation_error and at least one of {CHOICE}, each once"
BAD = {
    "generations is -1, expected 0 or more": (EvolutionConfig, {"generations": -1}),
    f"objectives are ('validation_error',), {NAMES}": (
        EvolutionConfig,
        {"objectives": ("validation_error",)},
    ),
    f"objectives are ('macs', 'parameters'), {NAMES}": (
        EvolutionConfig,
        {"objectives": ("macs", "parameters")},
    ),
    f"objectives are ('validation_error', 'speed'), {NAMES}": (
        EvolutionConfig,
        {"objectives": ("validation_error", "speed")},
    ),
    f"objectives are ('validation_error', 'macs', 'macs'), {NAMES}": (
        EvolutionConfig,
        {"objectives": ("validation_error", "macs", "macs")},
    ),
    "initial is 9 networks, more than the population of 8: enlarge the population": (
        EvolutionConfig,
        {"initial": 9, "population": 8},
    ),
    "proposals is 3, fewer than the 4 children that a generation needs: propose more": (
        EvolutionConfig,
        {"proposals": 3, "children": 4},
    ),
    "algorithm is 'nsga4', expected one of "
    "('lemonade', 'nsga2', 'nsga3', 'aging', 'random')": (
        EvolutionConfig,
        {"algorithm": "nsga4"},
    ),
    "objectives are ('validation_error', 'struck_error'), expected at least one of "
    f"{CHEAP}: lemonade proposes networks where the front is sparse in these": (
        EvolutionConfig,
        {"objectives": ("validation_error", "struck_error")},
    ),
    "strike_trials is 1 and strike_rate 0.001, expected at least 2 trials and a rate "
    "between 0 and 1": (EvolutionConfig, {"strike_trials": 1}),
    "screening is -1, expected 0 or more": (EvolutionConfig, {"screening": -1}),
    "weight_decay is -0.1 and shift is 0, expected 0 or more": (
        TrainingConfig,
        {"weight_decay": -0.1},
    ),
    "weight_decay is 0.0001 and shift is -1, expected 0 or more": (
        TrainingConfig,
        {"shift": -1},
    ),
    "child_warmup is -0.1, expected a fraction, 0 to 1": (
        TrainingConfig,
        {"child_warmup": -0.1},
    ),
    "distillation is 1.5, expected a fraction, 0 to 1": (
        TrainingConfig,
        {"distillation": 1.5},
    ),
    "trials is 1, expected at least 2: intervals come from the spread of trials": (
        FaultConfig,
        {"trials": 1},
    ),
    "seed is -1, expected 0 to 2147483647": (SearchConfig, {"seed": -1}),
    "seed is 2147483648, expected 0 to 2147483647": (SearchConfig, {"seed": 2**31}),
}


@pytest.mark.parametrize("text", BAD)
def test_values_that_cannot_be_meant_are_explained(text):
    kind, values = BAD[text]
    with pytest.raises(ValueError) as error:
        kind(**values)
    assert str(error.value) == text


@pytest.mark.parametrize("rates", [(), (0.0,), (1.0,), (1e-3, -1e-3), (float("nan"),)])
def test_fault_rates_are_probabilities(rates):
    with pytest.raises(ValueError) as error:
        FaultConfig(rates=rates)
    text = f"fault rates are {rates}, expected probabilities between 0 and 1"
    assert str(error.value) == text

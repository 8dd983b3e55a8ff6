"""Layers and networks are measured as what they are, and never twice."""

import itertools
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE
from table_helpers import conv, spec

from jaxnas import profiling
from jaxnas.hardware.latency import (
    SHAPE,
    distinct_shapes,
    layer_shapes,
    load_latencies,
)
from jaxnas.networks.space import SearchSpace, Stage
from jaxnas.networks.tables import layer_table
from jaxnas.profiling import Profile, distinct_genotypes, layer_program, profile
from jaxnas.runs import read_lines
from jaxnas.topology import MAP_PRODUCT, compress
from jaxnas.tracing import trace_topology

SMALL = Profile(space=SPACE, batch=2, networks=8, fitted=4)


def traced(fun, *shapes):
    return trace_topology(fun, *(spec(*shape) for shape in shapes))


LAYERS = {
    "strided": traced(lambda x, k: conv(x, k, 2), (1, 8, 7, 3), (3, 3, 3, 4)),
    "valid": traced(
        lambda x, k: conv(x, k, padding="VALID"), (1, 8, 7, 3), (5, 3, 3, 4)
    ),
    "grouped": traced(
        lambda x, k: conv(x, k, feature_group_count=4), (1, 6, 6, 4), (3, 3, 1, 8)
    ),
    "dilated": traced(
        lambda x, k: conv(x, k, rhs_dilation=(2, 2)), (1, 9, 9, 2), (3, 3, 2, 2)
    ),
    "transposed": traced(
        lambda x, k: conv(x, k, padding=((2, 2), (2, 2)), lhs_dilation=(2, 2)),
        (1, 4, 4, 2),
        (3, 3, 2, 2),
    ),
    "dense": traced(lambda x, k: x @ k, (1, 12), (12, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_program_of_a_layer_has_its_shape(name):
    (shape,) = distinct_shapes(LAYERS[name])
    fun, (maps, weights) = layer_program(shape, batch=1)
    found = trace_topology(fun, *maps, *weights)
    np.testing.assert_array_equal(distinct_shapes(found), [shape])


def test_a_product_of_two_maps_has_all_groups_and_positions():
    row = dict.fromkeys(SHAPE, 1) | {"kind": MAP_PRODUCT, "groups": 3}
    row |= {"in_height": 5, "in_channels": 12, "out_height": 5, "out_channels": 6}
    fun, ((left, right), ()) = layer_program(tuple(row.values()), batch=2)
    assert left.shape == (2, 3, 5, 4) and right.shape == (2, 3, 4, 2)
    assert fun(left, right).shape == (2, 3, 5, 2)


FILES = ("layers.jsonl", "networks.jsonl")


class Killed(BaseException):
    """Nothing in the library may catch it."""


@pytest.fixture
def measured(monkeypatch):
    """All that is measured, by formulas: networks take twice their layers, and 5."""
    state = SimpleNamespace(made=[], limit=None, resumed=False)

    def formula(shape, batch):
        return 1.0 + shape[SHAPE.index("in_channels")] * batch

    def clock(item, latency_us):
        """Three times as slow in every pass of an item but its second."""
        passes = itertools.count()

        def measure():
            state.made.append(item)
            if len(state.made) == state.limit:
                raise Killed
            slow = 1 if state.resumed else 3
            return latency_us if next(passes) == 1 else slow * latency_us

        return measure

    def layer_clock(shape, *, batch):
        return clock(shape, formula(shape, batch))

    def network_clock(space, genotype, *, batch):
        table = compress(layer_table(space, jnp.asarray(genotype, jnp.int32)))
        rows = np.asarray(layer_shapes(table))
        return clock(genotype, 5.0 + 2 * sum(formula(row, batch) for row in rows))

    monkeypatch.setattr(profiling, "layer_clock", layer_clock)
    monkeypatch.setattr(profiling, "network_clock", network_clock)
    return state


def test_a_line_over_layers_is_found_and_predicts_the_others(measured, tmp_path):
    found = profile(SMALL, tmp_path / "run")
    assert found["slope_and_bias"].relative_rmse < 1e-5
    assert found["slope_and_bias"].networks == SMALL.networks - SMALL.fitted
    assert found["sum"].relative_rmse > 0.3
    model = load_latencies(tmp_path / "run" / "latency.json")
    np.testing.assert_allclose([model.slope, model.bias_us], [2, 5], rtol=1e-4)
    saved = json.loads((tmp_path / "run" / "accuracy.json").read_text())
    assert saved["sum"]["spearman"] == found["sum"].spearman
    assert (tmp_path / "run" / "figures" / "latency.png").stat().st_size > 1000


def test_what_was_measured_before_a_kill_is_not_measured_again(measured, tmp_path):
    whole = profile(SMALL, tmp_path / "whole")
    calls = list(measured.made)
    measured.made.clear()
    measured.limit = len(calls) - 2
    with pytest.raises(Killed):
        profile(SMALL, tmp_path / "run")
    lines = sum(len(read_lines(tmp_path / "run" / name)) for name in FILES)
    assert lines == len(calls) - 3
    measured.limit, measured.resumed = None, True
    assert profile(SMALL, tmp_path / "run", resume=True) == whole
    again = [*calls[: len(calls) - 2], *calls[len(calls) - 3 :]]
    assert measured.made == again


def test_a_finished_profile_is_not_overwritten(measured, tmp_path):
    profile(SMALL, tmp_path / "run")
    with pytest.raises(ValueError, match="--resume"):
        profile(SMALL, tmp_path / "run")


def test_a_real_network_and_a_real_layer_take_time():
    genotype = distinct_genotypes(SPACE, 3, seed=1)[0]
    assert profiling.network_clock(SPACE, genotype)() > 0
    big = dict.fromkeys(SHAPE, 1) | {"in_channels": 512, "out_channels": 512}
    assert profiling.layer_clock(tuple(big.values()), batch=64)() > 0


def test_genotypes_are_different_networks():
    found = distinct_genotypes(SPACE, 20, seed=0)
    tables = [compress(layer_table(SPACE, jnp.asarray(one))) for one in found]
    assert len({np.asarray(layer_shapes(table)).tobytes() for table in tables}) == 20


def test_a_space_of_few_networks_says_so():
    stages = (Stage(widths=(2,), blocks=1),)
    options = {"kernels": (3,), "expansions": (2,), "word_bits": (8,)}
    few = SearchSpace(image=(8, 8, 1), classes=3, stages=stages, **options)
    with pytest.raises(ValueError, match="found only"):
        distinct_genotypes(few, 1000, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"fitted": 2}, {"networks": 6, "fitted": 4}]
)
def test_nothing_to_fit_or_to_predict_is_refused(wrong):
    with pytest.raises(ValueError, match="expected at least"):
        Profile(space=SPACE, **wrong)

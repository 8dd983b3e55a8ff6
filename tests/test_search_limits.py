"""Limits on costs: read from text, kept by initial networks and by children."""

import functools

import jax
import numpy as np
import pytest
from network_helpers import SPACE, genotypes

from jaxnas.hardware import SystolicArray
from jaxnas.search.limits import Limit, admission, admitted, parse_limits
from jaxnas.search.objectives import CHEAP, cheap_objectives

LIMITS = (Limit("latency_cycles", 600.0), Limit("weight_bytes", 200.0))


@functools.cache
def costs():
    """All of some random networks, `[networks, costs]`."""
    cheap = cheap_objectives(SPACE, SystolicArray())
    return np.asarray(jax.jit(jax.vmap(cheap))(genotypes(200)))


def test_limits_are_read_from_text():
    texts = ("weight_bytes<=262144", " latency_us <= 8e1 ")
    expected = (Limit("weight_bytes", 262144.0), Limit("latency_us", 80.0))
    assert parse_limits(texts) == expected
    assert parse_limits(()) == ()


@pytest.mark.parametrize(
    "text",
    ["weight_bytes", "weight_bytes<4", "weights<=4", "macs<=", "macs<=-1", "macs<=nan"],
)
def test_what_is_no_limit_is_named(text):
    with pytest.raises(ValueError, match="for example weight_bytes<=262144"):
        parse_limits(("macs<=10", text))


def test_one_cost_has_one_limit():
    with pytest.raises(ValueError, match="two limits on one cost"):
        parse_limits(("macs<=10", "macs<=20"))


def test_what_keeps_every_limit_is_admitted():
    admit = admission(SPACE, SystolicArray(), LIMITS)
    columns = [costs()[:, CHEAP.index(limit.name)] for limit in LIMITS]
    expected = (columns[0] <= 600) & (columns[1] <= 200)
    assert 10 < expected.sum() < 190
    np.testing.assert_array_equal(admitted(admit, genotypes(200)), expected)
    alone = [jax.jit(admit)(one) for one in genotypes(200)[:8]]
    np.testing.assert_array_equal(alone, expected[:8])


def test_equal_limits_are_one_function_and_no_limits_are_none():
    same = admission(SPACE, SystolicArray(), tuple(LIMITS))
    assert same is admission(SPACE, SystolicArray(), LIMITS)
    assert admission(SPACE, SystolicArray(), ()) is None

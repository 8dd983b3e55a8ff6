"""Limits on costs: read from text, kept by initial networks and by children."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, genotypes

from jaxnas.hardware import SystolicArray
from jaxnas.search.limits import Limit, limited_objectives, parse_limits, within
from jaxnas.search.objectives import CHEAP, cheap_objectives

NAMES = ("macs", "weight_bytes")
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


def test_within_compares_every_cost_with_its_limit():
    found = within(costs(), LIMITS)
    columns = [costs()[:, CHEAP.index(limit.name)] for limit in LIMITS]
    expected = (columns[0] <= 600) & (columns[1] <= 200)
    np.testing.assert_array_equal(found, expected)
    assert 10 < expected.sum() < 190
    assert within(costs(), ()).all()


def test_a_broken_limit_makes_all_objectives_infinite():
    limited = limited_objectives(SPACE, SystolicArray(), NAMES, LIMITS)
    found = np.asarray(jax.jit(jax.vmap(limited))(genotypes(200)))
    kept = within(costs(), LIMITS)
    chosen = costs()[:, [CHEAP.index(name) for name in NAMES]]
    expected = np.where(kept[:, None], chosen, np.inf)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_limits_objectives_are_those_of_everyone():
    found = limited_objectives(SPACE, SystolicArray(), NAMES, ())
    assert found is cheap_objectives(SPACE, SystolicArray(), NAMES)
    one = jnp.asarray(genotypes(1)[0])
    assert np.isfinite(found(one)).all()

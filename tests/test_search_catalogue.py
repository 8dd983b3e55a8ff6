"""Every algorithm by name proposes networks of the space within the limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, genotypes

from jaxnas.hardware import SystolicArray
from jaxnas.networks import space as spaces
from jaxnas.search.catalogue import ALGORITHMS, network_search
from jaxnas.search.limits import Limit, admission, admitted

OBJECTIVES = ("validation_error", "weight_bytes", "latency_cycles")
SIZES = dict(population=12, children=6, proposals=63)
LIMITS = (Limit("weight_bytes", 220.0),)


def algorithm(name, **changes):
    options = SIZES | dict(limits=LIMITS) | changes
    return network_search(name, SPACE, SystolicArray(), OBJECTIVES, **options)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_children_are_new_networks_within_the_limits(name):
    search = algorithm(name)
    params, key = search.default_params, jax.random.key(0)
    first = np.unique(np.asarray(genotypes(300)), axis=0)
    kept = admitted(admission(SPACE, SystolicArray(), LIMITS), jnp.asarray(first))
    assert 20 < kept.sum() < len(first)
    first = jnp.asarray(first[kept][:10])
    fitness = jax.random.uniform(key, (10, 3))
    state = search.init(key, first, fitness, params)
    children, state = search.ask(key, state, params)
    children = np.asarray(children)[np.asarray(state.children_mask)]
    assert 0 < len(children) <= 6
    assert admitted(search.admit, jnp.asarray(children)).all()
    same = jax.vmap(lambda one: spaces.canonical(SPACE, one))(jnp.asarray(children))
    np.testing.assert_array_equal(children, same)
    everyone = np.concatenate([first, children])
    assert len(np.unique(everyone, axis=0)) == len(everyone)


def test_equal_arguments_give_equal_algorithms():
    for name in ALGORITHMS:
        assert algorithm(name) == algorithm(name)
    assert len({algorithm(name) for name in ALGORITHMS}) == len(ALGORITHMS)
    assert algorithm("aging") != algorithm("aging", limits=())


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="found the algorithm 'nsga4', expected one"):
        algorithm("nsga4")

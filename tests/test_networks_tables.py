"""The table of a genotype, by arithmetic, is the one traced from its network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import genotypes
from table_helpers import assert_same_table

from jaxnas import topology
from jaxnas.networks import space as spaces
from jaxnas.networks import supernet
from jaxnas.networks.materialize import materialize
from jaxnas.networks.space import SearchSpace, Stage
from jaxnas.networks.tables import layer_table
from jaxnas.topology import LayerTable, products
from jaxnas.tracing import trace_topology

SPACES = {
    "odd colour image, three stages": SearchSpace(
        image=(9, 7, 3),
        classes=5,
        stages=(
            Stage(widths=(2, 4, 6), blocks=1),
            Stage(widths=(3, 8), blocks=1),
            Stage(widths=(5, 9), blocks=1),
        ),
        kernels=(1, 3, 7),
        expansions=(1, 2, 3),
        word_bits=(3, 4, 8),
    ),
    "one narrow stage": SearchSpace(
        image=(3, 10, 2),
        classes=2,
        stages=(Stage(widths=(1, 7), blocks=3),),
        kernels=(1, 3),
        expansions=(4,),
        word_bits=(5, 16),
    ),
}


def zeros(space):
    """Parameters and statistics that cost nothing to make."""
    shapes = jax.eval_shape(lambda: supernet.init(jax.random.key(0), space))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def traced(space, genotype, weights, scheme, **options):
    """From the jaxpr of the materialised network; nothing is computed."""
    module, variables = materialize(space, genotype, *weights, scheme=scheme)
    variables = jax.eval_shape(lambda: variables)
    images = jax.ShapeDtypeStruct((1, *space.image), jnp.uint8)
    return trace_topology(module.apply, variables, images, **options)


COUNTS = {"odd colour image, three stages": 12, "one narrow stage": 9}


@pytest.mark.parametrize("name", SPACES)
def test_tables_are_those_traced_from_the_networks(name):
    space, count = SPACES[name], COUNTS[name]
    population = genotypes(count, space=space)
    tables = jax.jit(jax.vmap(lambda one: layer_table(space, one)))(population)
    assert tables.mask.shape == (count, 2 + 3 * space.slots)
    lengths, weights = set(), zeros(space)
    for row, genotype in enumerate(population):
        scheme = ("fixed_point", "logarithmic")[row % 2]
        table = LayerTable(*(column[row] for column in tables))
        expected = traced(space, genotype, weights, scheme)
        assert_same_table(topology.compress(table), expected)
        for column in table[1:]:
            assert column.dtype == jnp.int32
            assert not np.asarray(column)[~np.asarray(table.mask)].any()
        lengths.add(len(expected.mask))
    assert len(lengths) > 3


def test_tables_are_the_products_among_all_operations():
    space = SPACES["odd colour image, three stages"]
    (genotype,) = genotypes(1, space=space)
    table = jax.jit(lambda: layer_table(space, genotype))()
    full = traced(space, genotype, zeros(space), "fixed_point", vector_operations=True)
    assert_same_table(topology.compress(table), topology.compress(products(full)))
    # Two max-poolings between stages of fixed sizes, and the sum in the head.
    pooled = full.out_height[full.kind == topology.POOLING]
    np.testing.assert_array_equal(pooled, [4, 2, 1])


def test_the_trivial_network_by_hand():
    """A stem over 9x7x3 pixels of 8 bits, two poolings, and a head."""
    space = SPACES["odd colour image, three stages"]
    alone = jax.jit(lambda: layer_table(space, spaces.smallest(space)))
    table = topology.compress(alone())
    image, stem = 9 * 7 * 3 * 8, 9 * 7 * 2 * 8
    rows = {
        "kind": [topology.LAYER, topology.LAYER],
        "in_height": [9, 1],
        "in_width": [7, 1],
        "in_channels": [3, 2],
        "out_height": [9, 1],
        "out_width": [7, 1],
        "out_channels": [2, 5],
        "kernel_height": [3, 1],
        "kernel_width": [3, 1],
        "groups": [1, 1],
        "weight_bits": [8, 8],
        "bias_bits": [16, 16],
        "input_bits": [8, 8],
        "output_bits": [8, 32],
        "stored": [1, 0],
        "rectified": [1, 0],
        "pools_after": [2, 0],
        "read_bits": [image, stem],
        "live_bits": [image + stem, stem],
    }
    for name, expected in rows.items():
        np.testing.assert_array_equal(getattr(table, name), expected, err_msg=name)

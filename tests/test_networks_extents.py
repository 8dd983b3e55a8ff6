"""Extents: the part of the supernet that a genotype uses, against plain arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import SPACE, genotypes

from jaxnas.networks import space as spaces
from jaxnas.networks.extents import Extent, extents, kernel_mask, split_stages
from jaxnas.networks.materialize import network_spec
from jaxnas.networks.supernet import kernel_shapes


def blocks(tree, stage, slot):
    return jax.tree.map(lambda leaf: leaf[slot], tree.stages[stage])


def expected_layers(block, in_width):
    """The layers that a block runs: input width, output width, kernel side."""
    if block is None:
        return {}
    if block.operation == "convolution":
        return {"spatial": (in_width, block.out_width, block.kernel)}
    wide, narrow = block.expanded_width, block.out_width
    layers = {"depthwise": (1, wide, block.kernel), "project": (wide, narrow, 1)}
    if block.operation == "inverted":
        layers["expand"] = in_width, wide, 1
    return layers


def test_extents_are_those_of_the_network():
    shapes = kernel_shapes(SPACE)
    used = set()
    for genotype in genotypes(40):
        active = jax.tree.map(np.asarray, extents(SPACE, genotype))
        spec = network_spec(SPACE, genotype)
        width = spec.stem_width
        assert active.stem == (True, 1, width, 3)
        present = iter(np.asarray(spaces.block_genes(SPACE, genotype))[:, 0] == 1)
        for stage, stage_blocks in enumerate(spec.stages):
            queue = list(stage_blocks)
            for slot in range(SPACE.stages[stage].blocks):
                block = queue.pop(0) if next(present) else None
                expected = expected_layers(block, width)
                for name, extent in blocks(active, stage, slot)._asdict().items():
                    assert bool(extent.used) == (name in expected)
                    if name not in expected:
                        continue
                    used.add((name, int(extent.side)))
                    assert tuple(map(int, extent[1:])) == expected[name]
                    _, height, _, inputs, outputs = getattr(shapes.stages[stage], name)
                    limits = inputs, outputs, height
                    assert (np.array(expected[name]) <= limits).all()
                width = block.out_width if block else width
            assert not queue
        assert active.head[1:3] == (width, SPACE.classes)
    kinds = {(name, side) for name in ("spatial", "depthwise") for side in (1, 3)}
    assert used == kinds | {("expand", 1), ("project", 1)}


@pytest.mark.parametrize("side", [1, 3, 5])
def test_kernel_masks_keep_the_centre_of_the_first_channels(side):
    shape = (5, 5, 4, 6)
    extent = Extent(jnp.bool_(True), jnp.int32(3), jnp.int32(2), jnp.int32(side))
    mask = np.asarray(kernel_mask(extent, shape))
    assert mask.shape == shape and mask.dtype == bool
    assert mask.sum() == side * side * 3 * 2
    margin = (5 - side) // 2
    assert mask[margin : 5 - margin, margin : 5 - margin, :3, :2].all()
    unused = kernel_mask(extent._replace(used=jnp.bool_(False)), shape)
    assert not np.asarray(unused).any()


def test_stages_are_parted_in_order():
    slots = {"number": jnp.arange(3), "pair": jnp.arange(6).reshape(3, 2)}
    first, second = split_stages(SPACE, slots)
    np.testing.assert_array_equal(first["number"], [0, 1])
    np.testing.assert_array_equal(second["number"], [2])
    np.testing.assert_array_equal(second["pair"], [[4, 5]])

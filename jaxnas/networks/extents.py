"""Which part of every layer of the supernet a genotype uses.

The supernet's trees (parameters, statistics, extents) have one structure: a `Network`
of `Block`s, the blocks of a stage stacked along a leading axis.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace
from jaxnas.types import Genotype

STEM_KERNEL = 3

# Any, not a type variable: the checker of the tests takes no generic named tuples.


class Block(NamedTuple):
    """One value for every layer that a block slot may use."""

    expand: Any
    spatial: Any
    depthwise: Any
    project: Any


class Network(NamedTuple):
    """One value per layer, stacked over the slots of a stage, and one for the head."""

    stem: Any
    stages: tuple[Block, ...]
    head: Any


class Extent(NamedTuple):
    """The active part of a layer: whether it runs, its widths, its kernel's side."""

    used: Bool[Array, "..."]
    in_width: Int[Array, "..."]
    out_width: Int[Array, "..."]
    side: Int[Array, "..."]


def extents(space: SearchSpace, genotype: Genotype) -> Network:
    """The active part of every layer of the supernet under one genotype."""
    one = spaces.decode(space, genotype)
    ones = jnp.ones_like(one.in_width)
    side = jnp.array(space.kernels)[one.kernel]
    is_full = one.operation == spaces.CONVOLUTION
    is_inverted = one.operation == spaces.INVERTED
    slots = Block(
        expand=Extent(
            one.present & is_inverted, one.in_width, one.expanded_width, ones
        ),
        spatial=Extent(one.present & is_full, one.in_width, one.out_width, side),
        depthwise=Extent(one.present & ~is_full, ones, one.expanded_width, side),
        project=Extent(one.present & ~is_full, one.expanded_width, one.out_width, ones),
    )
    always = jnp.bool_(True)
    channels, classes = jnp.int32(space.image[2]), jnp.int32(space.classes)
    return Network(
        stem=Extent(always, channels, one.stem_width, jnp.int32(STEM_KERNEL)),
        stages=split_stages(space, slots),
        head=Extent(always, one.head_width, classes, jnp.int32(1)),
    )


def split_stages(space: SearchSpace, slots):
    """A pytree with a leading axis of all slots, parted into one pytree per stage."""
    ends = [
        sum(s.blocks for s in space.stages[: i + 1]) for i in range(len(space.stages))
    ]
    starts = [0, *ends[:-1]]
    return tuple(
        jax.tree.map(lambda leaf: leaf[start:end], slots)  # noqa: B023
        for start, end in zip(starts, ends, strict=True)
    )


def kernel_mask(extent: Extent, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Which weights of a kernel of this HWIO `shape` are active; centred taps."""
    taps = [
        jnp.abs(jnp.arange(size) - size // 2) <= extent.side // 2 for size in shape[:2]
    ]
    inputs = jnp.arange(shape[2]) < extent.in_width
    outputs = jnp.arange(shape[3]) < extent.out_width
    return (
        extent.used
        & taps[0][:, None, None, None]
        & taps[1][None, :, None, None]
        & inputs[None, None, :, None]
        & outputs[None, None, None, :]
    )

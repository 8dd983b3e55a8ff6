"""One program for every network of a space: parameters of fixed shape, masks, switches.

Every block slot owns kernels for all its operations at the largest size; a genotype
selects, by masks over channels and kernel taps and by switches over operations and word
formats, what is computed. Inactive channels are exactly zero, so the network computed
is the one that `materialize` cuts out.

Switches execute one branch only while their index is not batched: map over genotypes
with `lax.map` (or one device each), not with `vmap`, which would run every branch.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxnas.networks import space as spaces
from jaxnas.networks.convolutions import (
    gathered_convolution,
    max_pool,
    pointwise,
    shifted_depthwise,
)
from jaxnas.networks.extents import (
    STEM_KERNEL,
    Block,
    Network,
    extents,
    kernel_mask,
    split_stages,
)
from jaxnas.networks.layers import (
    SCHEMES,
    Choice,
    HeadParams,
    Layer,
    LayerParams,
    LayerStatistics,
    StoredMap,
    WordFormats,
    apply_head,
    apply_layer,
    per_channel,
    read_image,
    word_formats,
)
from jaxnas.networks.space import Architecture, SearchSpace
from jaxnas.switches import recomputed_switch
from jaxnas.types import Genotype, Key


def init(key: Key, space: SearchSpace) -> tuple[Network, Network]:
    """Parameters (He et al. 2015 normal kernels) and statistics of the supernet."""
    shapes = kernel_shapes(space)
    leaves, structure = jax.tree.flatten(shapes, is_leaf=_is_shape)
    sizes = [math.prod(shape) for shape in leaves]
    # One draw for all kernels: every further call of the sampler compiles its own code.
    normal = jax.random.normal(key, (sum(sizes),))
    kernels, start = [], 0
    for shape, size in zip(leaves, sizes, strict=True):
        fan_in = shape[-4] * shape[-3] * shape[-2] if len(shape) > 2 else shape[0]
        values = normal[start : start + size].reshape(shape)
        kernels.append(values * (2 / fan_in) ** 0.5)
        start += size
    kernels = jax.tree.unflatten(structure, kernels)
    params = _map_layers(_initial_params, _initial_head, kernels)
    statistics = _map_layers(_initial_statistics, lambda kernel: (), kernels)
    return params, statistics


def kernel_shapes(space: SearchSpace) -> Network:
    """Shapes of all kernels: HWIO, stacked over the slots of each stage."""
    side = max(space.kernels)
    first = max(space.stages[0].widths)

    def stage_shapes(index, stage):
        width = space.padded_width(index)
        expanded = width * max(space.expansions)
        return Block(
            expand=(stage.blocks, 1, 1, width, expanded),
            spatial=(stage.blocks, side, side, width, width),
            depthwise=(stage.blocks, side, side, 1, expanded),
            project=(stage.blocks, 1, 1, expanded, width),
        )

    return Network(
        stem=(STEM_KERNEL, STEM_KERNEL, space.image[2], first),
        stages=tuple(stage_shapes(i, stage) for i, stage in enumerate(space.stages)),
        head=(space.padded_width(len(space.stages) - 1), space.classes),
    )


def _is_shape(node):
    return isinstance(node, tuple) and all(isinstance(size, int) for size in node)


def _map_layers(layer, head, network):
    return Network(
        stem=layer(network.stem),
        stages=tuple(Block(*map(layer, block)) for block in network.stages),
        head=head(network.head),
    )


def _initial_params(kernel):
    vector = (*kernel.shape[:-4], kernel.shape[-1])
    return LayerParams(kernel, jnp.ones(vector), jnp.zeros(vector))


def _initial_statistics(kernel):
    vector = (*kernel.shape[:-4], kernel.shape[-1])
    return LayerStatistics(jnp.zeros(vector), jnp.ones(vector))


def _initial_head(kernel):
    return HeadParams(kernel, jnp.zeros(kernel.shape[-1]))


class Context(NamedTuple):
    """What all layers of one call share."""

    space: SearchSpace
    formats: WordFormats
    train: bool
    frozen: bool | Bool[Array, ""]


def apply(
    space: SearchSpace,
    params: Network,
    statistics: Network,
    genotype: Genotype,
    images: UInt8[Array, "batch height width channels"],
    *,
    scheme: Choice = 0,
    schemes: tuple[str, ...] = SCHEMES,
    train: bool = False,
    frozen: bool | Bool[Array, ""] = False,
) -> tuple[Float[Array, "batch classes"], Network]:
    """Logits of the network that `genotype` stands for, and the moved statistics.

    `scheme` indexes `schemes` and may be traced. Statistics move in training only, and
    not while they are `frozen`, which may be traced too.
    """
    one = _word_choices(spaces.decode(space, genotype), scheme * len(space.word_bits))
    active = extents(space, genotype)
    formats = word_formats(space.word_bits, schemes)
    context = Context(space, formats, train, frozen)
    x, stem_statistics = _stem(context, params, statistics, one, active, images)
    moved = []
    for index in range(len(space.stages)):
        x = _enter_stage(space, index, x)
        x, stage_statistics = _stage(context, index, params, statistics, one, active, x)
        moved.append(stage_statistics)
    head = _mask_head(params.head, active.head)
    logits = apply_head(head, x, context.formats, one.head_weight_bits)
    return logits, Network(stem_statistics, tuple(moved), ())


def _word_choices(one: Architecture, first: Choice) -> Architecture:
    """The architecture with its word choices counted from format `first`."""
    return one._replace(
        **{
            name: getattr(one, name) + first
            for name in Architecture._fields
            if name.endswith("_bits")
        }
    )


def _stem(context, params, statistics, one, active, images):
    layer = Layer(
        formats=context.formats,
        weight_bits=one.stem_weight_bits,
        activation_bits=one.stem_activation_bits,
        site="stem",
        convolve=gathered_convolution,
        train=context.train,
        frozen=context.frozen,
    )
    image = read_image(images)
    return _masked_layer(layer, params.stem, statistics.stem, active.stem, image)


def _enter_stage(space, index, x):
    values = max_pool(x.values) if index else x.values
    return StoredMap(_pad_channels(values, space.padded_width(index)), x.step)


def _stage(context, index, params, statistics, one, active, x):
    """Scan over the block slots of one stage."""

    def body(x, slot):
        return _block(context, index, x, *slot)

    slots = split_stages(context.space, _slot_choices(one, context.frozen))[index]
    stage = (
        slots,
        params.stages[index],
        statistics.stages[index],
        active.stages[index],
    )
    return lax.scan(body, x, stage)


SEPARABLE = 1 + spaces.SEPARABLE
INVERTED = 1 + spaces.INVERTED


class SlotChoice(NamedTuple):
    """What a block depends on beside extents; `branch` is 0 where it is absent."""

    branch: Int[Array, "..."]
    kernel: Int[Array, "..."]
    residual: Bool[Array, "..."]
    weight_bits: Int[Array, "..."]
    activation_bits: Int[Array, "..."]
    frozen: Bool[Array, "..."]


def _slot_choices(one: Architecture, frozen) -> SlotChoice:
    return SlotChoice(
        branch=jnp.where(one.present, 1 + one.operation, 0),
        kernel=one.kernel,
        residual=one.residual,
        weight_bits=one.weight_bits,
        activation_bits=one.activation_bits,
        frozen=jnp.broadcast_to(frozen, one.present.shape),
    )


def _block(context, index, x, choice, params, statistics, active):
    """One block slot: pass by, or one of the three operations."""

    def absent(block):
        return block.x, block.statistics

    def full(block):
        y, moved = block.run("spatial", block.x, gathered_convolution, block.shortcut)
        return y, block.statistics._replace(spatial=moved)

    def bottleneck(block):
        # Two operations in one branch: the inverted one expands first, ends linear.
        inverted = block.choice.branch == INVERTED
        x, first = recomputed_switch(
            inverted.astype(jnp.int32), [branch(narrow), branch(expand)], *block[2:]
        )
        x, second = block.run("depthwise", x, shifted_depthwise)
        y, third = block.run("project", x, pointwise, block.shortcut, rectify=~inverted)
        return y, block.statistics._replace(
            expand=first, depthwise=second, project=third
        )

    def narrow(block):
        wide = block.statistics.depthwise.mean.shape[0]
        x = StoredMap(_pad_channels(block.x.values, wide), block.x.step)
        return x, block.statistics.expand

    def expand(block):
        return block.run("expand", block.x, pointwise)

    def branch(operation):
        return lambda *parts: operation(_BlockCall(context, index, *parts))

    branches = [branch(one) for one in (absent, full, bottleneck)]
    return recomputed_switch(
        jnp.minimum(choice.branch, SEPARABLE),
        branches,
        x,
        choice,
        params,
        statistics,
        active,
    )


class _BlockCall(NamedTuple):
    """The operands of one block slot, and how its layers are run."""

    context: Context
    stage: int
    x: StoredMap
    choice: SlotChoice
    params: Block
    statistics: Block
    active: Block

    @property
    def shortcut(self) -> Array:
        return jnp.where(self.choice.residual, self.x.values, 0.0)

    def run(self, name, x, convolve, shortcut=None, rectify=True):
        """The layer `name` on `x`; spatial kernels are cut to their active side."""
        context, choice = self.context, self.choice
        if convolve is not pointwise:
            sides = context.space.kernels
            convolve = functools.partial(_sized, convolve, sides, choice.kernel)
        layer = Layer(
            formats=context.formats,
            weight_bits=choice.weight_bits,
            activation_bits=choice.activation_bits,
            site=f"stage{self.stage}/{name}",
            convolve=convolve,
            rectify=rectify,
            train=context.train,
            frozen=choice.frozen,
        )
        parts = [getattr(t, name) for t in (self.params, self.statistics, self.active)]
        return _masked_layer(layer, *parts, x, shortcut)


def _masked_layer(layer, params, statistics, extent, x, shortcut=None):
    mask = kernel_mask(extent, params.kernel.shape)
    channels = jnp.arange(params.gain.shape[0]) < extent.out_width
    # All of it: the biases of a layer share the scale of the largest one.
    params = LayerParams(
        kernel=jnp.where(mask, params.kernel, 0.0),
        gain=jnp.where(channels, params.gain, 0.0),
        offset=jnp.where(channels, params.offset, 0.0),
    )
    statistics = LayerStatistics(
        mean=jnp.where(channels, statistics.mean, 0.0),
        variance=jnp.where(channels, statistics.variance, 1.0),
    )
    y, moved = apply_layer(layer, params, statistics, x, shortcut)
    return StoredMap(jnp.where(per_channel(channels), y.values, 0.0), y.step), moved


def _mask_head(head, extent):
    active = jnp.arange(head.kernel.shape[0]) < extent.in_width
    return head._replace(kernel=jnp.where(active[:, None], head.kernel, 0.0))


def _pad_channels(values, width):
    missing = width - values.shape[-1]
    return jnp.pad(values, ((0, 0), (0, 0), (0, 0), (0, missing)))


def _sized(convolve, sides, choice, x, kernel):
    """Convolve with the centre of the kernel that the chosen side leaves active."""

    def branch(side):
        margin = (kernel.shape[0] - side) // 2
        inner = slice(margin, margin + side)
        return lambda x, kernel: convolve(x, kernel[inner, inner])

    return recomputed_switch(choice, [branch(side) for side in sides], x, kernel)

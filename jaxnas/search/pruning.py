"""Which filters stay where a map narrows: the most salient ones, moved to the front.

A width keeps the first channels of a map. Channels can change places without changing
what a network computes, if all layers that read or add to the map follow. The saliency
of a channel is its gain, as in network slimming (Liu et al. 2017, arXiv 1708.06519),
times the norm of the normalised weights through which the next layer reads it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxnas.networks import space as spaces
from jaxnas.networks.extents import (
    Block,
    Network,
    extents,
    kernel_mask,
    split_stages,
)
from jaxnas.networks.layers import LayerParams, fold, per_channel
from jaxnas.networks.space import SearchSpace
from jaxnas.training import Weights
from jaxnas.types import Genotype


class Orders(NamedTuple):
    """Old channels in their new order; behind the parent's width all keep their place.

    Row 0 of `maps` is the stem's map, row i + 1 that of slot i; `expanded` are the maps
    inside the blocks.
    """

    maps: Int[Array, "maps channels"]
    expanded: Int[Array, "slots channels"]


def salient_first(
    space: SearchSpace, parent: Genotype, child: Genotype, weights: Weights
) -> Weights:
    """The parent's weights, with the channels in front that the child should keep.

    The parent computes what it did, but for shortcuts that the child does not have.
    """
    before, after = spaces.decode(space, parent), spaces.decode(space, child)
    saliencies = _saliencies(space, parent, before.source, weights)
    orders = _orders(space, before, after, *saliencies)
    return reordered(space, before.source, weights, orders)


def _saliencies(space, parent, source, weights):
    """How much channels matter to the parent: rows as in `Orders`, two arrays.

    Layers that do not run read nothing, so sums over layers choose those that do.
    """
    params, statistics = weights
    active = extents(space, parent)
    gains, reads, expanded = [params.stem.gain[None]], [], []
    for stage in zip(params.stages, statistics.stages, active.stages, strict=True):
        blocks, _, used = stage
        inputs = Block(
            *[jax.vmap(_input_norms)(*parts) for parts in zip(*stage, strict=True)]
        )
        inside = jnp.abs(blocks.depthwise.gain) * inputs.project
        separable = used.depthwise.used & ~used.expand.used
        outer = inside[:, : inputs.expand.shape[1]] * separable[:, None]
        reads.append(inputs.spatial + inputs.expand + outer)
        full = used.spatial.used[:, None]
        gains.append(jnp.where(full, blocks.spatial.gain, blocks.project.gain))
        expanded.append(inside)
    reads = _stacked([*reads, jnp.linalg.norm(params.head.kernel, axis=1)[None]])
    # The reader of a map is the last place that it reaches.
    maps = jnp.arange(len(reads))
    readers = jnp.searchsorted(source, maps, side="right") - 1
    return jnp.abs(_stacked(gains)) * reads[readers], _stacked(expanded)


def _input_norms(params: LayerParams, statistics, extent) -> Float[Array, " inputs"]:
    """Norms of the normalised weights on every input."""
    slope, _ = fold(params, statistics)
    mask = kernel_mask(extent, params.kernel.shape)
    squares = jnp.where(mask, params.kernel * per_channel(slope), 0) ** 2
    return jnp.sqrt(jnp.sum(squares, axis=(0, 1, 3)))


def _stacked(parts):
    """Rows of several parts under one another, padded to one width."""
    width = max(part.shape[1] for part in parts)
    return jnp.concatenate(
        [jnp.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
    )


def _orders(space, before, after, saliencies, inner_saliencies):
    """Orders in which shortcuts still join the channels that they joined before."""
    kept = before.present & after.present
    tied = before.residual & (after.residual | ~after.present)
    same = kept & (before.operation == after.operation)
    stem = before.stem_width, after.stem_width < before.stem_width
    maps = [_order(saliencies[0], *stem)]
    expanded = []
    for slot in range(space.slots):
        source = jnp.stack(maps)[before.source[slot]]
        width, narrows = _narrowing(before.out_width, after.out_width, kept, slot)
        ties = jnp.where(tied[slot], before.in_width[slot], 0)
        maps.append(_order(saliencies[slot + 1], width, narrows, source, ties))
        width, narrows = _narrowing(
            before.expanded_width, after.expanded_width, same, slot
        )
        inverted = before.operation[slot] == spaces.INVERTED
        inside = _order(inner_saliencies[slot], width, narrows & inverted)
        # A separable block filters the channels of the map that it reads.
        outside = jnp.arange(len(inside)).at[: len(source)].set(source)
        separable = before.operation[slot] == spaces.SEPARABLE
        expanded.append(jnp.where(separable, outside, inside))
    return Orders(jnp.stack(maps), jnp.stack(expanded))


def _narrowing(before, after, kept, slot):
    return before[slot], kept[slot] & (after[slot] < before[slot])


def _order(saliency, width, narrows, source=None, ties=0):
    """Tied channels as in the source, the others by falling saliency if it narrows."""
    channels = jnp.arange(len(saliency))
    place = channels if source is None else jnp.argsort(source)
    tied, active = place < ties, channels < width
    value = jnp.where(narrows & active, -saliency, channels)
    group = jnp.where(tied, 0, jnp.where(active, 1, 2))
    return jnp.lexsort((jnp.where(tied, place, value), group))


def reordered(
    space: SearchSpace, source: Int[Array, " maps"], weights: Weights, orders: Orders
) -> Weights:
    """The weights with all channels in other places; `source` as in `Architecture`."""
    inputs = split_stages(space, orders.maps[source[:-1]])
    outputs = split_stages(space, orders.maps[1:])
    inside = split_stages(space, orders.expanded)

    def block(layers, read, written, inner):
        width = layers.spatial[-1].shape[0]
        read, written = read[:width], written[:width]
        inner = inner[: layers.depthwise[-1].shape[0]]
        return Block(
            expand=_moved(layers.expand, inner, read),
            spatial=_moved(layers.spatial, written, read),
            depthwise=_moved(layers.depthwise, inner),
            project=_moved(layers.project, written, inner),
        )

    def network(tree, head):
        first = orders.maps[0, : tree.stem[-1].shape[0]]
        stages = zip(tree.stages, inputs, outputs, inside, strict=True)
        blocks = tuple(jax.vmap(block)(*stage) for stage in stages)
        return Network(_moved(tree.stem, first), blocks, head)

    head = weights.params.head
    last = orders.maps[source[-1], : head.kernel.shape[0]]
    return Weights(
        network(weights.params, head._replace(kernel=head.kernel[last])),
        network(weights.statistics, ()),
    )


def _moved(layer, outputs, inputs=None):
    """A layer's parameters or statistics with outputs and inputs in other places."""
    layer = jax.tree.map(lambda leaf: leaf[..., outputs], layer)
    if inputs is None or not isinstance(layer, LayerParams):
        return layer
    return layer._replace(kernel=layer.kernel[:, :, inputs])

"""Network morphisms: a genotype changes, and the weights move with it.

After Elsken, Metzen and Hutter (LEMONADE, ICLR 2019). What is new feeds, or is read
through, weights that are zero. Thus these preserve the function that the parent
computes, in fixed-point words bit for bit: widening a map that no shortcut carries on,
enlarging a kernel or an expansion, and inserting a block with a shortcut, of the width
and words of its map. A linear block stores signs, and of a rectified map one bit less.

A shortcut around a convolution preserves the function in floats: the centre taps
subtract what it adds. These taps come to -1 behind the normalisation, mostly more than
all others; then the step of the kernel's words grows to 2**(1 - bits). Over 200 random
networks the median change of a logit in words is 0.8 % of the range of all logits with
weights of 8 bits, and 4 % with 4. Other blocks read their map through a rectifier, and
cannot subtract it.

Everything else (removing, narrowing, another operation, other words) is an approximate
morphism: the child keeps the weights that both networks share, and of a narrowed map
the most salient channels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxnas.networks import space as spaces
from jaxnas.networks.extents import (
    Block,
    Extent,
    Network,
    extents,
    kernel_mask,
    split_stages,
)
from jaxnas.networks.layers import LayerParams, LayerStatistics, fold
from jaxnas.networks.space import BLOCK_GENES, HEAD_GENES, STEM_GENES, SearchSpace
from jaxnas.search.pruning import salient_first
from jaxnas.training import Weights, initial_weights
from jaxnas.types import Genotype, Key

SECOND_MUTATION = 1 / 3
"""Share of the children that differ from their parent by two genes, not one."""


def mutate(key: Key, space: SearchSpace, genotype: Genotype) -> Genotype:
    """A child: one gene that matters takes another value, sometimes a second one too.

    All genes that affect the network are equally likely, and all other values of a
    gene. A block that becomes present gets a shortcut, the width and words of the map
    that reaches it as far as the space has them, and otherwise random genes.
    """
    bits = jax.random.bits(key, (3, space.genes), jnp.uint32)
    uniform = bits.astype(jnp.float32) * 2.0**-32
    child = _change_gene(space, genotype, uniform[0], bits[2])
    again = _change_gene(space, child, uniform[1], bits[2] * jnp.uint32(2654435769))
    return jnp.where(uniform[2, 0] < SECOND_MUTATION, again, child)


def _change_gene(space, genotype, order, bits):
    counts = jnp.asarray(spaces.cardinalities(space))
    mutable = _matters(space, genotype) & (counts > 1)
    gene = jnp.argmax(jnp.where(mutable, order, -1.0))
    values = jnp.maximum(counts, 2).astype(jnp.uint32)
    step = 1 + (bits >> 8) % (values - 1)
    other = ((genotype + step.astype(jnp.int32)) % counts)[gene]
    child = _insert_block(space, genotype, gene, bits).at[gene].set(other)
    return spaces.canonical(space, child)


def _matters(space: SearchSpace, genotype: Genotype) -> Bool[Array, " genes"]:
    """Which genes change the network if they change alone."""
    one = spaces.decode(space, genotype)
    always = jnp.ones(space.slots, bool)
    matters = {name: one.present for name in BLOCK_GENES}
    matters["present"] = always
    matters["expansion"] = one.present & (one.operation == spaces.INVERTED)
    matters["residual"] = one.present & (one.out_width >= one.in_width)
    blocks = jnp.stack([matters[name] for name in BLOCK_GENES], axis=1)
    ends = [jnp.ones(len(genes), bool) for genes in (STEM_GENES, HEAD_GENES)]
    return jnp.concatenate([ends[0], blocks.reshape(-1), ends[1]])


def _insert_block(space, genotype, gene, bits):
    """Random genes with a shortcut in the slot whose `present` gene will be 1.

    The width is the least that the map fits in, and the map is stored in as many bits
    as before; behind a linear block stands another one.
    """
    counts = jnp.asarray(spaces.cardinalities(space))
    drawn = (bits >> 4) % counts.astype(jnp.uint32)
    first = len(STEM_GENES)
    rows = spaces.block_genes(space, genotype)
    fresh = spaces.block_genes(space, drawn.astype(jnp.int32))
    for name, value in _silent_genes(space, genotype, fresh).items():
        fresh = fresh.at[:, BLOCK_GENES.index(name)].set(value)
    slots = jnp.arange(space.slots)
    inserted = (gene == first + slots * len(BLOCK_GENES)) & (rows[:, 0] == 0)
    rows = jnp.where(inserted[:, None], fresh, rows)
    return spaces.join(genotype[:first], rows, genotype[-len(HEAD_GENES) :])


def _silent_genes(space, genotype, fresh):
    """Genes of a block that can hand on the map that reaches its slot as it is."""
    one = spaces.decode(space, genotype)
    source = one.source[:-1]
    linear = jnp.append(False, one.operation == spaces.INVERTED)[source]
    words = jnp.append(one.stem_activation_bits, one.activation_bits)[source]
    holds = spaces.width_table(space) >= one.in_width[:, None]
    width = fresh[:, BLOCK_GENES.index("width")]
    operation = fresh[:, BLOCK_GENES.index("operation")]
    return {
        "residual": 1,
        "operation": jnp.where(linear, spaces.INVERTED, operation),
        "width": jnp.where(holds.any(axis=1), jnp.argmax(holds, axis=1), width),
        "activation_bits": words,
    }


def inherit(
    key: Key,
    space: SearchSpace,
    parent: Genotype,
    child: Genotype,
    weights: Weights,
) -> Weights:
    """The child's starting weights: the parent's where both are active.

    A weight that only the child uses is zero if it belongs to a filter that the parent
    had (a new input or tap must not change what the filter computes) and random if the
    filter is new. The last normalisation of an inserted residual block gets gain zero.
    """
    weights = salient_first(space, parent, child, weights)
    fresh = initial_weights(key, space)
    before = extents(space, parent)
    after = extents(space, child)
    params, statistics = [], []
    for parts in zip(*map(_layers, (before, after, *weights, *fresh)), strict=True):
        old, new = _inherit_layer(*parts)
        params.append(old)
        statistics.append(new)
    moved = Weights(_rebuild(params, weights.params.head), _rebuild(statistics, ()))
    head = _inherit_head(before, after, weights.params.head)
    moved = moved._replace(params=moved.params._replace(head=head))
    moved = _subtract_shortcuts(space, parent, child, moved)
    return _silence_inserted(space, parent, child, moved)


def _layers(network: Network) -> list:
    """The layers of a network but for the head; those of a stage are stacked."""
    return [network.stem, *(layer for block in network.stages for layer in block)]


def _rebuild(layers: list, head) -> Network:
    blocks = zip(*[iter(layers[1:])] * len(Block._fields), strict=True)
    return Network(layers[0], tuple(Block(*block) for block in blocks), head)


def _inherit_layer(
    before: Extent,
    after: Extent,
    params: LayerParams,
    statistics: LayerStatistics,
    fresh_params: LayerParams,
    fresh_statistics: LayerStatistics,
) -> tuple[LayerParams, LayerStatistics]:
    if before.used.ndim:
        return jax.vmap(_inherit_layer)(
            before, after, params, statistics, fresh_params, fresh_statistics
        )
    shape = params.kernel.shape
    known = kernel_mask(before, shape)
    filters = before.used & (jnp.arange(shape[-1]) < before.out_width)
    grown = kernel_mask(after, shape) & ~known
    new = jnp.where(filters[None, None, None, :], 0.0, fresh_params.kernel)
    kernel = jnp.where(grown, new, params.kernel)

    def vector(old: Float[Array, " outputs"], fresh: Float[Array, " outputs"]):
        return jnp.where(filters, old, fresh)

    return (
        LayerParams(
            kernel,
            vector(params.gain, fresh_params.gain),
            vector(params.offset, fresh_params.offset),
        ),
        jax.tree.map(vector, statistics, fresh_statistics),
    )


def _inherit_head(before, after, head):
    inputs = jnp.arange(head.kernel.shape[0])
    grown = (inputs >= before.head.in_width) & (inputs < after.head.in_width)
    return head._replace(kernel=jnp.where(grown[:, None], 0.0, head.kernel))


VANISHED = 1e-3
"""A filter of smaller slope cannot subtract a map, and gets a shortcut all the same."""


def _subtract_shortcuts(space, parent, child, weights):
    """Convolutions subtract the map that a new shortcut adds to them."""
    old, new = spaces.decode(space, parent), spaces.decode(space, child)
    full = (old.operation == spaces.CONVOLUTION) & (new.operation == old.operation)
    added = old.present & ~old.residual & new.residual & full
    widths = split_stages(space, jnp.where(added, old.in_width, 0))

    def subtract(params, statistics, width):
        slope, _ = fold(params, statistics)
        channels = jnp.arange(slope.shape[0])
        subtracts = (channels < width) & (jnp.abs(slope) > VANISHED)
        taps = jnp.where(subtracts, 1 / jnp.where(subtracts, slope, 1.0), 0.0)
        middle = params.kernel.shape[0] // 2
        kernel = params.kernel.at[middle, middle].add(-jnp.diag(taps))
        return params._replace(kernel=kernel)

    stages = zip(weights.params.stages, weights.statistics.stages, widths, strict=True)
    blocks = tuple(
        params._replace(
            spatial=jax.vmap(subtract)(params.spatial, statistics.spatial, width)
        )
        for params, statistics, width in stages
    )
    return weights._replace(params=weights.params._replace(stages=blocks))


def _silence_inserted(space, parent, child, weights):
    """Gain zero behind every block that is new and has a shortcut around it."""
    old, new = spaces.decode(space, parent), spaces.decode(space, child)
    inserted = new.present & ~old.present & new.residual
    stages = split_stages(space, inserted)

    def silence(block, slots):
        def quiet(layer):
            return layer._replace(gain=jnp.where(slots[:, None], 0.0, layer.gain))

        return block._replace(
            spatial=quiet(block.spatial), project=quiet(block.project)
        )

    blocks = map(silence, weights.params.stages, stages)
    return weights._replace(params=weights.params._replace(stages=tuple(blocks)))

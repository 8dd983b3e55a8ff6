"""From the supernet to a compact network with the same words and the same outputs."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.networks import space as spaces
from jaxnas.networks.compact import BlockSpec, CompactNetwork, NetworkSpec, WordSpec
from jaxnas.networks.extents import STEM_KERNEL, Extent, Network, extents
from jaxnas.networks.space import OPERATIONS, SearchSpace
from jaxnas.types import Genotype


def network_spec(
    space: SearchSpace, genotype: Genotype, *, scheme: str = "fixed_point"
) -> NetworkSpec:
    """The network that a genotype stands for, in plain values."""
    one = jax.tree.map(np.asarray, spaces.decode(space, genotype))
    bits = space.word_bits

    def block(slot):
        return BlockSpec(
            operation=OPERATIONS[one.operation[slot]],
            kernel=space.kernels[one.kernel[slot]],
            expanded_width=int(one.expanded_width[slot]),
            out_width=int(one.out_width[slot]),
            residual=bool(one.residual[slot]),
            words=WordSpec(
                weight=bits[one.weight_bits[slot]],
                activation=bits[one.activation_bits[slot]],
            ),
        )

    slots = [(stage, slot) for slot, stage in enumerate(space.stage_of_slot)]
    return NetworkSpec(
        classes=space.classes,
        stem_kernel=STEM_KERNEL,
        stem_width=int(one.stem_width),
        stem_words=WordSpec(
            weight=bits[one.stem_weight_bits], activation=bits[one.stem_activation_bits]
        ),
        stages=tuple(
            tuple(
                block(slot) for at, slot in slots if at == stage and one.present[slot]
            )
            for stage in range(len(space.stages))
        ),
        head_weight_bits=bits[one.head_weight_bits],
        scheme=scheme,
    )


def materialize(
    space: SearchSpace,
    genotype: Genotype,
    params: Network,
    statistics: Network,
    *,
    scheme: str = "fixed_point",
) -> tuple[CompactNetwork, dict]:
    """The compact flax network of a genotype and its variables cut from the supernet.

    `module.apply(variables, images)` gives the supernet's logits and stores the same
    words; `variables` has the collections `params` and `batch_stats`.
    """
    module = CompactNetwork(network_spec(space, genotype, scheme=scheme))
    active = jax.tree.map(np.asarray, extents(space, genotype))
    inputs = int(active.head.in_width)
    head = {"kernel": params.head.kernel[:inputs], "bias": params.head.bias}
    weights, moments = {"head": head}, {}
    weights["stem"], moments["stem"] = _cut(params.stem, statistics.stem, active.stem)
    for stage, block in enumerate(active.stages):
        present = block.spatial.used | block.depthwise.used
        for index, slot in enumerate(np.flatnonzero(present)):
            name = f"stage{stage}_block{index}"
            weights[name], moments[name] = _cut_block(
                params.stages[stage], statistics.stages[stage], block, int(slot)
            )
    return module, {"params": weights, "batch_stats": moments}


def _cut_block(params, statistics, active, slot):
    weights, moments = {}, {}
    for name in active._fields:
        one = [
            jax.tree.map(lambda leaf: leaf[slot], getattr(tree, name))
            for tree in (params, statistics, active)
        ]
        if one[2].used:
            weights[name], moments[name] = _cut(*one)
    return weights, moments


def _cut(params, statistics, extent: Extent):
    """The active part of one layer's parameters and statistics."""
    inputs, outputs = int(extent.in_width), int(extent.out_width)
    margin = (params.kernel.shape[0] - int(extent.side)) // 2
    inner = slice(margin, margin + int(extent.side))
    kernel = params.kernel[inner, inner, :inputs, :outputs]
    weights = {
        "kernel": jnp.asarray(kernel),
        "gain": jnp.asarray(params.gain[:outputs]),
        "offset": jnp.asarray(params.offset[:outputs]),
    }
    moments = {
        "mean": jnp.asarray(statistics.mean[:outputs]),
        "variance": jnp.asarray(statistics.variance[:outputs]),
    }
    return weights, moments

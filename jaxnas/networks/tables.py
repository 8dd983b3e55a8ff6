"""The layer table of a genotype, by arithmetic alone: what tracing its network reads.

Rows are the stem, three for every block slot (expansion, spatial convolution,
projection; unused ones masked) and the head. These are the products; the vector
operations, which no objective reads, would make the tables several times as long. The
function is for one genotype and is meant to be vmapped over thousands.
"""

import jax
import jax.numpy as jnp

from jaxnas.networks import space as spaces
from jaxnas.networks.extents import STEM_KERNEL
from jaxnas.networks.space import Architecture, SearchSpace
from jaxnas.topology import LAYER, LayerTable
from jaxnas.types import Genotype

IMAGE_BITS = 8
BIAS_BITS = 16
LOGIT_BITS = 32


def layer_table(space: SearchSpace, genotype: Genotype) -> LayerTable:
    """The table `[1 + 3 slots + 1]` of the network that a genotype stands for."""
    one = spaces.decode(space, genotype)
    maps = _Maps(space, one)
    stem, head = _stem_row(space, one), _head_row(space, one, maps)
    blocks = [_expand(maps, one), _spatial(space, maps, one), _project(maps, one)]
    # Interleave: the three layers of a slot stand together, slots in program order.
    rows = jax.tree.map(lambda *columns: jnp.stack(columns, 1).reshape(-1), *blocks)
    table = jax.tree.map(
        lambda first, middle, last: jnp.concatenate([first[None], middle, last[None]]),
        stem,
        rows,
        head,
    )
    return LayerTable(
        mask=table.mask == 1,
        **{
            name: jnp.where(table.mask == 1, column, 0)
            for name, column in table._asdict().items()
            if name != "mask"
        },
    )


class _Maps:
    """Sizes of the maps around every slot: areas in pixels, words in bits."""

    def __init__(self, space: SearchSpace, one: Architecture):
        stages = jnp.array(space.stage_of_slot)
        bits = jnp.array(space.word_bits)
        sizes = jnp.array([space.map_size(i) for i in range(len(space.stages))])
        self.height, self.width = sizes[stages].T
        self.area = self.height * self.width
        self.pools_after = len(space.stages) - 1 - stages
        self.weight_bits = bits[one.weight_bits]
        self.word_bits = bits[one.activation_bits]
        stored_bits = one.out_width * self.area * self.word_bits
        stem_bits = one.stem_width * sizes[0].prod() * bits[one.stem_activation_bits]
        producers = jnp.concatenate([stem_bits[None], stored_bits])
        words = jnp.concatenate([bits[one.stem_activation_bits][None], self.word_bits])
        self.in_bits = producers[one.source[:-1]]
        self.in_word_bits = words[one.source[:-1]]
        self.head_in_bits = producers[one.source[-1]]
        self.head_in_word_bits = words[one.source[-1]]
        self.out_bits = stored_bits
        self.middle_bits = one.expanded_width * self.area * self.word_bits
        self.skip_bits = jnp.where(one.residual, self.in_bits, 0)
        self.last_size = sizes[-1]


def _row(**columns) -> LayerTable:
    """A table of int32 columns of one shape; defaults are those of most layers."""
    usual = dict(
        kernel_height=1,
        kernel_width=1,
        stride_height=1,
        stride_width=1,
        dilation_height=1,
        dilation_width=1,
        upsampling_height=1,
        upsampling_width=1,
        kind=LAYER,
        groups=1,
        bias_bits=BIAS_BITS,
        stored=1,
        rectified=1,
    )
    shape = jnp.shape(columns["mask"])
    return LayerTable(
        **{
            name: jnp.broadcast_to(jnp.asarray(value, jnp.int32), shape)
            for name, value in (usual | columns).items()
        }
    )


def _stem_row(space: SearchSpace, one: Architecture) -> LayerTable:
    height, width, channels = space.image
    bits = jnp.array(space.word_bits)
    output_bits = bits[one.stem_activation_bits]
    image_bits = height * width * channels * IMAGE_BITS
    return _row(
        mask=1,
        **_same_map(height, width),
        in_channels=channels,
        out_channels=one.stem_width,
        kernel_height=STEM_KERNEL,
        kernel_width=STEM_KERNEL,
        weight_bits=bits[one.stem_weight_bits],
        input_bits=IMAGE_BITS,
        output_bits=output_bits,
        pools_after=len(space.stages) - 1,
        read_bits=image_bits,
        live_bits=image_bits + height * width * one.stem_width * output_bits,
    )


def _head_row(space: SearchSpace, one: Architecture, maps: _Maps) -> LayerTable:
    return _row(
        mask=1,
        **_same_map(1, 1),
        in_channels=one.head_width,
        out_channels=space.classes,
        weight_bits=jnp.array(space.word_bits)[one.head_weight_bits],
        input_bits=maps.head_in_word_bits,
        output_bits=LOGIT_BITS,
        stored=0,
        rectified=0,
        pools_after=0,
        read_bits=maps.head_in_bits,
        live_bits=maps.head_in_bits,
    )


def _expand(maps: _Maps, one: Architecture) -> LayerTable:
    return _row(
        mask=one.present & (one.operation == spaces.INVERTED),
        **_same_map(maps.height, maps.width),
        in_channels=one.in_width,
        out_channels=one.expanded_width,
        weight_bits=maps.weight_bits,
        input_bits=maps.in_word_bits,
        output_bits=maps.word_bits,
        pools_after=maps.pools_after,
        read_bits=maps.in_bits,
        live_bits=maps.in_bits + maps.middle_bits,
    )


def _spatial(space: SearchSpace, maps: _Maps, one: Architecture) -> LayerTable:
    """The full or the depthwise convolution."""
    side = jnp.array(space.kernels)[one.kernel]
    full = one.operation == spaces.CONVOLUTION
    inverted = one.operation == spaces.INVERTED
    in_channels = jnp.where(full, one.in_width, one.expanded_width)
    read = jnp.where(inverted, maps.middle_bits, maps.in_bits)
    written = jnp.where(full, maps.out_bits, maps.middle_bits)
    return _row(
        mask=one.present,
        **_same_map(maps.height, maps.width),
        in_channels=in_channels,
        out_channels=jnp.where(full, one.out_width, one.expanded_width),
        kernel_height=side,
        kernel_width=side,
        groups=jnp.where(full, 1, in_channels),
        weight_bits=maps.weight_bits,
        input_bits=jnp.where(inverted, maps.word_bits, maps.in_word_bits),
        output_bits=maps.word_bits,
        pools_after=maps.pools_after,
        read_bits=read,
        # Of the three only the inverted residual does not read the shortcut's map here.
        live_bits=read + written + jnp.where(inverted, maps.skip_bits, 0),
    )


def _project(maps: _Maps, one: Architecture) -> LayerTable:
    read = maps.middle_bits + maps.skip_bits
    return _row(
        mask=one.present & (one.operation != spaces.CONVOLUTION),
        **_same_map(maps.height, maps.width),
        in_channels=one.expanded_width,
        out_channels=one.out_width,
        weight_bits=maps.weight_bits,
        input_bits=maps.word_bits,
        output_bits=maps.word_bits,
        rectified=one.operation != spaces.INVERTED,
        pools_after=maps.pools_after,
        read_bits=read,
        live_bits=read + maps.out_bits,
    )


def _same_map(height, width) -> dict:
    return dict(in_height=height, in_width=width, out_height=height, out_width=width)

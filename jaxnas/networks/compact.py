"""Compact networks: the flax modules that are shipped, finely trained and faulted.

A `NetworkSpec` says in plain values what a genotype says in indices; `CompactNetwork`
computes it with exactly the layers of `networks.layers` and nothing masked.
"""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxnas.networks.convolutions import (
    convolution,
    depthwise_convolution,
    max_pool,
)
from jaxnas.networks.layers import (
    HeadParams,
    Layer,
    LayerParams,
    LayerStatistics,
    StoredMap,
    apply_head,
    apply_layer,
    read_image,
    word_formats,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordSpec:
    """Widths in bits of a layer's weights and of the map it stores."""

    weight: int
    activation: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One block; widths in channels, `kernel` is the side of the spatial kernel."""

    operation: str
    kernel: int
    expanded_width: int
    out_width: int
    residual: bool
    words: WordSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A whole network; maps are halved between the stages."""

    classes: int
    stem_kernel: int
    stem_width: int
    stem_words: WordSpec
    stages: tuple[tuple[BlockSpec, ...], ...]
    head_weight_bits: int
    scheme: str = "fixed_point"


class QuantizedConvolution(nn.Module):
    """A stored layer: parameters `kernel`, `gain`, `offset`; `mean` and `variance` in
    the collection `batch_stats`, moved when `train`."""

    features: int
    kernel: int
    words: WordSpec
    scheme: str
    depthwise: bool = False
    rectify: bool = True
    stride: int = 1

    @nn.compact
    def __call__(self, x: StoredMap, shortcut=None, *, train: bool = False):
        inputs = 1 if self.depthwise else x.values.shape[-1]
        shape = (self.kernel, self.kernel, inputs, self.features)
        vector = (self.features,)
        params = LayerParams(
            kernel=self.param("kernel", nn.initializers.he_normal(), shape),
            gain=self.param("gain", nn.initializers.ones, vector),
            offset=self.param("offset", nn.initializers.zeros, vector),
        )
        mean = self.variable("batch_stats", "mean", jnp.zeros, vector)
        variance = self.variable("batch_stats", "variance", jnp.ones, vector)
        layer = Layer(
            formats=word_formats(
                (self.words.weight, self.words.activation), (self.scheme,)
            ),
            weight_bits=0,
            activation_bits=1,
            site="/".join(self.path),
            convolve=functools.partial(
                depthwise_convolution if self.depthwise else convolution,
                stride=self.stride,
            ),
            rectify=self.rectify,
            train=train,
        )
        statistics = LayerStatistics(mean.value, variance.value)
        y, moved = apply_layer(layer, params, statistics, x, shortcut)
        if train and not self.is_initializing():
            mean.value, variance.value = moved
        return y


class QuantizedHead(nn.Module):
    """Global mean and dense layer: parameters `kernel` and `bias`."""

    classes: int
    weight_bits: int
    scheme: str

    @nn.compact
    def __call__(self, x: StoredMap) -> Float[Array, "batch classes"]:
        shape = (x.values.shape[-1], self.classes)
        params = HeadParams(
            kernel=self.param("kernel", nn.initializers.he_normal(), shape),
            bias=self.param("bias", nn.initializers.zeros, shape[1:]),
        )
        formats = word_formats((self.weight_bits,), (self.scheme,))
        return apply_head(params, x, formats, 0)


class QuantizedBlock(nn.Module):
    """Convolution, depthwise-separable convolution (Howard et al. 2017) or inverted
    residual with a linear last layer (Sandler et al. 2018)."""

    spec: BlockSpec
    scheme: str

    @nn.compact
    def __call__(self, x: StoredMap, *, train: bool = False) -> StoredMap:
        spec = self.spec
        shortcut = widened(x.values, spec.out_width) if spec.residual else None

        def layer(name, features, kernel, **options):
            return QuantizedConvolution(
                features=features,
                kernel=kernel,
                words=spec.words,
                scheme=self.scheme,
                name=name,
                **options,
            )

        if spec.operation == "convolution":
            spatial = layer("spatial", spec.out_width, spec.kernel)
            return spatial(x, shortcut, train=train)
        linear = spec.operation == "inverted"
        if linear:
            x = layer("expand", spec.expanded_width, 1)(x, train=train)
        depthwise = layer("depthwise", spec.expanded_width, spec.kernel, depthwise=True)
        x = depthwise(x, train=train)
        project = layer("project", spec.out_width, 1, rectify=not linear)
        return project(x, shortcut, train=train)


class CompactNetwork(nn.Module):
    """Logits `[batch, classes]` of uint8 images `[batch, height, width, channels]`."""

    spec: NetworkSpec

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        spec = self.spec
        stem = QuantizedConvolution(
            features=spec.stem_width,
            kernel=spec.stem_kernel,
            words=spec.stem_words,
            scheme=spec.scheme,
            name="stem",
        )
        x = stem(read_image(images), train=train)
        for stage, blocks in enumerate(spec.stages):
            x = StoredMap(max_pool(x.values), x.step) if stage else x
            for index, block in enumerate(blocks):
                name = f"stage{stage}_block{index}"
                x = QuantizedBlock(block, spec.scheme, name=name)(x, train=train)
        head = QuantizedHead(
            spec.classes, spec.head_weight_bits, spec.scheme, name="head"
        )
        return head(x)


def widened(
    values: Float[Array, "batch height width channels"], width: int
) -> Float[Array, "batch height width {width}"]:
    """The map with zero channels appended: the shortcut of a block that widens."""
    missing = width - values.shape[-1]
    return jnp.pad(values, ((0, 0), (0, 0), (0, 0), (0, missing)))

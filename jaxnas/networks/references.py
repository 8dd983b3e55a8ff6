"""Published networks, with the quantised layers of this package.

ResNet-20: He et al., "Deep residual learning for image recognition", CVPR 2016, section
4.2 (CIFAR-10), with shortcuts of option A: no parameters, zero channels appended.
"""

import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from jaxnas.networks.compact import (
    QuantizedConvolution,
    QuantizedHead,
    WordSpec,
    widened,
)
from jaxnas.networks.layers import StoredMap, read_image

EIGHT_BITS = WordSpec(weight=8, activation=8)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the first one may halve the map."""

    features: int
    stride: int
    words: WordSpec
    scheme: str

    @nn.compact
    def __call__(self, x: StoredMap, *, train: bool = False) -> StoredMap:
        def layer(name, stride):
            return QuantizedConvolution(
                features=self.features,
                kernel=3,
                words=self.words,
                scheme=self.scheme,
                stride=stride,
                name=name,
            )

        every = self.stride
        shortcut = widened(x.values[:, ::every, ::every], self.features)
        y = layer("first", self.stride)(x, train=train)
        return layer("second", 1)(y, shortcut, train=train)


class ResNet(nn.Module):
    """Logits `[batch, classes]` of uint8 images `[batch, height, width, channels]`.

    A stem, stages of `blocks` residual blocks each, the map halved between stages, the
    mean and a dense layer: `6 * blocks + 2` layers with the usual three stages.
    """

    blocks: int = 3
    widths: tuple[int, ...] = (16, 32, 64)
    classes: int = 10
    words: WordSpec = EIGHT_BITS
    scheme: str = "fixed_point"

    @nn.compact
    def __call__(
        self, images: UInt8[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch classes"]:
        stem = QuantizedConvolution(
            features=self.widths[0],
            kernel=3,
            words=self.words,
            scheme=self.scheme,
            name="stem",
        )
        x = stem(read_image(images), train=train)
        for stage, features in enumerate(self.widths):
            for index in range(self.blocks):
                stride = 2 if stage and not index else 1
                name = f"stage{stage}_block{index}"
                block = ResidualBlock(
                    features, stride, self.words, self.scheme, name=name
                )
                x = block(x, train=train)
        return QuantizedHead(self.classes, self.words.weight, self.scheme, name="head")(
            x
        )


def resnet20(
    classes: int = 10,
    *,
    words: WordSpec = EIGHT_BITS,
    scheme: str = "fixed_point",
) -> ResNet:
    """ResNet-20 for 32x32 images: 0.27 million parameters, 41 million MACs."""
    return ResNet(classes=classes, words=words, scheme=scheme)

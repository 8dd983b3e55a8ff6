"""Residual networks in floats: He et al., "Deep residual learning for image
recognition", CVPR 2016 (arXiv 1512.03385), table 1 and section 4.2.

Where a block changes the shape of its map the shortcut is a 1x1 convolution (option B
of the paper) or keeps every second pixel and appends zero channels (option A).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.networks.normalised import (
    Maps,
    NormalisedConvolution,
    Results,
    global_mean,
)

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks of each stage by depth; from 50 on they are bottlenecks."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck (1x1, 3x3, 1x1 of four times the width),
    and a shortcut. A bottleneck strides in its first 1x1 convolution as in the paper,
    or with `late_stride` in the 3x3 one."""

    width: int
    stride: int = 1
    bottleneck: bool = False
    late_stride: bool = False
    padded_shortcut: bool = False
    bias: bool = False

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Results:
        def layer(name, features, kernel, stride, x):
            return NormalisedConvolution(
                features, kernel, stride, bias=self.bias, name=name
            )(x, train=train)

        y, outputs = x, self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            early, late = (1, self.stride) if self.late_stride else (self.stride, 1)
            y = nn.relu(layer("reduce", self.width, 1, early, y))
            y = nn.relu(layer("spatial", self.width, 3, late, y))
            y = layer("expand", outputs, 1, 1, y)
        else:
            y = nn.relu(layer("first", self.width, 3, self.stride, y))
            y = layer("second", outputs, 3, 1, y)
        if self.padded_shortcut:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0),) * 3 + ((0, outputs - x.shape[-1]),))
        elif self.stride > 1 or x.shape[-1] != outputs:
            x = layer("shortcut", outputs, 1, self.stride, x)
        return nn.relu(y + x)


class ResidualNetwork(nn.Module):
    """Logits `[batch, classes]` of images `[batch, height, width, channels]`.

    A stem, stages of blocks with the map halved between them, the mean and a dense
    layer. The stem of small images is a 3x3 convolution; that of large ones a 7x7
    convolution and a 3x3 maximum, each of stride 2.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    large_stem: bool
    bottleneck: bool = False
    late_stride: bool = False
    padded_shortcut: bool = False
    bias: bool = False

    @nn.compact
    def __call__(
        self, images: Maps, train: bool = False
    ) -> Float[Array, "batch classes"]:
        kernel, stride = (7, 2) if self.large_stem else (3, 1)
        x = NormalisedConvolution(
            self.widths[0], kernel, stride, bias=self.bias, name="stem"
        )(images, train=train)
        x = nn.relu(x)
        if self.large_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, (blocks, width) in enumerate(
            zip(self.blocks, self.widths, strict=True)
        ):
            for index in range(blocks):
                x = ResidualBlock(
                    width,
                    stride=2 if stage and not index else 1,
                    bottleneck=self.bottleneck,
                    late_stride=self.late_stride,
                    padded_shortcut=self.padded_shortcut,
                    bias=self.bias,
                    name=f"stage{stage}_block{index}",
                )(x, train=train)
        return nn.Dense(self.classes, name="head")(global_mean(x))


def imagenet_resnet(
    depth: int = 50, classes: int = 1000, *, large_stem: bool = True, **options
) -> ResidualNetwork:
    """ResNet-18, -34, -50, -101 or -152 for images of about 224x224 pixels.

    `large_stem=False` is for small images. Other options are those of the network:
    `late_stride=True` gives the variant ("v1.5") of most libraries for PyTorch,
    `bias=True` the biases that Keras leaves before the normalisation.

    Raises:
      ValueError: for another depth.
    """
    if depth not in BLOCKS:
        known = ", ".join(map(str, BLOCKS))
        raise ValueError(f"found ResNet of depth {depth}, expected one of {known}")
    options = {"widths": (64, 128, 256, 512)} | options
    return ResidualNetwork(
        blocks=BLOCKS[depth],
        classes=classes,
        large_stem=large_stem,
        bottleneck=depth >= 50,
        **options,
    )


def cifar_resnet(
    depth: int = 20, classes: int = 10, *, padded_shortcut: bool = True, **options
) -> ResidualNetwork:
    """The network of 6n + 2 layers in three stages of 16, 32 and 64 channels.

    Raises:
      ValueError: for another depth.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"found ResNet of depth {depth} for small images, expected 6n + 2 layers: "
            "8, 14, 20, 32, 44, 56, 110, ..."
        )
    options = {"widths": (16, 32, 64)} | options
    blocks = ((depth - 2) // 6,) * 3
    return ResidualNetwork(
        blocks=blocks,
        classes=classes,
        large_stem=False,
        padded_shortcut=padded_shortcut,
        **options,
    )

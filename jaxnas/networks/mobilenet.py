"""MobileNetV2: Sandler et al., "MobileNetV2: inverted residuals and linear
bottlenecks", CVPR 2018 (arXiv 1801.04381), table 2.
"""

from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from jaxnas.networks.normalised import (
    Maps,
    NormalisedConvolution,
    Results,
    global_mean,
)


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride."""

    expansion: int
    width: int
    blocks: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 and linear 1x1 projection; a shortcut where the map
    keeps its shape. An expansion of one has no first layer."""

    width: int
    expansion: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Results:
        y, expanded = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = NormalisedConvolution(expanded, 1, name="expand")(y, train=train)
            y = nn.relu6(y)
        y = NormalisedConvolution(expanded, 3, self.stride, groups=0, name="depthwise")(
            y, train=train
        )
        y = NormalisedConvolution(self.width, 1, name="project")(
            nn.relu6(y), train=train
        )
        return x + y if self.stride == 1 and x.shape[-1] == self.width else y


class MobileNetV2(nn.Module):
    """Logits `[batch, classes]` of images `[batch, height, width, channels]`."""

    stem_width: int
    stem_stride: int
    stages: tuple[Stage, ...]
    last_width: int
    classes: int

    @nn.compact
    def __call__(
        self, images: Maps, train: bool = False
    ) -> Float[Array, "batch classes"]:
        x = NormalisedConvolution(self.stem_width, 3, self.stem_stride, name="stem")(
            images, train=train
        )
        x = nn.relu6(x)
        for index, stage in enumerate(self.stages):
            for block in range(stage.blocks):
                x = InvertedResidual(
                    stage.width,
                    stage.expansion,
                    1 if block else stage.stride,
                    name=f"stage{index}_block{block}",
                )(x, train=train)
        x = NormalisedConvolution(self.last_width, 1, name="last")(x, train=train)
        return nn.Dense(self.classes, name="head")(global_mean(nn.relu6(x)))


def mobilenet_v2(
    multiplier: float = 1.0,
    classes: int = 1000,
    *,
    stem_stride: int = 2,
    stages: tuple[Stage, ...] = STAGES,
) -> MobileNetV2:
    """Widths times the multiplier, to multiples of eight; 3.5 million parameters.

    The last convolution has 1280 channels, times multipliers above one only.

    Raises:
      ValueError: for a multiplier that is not positive.
    """
    if not multiplier > 0:
        raise ValueError(
            f"found a width multiplier of {multiplier}, expected a positive number"
        )
    return MobileNetV2(
        stem_width=_rounded(32 * multiplier),
        stem_stride=stem_stride,
        stages=tuple(
            stage._replace(width=_rounded(stage.width * multiplier)) for stage in stages
        ),
        last_width=_rounded(1280 * max(1.0, multiplier)),
        classes=classes,
    )


def cifar_mobilenet_v2(multiplier: float = 1.0, classes: int = 10) -> MobileNetV2:
    """The same for images of 32x32 pixels: the stem and the second stage keep the map
    size."""
    stages = tuple(
        stage._replace(stride=1 if index == 1 else stage.stride)
        for index, stage in enumerate(STAGES)
    )
    return mobilenet_v2(multiplier, classes, stem_stride=1, stages=stages)


def _rounded(width: float) -> int:
    """The nearest multiple of eight that loses less than a tenth."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest

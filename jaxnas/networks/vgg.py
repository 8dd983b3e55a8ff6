"""VGG networks: Simonyan and Zisserman, "Very deep convolutional networks for
large-scale image recognition", ICLR 2015, table 1 (arXiv 1409.1556).
"""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxnas.networks.normalised import Convolution, Maps, Normalisation

BLOCKS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions before each of the five poolings, by depth: columns A, B, D and E."""


class VGG(nn.Module):
    """Logits `[batch, classes]` of images `[batch, height, width, channels]`.

    3x3 convolutions with biases in blocks that end in a 2x2 maximum, then dense layers
    of `hidden` units and the classes.
    """

    blocks: tuple[int, ...] = BLOCKS[16]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: tuple[int, ...] = (4096, 4096)
    classes: int = 1000
    normalise: bool = False

    @nn.compact
    def __call__(
        self, images: Maps, train: bool = False
    ) -> Float[Array, "batch classes"]:
        x = images
        for block, (layers, width) in enumerate(
            zip(self.blocks, self.widths, strict=True)
        ):
            for layer in range(layers):
                name = f"block{block}_layer{layer}"
                x = Convolution(width, 3, bias=True, name=name)(x)
                if self.normalise:
                    x = Normalisation(name=f"{name}_norm")(x, train=train)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for index, units in enumerate(self.hidden):
            x = nn.relu(nn.Dense(units, name=f"hidden{index}")(x))
        return nn.Dense(self.classes, name="head")(x)


def vgg(depth: int = 16, classes: int = 1000, **options) -> VGG:
    """The network of 11, 13, 16 or 19 layers; VGG-16 has 138.4 million parameters.

    Raises:
      ValueError: for another depth.
    """
    if depth not in BLOCKS:
        raise ValueError(
            f"found VGG of depth {depth}, expected one of {', '.join(map(str, BLOCKS))}"
        )
    return VGG(blocks=BLOCKS[depth], classes=classes, **options)

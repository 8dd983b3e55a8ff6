"""NASNet-A: Zoph et al., "Learning transferable architectures for scalable image
recognition", CVPR 2018 (arXiv 1707.07012), figure 4 and appendix A.

A network is named N@P: N normal cells a stage, P channels before the last layer. Every
cell sees the two cells before it. Drop paths and the auxiliary head, which exist in
training only, are left out.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.networks.normalised import (
    Convolution,
    Maps,
    Normalisation,
    NormalisedConvolution,
    Results,
    global_mean,
)

CONCATENATED = 6  # maps of a normal cell, each of the cell's width
PENULTIMATE = 4 * CONCATENATED  # the last stage is four times as wide as the first

Earlier = Float[Array, "batch earlier_height earlier_width earlier_channels"]


class Separable(nn.Module):
    """Rectifier, depthwise and 1x1 convolution, normalisation: all of it twice, the
    stride in the first one."""

    width: int
    kernel: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Results:
        for half, stride in (("first", self.stride), ("second", 1)):
            x = nn.relu(x)
            x = Convolution(
                x.shape[-1], self.kernel, stride, groups=0, name=f"{half}_depthwise"
            )(x)
            x = NormalisedConvolution(self.width, 1, name=f"{half}_pointwise")(
                x, train=train
            )
        return x


class Fit(nn.Module):
    """The earlier of a cell's inputs, made of the size and width of the cell.

    A map twice as large is halved by two 1x1 convolutions, one of them over the pixels
    between those of the other.
    """

    width: int
    halve: bool

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Results:
        if self.halve:
            x = nn.relu(x)
            shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:]
            halves = [
                Convolution(self.width // 2, 1, name=name)(part[:, ::2, ::2])
                for name, part in (("even", x), ("odd", shifted))
            ]
            x = jnp.concatenate(halves, axis=-1)
            return Normalisation(name="norm")(x, train=train)
        if x.shape[-1] == self.width:
            return x
        return NormalisedConvolution(self.width, 1, name="squeeze")(
            nn.relu(x), train=train
        )


class Cell(nn.Module):
    """A normal cell, or with stride 2 a reduction cell, over two earlier maps.

    The first cell of a network has one, which it reads as it is in place of the other.
    """

    width: int
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Maps, earlier: Earlier | None, *, train: bool = False
    ) -> Results:
        p = x
        if earlier is not None:
            halve = earlier.shape[1] != x.shape[1]
            p = Fit(self.width, halve, name="earlier")(earlier, train=train)
        h = NormalisedConvolution(self.width, 1, name="current")(
            nn.relu(x), train=train
        )

        def separable(name, kernel, x, stride=1):
            block = Separable(self.width, kernel, stride, name=name)
            return block(x, train=train)

        if self.stride == 1:
            return _normal(separable, h, p)
        return _reduction(separable, h, p)


def _normal(separable, h, p):
    """The five sums of a normal cell, behind the earlier map."""
    sums = [
        separable("left1", 5, h) + separable("right1", 3, p),
        separable("left2", 5, p) + separable("right2", 3, p),
        _mean(h, 1) + p,
        _mean(p, 1) + _mean(p, 1),
        separable("left5", 3, h) + h,
    ]
    return jnp.concatenate([p, *sums], axis=-1)


def _reduction(separable, h, p):
    """The four sums of a reduction cell that no other sum reads."""
    first = separable("left1", 5, h, 2) + separable("right1", 7, p, 2)
    second = _maximum(h) + separable("right2", 7, p, 2)
    third = _mean(h, 2) + separable("right3", 5, p, 2)
    fourth = second + _mean(first, 1)
    fifth = separable("left5", 3, first) + _maximum(h)
    return jnp.concatenate([second, third, fourth, fifth], axis=-1)


AROUND = ((1, 1), (1, 1))


def _mean(x: Maps, stride: int) -> Results:
    # The padding of the borders is no part of the mean.
    strides = (stride, stride)
    return nn.avg_pool(x, (3, 3), strides, AROUND, count_include_pad=False)


def _maximum(x: Maps) -> Results:
    return nn.max_pool(x, (3, 3), (2, 2), AROUND)


class NASNet(nn.Module):
    """Logits `[batch, classes]` of images `[batch, height, width, channels]`.

    A strided 3x3 stem without padding, two reduction cells, then three stages of
    `cells` normal cells with reduction cells between them. After a reduction the first
    normal cell sees the map before it or, with `skip_reduction`, the one before that.
    """

    cells: int
    width: int
    stem_width: int
    skip_reduction: bool
    classes: int

    @nn.compact
    def __call__(
        self, images: Maps, train: bool = False
    ) -> Float[Array, "batch classes"]:
        x = nn.Conv(
            self.stem_width, (3, 3), 2, padding="VALID", use_bias=False, name="stem"
        )(images)
        x, earlier = Normalisation(name="stem_norm")(x, train=train), None

        def step(name, x, earlier, width, stride):
            return Cell(width, stride, name=name)(x, earlier, train=train), x

        for index, share in enumerate((4, 2)):
            name = f"stem_cell{index}"
            x, earlier = step(name, x, earlier, self.width // share, 2)
        for stage in range(3):
            width = self.width * 2**stage
            if stage:
                x, before = step(f"reduction{stage}", x, earlier, width, 2)
                earlier = earlier if self.skip_reduction else before
            for index in range(self.cells):
                name = f"stage{stage}_cell{index}"
                x, earlier = step(name, x, earlier, width, 1)
        return nn.Dense(self.classes, name="head")(global_mean(nn.relu(x)))


def nasnet_a(
    cells: int = 4,
    penultimate: int = 1056,
    classes: int = 1000,
    *,
    stem_width: int = 32,
    skip_reduction: bool = False,
) -> NASNet:
    """NASNet-A (cells @ penultimate); by default the mobile one of 5.3 M parameters.

    The large network is `nasnet_a(6, 4032, stem_width=96, skip_reduction=True)`, for
    images of 331x331 pixels.

    Raises:
      ValueError: if the channels before the last layer are no multiple of 24.
    """
    if penultimate % PENULTIMATE or penultimate < PENULTIMATE:
        raise ValueError(
            f"found {penultimate} channels before the last layer, expected a multiple "
            f"of {PENULTIMATE}: {CONCATENATED} maps a cell, four times the first width"
        )
    return NASNet(
        cells=cells,
        width=penultimate // PENULTIMATE,
        stem_width=stem_width,
        skip_reduction=skip_reduction,
        classes=classes,
    )

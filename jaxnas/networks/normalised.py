"""Convolutions in floats, with and without batch normalisation: what published
networks are made of.

Nothing here is a memory word; `numerics.quantize_model` puts the sites in. Zero padding
is half the kernel's side all around, so a stride of s leaves ceil(size / s) pixels.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width channels"]
Results = Float[Array, "batch out_height out_width outputs"]


class Convolution(nn.Module):
    """A square kernel over padded maps; `groups` of 0 gives every channel its own."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @nn.compact
    def __call__(self, x: Maps) -> Results:
        margin = self.kernel // 2
        return nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=((margin, margin), (margin, margin)),
            feature_group_count=self.groups or x.shape[-1],
            use_bias=self.bias,
            name="convolution",
        )(x)


class Normalisation(nn.Module):
    """Batch normalisation by the statistics of the batch, or by the stored ones."""

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Maps:
        return nn.BatchNorm(use_running_average=not train, name="normalisation")(x)


class NormalisedConvolution(nn.Module):
    """Convolution, then batch normalisation: four values a channel, two trained."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @nn.compact
    def __call__(self, x: Maps, *, train: bool = False) -> Results:
        x = Convolution(
            self.features, self.kernel, self.stride, self.groups, self.bias, name="sum"
        )(x)
        return Normalisation(name="norm")(x, train=train)


def global_mean(x: Maps) -> Float[Array, "batch channels"]:
    """The mean of every channel."""
    return jnp.mean(x, axis=(1, 2))

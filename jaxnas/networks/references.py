"""Published networks by name, and ResNet-20 with the quantised layers of this package.

ResNet-20: He et al., "Deep residual learning for image recognition", CVPR 2016, section
4.2 (CIFAR-10), with shortcuts of option A: no parameters, zero channels appended.

All others compute in floats; `numerics.quantize_model` makes their operands words.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxnas.networks.compact import (
    QuantizedConvolution,
    QuantizedHead,
    WordSpec,
    widened,
)
from jaxnas.networks.layers import StoredMap, read_image
from jaxnas.networks.mobilenet import cifar_mobilenet_v2, mobilenet_v2
from jaxnas.networks.nasnet import nasnet_a
from jaxnas.networks.residual import BLOCKS as RESNETS
from jaxnas.networks.residual import cifar_resnet, imagenet_resnet
from jaxnas.networks.vgg import BLOCKS as VGGS
from jaxnas.networks.vgg import vgg

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


class Reference(NamedTuple):
    """A published network: `build(classes=...)` for square colour images."""

    build: Callable[..., nn.Module]
    image: int  # pixels of a side
    classes: int
    dtype: Any = jnp.float32  # of the pixels


class Described(NamedTuple):
    """A network as shapes alone; `module.apply(variables, images)` can be traced."""

    module: nn.Module
    variables: Any  # pytree of jax.ShapeDtypeStruct; "params" are what is trained
    images: jax.ShapeDtypeStruct  # a batch of one


def _references() -> dict[str, Reference]:
    def large(build, *args, **options):
        return Reference(functools.partial(build, *args, **options), 224, 1000)

    def small(build, *args, **options):
        return Reference(functools.partial(build, *args, **options), 32, 10)

    nasnet_large = functools.partial(
        nasnet_a, 6, 4032, stem_width=96, skip_reduction=True
    )
    multipliers = (0.35, 0.5, 0.75, 1.3, 1.4)
    return {
        "mobilenet_v2": large(mobilenet_v2),
        **{f"mobilenet_v2_{m}": large(mobilenet_v2, m) for m in multipliers},
        "mobilenet_v2_cifar": small(cifar_mobilenet_v2),
        "nasnet_mobile": large(nasnet_a),
        "nasnet_large": Reference(nasnet_large, 331, 1000),
        **{f"vgg{depth}": large(vgg, depth) for depth in VGGS},
        **{
            f"resnet{depth}": large(imagenet_resnet, depth, late_stride=True)
            for depth in RESNETS
        },
        "resnet50_keras": large(imagenet_resnet, 50, bias=True),
        "resnet18_cifar": small(imagenet_resnet, 18, large_stem=False),
        "resnet20": Reference(resnet20, 32, 10, jnp.uint8),
        "resnet20_float": small(cifar_resnet, 20),
        "resnet20_projection": small(cifar_resnet, 20, padded_shortcut=False),
        **{f"resnet{depth}": small(cifar_resnet, depth) for depth in (32, 44, 56, 110)},
    }


REFERENCES = _references()
"""Published networks by name. `resnet20` stores 8-bit words, all others float32;
`resnet20_projection` has shortcuts of option B. The ImageNet ResNets stride in the 3x3
convolution of a bottleneck as most libraries for PyTorch do; `resnet50_keras` strides
in the first 1x1 one, as in the paper, and has biases before the normalisation."""


def describe_reference(
    name: str, *, image: int | None = None, classes: int | None = None
) -> Described:
    """A network of `REFERENCES` for images of `image` x `image` pixels, as shapes.

    Nothing is computed. `image` and `classes` are by default those of its publication.

    Raises:
      ValueError: if the name is unknown, or fewer than one pixel or class is asked for.
    """
    if name not in REFERENCES:
        close = difflib.get_close_matches(name, REFERENCES, n=1, cutoff=0.7)
        meant = f", did you mean {close[0]}?" if close else ";"
        raise ValueError(
            f"found no reference network {name!r}{meant} known are "
            f"{', '.join(REFERENCES)}"
        )
    found = REFERENCES[name]
    image = found.image if image is None else image
    classes = found.classes if classes is None else classes
    if image < 1 or classes < 1:
        raise ValueError(
            f"found images of {image} pixels a side and {classes} classes, expected at "
            "least one of each"
        )
    module = found.build(classes=classes)
    images = jax.ShapeDtypeStruct((1, image, image, 3), found.dtype)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return Described(module, variables, images)


def trained_parameters(described: Described) -> int:
    """Elements of all trained parameters, gains and offsets of normalisations too."""
    leaves = jax.tree.leaves(described.variables["params"])
    return sum(leaf.size for leaf in leaves)

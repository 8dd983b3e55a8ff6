"""Convolutions with zero padding, as XLA runs each of them best.

`convolution` and `depthwise_convolution` are single equations of a jaxpr: what compact
networks are made of and what tracing reads. `gathered_convolution`,
`shifted_depthwise` and `pointwise` compute the same sums, at stride 1, inside loops and
switches.
All use every bit of float32, so that sums of words are exact.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Maps = Float[Array, "batch height width channels"]
Kernel = Float[Array, "kernel_height kernel_width inputs outputs"]
Results = Float[Array, "batch out_height out_width outputs"]


def convolution(x: Maps, kernel: Kernel, stride: int = 1) -> Results:
    """Zero padding that keeps the map's size at stride 1; all float32 bits used."""
    return _convolution(x, kernel, stride, groups=1)


def depthwise_convolution(x: Maps, kernel: Kernel, stride: int = 1) -> Results:
    """One HW1C filter a channel, zero padding that keeps the map's size at stride 1."""
    return _convolution(x, kernel, stride, groups=x.shape[-1])


def _convolution(x, kernel, stride, groups):
    # Half the kernel's side all around: "SAME" would pad by less before than behind
    # where the stride is two.
    height, width = (side // 2 for side in kernel.shape[:2])
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((height, height), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=lax.Precision.HIGHEST,
    )


def max_pool(x: Maps) -> Float[Array, "batch half_height half_width channels"]:
    """2x2 maxima with stride 2; an odd last row or column is dropped."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def pointwise(x, kernel):
    """1x1 convolution as a matrix product."""
    return jnp.matmul(x, kernel[0, 0], precision=lax.Precision.HIGHEST)


def gathered_convolution(x, kernel):
    """Convolution as one matrix product of gathered patches.

    Inside loops and switches XLA runs convolutions on the CPU as plain loop nests, some
    fifteen times slower; matrix products keep their fast kernels there.
    """
    patches = jnp.concatenate(_windows(x, kernel.shape[0]), axis=-1)
    flat = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(patches, flat, precision=lax.Precision.HIGHEST)


def shifted_depthwise(x, kernel):
    """Depthwise convolution as a sum of shifted products.

    XLA's grouped convolution took 9 to 20 times as long on the CPU, forward and back,
    for maps of 4x4 and 8x8.
    """
    taps = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return sum(
        window * tap
        for window, tap in zip(_windows(x, kernel.shape[0]), taps, strict=True)
    )


def _windows(x, side):
    """The map shifted under every tap of a square kernel, zero outside; row by row."""
    height, width = x.shape[1:3]
    margin = side // 2
    padded = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    return [
        padded[:, row : row + height, column : column + width]
        for row in range(side)
        for column in range(side)
    ]

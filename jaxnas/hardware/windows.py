"""How often the windows of a convolution touch the words of its operand.

Kernel positions times output pixels touch a map many times: a word is touched again by
the next window of its row and by the windows of the next rows. Per group and channel,
with E output pixels, a kernel of K taps, dilated by d, and stride s along an axis, the
windows touch

    extent = min(E K, (E - 1) s + (K - 1) d + 1)

lines of the axis, E K in all, so E K - extent touches are repetitions. (Between, where
both stride and dilation leave lines out, this is an upper bound.)
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.topology import LayerTable

PerLayer = Float[Array, "*batch layers"]


class Windows(NamedTuple):
    """Float32 counts of one group; masked rows are not zeroed."""

    channels: PerLayer
    out_height: PerLayer
    out_width: PerLayer
    kernel_height: PerLayer
    kernel_width: PerLayer
    stride_height: PerLayer  # at most the kernel
    stride_width: PerLayer
    height: PerLayer  # lines that are touched at all
    width: PerLayer
    halo_height: PerLayer  # lines that two neighbouring rows of windows span
    halo_width: PerLayer

    @property
    def words(self) -> PerLayer:
        """Words that are touched at all."""
        return self.height * self.width * self.channels

    @property
    def pixels(self) -> PerLayer:
        return self.out_height * self.out_width

    @property
    def fan_in(self) -> PerLayer:
        return self.kernel_height * self.kernel_width * self.channels

    @property
    def beside(self) -> PerLayer:
        """Touches that repeat one of a window in the same row of windows."""
        again = self.kernel_width * self.out_width - self.width
        repeated = self.kernel_height * self.channels * self.out_height * again
        return jnp.maximum(repeated, 0)

    @property
    def below(self) -> PerLayer:
        """Touches that repeat one of another row of windows, merged along the row."""
        again = self.kernel_height * self.out_height - self.height
        return jnp.maximum(self.channels * self.width * again, 0)


def windows(table: LayerTable, *, padded: bool) -> Windows:
    """The windows of every row; `padded` counts lines of padding as words, too."""
    columns = {
        name: jnp.asarray(getattr(table, name)).astype(jnp.float32)
        for name in Windows._fields[1:5]
    }
    groups = jnp.maximum(jnp.asarray(table.groups), 1).astype(jnp.float32)
    sides, strides, halos = {}, {}, {}
    for side in ("height", "width"):
        kernel, pixels = columns[f"kernel_{side}"], columns[f"out_{side}"]
        step = jnp.asarray(getattr(table, f"stride_{side}")).astype(jnp.float32)
        dilation = jnp.asarray(getattr(table, f"dilation_{side}")).astype(jnp.float32)
        reach = (kernel - 1) * dilation + 1
        touched = jnp.minimum(pixels * kernel, (pixels - 1) * step + reach)
        halos[f"halo_{side}"] = jnp.maximum(reach - step, 0)
        step = jnp.minimum(step, kernel)
        if not padded:
            stored = jnp.asarray(getattr(table, f"in_{side}")).astype(jnp.float32)
            touched = jnp.minimum(touched, stored)
        strides[f"stride_{side}"], sides[side] = step, touched
    channels = jnp.asarray(table.in_channels).astype(jnp.float32) / groups
    return Windows(channels=channels, **columns, **strides, **sides, **halos)

"""Memory that a network occupies and moves, counted in words of their stored width.

All results are float32 bytes of one inference with a batch of one; fractions of a byte
are kept, since words of odd widths are packed. Masked rows count zero, and a table with
no layer at all gives zero. Vector operations move nothing of their own; see `topology`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxnas.topology import (
    LayerTable,
    output_elements,
    over_layers,
    products,
    weights,
)

Bytes = Float[Array, "*batch"]

BITS_PER_BYTE = 8


def weight_bytes(table: LayerTable) -> Bytes:
    """Memory of all kernels and biases."""
    biases = _present(table, table.out_channels) * _present(table, table.bias_bits)
    kernels = weights(table) * _present(table, table.weight_bits)
    return over_layers(kernels + biases) / BITS_PER_BYTE


def activation_traffic_bytes(table: LayerTable) -> Bytes:
    """Maps moved: each layer reads the maps it needs and writes its result, once."""
    written = output_elements(table) * _present(table, table.output_bits)
    moved = _present(table, table.read_bits) + written
    return over_layers(moved) / BITS_PER_BYTE


def traffic_bytes(table: LayerTable) -> Bytes:
    """Maps, kernels and biases moved, each word once per layer that uses it."""
    return activation_traffic_bytes(table) + weight_bytes(table)


def peak_activation_bytes(table: LayerTable) -> Bytes:
    """Largest memory of all maps that are alive while one layer runs.

    In the order of the program: the least possible for chains with sums of shortcuts,
    and an upper bound of it where parallel branches may be computed in any order.
    """
    alive = _present(table, table.live_bits)
    return jnp.max(alive, axis=-1, initial=0.0) / BITS_PER_BYTE


def _present(table: LayerTable, column) -> Float[Array, "*batch layers"]:
    return jnp.where(products(table).mask, column, 0).astype(jnp.float32)

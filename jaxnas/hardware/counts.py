"""Cycles and buffer accesses as exact integers, computed on the host.

Float32 counts have 24 significant bits. The same formulas in NumPy's int64 are exact
below 2**63, as those of `topology.exact_counts` are. Shares, times and energies are
real numbers and have no such form.
"""

import numpy as np
from jaxtyping import Int64

from jaxnas.arithmetic import INT64
from jaxnas.hardware.accelerators import Hardware
from jaxnas.hardware.folding import extents
from jaxnas.hardware.systolic import SramWords, cycles, sram_words
from jaxnas.topology import LayerTable

Count = Int64[np.ndarray, "*batch layers"]


def exact_cycles(table: LayerTable, array: Hardware) -> Count:
    """What `cycles` counts in float32. Raises ValueError beyond 2**63."""
    table = _on_host(table)
    _check(table, *extents(table, INT64), array.rows + array.columns)
    return cycles(table, array, arithmetic=INT64)


def exact_sram_words(table: LayerTable, array: Hardware) -> SramWords:
    """What `sram_words` counts in float32. Raises ValueError beyond 2**63."""
    table = _on_host(table)
    _check(table, *extents(table, INT64), array.rows + array.columns)
    return sram_words(table, array, arithmetic=INT64)


def _on_host(table: LayerTable) -> LayerTable:
    return LayerTable(*(np.asarray(column) for column in table))


def _check(table: LayerTable, *factors) -> None:
    """No product of the factors, and so no count, passes the largest integer."""
    size = np.where(table.mask, 1.0, 0.0)
    for factor in factors:
        size = size * np.maximum(np.asarray(factor).astype(np.float64), 1)
    if np.max(size, initial=0) >= 2.0**62:
        raise ValueError(
            f"found a layer of about {np.max(size):.3g} operations, expected less than "
            "2**62, since counts are 64-bit integers: describe a smaller part"
        )

"""What tracing knows of arrays: the maps, layers and arguments that they come from.

The rules by which these arise are those of `tracing`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Word(NamedTuple):
    """The memory word of a parameter. The order is the precedence where two meet."""

    from_site: bool
    bits: int
    bias: bool = False


@dataclass(eq=False)
class Map:
    """A stored map; layers are named by their index in program order."""

    bits: int  # per word
    elements: int
    stored: bool  # by a site
    born: int  # the first layer that writes it
    written: int  # the last layer that writes it, or -1
    sources: dict["Map", int]  # maps it was computed from, with max-poolings between
    last_read: int = -1  # the last layer that reads it


@dataclass(eq=False)
class Argument:
    """An argument or constant of the traced function."""

    elements: int
    bits: int
    map: Map | None = None  # None: a parameter


@dataclass(eq=False)
class Row:
    """A layer or product of two maps."""

    index: int
    shape: dict[str, int]  # the columns that the equation alone decides
    weight_bits: int
    input_bits: int
    result_bits: int
    reads: dict[Map, int]  # with the max-poolings on the way
    joined: dict[Map, int]  # to the result: the poolings on the way less its own
    bias: Word = Word(False, 0)
    rectified: bool = False
    map: Map | None = None  # None: the result is not yet stored


class Value(NamedTuple):
    """What is known of one array of the program."""

    behind: dict[Map | Row | Argument, int] = {}  # with the max-poolings since
    elements: int = 1  # of a parameter: before broadcasting; of a map: when joined
    word: Word = Word(False, 0)
    zero: bool = False
    rectified: bool = False  # on all paths from the layers behind

    @property
    def is_map(self) -> bool:
        return any(not isinstance(node, Argument) for node in self.behind)

    @property
    def maps(self) -> dict[Map, int]:
        return {n: pools for n, pools in self.behind.items() if isinstance(n, Map)}

    @property
    def rows(self) -> dict[Row, int]:
        return {n: pools for n, pools in self.behind.items() if isinstance(n, Row)}


class Operation(NamedTuple):
    """A vector operation, if one of its operands turns out to be a map."""

    before: int  # the index of the next layer
    shape: dict[str, int]  # the columns that the equation alone decides
    operands: list[Value]
    words: list[int]  # bits of one word of each operand, zero where it has none
    result_bits: int


def settled(node: Map | Row | Argument) -> Map | Row | Argument:
    """The map that a layer's result or an argument is stored as, once it is."""
    return node if isinstance(node, Map) or node.map is None else node.map


def argument(shape: tuple[int, ...], dtype: Any) -> Value:
    """An argument or constant, of which nothing more is known."""
    bits = dtype_bits(dtype)
    return Value({Argument(prod(shape), bits): 0}, prod(shape), Word(False, bits))


def dtype_bits(dtype: Any) -> int:
    """Bits of one word of an array, zero where it holds no numbers."""
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).bits  # four-bit integers lie in bytes on the host
    return 8 * np.dtype(dtype).itemsize if isinstance(dtype, np.dtype) else 0


def union(behinds: Iterable[dict], pools: int = 0) -> dict:
    """Nodes behind any of several values, each with the most poolings over paths."""
    most: dict = {}
    for behind in behinds:
        for node, count in behind.items():
            most[node] = max(count + pools, most.get(node, count + pools))
    return most


def merge(values: Sequence[Value], pools: int = 0) -> Value:
    """Several arrays as one, as large as the largest of them."""
    return Value(
        union((value.behind for value in values), pools),
        max((value.elements for value in values), default=0),
        rectified=all(value.rectified for value in values if value.rows),
    )


def keep_until(row: int, maps: Iterable[Map]) -> None:
    """Notes that a layer reads the maps."""
    for read in maps:
        read.last_read = max(read.last_read, row)


def pools_to_output(maps: list[Map], returned: dict[Map, int]) -> dict[Map, int]:
    """Most max-poolings from a map to the output; zero where no path leads there."""
    pools = dict(returned)
    for made in reversed(maps):
        if made in pools:
            for source, between in made.sources.items():
                pools[source] = max(pools.get(source, 0), pools[made] + between)
    return pools


def columns(row: Row, pools: dict[Map, int], maps: list[Map]) -> dict[str, int]:
    """A layer of the table; `pools` to the output and `maps` are those of all."""
    alive = [m for m in maps if m.born <= row.index <= max(m.written, m.last_read)]
    return row.shape | {
        "weight_bits": row.weight_bits,
        "bias_bits": row.bias.bits,
        "input_bits": row.input_bits,
        "output_bits": row.map.bits,
        "stored": int(row.map.stored),
        "rectified": int(row.rectified),
        "pools_after": pools.get(row.map, 0),
        "read_bits": _bits(row.reads),
        "live_bits": _bits(alive),
    }


def operand_bits(value: Value) -> int:
    """Bits of one word of an array as an operation finds it; zero for a scalar."""
    if value.word.from_site:
        return value.word.bits
    bits = (n.result_bits if isinstance(n, Row) else n.bits for n in value.behind)
    return max(bits, default=0)


def vector_columns(operation: Operation) -> dict[str, int]:
    """A vector operation of the table; its maps count with the layers around it."""
    first, second = sorted(operation.words, key=bool, reverse=True)[:2]
    none = ("bias_bits", "stored", "rectified", "pools_after", "read_bits", "live_bits")
    return (
        operation.shape
        | dict.fromkeys(none, 0)
        | {
            "input_bits": first,
            "weight_bits": second,
            "output_bits": operation.result_bits,
        }
    )


def _bits(maps: Iterable[Map]) -> int:
    return sum(m.bits * m.elements for m in maps)

"""The layer table of any JAX function, read off its jaxpr without running it.

The jaxpr is interpreted once, forward, with abstract values that say which maps an
array was computed from and what became of them on the way. Four rules give the
table its meaning.

1. *Layers* are convolutions and products of a map with a kernel; a kernel is an array
   that was computed from no map. Calls are followed, scans are unrolled.
2. *Stored maps* are the results of quantisation sites of activations and inputs. The
   map of a layer is the site that its result reaches first. A result that another
   layer reads before is stored as it left its layer, in the words of its dtype; where
   a layer reads nothing but arguments, the largest of them is an input map in its
   dtype. So every function has maps, quantised or not. A result that is returned
   without being stored leaves the network and takes none of its memory.
3. A layer *reads* the maps that its operand was computed from. Maps that are added to
   its result (or otherwise joined with it) before it is stored are read by it too.
   Results of several layers that are joined before they are stored are written to
   one map, alive from the first of them on, and the last of them reads what else is
   joined. Maps that are joined alone are read where the newest of them is written.
4. A map is *alive* from the layer that writes it (an input from the start) to the last
   layer that reads it; what the function returns is alive to the end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, primitives

from jaxnas.jaxprs import called, contains, interpret, scan_operands, subjaxprs
from jaxnas.numerics.primitives import quantize_p
from jaxnas.topology import LayerTable, convolution_shape, dense_shape, from_rows


def trace_topology(fun: Callable, *args: Any) -> LayerTable:
    """Returns the layer table of `fun(*args)`: NumPy columns, no masked row.

    `args` are arrays or `jax.ShapeDtypeStruct`s (pytrees of them); nothing is computed
    or compiled. Maps have a batch of one. The height and width of a convolution over
    one axis are that axis and 1; a dense layer over positions counts them as its map.
    Words are those of the quantisation sites and otherwise those of the dtypes; a
    parameter that is added per output channel is a bias. Zeros that a dilated operand
    holds are counted as padding is. Of two factors that no map is known to lie behind,
    the right one is the kernel. A layer that is called twice has two rows.

    Raises:
      ValueError: if there is no layer, if a layer or site lies inside a loop or branch
        that cannot be unrolled, or if a layer has no row (a batch larger than one,
        three spatial axes, a product of two maps, counts beyond 32 bits).
    """
    closed = jax.make_jaxpr(fun)(*args)
    trace = _Trace()
    inputs = [_argument(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return trace.finish(interpret(closed, inputs, trace.visit))


class _Word(NamedTuple):
    """The memory word of a parameter. The order is the precedence where two meet."""

    from_site: bool
    bits: int
    bias: bool = False


@dataclass(eq=False)
class _Map:
    bits: int  # per word
    elements: int
    stored: bool  # by a site
    born: int  # the first layer that writes it
    written: int  # the last layer that writes it, or -1
    sources: dict["_Map", int]  # maps it was computed from, with max-poolings between
    last_read: int = -1  # the last layer that reads it


@dataclass(eq=False)
class _Argument:
    elements: int
    bits: int
    map: _Map | None = None  # None: a parameter


@dataclass(eq=False)
class _Row:
    index: int
    shape: dict[str, int]  # the columns that the equation alone decides
    weight_bits: int
    input_bits: int
    result_bits: int
    reads: dict[_Map, int]  # with the max-poolings on the way
    joined: dict[_Map, int]  # to the result: the poolings on the way less its own
    bias: _Word = _Word(False, 0)
    rectified: bool = False
    map: _Map | None = None  # None: the result is not yet stored


class _Value(NamedTuple):
    """What is known of one array of the program."""

    behind: dict[_Map | _Row | _Argument, int] = {}  # with the max-poolings since
    elements: int = 1  # of a parameter: before broadcasting; of a map: when joined
    word: _Word = _Word(False, 0)
    zero: bool = False
    rectified: bool = False  # on all paths from the layers behind

    @property
    def is_map(self) -> bool:
        return any(not isinstance(node, _Argument) for node in self.behind)

    @property
    def maps(self) -> dict[_Map, int]:
        return {n: pools for n, pools in self.behind.items() if isinstance(n, _Map)}

    @property
    def rows(self) -> dict[_Row, int]:
        return {n: pools for n, pools in self.behind.items() if isinstance(n, _Row)}


def _settled(node: _Map | _Row | _Argument) -> _Map | _Row | _Argument:
    return node if isinstance(node, _Map) or node.map is None else node.map


def _argument(shape: tuple[int, ...], dtype: Any) -> _Value:
    bits = _dtype_bits(dtype)
    argument = _Argument(prod(shape), bits)
    return _Value({argument: 0}, prod(shape), _Word(False, bits))


def _dtype_bits(dtype: Any) -> int:
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).bits  # four-bit integers lie in bytes on the host
    return 8 * np.dtype(dtype).itemsize if isinstance(dtype, np.dtype) else 0


def _union(behinds: Iterable[dict], pools: int = 0) -> dict:
    """Nodes behind any of several values, each with the most poolings over paths."""
    union: dict = {}
    for behind in behinds:
        for node, count in behind.items():
            union[node] = max(count + pools, union.get(node, count + pools))
    return union


def _merge(values: Sequence[_Value], pools: int = 0) -> _Value:
    """Several arrays as one, as large as the largest of them."""
    return _Value(
        _union((value.behind for value in values), pools),
        max((value.elements for value in values), default=0),
        rectified=all(value.rectified for value in values if value.rows),
    )


def _keep_until(row: int, maps: Iterable[_Map]) -> None:
    for read in maps:
        read.last_read = max(read.last_read, row)


class _Trace:
    """The state of one interpretation: rows and maps in program order.

    A map is listed after all the maps that it was computed from.
    """

    def __init__(self):
        self.rows: list[_Row] = []
        self.maps: list[_Map] = []
        self.constants: dict[int, _Value] = {}

    def visit(self, eqn: JaxprEqn, operands: list) -> list[_Value]:
        values = [self.value(operand) for operand in operands]
        if eqn.primitive is quantize_p:
            return [self.site(eqn, values[0])]
        if eqn.primitive is primitives.conv_general_dilated_p:
            return [self.layer(eqn, *values, convolution_shape(eqn))]
        if eqn.primitive is primitives.dot_general_p:
            return [self.dense(eqn, *values)]
        if body := called(eqn):
            return interpret(body, values, self.visit)
        if eqn.primitive is primitives.scan_p:
            return self.unroll(eqn, values)
        if any(contains(inner, _counts) for inner in subjaxprs(eqn)):
            raise ValueError(
                f"found a layer or a quantisation site inside `{eqn.primitive}`, "
                "expected them in calls and scans only, whose runs can be counted: "
                "express it by Python control flow or by jax.lax.scan"
            )
        return [self.join(eqn, values, out.aval) for out in eqn.outvars]

    def value(self, operand: Any) -> _Value:
        """The operand, with layers and arguments replaced by maps once they are."""
        if not isinstance(operand, _Value):
            operand = self.constant(operand)
        settled = ({_settled(node): pools} for node, pools in operand.behind.items())
        return operand._replace(behind=_union(settled))

    def constant(self, array: Any) -> _Value:
        if np.ndim(array) == 0:
            return _Value(zero=bool(array == 0))
        if id(array) not in self.constants:
            self.constants[id(array)] = _argument(np.shape(array), array.dtype)
        return self.constants[id(array)]

    def site(self, eqn: JaxprEqn, x: _Value) -> _Value:
        """A parameter's word, or a new stored map, which closes the layers behind."""
        bits, stored = eqn.params["format"].bits, eqn.params["stored"]
        if stored == "scale":  # not counted
            return _Value()
        if stored in ("weight", "bias"):
            return x._replace(word=_Word(True, bits, stored == "bias"), zero=False)
        elements = eqn.outvars[0].aval.size
        return _Value({self.store(x, bits, elements, stored=True): 0})

    def store(self, x: _Value, bits: int, elements: int, *, stored: bool) -> _Map:
        """A new map, written where the last of its parts is; inputs before all."""
        # Without a site the map is what left the layer, so poolings come after it.
        before = x.rows if stored else dict.fromkeys(x.rows, 0)
        joined = [_union([row.joined], pools) for row, pools in before.items()]
        joined = _union([x.maps, *joined])
        parts = [row.index for row in x.rows] + [m.written for m in joined]
        written = max(parts, default=-1)
        born = min((row.index for row in x.rows), default=max(written, 0))
        reads = [_union([row.reads], pools) for row, pools in before.items()]
        made = _Map(bits, elements, stored, born, written, _union([joined, *reads]))
        self.maps.append(made)
        for part in joined:
            if part.written < written:  # what is just being written is at hand
                self.rows[written].reads.setdefault(part, joined[part])
        _keep_until(written, joined)
        for row in x.rows:
            row.map, row.rectified = made, x.rectified
            _keep_until(row.index, row.reads)
        return made

    def close(self, x: _Value) -> _Value:
        """Stores what is still open behind a value as it left its layer."""
        if x.rows:
            bits = max(row.result_bits for row in x.rows)
            self.store(x._replace(behind=x.rows), bits, x.elements, stored=False)
        elif not x.is_map and x.behind:
            image = max(x.behind, key=lambda argument: argument.elements)
            image.map = self.store(_Value(), image.bits, image.elements, stored=False)
        return self.value(x)

    def layer(
        self, eqn: JaxprEqn, operand: _Value, kernel: _Value, shape: dict[str, int]
    ) -> _Value:
        if kernel.is_map:
            raise ValueError(
                f"found a product of two maps in `{eqn.primitive}`, which has no "
                "kernel and so no row: trace the parts before and after it apart"
            )
        reads = self.close(operand).maps
        result = eqn.outvars[0].aval
        row = _Row(
            index=len(self.rows),
            shape=shape,
            weight_bits=kernel.word.bits or _dtype_bits(result.dtype),
            input_bits=max((m.bits for m in reads), default=_dtype_bits(result.dtype)),
            result_bits=_dtype_bits(result.dtype),
            reads=reads,
            joined={},
        )
        self.rows.append(row)
        return _Value({row: 0}, result.size)

    def dense(self, eqn: JaxprEqn, left: _Value, right: _Value) -> _Value:
        flipped = right.is_map and not left.is_map
        if not (left.is_map or right.is_map):
            flipped = left.word.from_site and not right.word.from_site
        operand, kernel = (right, left) if flipped else (left, right)
        return self.layer(eqn, operand, kernel, dense_shape(eqn, kernel_left=flipped))

    def unroll(self, eqn: JaxprEqn, values: list[_Value]) -> list[_Value]:
        (body,) = subjaxprs(eqn)
        length = eqn.params["length"]
        constants, carry = scan_operands(eqn)
        sliced = constants + carry
        fixed, state = values[:constants], values[constants:sliced]
        share = max(length, 1)
        slices = [v._replace(elements=v.elements // share) for v in values[sliced:]]
        steps = []
        for _ in range(length):
            results = interpret(body, [*fixed, *state, *slices], self.visit)
            state = results[:carry]
            steps.append([self.value(result) for result in results[carry:]])
        stacked = [
            _merge([step[k] for step in steps])._replace(elements=out.aval.size)
            for k, out in enumerate(eqn.outvars[carry:])
        ]
        return [*state, *stacked]

    def join(self, eqn: JaxprEqn, values: list[_Value], result: Any) -> _Value:
        """The result of any operation that is neither a layer, a site nor a call."""
        maps = [value for value in values if value.is_map]
        if not maps:
            return _parameter(eqn, values, result)
        joined = _merge(maps, pools=_max_pools(eqn))
        if len(maps) > 1:
            joined = joined._replace(elements=max(joined.elements, result.size))
        if not joined.rows:
            return joined
        last = max(joined.rows, key=lambda row: row.index)
        pools = joined.rows[last]
        joins = {m: count - pools for m, count in joined.maps.items()}
        last.joined = _union([last.joined, joins])
        last.bias = max(last.bias, _bias(eqn, values, last.shape["out_channels"]))
        rectified = joined.rectified or _rectifies(eqn, values)
        return joined._replace(behind=joined.rows, rectified=rectified)

    def finish(self, results: list) -> LayerTable:
        if not self.rows:
            raise ValueError(
                "found no convolution and no dense layer in the function: pass one "
                "that computes the network, such as lambda p, x: model.apply(p, x)"
            )
        returned: dict[_Map, int] = {}
        for value in map(self.value, results):
            leaving = value._replace(behind=value.maps | value.rows, elements=0)
            returned = _union([returned, self.close(leaving).maps])
        for row in self.rows:
            if row.map is None:  # neither read nor returned
                self.close(_Value({row: 0}, elements=0))
        _keep_until(len(self.rows), returned)
        pools = _pools_to_output(self.maps, returned)
        return from_rows([_columns(row, pools, self.maps) for row in self.rows])


def _counts(eqn: JaxprEqn) -> bool:
    return eqn.primitive in (
        primitives.conv_general_dilated_p,
        primitives.dot_general_p,
        quantize_p,
    )


def _parameter(eqn: JaxprEqn, values: list[_Value], result: Any) -> _Value:
    alike = eqn.primitive in (
        primitives.broadcast_in_dim_p,
        primitives.convert_element_type_p,
    )
    return _Value(
        _union((v.behind for v in values), pools=_max_pools(eqn)),
        min(result.size, max((v.elements for v in values), default=1)),
        max((v.word for v in values), default=_Word(False, 0)),
        alike and values[0].zero,
    )


def _max_pools(eqn: JaxprEqn) -> int:
    pools = eqn.primitive is primitives.reduce_window_max_p
    return int(pools and prod(eqn.params["window_dimensions"]) > 1)


def _bias(eqn: JaxprEqn, values: list[_Value], channels: int) -> _Word:
    """The word of a bias among the operands, of zero bits where there is none."""
    words = [v.word for v in values if v.word.bias and not v.is_map]
    if eqn.primitive in (primitives.add_p, primitives.sub_p):
        parameters = [v for v in values if v.behind and not v.is_map]
        words += [v.word for v in parameters if v.elements == channels]
    return max(words, default=_Word(False, 0))


def _rectifies(eqn: JaxprEqn, values: list[_Value]) -> bool:
    if eqn.primitive is primitives.max_p:
        return any(value.zero for value in values)
    return eqn.primitive is primitives.clamp_p and values[0].zero


def _pools_to_output(maps: list[_Map], returned: dict[_Map, int]) -> dict[_Map, int]:
    """Most max-poolings from a map to the output; zero where no path leads there."""
    pools = dict(returned)
    for made in reversed(maps):
        if made in pools:
            for source, between in made.sources.items():
                pools[source] = max(pools.get(source, 0), pools[made] + between)
    return pools


def _columns(row: _Row, pools: dict[_Map, int], maps: list[_Map]) -> dict[str, int]:
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


def _bits(maps: Iterable[_Map]) -> int:
    return sum(m.bits * m.elements for m in maps)

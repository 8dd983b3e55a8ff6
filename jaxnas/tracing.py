"""The layer table of any JAX function, read off its jaxpr without running it.

The jaxpr is interpreted once, forward, with abstract values that say which maps an
array was computed from and what became of them on the way. Four rules give the
table its meaning.

1. *Layers* are convolutions and products of a map with a kernel; a kernel is an array
   that was computed from no map. A product of two maps, as in attention, has a row of
   its own kind, reads the maps behind both, and counts as a layer in what follows.
   Calls are followed, scans are unrolled.
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

Vector operations on maps have rows where they are asked for, but no part in these
rules: whatever lies between two layers is done by the one that writes or the one that
reads, and moves no map of its own, be it followed by a site or not.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend.core import JaxprEqn, primitives

from jaxnas.jaxprs import called, contains, interpret, scan_operands, subjaxprs
from jaxnas.layer_shapes import convolution_shape, dense_shape, vector_shape
from jaxnas.maps import (
    Map,
    Operation,
    Row,
    Value,
    Word,
    argument,
    columns,
    dtype_bits,
    keep_until,
    merge,
    operand_bits,
    pools_to_output,
    settled,
    union,
    vector_columns,
)
from jaxnas.numerics.primitives import quantize_p
from jaxnas.topology import MAP_PRODUCT, LayerTable, from_rows


def trace_topology(
    fun: Callable, *args: Any, vector_operations: bool = False
) -> LayerTable:
    """Returns the layer table of `fun(*args)`: NumPy columns, no masked row.

    `args` are arrays or `jax.ShapeDtypeStruct`s (pytrees of them); nothing is computed
    or compiled. Maps have a batch of one. The height and width of a convolution over
    one axis are that axis and 1; a dense layer over positions counts them as its map.
    Words are those of the quantisation sites and otherwise those of the dtypes; a
    parameter that is added per output channel is a bias. Of two factors that no map is
    known to lie behind, the right one is the kernel. A layer that is called twice has
    two rows. An axis that `vmap` adds to a map is a batch like any other; added to map
    and kernel alike it counts as groups.

    With `vector_operations` there are rows of those too, one for each equation that
    computes on maps, where it stands in the program; equations that only move data, and
    the addition of a bias, have none. Otherwise there are products alone, as in the
    tables of genotypes; `topology.products` makes the one table of the other.

    Raises:
      ValueError: if there is no layer, if a layer or site lies inside a loop or branch
        that cannot be unrolled, or if a layer has no row (a batch larger than one,
        three spatial axes, counts beyond 32 bits).
    """
    closed = jax.make_jaxpr(fun)(*args)
    trace = _Trace(vector_operations)
    inputs = [argument(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    results = interpret(closed, inputs, trace.visit)
    return trace.finish(results)


class _Trace:
    """The state of one interpretation: rows and maps in program order.

    A map is listed after all the maps that it was computed from.
    """

    def __init__(self, vector_operations: bool):
        self.vector_operations = vector_operations
        self.rows: list[Row] = []
        self.maps: list[Map] = []
        self.operations: list[Operation] = []
        self.constants: dict[int, Value] = {}

    def visit(self, eqn: JaxprEqn, operands: list) -> list[Value]:
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
        if self.vector_operations:
            self.operate(eqn, values)
        return [self.join(eqn, values, out.aval) for out in eqn.outvars]

    def value(self, operand: Any) -> Value:
        """The operand, with layers and arguments replaced by maps once they are."""
        if not isinstance(operand, Value):
            operand = self.constant(operand)
        behind = union({settled(node): n} for node, n in operand.behind.items())
        return operand._replace(behind=behind)

    def constant(self, array: Any) -> Value:
        if np.ndim(array) == 0:
            return Value(zero=bool(array == 0))
        if id(array) not in self.constants:
            self.constants[id(array)] = argument(np.shape(array), array.dtype)
        return self.constants[id(array)]

    def site(self, eqn: JaxprEqn, x: Value) -> Value:
        """A parameter's word, or a new stored map, which closes the layers behind."""
        bits, stored = eqn.params["format"].bits, eqn.params["stored"]
        if stored == "scale":  # not counted
            return Value()
        if stored in ("weight", "bias"):
            return x._replace(word=Word(True, bits, stored == "bias"), zero=False)
        elements = eqn.outvars[0].aval.size
        return Value({self.store(x, bits, elements, stored=True): 0})

    def store(self, x: Value, bits: int, elements: int, *, stored: bool) -> Map:
        """A new map, written where the last of its parts is; inputs before all."""
        # Without a site the map is what left the layer, so poolings come after it.
        before = x.rows if stored else dict.fromkeys(x.rows, 0)
        joined = [union([row.joined], pools) for row, pools in before.items()]
        joined = union([x.maps, *joined])
        parts = [row.index for row in x.rows] + [m.written for m in joined]
        written = max(parts, default=-1)
        born = min((row.index for row in x.rows), default=max(written, 0))
        reads = [union([row.reads], pools) for row, pools in before.items()]
        made = Map(bits, elements, stored, born, written, union([joined, *reads]))
        self.maps.append(made)
        for part in joined:
            if part.written < written:  # what is just being written is at hand
                self.rows[written].reads.setdefault(part, joined[part])
        keep_until(written, joined)
        for row in x.rows:
            row.map, row.rectified = made, x.rectified
            keep_until(row.index, row.reads)
        return made

    def close(self, x: Value) -> Value:
        """Stores what is still open behind a value as it left its layer."""
        if x.rows:
            bits = max(row.result_bits for row in x.rows)
            self.store(x._replace(behind=x.rows), bits, x.elements, stored=False)
        elif not x.is_map and x.behind:
            image = max(x.behind, key=lambda argument: argument.elements)
            image.map = self.store(Value(), image.bits, image.elements, stored=False)
        return self.value(x)

    def layer(
        self, eqn: JaxprEqn, operand: Value, kernel: Value, shape: dict[str, int]
    ) -> Value:
        reads = self.close(operand).maps
        result = eqn.outvars[0].aval
        bits = dtype_bits(result.dtype)
        input_bits = max((m.bits for m in reads), default=bits)
        weight_bits = kernel.word.bits or bits
        if kernel.is_map:
            # Closing the left factor may have stored what the right one consists of.
            others = self.close(self.value(kernel)).maps
            shape = shape | {"kind": MAP_PRODUCT}
            weight_bits = max(m.bits for m in others)
            reads = union([reads, others])
        row = Row(
            index=len(self.rows),
            shape=shape,
            weight_bits=weight_bits,
            input_bits=input_bits,
            result_bits=bits,
            reads=reads,
            joined={},
        )
        self.rows.append(row)
        return Value({row: 0}, result.size)

    def dense(self, eqn: JaxprEqn, left: Value, right: Value) -> Value:
        flipped = right.is_map and not left.is_map
        if not (left.is_map or right.is_map):
            flipped = left.word.from_site and not right.word.from_site
        operand, kernel = (right, left) if flipped else (left, right)
        return self.layer(eqn, operand, kernel, dense_shape(eqn, kernel_left=flipped))

    def unroll(self, eqn: JaxprEqn, values: list[Value]) -> list[Value]:
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
            merge([step[k] for step in steps])._replace(elements=out.aval.size)
            for k, out in enumerate(eqn.outvars[carry:])
        ]
        return [*state, *stacked]

    def join(self, eqn: JaxprEqn, values: list[Value], result: Any) -> Value:
        """The result of any operation that is neither a layer, a site nor a call."""
        maps = [value for value in values if value.is_map]
        if not maps:
            return _parameter(eqn, values, result)
        joined = merge(maps, pools=_max_pools(eqn))
        if len(maps) > 1:
            joined = joined._replace(elements=max(joined.elements, result.size))
        if not joined.rows:
            return joined
        last = max(joined.rows, key=lambda row: row.index)
        pools = joined.rows[last]
        joins = {m: count - pools for m, count in joined.maps.items()}
        last.joined = union([last.joined, joins])
        last.bias = max(last.bias, _bias(eqn, values, last.shape["out_channels"]))
        rectified = joined.rectified or _rectifies(eqn, values)
        return joined._replace(behind=joined.rows, rectified=rectified)

    def operate(self, eqn: JaxprEqn, values: list[Value]) -> None:
        """Notes a vector operation; whether it is one on maps is known at the end."""
        shape = vector_shape(eqn)
        if shape is None or self.adds_bias(eqn, values):
            return
        bits = dtype_bits(eqn.outvars[0].aval.dtype)
        words = [operand_bits(value) for value in values]
        operation = Operation(len(self.rows), shape, values, [*words, 0], bits)
        self.operations.append(operation)

    def adds_bias(self, eqn: JaxprEqn, values: list[Value]) -> bool:
        rows = merge(values).rows
        if not rows or not _is_sum(eqn):
            return False
        last = max(rows, key=lambda row: row.index)
        return _bias(eqn, values, last.shape["out_channels"]).bits > 0

    def interleaved(self, rows: list[dict[str, int]]) -> list[dict[str, int]]:
        """Rows of layers with those of vector operations where they stand."""
        together = [(index, 1, row) for index, row in enumerate(rows)]
        for operation in self.operations:
            if any(self.value(operand).is_map for operand in operation.operands):
                together.append((operation.before, 0, vector_columns(operation)))
        return [row for *_, row in sorted(together, key=lambda found: found[:2])]

    def finish(self, results: list) -> LayerTable:
        if not self.rows:
            raise ValueError(
                "found no convolution and no dense layer in the function: pass one "
                "that computes the network, such as lambda p, x: model.apply(p, x)"
            )
        returned: dict[Map, int] = {}
        for value in map(self.value, results):
            leaving = value._replace(behind=value.maps | value.rows, elements=0)
            returned = union([returned, self.close(leaving).maps])
        for row in self.rows:
            if row.map is None:  # neither read nor returned
                self.close(Value({row: 0}, elements=0))
        keep_until(len(self.rows), returned)
        pools = pools_to_output(self.maps, returned)
        rows = [columns(row, pools, self.maps) for row in self.rows]
        return from_rows(self.interleaved(rows))


def _counts(eqn: JaxprEqn) -> bool:
    return eqn.primitive in (
        primitives.conv_general_dilated_p,
        primitives.dot_general_p,
        quantize_p,
    )


def _parameter(eqn: JaxprEqn, values: list[Value], result: Any) -> Value:
    alike = eqn.primitive in (
        primitives.broadcast_in_dim_p,
        primitives.convert_element_type_p,
    )
    return Value(
        union((v.behind for v in values), pools=_max_pools(eqn)),
        min(result.size, max((v.elements for v in values), default=1)),
        max((v.word for v in values), default=Word(False, 0)),
        alike and values[0].zero,
    )


def _max_pools(eqn: JaxprEqn) -> int:
    pools = eqn.primitive is primitives.reduce_window_max_p
    return int(pools and prod(eqn.params["window_dimensions"]) > 1)


def _bias(eqn: JaxprEqn, values: list[Value], channels: int) -> Word:
    """The word of a bias among the operands, of zero bits where there is none."""
    words = [v.word for v in values if v.word.bias and not v.is_map]
    if _is_sum(eqn):
        parameters = [v for v in values if v.behind and not v.is_map]
        words += [v.word for v in parameters if v.elements == channels]
    return max(words, default=Word(False, 0))


def _is_sum(eqn: JaxprEqn) -> bool:
    return eqn.primitive in (primitives.add_p, primitives.sub_p)


def _rectifies(eqn: JaxprEqn, values: list[Value]) -> bool:
    if eqn.primitive is primitives.max_p:
        return any(value.zero for value in values)
    return eqn.primitive is primitives.clamp_p and values[0].zero

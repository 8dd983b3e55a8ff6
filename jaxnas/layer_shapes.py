"""The shapes of table rows, each decided by one equation of a jaxpr alone.

A batch has one image: leading axes of one are left out of the shapes of maps.
"""

from collections.abc import Sequence
from math import prod

from jax.extend.core import JaxprEqn

from jaxnas.topology import CONCATENATION, ELEMENTWISE, LAYER, POOLING, TRANSPOSED

# Equations that move data and compute nothing.
MOVES = frozenset(
    "broadcast_in_dim reshape transpose squeeze slice split dynamic_slice "
    "dynamic_update_slice pad rev gather scatter copy convert_element_type "
    "optimization_barrier iota name sharding_constraint device_put".split()
)
REDUCTIONS = frozenset(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor "
    "argmax argmin".split()
)
WINDOWS = frozenset("reduce_window_sum reduce_window_max reduce_window_min".split())


def convolution_shape(eqn: JaxprEqn) -> dict[str, int]:
    """The columns of a row that a `conv_general_dilated` equation alone decides.

    The one axis of a 1-D convolution is its height.

    Raises:
      ValueError: for more than two spatial axes, a batch larger than one, or a batch
        that is split in groups.
    """
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["batch_group_count"]
    operand, kernel = (v.aval.shape for v in eqn.invars)
    batch, axes = operand[numbers.lhs_spec[0]], len(numbers.lhs_spec) - 2
    if axes > 2 or batch != 1 or groups != 1:
        raise ValueError(
            f"found a convolution over {axes} axes of a batch of {batch} in {groups} "
            "groups, expected at most two axes and a batch of one: trace the network "
            "on a single image"
        )
    # A strided one over an upsampled operand skips pixels: its zeros count as padding.
    upsampled = max(eqn.params["lhs_dilation"], default=1) > 1
    strided = max(eqn.params["window_strides"], default=1) > 1
    return _row_shape(
        in_sides=[operand[axis] for axis in numbers.lhs_spec[2:]],
        in_channels=operand[numbers.lhs_spec[1]],
        out_sides=[eqn.outvars[0].aval.shape[axis] for axis in numbers.out_spec[2:]],
        out_channels=kernel[numbers.rhs_spec[0]],
        kernel_sides=[kernel[axis] for axis in numbers.rhs_spec[2:]],
        strides=eqn.params["window_strides"],
        groups=eqn.params["feature_group_count"],
        dilations=eqn.params["rhs_dilation"],
        upsampling=eqn.params["lhs_dilation"],
        kind=TRANSPOSED if upsampled and not strided else LAYER,
    )


def dense_shape(eqn: JaxprEqn, *, kernel_left: bool) -> dict[str, int]:
    """The columns of a row that a `dot_general` equation alone decides.

    Summed axes are input channels, shared (batch) axes are groups, the free axes of
    the kernel are output channels. Those of the map, but for a leading batch of one,
    are positions: its last one is the width, all before it the height.
    """
    shapes = (v.aval.shape for v in eqn.invars)
    sides = list(zip(shapes, *eqn.params["dimension_numbers"], strict=True))
    (operand, summed, shared), kernel = reversed(sides) if kernel_left else sides
    positions = _at_most_two(_without_batch(_free(operand, summed, shared)))
    groups = prod(operand[axis] for axis in shared)
    return _row_shape(
        in_sides=positions,
        in_channels=groups * prod(operand[axis] for axis in summed),
        out_sides=positions,
        out_channels=groups * prod(_free(*kernel)),
        kernel_sides=[],
        strides=[],
        groups=groups,
    )


def vector_shape(eqn: JaxprEqn) -> dict[str, int] | None:
    """The columns of a row that an equation on maps alone decides; None for no row.

    Poolings and reductions have their window as kernel, and as channels all axes that
    the window does not extend over. A concatenation has the channels of its result.
    Equations that only move data have no row; whatever else is neither pooling nor
    concatenation is taken as one operation per element of its largest result.
    """
    name = eqn.primitive.name
    if name in MOVES:
        return None
    if name in REDUCTIONS:
        return _reduction_shape(eqn)
    if name in WINDOWS:
        return _window_shape(eqn)
    result = max((out.aval.shape for out in eqn.outvars), key=prod)
    kind = CONCATENATION if name == "concatenate" else ELEMENTWISE
    *sides, channels = _two_sides_and_channels(result)
    return _row_shape(sides, channels, sides, channels, [], [], channels, kind=kind)


def _reduction_shape(eqn: JaxprEqn) -> dict[str, int]:
    shape, axes = eqn.invars[0].aval.shape, eqn.params["axes"]
    reduced = _at_most_two([shape[axis] for axis in axes])
    kept = prod(size for axis, size in enumerate(shape) if axis not in axes)
    return _row_shape(reduced, kept, [], kept, reduced, [], kept, kind=POOLING)


def _window_shape(eqn: JaxprEqn) -> dict[str, int]:
    shape, out = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    windows, strides = (eqn.params[f"window_{k}"] for k in ("dimensions", "strides"))
    pooled = [axis for axis, size in enumerate(windows) if size > 1]
    kept = prod(size for axis, size in enumerate(out) if axis not in pooled)

    def sides(sizes):
        return _at_most_two([sizes[axis] for axis in pooled])

    steps = [strides[axis] for axis in pooled[-2:]]
    window = sides(windows)
    return _row_shape(
        sides(shape), kept, sides(out), kept, window, steps, kept, kind=POOLING
    )


def _two_sides_and_channels(shape: Sequence[int]) -> list[int]:
    sides = _without_batch(list(shape))
    return [*_at_most_two(sides[:-1]), 1, 1][:2] + (sides[-1:] or [1])


def _without_batch(sides: list[int]) -> list[int]:
    """Without leading ones: a batch of one, which `vmap` may have wrapped in others."""
    while sides[:1] == [1]:
        sides = sides[1:]
    return sides


def _at_most_two(sides: list[int]) -> list[int]:
    return sides if len(sides) <= 2 else [prod(sides[:-1]), sides[-1]]


def _free(shape, summed, shared) -> list[int]:
    return [n for axis, n in enumerate(shape) if axis not in (*summed, *shared)]


def _row_shape(
    in_sides,
    in_channels,
    out_sides,
    out_channels,
    kernel_sides,
    strides,
    groups,
    *,
    dilations=(),
    upsampling=(),
    kind=LAYER,
) -> dict[str, int]:
    """Columns by name; a side that is missing is one."""
    sides = {
        "in": in_sides,
        "out": out_sides,
        "kernel": kernel_sides,
        "stride": strides,
        "dilation": dilations,
        "upsampling": upsampling,
    }
    columns = {"kind": kind, "in_channels": in_channels, "out_channels": out_channels}
    for name, given in sides.items():
        columns[f"{name}_height"], columns[f"{name}_width"] = (*given, 1, 1)[:2]
    columns["groups"] = groups
    return {name: int(count) for name, count in columns.items()}

"""Rules by which operations read words from memory."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from jaxnas.numerics.calibration import Axis, Rounding
from jaxnas.numerics.formats import Format

LAYERS = ("convolution", "dot", "embedding")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """In which formats some operations read their operands; None: not from memory.

    operation: glob, or several, for the kind of operation: "convolution", "dot",
        "embedding" (a lookup of parameters by data) or the name of any other JAX
        primitive, as "add".
    path: glob for the path of the parameter that is the operation's weight, as
        "params/Dense_0/kernel"; that of an operation without a weight is "".
    weight: format of operands made of parameters alone; beside a sum's other operand
        they are stored as "bias".
    activation: format of all other operands, stored as "input" where they are
        arguments of the function.
    weight_axis: the axes of the parameter that have scales of their own (-1: one per
        output channel in most layouts). Layers stacked for a scan have so always.
    power_of_two: whether peaks are rounded to powers of two, where scales are dynamic.
    """

    operation: str | tuple[str, ...] = LAYERS
    path: str = "*"
    weight: Format | None = None
    activation: Format | None = None
    weight_axis: Axis = None
    power_of_two: Rounding = True

    def __post_init__(self):
        for format in (self.weight, self.activation):
            if not (format is None or isinstance(format, Format)):
                raise ValueError(
                    f"{format!r} is not a number Format; take one such as "
                    "FixedPoint(bits=8), or None for what is not stored"
                )

    def matches(self, kind: str, path: str | None) -> bool:
        """Whether the rule is for such an operation; on any path where it is None."""
        globs = self.operation
        globs = (globs,) if isinstance(globs, str) else globs
        on_path = path is None or fnmatchcase(path, self.path)
        return on_path and any(fnmatchcase(kind, glob) for glob in globs)


class Layout(NamedTuple):
    """What readers must have in common to read the same words of an array."""

    format: Format
    axes: tuple[int, ...]  # with scales of their own; none: one scalar scale
    power_of_two: Rounding


class Word(NamedTuple):
    """How an array is stored."""

    name: str
    stored: str
    layout: Layout

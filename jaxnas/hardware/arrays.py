"""The systolic array: its size, its dataflow and the convention it is counted by."""

from dataclasses import dataclass

DATAFLOWS = ("os", "ws", "is")
"""Output, weight and input stationary."""

CONVENTIONS = ("scalesim", "realistic")


@dataclass(frozen=True, kw_only=True)
class SystolicArray:
    """An array of `rows` x `columns` multiply-accumulate units and its dataflow.

    `scalesim` counts as the simulator of that name does: nothing overlaps two folds,
    groups run one after another, partial sums leave the chip. `realistic` overlaps
    loading with computing, packs small groups diagonally and keeps on the chip what
    fits; see `folding` and `dram`.

    Raises:
      ValueError: for an empty array, an unknown dataflow or an unknown convention.
    """

    rows: int = 16
    columns: int = 16
    dataflow: str = "os"
    convention: str = "scalesim"

    def __post_init__(self):
        check_array(self.rows, self.columns, self.dataflow, self.convention)


def check_array(rows, columns, dataflow: str, convention: str) -> None:
    """Raises ValueError for an array that cannot be; sizes are numbers."""
    if rows < 1 or columns < 1:
        raise ValueError(
            f"found an array of {rows} x {columns} units, expected at "
            "least one row and one column"
        )
    if dataflow not in (*DATAFLOWS, "best"):
        raise ValueError(
            f"found dataflow {dataflow!r}, expected one of "
            f"{', '.join(DATAFLOWS)} or best"
        )
    if convention not in CONVENTIONS:
        raise ValueError(
            f"found convention {convention!r}, expected one of {', '.join(CONVENTIONS)}"
        )

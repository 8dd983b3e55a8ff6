"""What a campaign found: its columns, and the intervals that they support."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Array, Int64, PyTree, Shaped

from jaxnas.faults.means import mean_interval, moments_of
from jaxnas.faults.sequential import StoppingRule
from jaxnas.faults.statistics import Interval, clustered_wilson_interval
from jaxnas.faults.vulnerability import Vulnerability, vulnerability_by

Columns = Mapping[str, Shaped[np.ndarray, " trials"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Campaign:
    """What a campaign found.

    columns: by metric, one row per trial in the order of their numbers; mapped from the
        disk where there are records. With records, only process 0 has them.
    trials: how many that are.
    stopped: whether the stopping rule ended the campaign.
    inputs: how many inputs a trial has: the length of the outputs' first axis.
    replay: `replay(i)` gives the faulty output of trial i once more, bit for bit. Which
        words it changed, `strikes(fun, *faults)(trial_key(key, i), *args)` lists.
    """

    columns: Columns
    trials: int
    stopped: bool
    inputs: int
    replay: Callable[[int], PyTree]

    def interval(self, name: str, confidence: float = 0.95) -> Interval:
        """Wilson's interval of a share of inputs, all of which share a trial's faults.

        Raises:
          ValueError: as `clustered_wilson_interval` and `share_counts`.
        """
        counts = share_counts(self.columns, name, self.inputs)
        return clustered_wilson_interval(counts, self.inputs, confidence)

    def mean_interval(self, name: str, confidence: float = 0.95) -> Interval:
        """Student's interval of the mean over trials of any metric.

        Raises:
          ValueError: as `mean_interval` and `moments_of`: of one trial, or of values
            that are not finite; there is no such column.
        """
        return mean_interval(moments_of(column(self.columns, name)), confidence)

    def vulnerability(
        self,
        name: str,
        labels: Mapping[str, np.ndarray | Array | list],
        confidence: float = 0.95,
    ) -> Vulnerability:
        """`vulnerability_by` labels of the trials, for a share of inputs.

        Labels are those of the bits that the trials flipped, as `SelectedBits.locate`
        gives them. After a census of all bits the shares are exact, and the intervals
        those of further faults of the same kind.

        Raises:
          ValueError: as `vulnerability_by` and `share_counts`.
        """
        counts = share_counts(self.columns, name, self.inputs)
        return vulnerability_by(labels, counts, self.inputs, confidence)


def column(columns: Columns, name: str) -> Shaped[np.ndarray, " trials"]:
    """Raises ValueError where there is no such column."""
    if name not in columns:
        raise ValueError(f"no column {name!r}; the columns are {[*columns]}")
    return columns[name]


def share_counts(columns: Columns, name: str, inputs: int) -> Int64[np.ndarray, " _"]:
    """How many inputs of each trial the shares in a column stand for.

    Raises:
      ValueError: there is no such column, or it is not a share of inputs in every
        trial.
    """
    counts = column(columns, name) * np.float64(inputs)
    whole = np.rint(counts)
    possible = np.isfinite(counts) & (whole >= 0) & (whole <= inputs)
    # Shares are rounded to float32.
    if not np.all(possible) or np.any(np.abs(counts - whole) > 0.01):
        raise ValueError(
            f"{name} is not the share of {inputs} inputs in every trial; take an "
            "interval of the mean of its column"
        )
    return whole.astype(np.int64)


def stop_at(rule: StoppingRule, name: str) -> Callable[[Columns], bool]:
    """A `stop` for `campaign`: it ends once the rule is content with a column.

    For `share_rule` the column holds shares of inputs, whose number is its `size`. The
    campaign asks at numbers of trials that are fixed beforehand, so that it ends at the
    same trial whatever its chunks, devices and interruptions.

    Raises, when asked, ValueError as `moments_of`, and where there is no such column.
    """

    def stop(columns: Columns) -> bool:
        return bool(rule.done(moments_of(column(columns, name))))

    return stop

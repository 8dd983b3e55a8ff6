"""The options of the commands, as frozen dataclasses whose docstrings are the help.

Nothing expensive is imported: arguments are checked before anything starts.
"""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How the run is carried out."""

    out: Path | None = None
    """Run directory to write; None for runs/ and the name of the config file."""

    resume: bool = False
    """Whether to continue the interrupted run in the run directory."""

    overwrite: bool = False
    """Whether to delete the run in the run directory and start again."""

    smoke: bool = False
    """Whether to take smoke() of the config file, the same path made tiny."""

    def __post_init__(self):
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume continues a run and --overwrite deletes it; give one of them"
            )


Kind = Literal[
    "bit_flips",
    "top_bit_flips",
    "rising_flips",
    "falling_flips",
    "double_flips",
    "stuck_at",
    "stuck_at_zero",
    "stuck_at_one",
    "word_faults",
    "dead_elements",
]
"""Those of `jaxnas.faults.kinds`, which is expensive to import."""

FEWEST, TRIALS, MOST_TRIALS = 200, 200, 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class InjectOptions:
    """Which faults are measured, and how precisely."""

    fault: Kind = "bit_flips"
    """What happens to words: all their bits flip, only the highest one does, only zeros
    do (rising) or ones (falling), or two adjacent bits at a time; bits are stuck, at
    zero and at one as often or at either; words are replaced by random ones; values
    read as zero (dead)."""

    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    """Probabilities of a fault (per stored bit; of word_faults and dead_elements per
    stored word). Single flips, which have no rate, are those of sensitivity-trials."""

    stored: tuple[Literal["weight", "activation"], ...] = ("weight", "activation")
    """Kinds of words that are struck, one after the other."""

    target_halfwidth: float = 0.0
    """Half the width of the 95 % interval of an accuracy at which its measurement ends
    (share of images); 0 for a fixed number of trials."""

    trials: int | None = None
    """Random fault patterns per network, number scheme, kind of words and rate (count),
    with target-halfwidth at most; None for 200, or at most 20000."""

    sensitivity_trials: int = 100
    """Single flips per layer and bit position in the best network of the front, each of
    a random word and for a random image (count); 0 for none."""

    def __post_init__(self):
        if not self.rates or not all(0 < rate < 1 for rate in self.rates):
            raise ValueError(
                f"--rates is {self.rates}, expected fault rates between 0 and 1; "
                "for example --rates=1e-4,1e-3"
            )
        if not self.stored or len(set(self.stored)) < len(self.stored):
            raise ValueError(
                f"--stored is {self.stored}, expected each kind of words at most once; "
                "for example --stored=weight"
            )
        if not 0 <= self.target_halfwidth < 0.5:
            raise ValueError(
                f"--target-halfwidth is {self.target_halfwidth}, expected a share "
                "below 0.5, or 0 for a fixed number of trials; for example 0.005"
            )
        if self.trials is not None and self.trials < 2:
            raise ValueError(
                f"--trials is {self.trials}, expected at least 2: intervals come from "
                "the spread of trials"
            )
        if self.target_halfwidth and self.most <= FEWEST:
            raise ValueError(
                f"--trials is {self.trials}, expected more than {FEWEST} with "
                "--target-halfwidth: so many are run before the interval is asked"
            )
        if self.sensitivity_trials < 0:
            raise ValueError(
                f"--sensitivity-trials is {self.sensitivity_trials}, expected 0 or more"
            )

    @property
    def most(self) -> int:
        """The number of trials, or the largest."""
        default = MOST_TRIALS if self.target_halfwidth else TRIALS
        return default if self.trials is None else self.trials


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostOptions:
    """Of which network, and what is printed."""

    image: int | None = None
    """Sides of the square images (pixels); None for those of the publication."""

    classes: int | None = None
    """Number of classes (count); None for that of the publication."""

    bits: int | None = None
    """Width of the fixed-point words of weights and maps; None for float32."""

    operations: bool = False
    """Whether poolings, sums and other operations on maps have lines of their own."""

    network: int | None = None
    """The network of a run whose layers are printed (its id); None for all in short."""

    hardware: str | None = None
    """An accelerator: eyeriss, tpu, edge or a file that jaxnas.hardware.save wrote;
    None for the array of the run, or one of 16x16 units."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """What is measured, and where it is written."""

    out: Path | None = None
    """Folder to write; None for runs/NAME-profile, by the name of the config file."""

    resume: bool = False
    """Whether to continue the interrupted measurement in that folder."""

    overwrite: bool = False
    """Whether to delete the measurement in that folder and start again."""

    networks: int = 150
    """Random networks of the search space that are measured (count)."""

    fitted: int = 50
    """How many of them slope and bias are fitted to; the rest is predicted (count)."""

    batch: int = 32
    """Images in one call; latencies are those of the whole call (count)."""

    seed: int = 0
    """Where the random networks come from."""

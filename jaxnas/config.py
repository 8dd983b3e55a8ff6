"""What an experiment is: frozen dataclasses that a file under `configs/` fills in.

Every value is checked when it is set, so that a mistake costs no training. Only
`experiment` and the command line read these; library functions take arguments.
"""

import dataclasses
import typing

from jaxnas.hardware.accelerators import Accelerator
from jaxnas.networks.space import Stage
from jaxnas.search.catalogue import ALGORITHMS
from jaxnas.search.limits import parse_limits
from jaxnas.search.objectives import CHEAP, EXPENSIVE, STRUCK


def _require_positive(config, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}, expected more than 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split."""

    path: str = "digits"
    """'digits' (embedded in scikit-learn), a folder of parquet files in the Hugging
    Face layout, or the name of an image set on the Hugging Face hub."""
    validation_share: float = 0.2
    """Share of the training images kept for the validation error (fraction)."""
    test_share: float = 0.3
    """Share of all images kept for the report; digits only, other sets bring their own
    test split (fraction)."""
    limit: int | None = None
    """Keep at most this many images of each split; None keeps all (count)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceConfig:
    """What a genotype may choose from; image size and classes come from the data."""

    stages: tuple[Stage, ...] = (
        Stage(widths=(4, 8, 12, 16), blocks=2),
        Stage(widths=(8, 16, 24, 32), blocks=2),
    )
    """Stages of blocks, each at half the map size of the one before (channels)."""
    kernels: tuple[int, ...] = (3, 5)
    """Side lengths of spatial kernels, odd (pixels)."""
    expansions: tuple[int, ...] = (2, 3)
    """Expansion factors of inverted residuals (multiples of the input width)."""
    word_bits: tuple[int, ...] = (4, 8)
    """Word widths of weights and activations (bits)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """How the search proceeds."""

    algorithm: str = "lemonade"
    """'lemonade', 'nsga2', 'nsga3', 'aging' or 'random' (name)."""
    objectives: tuple[str, ...] = (
        "validation_error",
        "activation_fragility",
        "weight_fragility",
        "latency_cycles",
        "weight_bytes",
    )
    """Objectives to minimise; validation_error must be among them. struck_error is the
    measured error under bit faults, of which the upper limit of an interval counts
    (names)."""
    generations: int = 10
    """Generations after the initial one (count)."""
    initial: int = 16
    """Random networks that the search starts from (count)."""
    population: int = 48
    """Largest number of networks kept on the front during the search (count)."""
    finalists: int = 16
    """Networks of the last front that are trained to the end and measured; of a larger
    front the most crowded are left (count)."""
    proposals: int = 2048
    """Children proposed and costed per generation (count)."""
    children: int = 8
    """Children trained per generation, all in one compiled call (count)."""

    limits: tuple[str, ...] = ()
    """Costs that no network may exceed, such as weight_bytes<=262144 (texts)."""
    screening: int | None = None
    """How many proposals a surrogate chooses from for each child that is trained, by
    the hypervolume that they may add; 0 for no surrogate. By default all for lemonade,
    which otherwise prefers those where the front is sparse, and 0 for others (count).
    """
    strike_rate: float = 1e-3
    """Bit error rate of struck_error (per stored bit and inference)."""
    strike_trials: int = 16
    """Fault patterns of struck_error, per network and generation that it lives, for
    faults.images images each (count)."""
    patience: int = 0
    """The search ends after so many generations that did not enlarge the hypervolume;
    0 never ends it early (count)."""
    warm_start: str | None = None
    """Run directory of a search in the same space, whose front is among the initial
    networks and keeps its weights; None starts from nothing (path)."""

    def __post_init__(self):
        parse_limits(self.limits)
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm is {self.algorithm!r}, expected one of {ALGORITHMS}"
            )
        _require_positive(
            self, "initial", "population", "proposals", "children", "finalists"
        )
        if self.strike_trials < 2 or not 0 < self.strike_rate < 1:
            raise ValueError(
                f"strike_trials is {self.strike_trials} and strike_rate "
                f"{self.strike_rate}, expected at least 2 trials and a rate between 0 "
                "and 1"
            )
        for name in ("generations", "patience", "screening"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        chosen = set(self.objectives)
        known = chosen <= {EXPENSIVE, STRUCK, *CHEAP} and EXPENSIVE in chosen
        if not known or len(chosen) < 2 or len(chosen) < len(self.objectives):
            raise ValueError(
                f"objectives are {self.objectives}, expected {EXPENSIVE} and at least "
                f"one of {(STRUCK, *CHEAP)}, each once"
            )
        if self.initial > self.population:
            raise ValueError(
                f"initial is {self.initial} networks, more than the population of "
                f"{self.population}: enlarge the population"
            )
        if self.algorithm == "lemonade" and not chosen & set(CHEAP):
            raise ValueError(
                f"objectives are {self.objectives}, expected at least one of {CHEAP}: "
                "lemonade proposes networks where the front is sparse in these"
            )
        asked = self.children * (self.screening or 1)
        if self.proposals < asked:
            raise ValueError(
                f"proposals is {self.proposals}, fewer than the {asked} children "
                "that a generation needs: propose more"
            )

    @property
    def candidates(self) -> int:
        """Children that the algorithm returns, of which the surrogate, if there is one,
        chooses those that are trained."""
        if self.screening is not None:
            return self.children * (self.screening or 1)
        return self.proposals if self.algorithm == "lemonade" else self.children


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Quantisation-aware training; AdamW with cosine decay to zero."""

    initial_steps: int = 120
    """Steps of every initial network, from random weights (count)."""
    child_steps: int = 80
    """Steps of every child, from inherited weights (count)."""
    final_steps: int = 300
    """Steps of every network of the final front, in each number scheme (count)."""
    learning_rate: float = 2e-2
    """Peak learning rate of initial networks and children (per step)."""
    child_warmup: float = 0.1
    """Share of a child's steps in which its learning rate rises to the peak: inherited
    weights bear the first steps of Adam at full rate badly (fraction)."""
    final_learning_rate: float = 1e-2
    """Peak learning rate of the final training (per step)."""
    batch: int = 32
    """Images per step (count)."""
    weight_decay: float = 1e-4
    """Decoupled weight decay (per unit of learning rate)."""
    shift: int = 0
    """Largest random shift of a training image (pixels)."""
    flip: bool = False
    """Whether training images are mirrored at random."""
    distillation: float = 0.0
    """Weight of the parent's right answers in the labels that children learn
    (fraction)."""

    def __post_init__(self):
        _require_positive(self, "initial_steps", "child_steps", "final_steps", "batch")
        _require_positive(self, "learning_rate", "final_learning_rate")
        for name in ("distillation", "child_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected a fraction, 0 to 1"
                )
        if self.weight_decay < 0 or self.shift < 0:
            raise ValueError(
                f"weight_decay is {self.weight_decay} and shift is {self.shift}, "
                "expected 0 or more"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """The bit faults under which the final front is measured."""

    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    """Bit error rates (per stored bit and inference)."""
    trials: int = 200
    """Random fault patterns per network, scheme, target and rate (count)."""
    images: int = 32
    """Test images that meet the same faults of a trial (count)."""

    def __post_init__(self):
        _require_positive(self, "images")
        if self.trials < 2:
            raise ValueError(
                f"trials is {self.trials}, expected at least 2: intervals come from "
                "the spread of trials"
            )
        if not self.rates or not all(0 < rate < 1 for rate in self.rates):
            raise ValueError(
                f"fault rates are {self.rates}, expected probabilities between 0 and 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A complete search: data, space, training, evolution, hardware and faults."""

    seed: int = 0
    """Seed of everything that is random (non-negative integer)."""
    data: DataConfig = DataConfig()
    space: SpaceConfig = SpaceConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    training: TrainingConfig = TrainingConfig()
    hardware: Accelerator = Accelerator(convention="scalesim")
    """What the networks are meant for: `preset(NAME)`, `load(FILE)` or one's own."""
    faults: FaultConfig = FaultConfig()

    def __post_init__(self):
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed is {self.seed}, expected 0 to {2**31 - 1}")


def from_plain(kind, plain):
    """A configuration from the nested dictionaries and lists that JSON keeps of it.

    Raises ValueError for keys that `kind` does not have.
    """
    if dataclasses.is_dataclass(kind):
        types = typing.get_type_hints(kind)
        unknown = sorted(set(plain) - set(types))
        if unknown:
            raise ValueError(
                f"unknown configuration keys {unknown} of {kind.__name__}: the run was "
                "made by another version of jaxnas"
            )
        return kind(**{name: from_plain(types[name], plain[name]) for name in plain})
    if typing.get_origin(kind) is tuple:
        return tuple(from_plain(typing.get_args(kind)[0], item) for item in plain)
    return plain

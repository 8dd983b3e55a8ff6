"""The algorithms by name, set up to search networks."""

from collections.abc import Callable

from jaxnas.hardware.accelerators import Hardware
from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace
from jaxnas.search.aging import AgingEvolution
from jaxnas.search.generations import GenerationalAlgorithm
from jaxnas.search.genomes import Categorical
from jaxnas.search.lemonade import Lemonade
from jaxnas.search.limits import Limit, admission
from jaxnas.search.nsga2 import Nsga2, UniformSearch
from jaxnas.search.nsga3 import Nsga3, das_dennis
from jaxnas.search.objectives import CHEAP, cheap_objectives
from jaxnas.search.variations import canonical_in, crossed_mutants, mutants


def network_search(
    name: str,
    space: SearchSpace,
    hardware: Hardware,
    objectives: tuple[str, ...],
    *,
    population: int,
    children: int,
    proposals: int,
    limits: tuple[Limit, ...] = (),
) -> GenerationalAlgorithm:
    """An algorithm whose genomes are genotypes; nothing beyond the limits is trained.

    name: of `ALGORITHMS`. Children of "lemonade" and "aging" are mutants of one parent,
      those of "nsga2" and "nsga3" are crossed first, and "random" draws all anew.
    objectives: names of the columns of the fitness, of which those in `CHEAP` have a
      density for "lemonade".
    children: genotypes returned by an ask, of `proposals`.

    Raises:
      ValueError: the name is unknown, or a number is out of range.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"found the algorithm {name!r}, expected one of {ALGORITHMS}")
    common = dict(
        variables=Categorical(spaces.cardinalities(space)),
        num_objectives=len(objectives),
        accepted=children,
        proposals=proposals + proposals % 2,
        memory=max(1024, population, children),
        admit=admission(space, hardware, limits),
    )
    kind, options = _KINDS[name]
    own = options(space, hardware, objectives, population)
    return kind(population, spaces.smallest(space), **common, **own)


def _lemonade(space, hardware, objectives, population) -> dict:
    cheap = tuple(name for name in objectives if name in CHEAP)
    costs = cheap_objectives(space, hardware, cheap)
    return dict(cheap=costs, variation=mutants(space))


def _nsga2(space, hardware, objectives, population) -> dict:
    # Mutants are larger and smaller than their parents, so that fronts stay wide even
    # under the pressure of tournaments by front (experiments/search_algorithms).
    return dict(by_front=True, variation=crossed_mutants(space))


def _nsga3(space, hardware, objectives, population) -> dict:
    divisions = 1
    while len(das_dennis(len(objectives), divisions + 1)) <= population:
        divisions += 1
    directions = das_dennis(len(objectives), divisions)
    return dict(directions=directions, variation=crossed_mutants(space))


def _aging(space, hardware, objectives, population) -> dict:
    # The best leave with the others in time: the archive is what was found.
    return dict(variation=mutants(space), archive_size=population)


def _random(space, hardware, objectives, population) -> dict:
    return dict(repair=canonical_in(space))


_KINDS: dict[str, tuple[Callable, Callable]] = {
    "lemonade": (Lemonade, _lemonade),
    "nsga2": (Nsga2, _nsga2),
    "nsga3": (Nsga3, _nsga3),
    "aging": (AgingEvolution, _aging),
    "random": (UniformSearch, _random),
}

ALGORITHMS = tuple(_KINDS)

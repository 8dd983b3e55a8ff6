"""Which bits of which layers matter: single flips, so many for every bit position.

The strata are the sites of a network and the places in their words. In each of them a
trial flips that bit of a random word and asks for one random image, so that its share
is the probability that such an upset changes a prediction.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import PyTree

from jaxnas.faults.flips import given_flips
from jaxnas.faults.injection import inject, sites
from jaxnas.faults.models import Fault, NetworkModel, Site
from jaxnas.faults.outcomes import sdc1
from jaxnas.faults.trials import run_trials
from jaxnas.faults.vulnerability import vulnerability_by
from jaxnas.training import Images
from jaxnas.types import Key


class Cell(NamedTuple):
    """One bit position of one site; `first` is its position in the first word, counted
    over the bits of all sites."""

    site: Site
    bit: int
    first: int


def cells(found: Sequence[Site]) -> list[Cell]:
    """All bit positions of sites that follow each other, highest bit first."""
    made, start = [], 0
    for site in found:
        bits = site.format.bits
        made += [Cell(site, bit, start + bit) for bit in reversed(range(bits))]
        start += _bits(site)
    return made


def _bits(site: Site) -> int:
    return math.prod(site.shape) * site.format.bits


def measure_sensitivity(
    key: Key,
    network: Callable,
    variables: PyTree,
    images: Images,
    *,
    stored: tuple[str, ...],
    trials: int,
    advance: Callable[[int], None] = lambda trials: None,
) -> list[dict]:
    """SDC-1 of single flips in every bit position of every site, one record for each.

    `network(variables, images)` gives logits; it is asked for one image at a time, as a
    flip of a stored map strikes the words of one image. The sites are those of the
    kinds in `stored`, in program order, and bits are counted from the lowest, 0. The
    intervals are Wilson's at 95 %, each on its own.

    Raises:
      ValueError: no such site, or one in a loop, whose rounds would not be told apart.
    """
    single = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    known = sites(network, variables, single)
    chosen = [site for site in known if site.stored in stored]
    strata = cells(chosen)
    if not strata:
        raise ValueError(
            f"the network stores nothing of the kinds {stored}; its sites are "
            f"{[site.name for site in known]}"
        )
    trial = _trial(network, stored, sum(map(_bits, chosen)))
    critical = []
    for number, cell in enumerate(strata):
        place = cell.first, cell.site.format.bits, math.prod(cell.site.shape)
        place = jnp.array(place, jnp.uint32)
        own = jax.random.fold_in(key, number)
        found = run_trials(trial, own, jnp.arange(trials), place, variables, images)
        critical.append(np.asarray(found))
        advance(trials)
    numbers = np.repeat(np.arange(len(strata)), trials)
    found = vulnerability_by({"cell": numbers}, np.concatenate(critical))
    rows = zip(strata, found.trials, found.share, found.low, found.high, strict=True)
    return [
        {
            "site": cell.site.name,
            "stored": cell.site.stored,
            "bit": cell.bit,
            "trials": int(count),
            "sdc1": float(share),
            "low": float(low),
            "high": float(high),
        }
        for cell, count, share, low, high in rows
    ]


def _trial(network, stored, total):
    """Whether a flip changes the prediction: 1 or 0."""

    def at(position):
        def sample(key, bits):
            if bits != total:
                raise ValueError(
                    f"{bits} bits are stored in {total} bits of sites: some lie in "
                    "loops; unroll them, so that every layer has a site of its own"
                )
            return given_flips(position[None]).sample(key, bits)

        return NetworkModel(sample)

    def trial(key, place, variables, images):
        first, bits, words = place
        choose_image, choose_word = jax.random.split(key)
        image = jax.random.randint(choose_image, (1,), 0, images.shape[0])
        word = jax.random.randint(choose_word, (), 0, words.astype(jnp.int32))
        position = first + word.astype(jnp.uint32) * bits

        def answer(position):
            faulty = inject(network, Fault(at(position), stored=stored))
            return faulty(key, variables, images[image])

        # One program for both, so that they round alike; no bit has the number `total`.
        both = jnp.stack([jnp.uint32(total), position])
        golden, faulty = lax.map(answer, both)
        return (sdc1(golden, faulty, None) > 0).astype(jnp.int32)

    return trial

"""Campaigns over strata: single flips, so many in each bit position of each site.

The populations of all strata are known, so that few flips in each give an estimate over
all bits, with less variance than as many flips anywhere (`faults.stratified`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, UInt32

from jaxnas.faults.campaigns import exhaustive
from jaxnas.faults.exhaustion import SelectedBits
from jaxnas.faults.findings import Columns, column, share_counts
from jaxnas.faults.means import moments_by
from jaxnas.faults.stratified import Estimate, stratified_mean, stratified_share
from jaxnas.faults.tasks import Metrics, named_metrics
from jaxnas.types import Key

Allocation = Integer[Array | np.ndarray, " strata"]

FEWEST = 256
"""Draws at a time, at least: small strata share one compiled program."""


class BitStrata(NamedTuple):
    """One stratum for each bit position of each site, in the order of the sites.

    stretch: which of the stretches of the bits the site is.
    populations: how many bits a stratum has: one for each word, in every round.
    """

    site: np.ndarray
    stretch: Integer[np.ndarray, " strata"]
    bit: Integer[np.ndarray, " strata"]
    populations: Integer[np.ndarray, " strata"]


def bit_strata(bits: SelectedBits) -> BitStrata:
    """The strata of the bits that a fault selects; sites without words have none."""
    rows = [
        (each.site.name, n, bit, each.all_words)
        for n, each in enumerate(bits.stretches)
        for bit in range(each.site.format.bits if each.all_words else 0)
    ]
    return BitStrata(*map(np.array, zip(*rows, strict=True)))


def draw_strata(
    key: Key,
    bits: SelectedBits,
    allocation: Allocation,
    start: Allocation | None = None,
) -> UInt32[np.ndarray, " trials"]:
    """Positions to flip, stratum by stratum: so many distinct ones in each, at random.

    Trial j of stratum h follows from the key, h and j, whatever the allocation: it is
    the j-th distinct one of draws from `fold_in(fold_in(key, h), d)`, d = 0, 1, ...
    Every sequence of distinct bits is equally likely.

    start: the number of the first trial in each stratum, after those of a pilot.

    Raises:
      ValueError: not one number, from 0 on, for each stratum; more trials than bits.
    """
    strata = bit_strata(bits)
    allocation = _checked(allocation, strata)
    start = np.zeros_like(allocation) if start is None else _checked(start, strata)
    stop = start + allocation
    if np.any(stop > strata.populations):
        most = int(np.argmax(stop - strata.populations))
        raise ValueError(
            f"{stop[most]} trials in bit {strata.bit[most]} of "
            f"{str(strata.site[most])!r}, which has {strata.populations[most]} words; "
            "expected distinct bits: "
            "allocate no more than the populations"
        )
    parts = [np.zeros(0, np.uint32)]
    for h in np.flatnonzero(allocation):
        stretch = bits.stretches[strata.stretch[h]]
        words = _distinct(key, h, strata.populations[h], stop[h])[start[h] :]
        parts.append(stretch.start + words * stretch.site.format.bits + strata.bit[h])
    return np.concatenate(parts).astype(np.uint32)


def _checked(counts, strata) -> np.ndarray:
    counts = np.asarray(counts)
    if counts.shape != strata.bit.shape or np.any(counts < 0):
        raise ValueError(
            f"an allocation {counts} to {strata.bit.size} strata; expected a number of "
            "trials, 0 or more, for each"
        )
    return counts


def _distinct(key, stratum, population, count) -> np.ndarray:
    """The first distinct ones of a sequence of draws, in their order."""
    draws, found = np.zeros(0, np.int64), np.zeros(0, np.int64)
    while found.size < count:
        size = max(FEWEST, 1 << int(count).bit_length(), draws.size)
        numbers = np.uint32(stratum), np.uint32(population), np.uint32(draws.size)
        more = np.asarray(_draws(key, *numbers, size=size), np.int64)
        draws = np.concatenate([draws, more])
        first = np.unique(draws, return_index=True)[1]
        found = draws[np.sort(first)]
    return found[:count]


@functools.partial(jax.jit, static_argnames="size")
def _draws(key, stratum, population, first, *, size):
    key = jax.random.fold_in(key, stratum)

    def draw(number):
        own = jax.random.fold_in(key, number)
        return jax.random.randint(own, (), 0, population, dtype=jnp.uint32)

    return jax.vmap(draw)(first + jnp.arange(size, dtype=jnp.uint32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StratifiedCampaign:
    """What a stratified campaign found, its pilot included.

    columns: by metric, one row per trial.
    stratum, position: of each trial; `SelectedBits.locate` says where that is.
    inputs: how many inputs a trial has: the length of the outputs' first axis.
    """

    strata: BitStrata
    columns: Columns
    stratum: Integer[np.ndarray, " trials"]
    position: UInt32[np.ndarray, " trials"]
    inputs: int

    @property
    def trials(self) -> Integer[np.ndarray, " strata"]:
        """How many each stratum has."""
        return np.bincount(self.stratum, minlength=self.strata.bit.size)

    def successes(self, name: str) -> Integer[np.ndarray, " strata"]:
        """In how many trials of each stratum a metric of one input is one.

        Raises:
          ValueError: more inputs in a trial; as `share_counts`.
        """
        if self.inputs != 1:
            raise ValueError(
                f"successes among trials of {self.inputs} inputs, which share their "
                "faults; take the mean of the shares, or one input in each trial"
            )
        counts = share_counts(self.columns, name, 1)
        return np.bincount(self.stratum, counts, self.strata.bit.size).astype(int)

    def share(self, name: str, confidence: float = 0.95) -> Estimate:
        """`stratified_share` over all bits of a metric of one input, zero or one.

        Raises:
          ValueError: as `stratified_share` and `successes`.
        """
        populations = self.strata.populations
        return stratified_share(
            self.successes(name), self.trials, populations, confidence
        )

    def mean(self, name: str, confidence: float = 0.95) -> Estimate:
        """`stratified_mean` over all bits of any metric.

        Raises:
          ValueError: as `stratified_mean`; values that are not finite; there is no such
            column.
        """
        values = column(self.columns, name)
        moments = moments_by(values, self.stratum, self.strata.bit.size)
        return stratified_mean(moments, self.strata.populations, confidence)


def stratified_campaign(
    trial: Callable,
    args: tuple,
    bits: SelectedBits,
    *,
    key: Key,
    allocation: Allocation,
    metrics: Metrics,
    pilot: StratifiedCampaign | None = None,
    **options: Any,
) -> StratifiedCampaign:
    """So many single flips in every stratum, drawn by `draw_strata`.

    trial, bits: as `flip_each` returns them.
    allocation: trials for each of `bit_strata(bits)`, such as
        `proportional_allocation`, `neyman_allocation` or `second_phase` gives.
    metrics, options: labels, golden, batch, chunk, records, ... as for `exhaustive`.
    pilot: trials of the same function and inputs under the same key, which count
        together with the new ones; those go on from there.

    Raises:
      ValueError: as `draw_strata` and `exhaustive`; a pilot of other bits, another key
        or other metrics.
    """
    strata, start = bit_strata(bits), None
    if pilot is not None:
        _check_pilot(pilot, key, bits, metrics)
        start = pilot.trials
    position = draw_strata(key, bits, allocation, start)
    rows = position, *args
    size = position.size
    found = exhaustive(_listed(trial), rows, positions=size, metrics=metrics, **options)
    stratum = np.repeat(np.arange(strata.bit.size), np.asarray(allocation))
    columns = found.columns
    if pilot is not None:
        joined = np.concatenate
        columns = {n: joined([pilot.columns[n], columns[n]]) for n in columns}
        stratum = joined([pilot.stratum, stratum])
        position = joined([pilot.position, position])
    return StratifiedCampaign(
        strata=strata,
        columns=columns,
        stratum=stratum,
        position=position,
        inputs=found.inputs,
    )


def _check_pilot(pilot, key, bits, metrics) -> None:
    names = list(named_metrics(metrics))
    if list(pilot.columns) != names:
        raise ValueError(
            f"a pilot with the columns {[*pilot.columns]}; expected {names}, the "
            "metrics of the new trials"
        )
    drawn = draw_strata(key, bits, pilot.trials)
    if not np.array_equal(np.sort(drawn), np.sort(pilot.position)):
        raise ValueError(
            "a pilot whose positions this key does not draw; expected the key and the "
            "bits of the pilot, as bits must not be drawn twice"
        )


@functools.lru_cache(maxsize=256)
def _listed(trial):
    def one(number, positions, *args):
        return trial(positions[number], *args)

    return one

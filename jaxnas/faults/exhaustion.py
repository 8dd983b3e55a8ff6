"""The bits that faults select, by number: flipped one by one, located, and listed.

Positions count as a `NetworkModel` counts them: through the selected sites in program
order; in a site through the rounds of its loops, the devices of a mesh, its words in
row-major order and their bits from the lowest.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer, UInt32

from jaxnas.faults.flips import given_flips
from jaxnas.faults.injection import Strike, inject
from jaxnas.faults.models import Fault, NetworkModel, Site
from jaxnas.faults.sites import check_fault, find_sites, selected, windows
from jaxnas.faults.striking import network_key
from jaxnas.faults.trials import trial_key
from jaxnas.rewriting import trace
from jaxnas.types import Key


class Stretch(NamedTuple):
    """The bits of one site.

    number: of the site, among those of memory or among the accumulators.
    start: position of the first bit.
    rounds: of the loops around it whose iterations have bits of their own.
    shards: devices whose words differ.
    """

    site: Site
    number: int
    start: int
    rounds: tuple[int, ...]
    shards: int

    @property
    def words(self) -> int:
        """In one round, on all devices."""
        return self.shards * math.prod(self.site.shape)

    @property
    def all_words(self) -> int:
        return math.prod(self.rounds) * self.words


class Located(NamedTuple):
    """Where bits are, one row for each; fit as labels for `vulnerability_by`.

    number, word: as in a `Strike`.
    iteration: of the loops around the site, as one number.
    channel: index along the last axis of the words, 0 for a scalar: the output channel
        of kernels and the channel of activations.
    """

    site: np.ndarray
    number: Integer[np.ndarray, " flips"]
    iteration: Integer[np.ndarray, " flips"]
    word: Integer[np.ndarray, " flips"]
    channel: Integer[np.ndarray, " flips"]
    bit: Integer[np.ndarray, " flips"]


class SelectedBits(NamedTuple):
    """All bits that a fault selects, as `flip_each` finds them."""

    stretches: tuple[Stretch, ...]

    @property
    def total(self) -> int:
        last = self.stretches[-1]
        return last.start + last.all_words * last.site.format.bits

    def locate(
        self, positions: Integer[Array | np.ndarray, " flips"] | Sequence[int]
    ) -> Located:
        """The site, the word and the bit of each position.

        Raises ValueError for a position that is none of the bits.
        """
        positions = np.asarray(positions, np.int64)
        outside = positions[(positions < 0) | (positions >= self.total)]
        if outside.size:
            raise ValueError(
                f"position {outside[0]}; expected 0 to {self.total - 1}, as the fault "
                f"selects {self.total} bits"
            )
        starts = np.array([stretch.start for stretch in self.stretches])
        place = np.searchsorted(starts, positions, side="right") - 1
        rows = [
            (each.number, each.site.format.bits, each.words, (*each.site.shape, 1))
            for each in self.stretches
        ]
        number, bits, words, shape = zip(*rows, strict=True)
        number, bits, words = (np.array(row)[place] for row in (number, bits, words))
        channels = np.array([row[-2] if len(row) > 1 else 1 for row in shape])[place]
        word, bit = np.divmod(positions - starts[place], bits)
        iteration, word = np.divmod(word, words)
        names = np.array([each.site.name for each in self.stretches])
        return Located(names[place], number, iteration, word, word % channels, bit)

    def positions_of(self, strikes: Sequence[Strike]) -> UInt32[np.ndarray, " flips"]:
        """The bits that differ before and after, ascending.

        Given back to the trial of `flip_each` they make the same faulty run. Of a
        fault of values these are bits of the nearest words, and the run is near.

        Raises:
          ValueError: a strike at a site that is not selected, or, where the bits are
            those of permanent faults, other bits of one word in other iterations.
        """
        known = {(each.site.name, each.number): each for each in self.stretches}
        masks: dict[int, int] = {}
        found = []
        for strike in strikes:
            stretch = known.get((strike.site, strike.number))
            if stretch is None:
                raise ValueError(
                    f"a strike at {strike.site!r}, number {strike.number}; the sites "
                    f"selected are: {', '.join(repr(name) for name, _ in known)}"
                )
            word, mask = _word(strike, stretch), strike.before ^ strike.after
            bits = stretch.site.format.bits
            first = stretch.start + word * bits
            if masks.setdefault(first, mask) != mask:
                raise ValueError(
                    f"word {strike.word} of {strike.site!r} is struck otherwise in "
                    "iterations of its loop; a permanent fault flips the same bits in "
                    "all: select with permanent=False"
                )
            found += [first + bit for bit in range(bits) if mask >> bit & 1]
        return np.unique(np.array(found, np.uint32))

    def drawn(
        self, model: NetworkModel, key: Key, trials: int, *, fault: int = 0
    ) -> UInt32[np.ndarray, "trials flips"]:
        """The positions that the trials of a campaign with this model flip, in order.

        key: that of the campaign, of `inject(fun, *faults)`.
        fault: which of the faults has the model; it must select these bits.

        An entry of `total` is a slot that flips nothing.
        """

        def positions(number):
            own = network_key(trial_key(key, number), fault)
            return model.sample(own, self.total)

        rows = jax.jit(jax.vmap(positions))(jnp.arange(trials))
        return np.asarray(rows)


def _word(strike: Strike, stretch: Stretch) -> int:
    """Row-major index through all rounds."""
    turn = 0
    for length, iteration in zip(stretch.rounds, strike.iteration, strict=False):
        turn = turn * length + iteration
    return turn * stretch.words + strike.word


def flip_each(
    fun: Callable,
    args: tuple,
    *,
    stored: tuple[str, ...] | None = None,
    site: str = "*",
    layers: tuple[int, ...] | None = None,
    where: Callable[[Site], bool] | None = None,
    permanent: bool = False,
) -> tuple[Callable, SelectedBits]:
    """`trial(position, *args)`, which is `fun` with one bit flipped, and all the bits.

    Together with `exhaustive` every bit of every word flips once:

        trial, bits = flip_each(fun, args, stored=("weight",))
        found = exhaustive(trial, args, positions=bits.total, metrics=(sdc1,))

    A row of positions flips all of them in one run: so the run that `strikes` lists is
    repeated by `trial(bits.positions_of(listing), *args)`.

    args: of `fun`; arrays may be given as `jax.ShapeDtypeStruct`, nothing is computed.
    stored, site, layers, where, permanent: as in a `Fault`. A permanent flip is in all
        iterations of a loop, and its bit counts once.

    Raises ValueError as `inject` does for a `NetworkModel`.
    """
    choice = {"stored": stored, "site": site, "layers": layers, "where": where}
    fault = Fault(given_flips([]), permanent=permanent, **choice)
    check_fault(fault)
    found = find_sites(trace(fun, args, {}).closed)
    rows, _ = windows(fault, found, selected(fault, found))
    stretches = tuple(
        Stretch(
            found[place].site,
            found[place].number,
            window.start,
            () if window.once else found[place].rounds,
            math.prod(size for _, size in found[place].shards),
        )
        for place, window in rows.items()
    )

    def trial(position, *args):
        if not isinstance(position, jax.Array):
            position = np.asarray(position)
        own = fault._replace(model=given_flips(position.ravel()))
        # Positions are given: no key makes a difference.
        return inject(fun, own)(jax.random.key(0), *args)

    return trial, SelectedBits(stretches)

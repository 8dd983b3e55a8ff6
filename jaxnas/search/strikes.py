"""Measured resilience as an objective: short fault campaigns during a search.

Networks are compared by the upper limit of an interval of their error under faults, so
that few lucky trials do not beat many ordinary ones. Who survives is struck again every
generation by faults that it has not met, and its interval narrows; all networks meet
the same images and nested faults in a trial, which makes their differences clearer than
their errors (common random numbers).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.devices import map_over_processes
from jaxnas.faults.injection import inject
from jaxnas.faults.kinds import KINDS
from jaxnas.faults.means import Moments, share_interval
from jaxnas.faults.models import Fault
from jaxnas.faults.trials import trial_key
from jaxnas.networks import supernet
from jaxnas.networks.layers import SCHEMES
from jaxnas.networks.space import SearchSpace
from jaxnas.training import NO_LABEL, Images, Labels, Weights

CONFIDENCE = 0.9
"""Of the interval whose upper limit counts: one network in twenty is worse."""


WORDS = SCHEMES[:1]
"""The number scheme of a search; a program that knows no other compiles sooner."""


class Strikes(NamedTuple):
    """What a network is struck by in every generation that it lives."""

    seed: int
    """Of the images and faults of all trials of the search."""
    rate: float
    """Bit flips, per stored bit of weights and activations and per inference."""
    trials: int
    """Fault patterns per generation (count)."""
    images: int
    """Images that meet the same faults of a trial (count)."""


class Tally(NamedTuple):
    """What is known of some networks: all their trials, in exact numbers."""

    trials: Int[Array, " networks"]
    wrong: Int[Array, " networks"]  # images misclassified, of all trials
    squares: Int[Array, " networks"]  # sum of the squares of those of each trial


def no_tally(networks: int) -> Tally:
    """Networks that were never struck."""
    return Tally(*jnp.zeros((3, networks), jnp.int32))


def strike(
    space: SearchSpace,
    weights: Weights,
    genotypes: Int[Array, "networks genes"],
    images: Images,
    labels: Labels,
    strikes: Strikes,
    generation: int,
) -> Tally:
    """The trials of a generation, the same of all networks; `fixed_point` words.

    Generations have different trial numbers. Images without a label, which stand at the
    end, are left out.
    """
    labelled = int(np.sum(np.asarray(labels) != NO_LABEL))
    numbers = generation * strikes.trials + np.arange(strikes.trials, dtype=np.int32)
    wrong = map_over_processes(
        _striker(space, strikes.images, strikes.rate),
        (weights, genotypes),
        jax.random.key(strikes.seed),
        jnp.asarray(numbers),
        images[:labelled],
        labels[:labelled],
    )
    trials = jnp.full(wrong.shape[0], strikes.trials, jnp.int32)
    return Tally(trials, jnp.sum(wrong, axis=1), jnp.sum(wrong**2, axis=1))


def upper_error(tally: Tally, images: int) -> Float[np.ndarray, " networks"]:
    """The upper limit of the error under faults; 1 for networks never struck.

    Of a share whose trials have `images` outcomes each that share their faults.
    """
    trials, wrong, squares = (np.asarray(one, np.int64) for one in tally)
    many = np.maximum(trials, 1)
    mean = np.where(trials > 0, wrong / many / images, 1.0)
    spread = np.maximum(squares / images**2 - many * mean**2, 0.0)
    moments = Moments(many, mean, np.where(trials > 0, spread, 0.0))
    return np.asarray(share_interval(moments, images, CONFIDENCE).high, np.float32)


@functools.cache
def _striker(space, size, rate):
    """Images that each trial gets wrong, of one network."""

    def one(member, key, numbers, images, labels):
        weights, genotype = member

        def network(batch):
            return supernet.apply(space, *weights, genotype, batch, schemes=WORDS)[0]

        faults = [
            Fault(KINDS["bit_flips"](rate, rate), stored=(target,))
            for target in ("weight", "activation")
        ]
        faulty = inject(network, *faults)

        def trial(number):
            choose, strike = jax.random.split(trial_key(key, number))
            chosen = jax.random.randint(choose, (size,), 0, images.shape[0])
            logits = faulty(strike, images[chosen])
            finite = jnp.all(jnp.isfinite(logits), axis=1)
            right = finite & (jnp.argmax(logits, axis=1) == labels[chosen])
            return jnp.sum(~right)

        return jax.lax.map(trial, numbers)

    return one

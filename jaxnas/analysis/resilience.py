"""How fragile a network is against bit errors, from its topology alone.

The scores are a predictor of our own, derived below and fitted in five constants on
small quantised networks (8-bit words, batch normalisation folded, 2-10 layers, trained
on 8x8 digits). They rank architectures; they are not error rates. They are no published
formula. Schorn et al. (2020, Neural Computing and Applications, arXiv 1909.13844) also
predict resilience from topology alone, by a formula of theirs that is not used here.

Derivation. Let an element of a stored map of N elements of variance v be wrong by D.
The relative error energy of the map is then D^2 / (v N).

1. A convolution of fan-in f = k^2 C spreads D^2 over k^2 C' outputs of variance v',
   each with D^2 v' / (f v): the relative energy of the next map is again D^2 / (v N).
   Normalised, trained layers keep it, rectifier included: the gain of a layer is 1.
2. A shortcut h = y + s adds variances. What either branch loses in relative energy the
   other one carries, so the gain stays 1 and shortcuts drop out.
3. A flipped bit is mostly a zero turned into a large value, which wins a max-pooling:
   every pooling on the way to the output multiplies the energy by pi = 1.6 (fitted).
4. At a fixed rate of bit errors the number of wrong words of a map is proportional to
   N, which cancels. What is left of a map is its source strength E[D^2] / v, which
   grows with the range that its words must span in units of the deviation: sums of few
   products have heavy tails, (1 + 4 / f); depthwise layers and maps that are not
   rectified span more, rho = 2.7 instead of 1 (all fitted).
5. A larger network tolerates more: n^-0.2 for n weights (empirical).
6. A wrong weight of layer l perturbs one of C' channels by D^2 / (f v_w), a relative
   energy proportional to 1 / n_l. A given number of flips hits layer l with
   probability n_l / n, so the sum over L layers is L / n. At a fixed rate the number of
   flips cancels n; the redundancy of 5 remains, for weights best as n^-1/2 (empirical).

All scores are float32, larger means more fragile, and are zero for a table that has no
layer. They accept tables with leading axes. Rows count that are layers with kernels;
products of two maps and vector operations do not.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num
from scipy import stats

from jaxnas.topology import (
    LayerTable,
    fan_in,
    layers,
    output_elements,
    over_layers,
    weights,
)

POOLING_GAIN = 1.6  # error energy after one max-pooling, relative to that before
WIDE_RANGE = 2.7  # source strength of depthwise and of unrectified maps
FEW_PRODUCTS = 4.0  # fan-in below which heavy tails double the source strength
REDUNDANCY = -0.2  # exponent of the number of weights, for activation errors

Score = Float[Array, "*batch"]
Scores = Num[np.ndarray | Array, " _"]  # one per network; the lengths are checked


def activation_fragility(table: LayerTable) -> Score:
    """Fragility at a fixed rate of bit errors in stored maps.

    S_a = n^-0.2 sum_t rho_t (1 + 4 / f_t) 1.6^(max-poolings after t) over the layers t
    whose result is stored, with steps 3 to 5 of the derivation.
    """
    table = layers(table)
    stored = jnp.where(table.mask, table.stored, 0).astype(jnp.float32)
    few = 1.0 + FEW_PRODUCTS / jnp.maximum(fan_in(table), 1.0)
    pools = jnp.where(table.mask, table.pools_after, 0).astype(jnp.float32)
    strength = jnp.where(_wide_range(table), WIDE_RANGE, 1.0)
    # As an exponential, which compilers vectorise; a power they call number by number.
    gain = jnp.exp(pools * math.log(POOLING_GAIN))
    total = over_layers(stored * strength * few * gain)
    return total * _weights(table) ** REDUNDANCY


def single_activation_fragility(table: LayerTable) -> Score:
    """Fragility against one flipped bit somewhere in the stored maps.

    S_b = S_a / N, with N the elements of all stored maps.
    """
    stored = jnp.where(layers(table).mask, table.stored, 0).astype(jnp.float32)
    elements = over_layers(stored * output_elements(table))
    return activation_fragility(table) / jnp.maximum(elements, 1.0)


def weight_fragility(table: LayerTable) -> Score:
    """Fragility at a fixed rate of bit errors in weights: S_c = L / sqrt(n)."""
    return _layers(table) / jnp.sqrt(_weights(table))


def few_weight_flips_fragility(table: LayerTable) -> Score:
    """Fragility against a fixed, small number of flipped weight bits: S_d = L / n."""
    return _layers(table) / _weights(table)


def _wide_range(table: LayerTable):
    groups = jnp.asarray(table.groups)
    depthwise = (groups > 1) & (groups == table.in_channels)
    return depthwise | (jnp.asarray(table.rectified) == 0)


def _weights(table: LayerTable) -> Score:
    return jnp.maximum(over_layers(weights(table)), 1.0)


def _layers(table: LayerTable) -> Score:
    return over_layers(jnp.asarray(layers(table).mask).astype(jnp.float32))


class Agreement(NamedTuple):
    """Spearman's rank correlation with a bootstrap interval; `pairs` networks."""

    spearman: float
    low: float
    high: float
    pairs: int


def rank_agreement(
    predicted: Scores,
    measured: Scores,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Spearman's correlation of two scores of the same networks, ties at mean rank.

    The interval holds the central `confidence` of the correlations of `resamples`
    draws of networks with replacement (percentile bootstrap). A draw in which one of
    the scores is constant has no correlation and is left out.

    Raises:
      ValueError: for fewer than three pairs, unequal lengths, values that are not
        finite or all equal, or a confidence outside (0, 1).
    """
    pairs = np.stack(_scores(predicted, measured))
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"found confidence {confidence}, expected one in (0, 1)")
    count = pairs.shape[1]
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    drawn = _spearman(*pairs[:, draws])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(drawn[np.isfinite(drawn)], tails)
    return Agreement(float(_spearman(*pairs)), float(low), float(high), count)


def _scores(predicted, measured) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    sizes = [score.size for score in scores]
    if sizes[0] != sizes[1] or min(sizes) < 3:
        raise ValueError(
            f"found {sizes[0]} predicted and {sizes[1]} measured scores, expected "
            "equally many and at least three: give one pair per network"
        )
    for name, score in zip(("predicted", "measured"), scores, strict=True):
        if not np.isfinite(score).all():
            raise ValueError(
                f"found {name} scores not finite: leave those networks out"
            )
        if np.ptp(score) == 0:
            raise ValueError(
                f"found the same {name} score {score[0]} for all networks, which gives "
                "no ranks to compare: give networks that differ"
            )
    return scores


def _spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation of the ranks along the last axis; NaN where one is constant."""
    ranks = [stats.rankdata(values, axis=-1) for values in (first, second)]
    a, b = (r - r.mean(axis=-1, keepdims=True) for r in ranks)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    product = (a * b).sum(-1)
    return np.divide(product, scale, out=np.full_like(scale, np.nan), where=scale > 0)

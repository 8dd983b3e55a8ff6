"""Fragility scores against the formulas by hand, and the statistics of agreement."""

import jax
import numpy as np
import pytest
from scipy import stats
from table_helpers import table

from jaxnas.analysis import resilience
from jaxnas.analysis.resilience import rank_agreement
from jaxnas.topology import KINDS, MAP_PRODUCT, LayerTable, stack

SCORES = [
    resilience.activation_fragility,
    resilience.single_activation_fragility,
    resilience.weight_fragility,
    resilience.few_weight_flips_fragility,
]


def layer(**columns):
    """A stored, rectified layer; columns that are not named are one."""
    return dict(pools_after=0) | columns


STEM = layer(
    in_channels=3,
    out_channels=8,
    kernel_height=3,
    kernel_width=3,
    out_height=8,
    out_width=8,
    pools_after=2,
)
DEPTHWISE = layer(
    in_channels=8,
    out_channels=8,
    groups=8,
    kernel_height=3,
    kernel_width=3,
    out_height=2,
    out_width=2,
)
LINEAR = layer(in_channels=8, out_channels=12, out_height=2, out_width=2, rectified=0)
DENSE = layer(in_channels=12, out_channels=10, stored=0, rectified=0)
MASKED = layer(mask=0, in_channels=64, out_channels=64, pools_after=30)

NETWORK = table(STEM, MASKED, DEPTHWISE, LINEAR, DENSE)
WEIGHTS = 27 * 8 + 9 * 8 + 8 * 12 + 12 * 10
ELEMENTS = 512 + 32 + 48


def test_scores_equal_the_formulas_by_hand():
    terms = (1 + 4 / 27) * 1.6**2 + 2.7 * (1 + 4 / 9) + 2.7 * (1 + 4 / 8)
    activation = WEIGHTS**-0.2 * terms
    expected = [
        activation,
        activation / ELEMENTS,
        4 / WEIGHTS**0.5,
        4 / WEIGHTS,
    ]
    found = [score(NETWORK) for score in SCORES]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_convolution_of_one_channel_is_not_depthwise():
    plain = layer(in_channels=1, out_channels=5, kernel_height=3, kernel_width=3)
    score = resilience.activation_fragility(table(plain))
    np.testing.assert_allclose(score, 45**-0.2 * (1 + 4 / 9), rtol=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_a_table_without_layers_scores_zero(score):
    for nothing in (
        NETWORK._replace(mask=np.zeros(5, bool)),
        LayerTable(*(np.zeros_like(column) for column in NETWORK)),
    ):
        assert score(nothing) == 0


@pytest.mark.parametrize("score", SCORES)
def test_scores_are_the_same_eager_jitted_vmapped_and_with_leading_axes(score):
    tables = [NETWORK, table(STEM, DENSE)]
    expected = np.array([score(one) for one in tables])
    for found in (jax.jit(jax.vmap(score))(stack(tables)), score(stack(tables))):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert expected[0] != expected[1]


@pytest.mark.parametrize("score", SCORES)
def test_rows_without_a_kernel_do_not_count(score):
    others = [layer(kind=kind) for kind in range(MAP_PRODUCT, len(KINDS))]
    more = table(STEM, others[0], DEPTHWISE, *others[1:], LINEAR, DENSE)
    np.testing.assert_allclose(score(more), score(NETWORK), rtol=1e-6)


def test_another_pooling_makes_a_map_more_fragile_by_its_factor():
    one, two = (table(STEM | dict(pools_after=pools)) for pools in (1, 2))
    ratio = resilience.activation_fragility(two) / resilience.activation_fragility(one)
    np.testing.assert_allclose(ratio, 1.6, rtol=1e-6)


def test_agreement_is_the_correlation_of_ranks_with_ties_at_their_mean():
    draw = np.random.default_rng(0)
    predicted = draw.integers(0, 8, 40)
    measured = predicted + draw.normal(size=40).round(1)
    agreement = rank_agreement(predicted, measured)
    expected = stats.spearmanr(predicted, measured).statistic
    np.testing.assert_allclose(agreement.spearman, expected, rtol=1e-12)
    assert agreement.low < agreement.spearman < agreement.high <= 1
    assert agreement.pairs == 40


def test_agreement_sees_ranks_alone():
    draw = np.random.default_rng(1)
    predicted, measured = draw.normal(size=(2, 25)) + draw.normal(size=25)[None]
    plain = rank_agreement(predicted, measured)
    assert rank_agreement(np.exp(predicted), measured**3) == plain
    opposite = rank_agreement(-predicted, measured)
    np.testing.assert_allclose(opposite.spearman, -plain.spearman, rtol=1e-12)
    np.testing.assert_allclose(opposite.low, -plain.high, rtol=1e-12)


def test_perfect_agreement_leaves_no_interval():
    scores = np.arange(10.0) ** 2
    np.testing.assert_allclose(rank_agreement(scores, scores)[:3], 1.0, rtol=1e-12)


def test_interval_covers_the_true_correlation_as_often_as_it_says():
    draw, correlation, trials = np.random.default_rng(2), 0.6, 200
    # Spearman's correlation of two normal variables of that (Pearson's) correlation.
    truth = 6 / np.pi * np.arcsin(correlation / 2)
    covered = 0
    for _ in range(trials):
        first, noise = draw.normal(size=(2, 40))
        second = correlation * first + (1 - correlation**2) ** 0.5 * noise
        found = rank_agreement(first, second, confidence=0.9, resamples=200)
        covered += found.low <= truth <= found.high
    # Three standard deviations of a proportion, and the bias of the percentiles.
    assert 0.82 < covered / trials < 0.97


def test_wider_confidence_gives_a_wider_interval():
    first, second = np.random.default_rng(3).normal(size=(2, 30))
    narrow = rank_agreement(first, second, confidence=0.5)
    wide = rank_agreement(first, second, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("predicted", "measured", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0], "3 predicted and 2 measured"),
        ([1.0, 2.0], [1.0, 2.0], "at least three"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], "predicted scores not finite"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "same measured score 2.0"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(predicted, measured, message):
    with pytest.raises(ValueError, match=message):
        rank_agreement(np.array(predicted), np.array(measured))


def test_impossible_confidence_is_refused():
    with pytest.raises(ValueError, match="confidence 95"):
        rank_agreement(np.arange(3.0), np.arange(3.0), confidence=95.0)

"""FTT-NAS faults: exact probabilities, biases by powers of two, stuck magnitudes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnas.faults.ftt import biased_features, mac_rate, stuck_weights
from jaxnas.numerics import FixedPoint

KEY = jax.random.key(0)
FORMAT = FixedPoint(bits=8)
ZEROS = jnp.zeros(400_000).at[7].set(3.0)  # The peak, three, makes steps of 2**-5.
VALUES = jnp.asarray(np.random.default_rng(0).integers(-96, 97, (400, 500)) / 32.0)


def faulted(model, values):
    assert model.on == "values"
    return np.asarray(model.apply(model.sample(KEY, values.shape, FORMAT), values))


@pytest.mark.parametrize("macs, expected", [(576, 0.0560), (9, 0.0009), (64, 0.00638)])
def test_features_fail_as_often_as_one_of_their_operations(macs, expected):
    assert mac_rate(1e-4, macs) == pytest.approx(1 - (1 - 1e-4) ** macs, rel=1e-5)
    assert mac_rate(1e-4, macs) == pytest.approx(expected, rel=1e-2)
    wrong = np.delete(faulted(biased_features(1e-4, macs), ZEROS), 7) != 0
    law = stats.binomtest(int(wrong.sum()), wrong.size, 1 - (1 - 1e-4) ** macs)
    assert law.pvalue > 1e-4


def test_biases_are_powers_of_two_steps_of_either_sign_within_the_peak():
    found = np.delete(faulted(biased_features(1e-3, 50), ZEROS), 7)
    biases, counts = np.unique(found[found != 0], return_counts=True)
    # The largest bias, 2**7 steps of 2**-5, is clipped from four to three.
    powers = np.minimum(2.0 ** np.arange(-5, 3), 3)
    np.testing.assert_array_equal(biases, [*-powers[::-1], *powers])
    assert stats.chisquare(counts).pvalue > 1e-4
    values = faulted(biased_features(1e-3, 50), VALUES)
    assert np.abs(values).max() == 3 and (values != VALUES).mean() > 0.02


def test_steps_follow_the_power_of_two_above_the_peak():
    for peak, step in ((4.0, 2.0**-5), (4.01, 2.0**-4), (0.5, 2.0**-8)):
        values = jnp.zeros(1000).at[0].set(peak)
        found = np.abs(np.delete(faulted(biased_features(0.9, 9), values), 0))
        assert found[found > 0].min() == step
    assert not faulted(biased_features(0.9, 9), jnp.zeros(1000)).any()


def test_traced_rates_nest_and_zero_leaves_features_alone():
    @jax.jit
    def found(rate):
        model = biased_features(rate, 9, max_rate=0.05)
        return model.apply(model.sample(KEY, (1000,), FORMAT), VALUES.ravel()[:1000])

    clean, few, many = found(0.0), found(0.01), found(0.05)
    np.testing.assert_array_equal(clean, VALUES.ravel()[:1000])
    struck = few != clean
    np.testing.assert_array_equal(few[struck], many[struck])
    assert 0 < struck.sum() < (many != clean).sum()


def test_cells_stick_at_zero_or_at_the_peak_with_the_sign_of_the_weight():
    values = VALUES + jnp.where(VALUES < 0, -0.01, 0.01)  # Neither zero nor the peak.
    values = values.at[0, 0].set(5.0)
    found = faulted(stuck_weights(0.08), values)
    zero, high = (found == 0), (np.abs(found) == 5) & (np.abs(values) != 5)
    for stuck, rate in ((zero, 0.08 * 0.837), (high, 0.08 * 0.163)):
        assert stats.binomtest(int(stuck.sum()), stuck.size, rate).pvalue > 1e-4
    np.testing.assert_array_equal(np.sign(found[high]), np.sign(values[high]))
    rest = ~(zero | high)
    np.testing.assert_array_equal(found[rest], values[rest])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: biased_features(1.1, 9), "0 <= rate"),
        (lambda: biased_features(0.1, 0), "macs=0"),
        (lambda: biased_features(0.1, 9, bits=0), "bits=0"),
        (lambda: stuck_weights(-0.1), "0 <= rate"),
        (lambda: stuck_weights(0.1, share_high=1.1), "1.1"),
    ],
)
def test_impossible_faults_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

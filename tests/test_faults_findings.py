"""Intervals of what was found, and campaigns that end once they are narrow enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.campaigns import campaign
from jaxnas.faults.findings import Campaign, stop_at
from jaxnas.faults.means import mean_interval, moments_of
from jaxnas.faults.sequential import mean_rule, share_rule
from jaxnas.faults.statistics import clustered_wilson_interval
from jaxnas.faults.vulnerability import vulnerability_by

KEY = jax.random.key(5)
INPUTS = 6


def faulty(key):
    """Six inputs that a trial strikes with a probability of its own."""
    rate, inputs = jax.random.split(key)
    return jax.random.bernoulli(inputs, 0.4 * jax.random.uniform(rate), (INPUTS,))


def struck(golden, faulty, labels):
    return jnp.mean(faulty)


def excess(golden, faulty, labels):
    return jnp.sum(faulty) - 1.5


def run(**options):
    metrics = {"struck": struck, "excess": excess}
    return campaign(faulty, key=KEY, trials=4000, metrics=metrics, **options)


@pytest.fixture(scope="module")
def whole():
    return run()


RULES = {
    "struck": share_rule(0.02, size=INPUTS),
    "excess": mean_rule(0.1),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("chunk", [None, 70, 999])
def test_campaigns_stop_at_the_same_trial_whatever_the_chunk(whole, name, chunk):
    rule, column = RULES[name], whole.columns[name]
    look = 100
    while not rule.done(moments_of(column[:look])):
        look = look * 5 // 4
    assert 200 < look < 3000
    found = run(chunk=chunk, stop=stop_at(rule, name))
    assert found.stopped and found.trials == look
    np.testing.assert_array_equal(found.columns[name], column[:look])
    interval = found.interval if name == "struck" else found.mean_interval
    low, high = interval(name)
    assert (low, high) == pytest.approx(rule.interval(moments_of(column[:look])))
    assert 0 < high - low <= 2 * (0.02 if name == "struck" else 0.1)
    # The truth: inputs are struck with probability 0.2.
    assert low < (0.2 if name == "struck" else -0.3) < high


def test_intervals_are_those_of_the_columns(whole):
    counts = np.rint(whole.columns["struck"] * INPUTS).astype(int)
    expected = clustered_wilson_interval(counts, INPUTS, 0.9)
    assert whole.interval("struck", 0.9) == expected
    expected = mean_interval(moments_of(counts - 1.5), 0.8)
    assert whole.mean_interval("excess", 0.8) == pytest.approx(expected)
    labels = {"odd": np.arange(4000) % 2}
    table = whole.vulnerability("struck", labels, 0.9)
    rows = zip(table, vulnerability_by(labels, counts, INPUTS, 0.9), strict=True)
    assert all(np.array_equal(*row) for row in rows if not isinstance(row[0], dict))
    assert table.share[1] == pytest.approx(counts[1::2].mean() / INPUTS)


def test_columns_that_support_no_interval_are_refused(whole):
    for call in (whole.interval, whole.mean_interval):
        with pytest.raises(ValueError, match=r"no column 'sdc1'.*'excess'"):
            call("sdc1")
    for call in (whole.interval, lambda name: whole.vulnerability(name, {})):
        with pytest.raises(ValueError, match="not the share of 6 inputs"):
            call("excess")
    with pytest.raises(ValueError, match="no column 'sdc1'"):
        stop_at(RULES["struck"], "sdc1")(whole.columns)
    broken = {"distance": np.array([1.0, np.nan])}
    options = {"trials": 2, "stopped": False, "inputs": 1, "replay": str}
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        Campaign(columns=broken, **options).mean_interval("distance")

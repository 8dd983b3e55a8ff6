"""A campaign is a function of key and number, whoever computes it and how often."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from campaign_helpers import METRICS, TRIALS, digest, faulty, problem, run

from jaxnas.faults import outcomes
from jaxnas.faults.campaigns import campaign, exhaustive, fastest_batch
from jaxnas.faults.records import read_records
from jaxnas.faults.statistics import clustered_wilson_interval
from jaxnas.faults.trials import trial_key

pytestmark = pytest.mark.usefixtures("compiled_fully")

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("campaigns")


@pytest.fixture(scope="module")
def report(root):
    """What the program in `campaign_helpers` found in processes of its own."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(here / "campaign_helpers.py"), str(root), "1"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(root):
    """The campaign in this process, without interruption, and its records."""
    return run(records=root / "here"), root / "here"


def same(found, expected, rows):
    assert list(found) == list(expected)
    for name, column in found.items():
        assert column.shape == (rows,)
        assert column.tobytes() == expected[name][:rows].tobytes(), name


def test_records_depend_on_no_device_process_chunk_or_kill(report, whole):
    expected = digest(whole[1])
    names = {"two", "eight", "processes", "killed"}
    assert report["digests"] == dict.fromkeys(names, expected)


def test_kills_came_at_ten_moments_of_one_campaign(report, whole):
    sizes = report["sizes"]
    full = sum(path.stat().st_size for path in whole[1].glob("*.bin"))
    assert len(sizes) == 10 and sizes == sorted(sizes) and sizes[-1] < full
    assert len(set(sizes)) > 5


def test_columns_are_the_metrics_of_single_trials(whole):
    found, args = whole[0], problem()
    assert found.trials == TRIALS and found.inputs == 8 and not found.stopped
    single = jax.jit(faulty)
    for i in (0, 1, 5, TRIALS - 1, *np.flatnonzero(found.columns["due"])[:3]):
        i = int(i)
        outputs = single(trial_key(KEY, i), *args[0])
        for metric in METRICS:
            expected = metric(jnp.asarray(args[1]), outputs, jnp.asarray(args[2]))
            value = found.columns[metric.__name__][i]
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_replays_are_the_trials_of_the_campaign(whole):
    columns, golden = whole[0].columns, problem()[1]
    known = set()
    for i in (3, 4, TRIALS - 1, int(np.argmax(columns["sdc1"]))):
        again = whole[0].replay(i)
        assert again.dtype == np.float32 and again.shape == golden.shape
        changed = again.argmax(1) != golden.argmax(1)
        finite = np.isfinite(again).all(1)
        assert columns["sdc1"][i] == np.mean(changed & finite)
        assert columns["due"][i] == np.mean(~finite)
        known.add(again.tobytes())
    assert len(known) == 4
    with pytest.raises(ValueError, match="trial -1"):
        whole[0].replay(-1)


def pattern(golden, faulty, labels):
    """The exclusive or of all words of the outputs: any changed bit shows."""
    words = jax.lax.bitcast_convert_type(faulty, jnp.uint32)
    return jax.lax.reduce(words, jnp.uint32(0), jax.lax.bitwise_xor, (0, 1))


def test_replays_have_the_bits_of_the_campaign():
    metrics = (pattern, outcomes.output_distance)
    options = {"trials": 12, "key": KEY, "metrics": metrics, "golden": problem()[1]}
    found = campaign(faulty, problem()[0], **options)
    for i in range(12):
        words = found.replay(i).view(np.uint32)
        assert found.columns["pattern"][i] == np.bitwise_xor.reduce(words, axis=None)
    assert len(set(found.columns["pattern"].tolist())) > 6


def test_networks_without_finite_outputs_are_counted(whole):
    due = whole[0].columns["due"]
    assert 0 < due.mean() < 0.5 and {0, 1} < set(due.tolist())
    found = campaign(
        lambda key, x: jnp.where(x > 0, jnp.nan, jnp.inf) * x,
        (jnp.ones((3, 6)),),
        key=KEY,
        trials=3,
        metrics=(outcomes.due, outcomes.masked, outcomes.sdc1),
        golden=np.ones((3, 6), np.float32),
    )
    for name, value in {"due": 1, "masked": 0, "sdc1": 0}.items():
        np.testing.assert_array_equal(found.columns[name], np.full(3, value))


@pytest.mark.parametrize("chunk", [7, 100])
def test_chunks_make_no_difference(whole, chunk):
    same(run(trials=100, chunk=chunk).columns, whole[0].columns, 100)


def test_batches_are_the_same_groups_in_any_chunk(whole):
    one, other = (run(trials=50, batch=4, chunk=chunk) for chunk in (6, 50))
    same(one.columns, other.columns, 50)
    for name, column in one.columns.items():
        expected = whole[0].columns[name][:50]
        np.testing.assert_allclose(column, expected, rtol=1e-4, err_msg=name)
    assert one.replay(5).tobytes() == other.replay(5).tobytes()
    np.testing.assert_allclose(one.replay(5), whole[0].replay(5), rtol=1e-4)


def asked(look, **options):
    """The numbers of trials at which a rule was asked that stops at `look`."""
    lengths = []

    def stop(columns):
        assert list(columns) == [metric.__name__ for metric in METRICS]
        lengths.extend({len(column) for column in columns.values()})
        return lengths[-1] >= look

    return run(trials=300, stop=stop, **options), lengths


def test_a_rule_is_asked_at_numbers_fixed_beforehand(whole, tmp_path):
    folder = tmp_path / "r"
    for chunk in (100, 7):
        found, lengths = asked(150, chunk=chunk)
        assert lengths == [100, 125, 156] and found.stopped and found.trials == 156
        same(found.columns, whole[0].columns, 156)
    found, lengths = asked(150, chunk=7, records=folder, looks=[20, 160, 290])
    assert lengths == [20, 160] and found.trials == 160
    before = digest(folder)
    # Continued: asked again about what is there, which stays as it is.
    found, lengths = asked(20, chunk=7, records=folder, resume=True, looks=[20, 160])
    assert lengths == [20] and found.trials == 20 and digest(folder) == before
    same(found.columns, whole[0].columns, 20)
    found, lengths = asked(999, chunk=7, records=folder, resume=True, looks=[20, 200])
    assert lengths == [20, 200] and found.trials == 300 and not found.stopped
    same(found.columns, whole[0].columns, 300)


def test_records_are_continued_by_the_same_campaign_only(whole, tmp_path):
    folder = tmp_path / "r"
    run(trials=40, chunk=7, records=folder)
    found = run(trials=90, chunk=7, records=folder, resume=True)
    same(found.columns, whole[0].columns, 90)
    assert all(isinstance(column, np.memmap) for column in found.columns.values())
    same(run(trials=9, chunk=7, records=folder, resume=True).columns, found.columns, 9)
    before = digest(folder)
    for options, name in (
        ({}, "resume=True"),
        ({"resume": True, "batch": 4}, "batch: 1 there"),
        ({"resume": True, "description": {"rate": 1}}, "description: {} there"),
    ):
        with pytest.raises(ValueError, match=name):
            run(trials=90, chunk=7, records=folder, **options)
    assert digest(folder) == before
    about = read_records(folder).about
    assert about["key"][1:] == jax.random.key_data(KEY).tolist()


def flip(position, weights, x):
    """Bit `position` of 8-bit two's complement weights, counted along the words."""
    words = weights.ravel().view(jnp.uint8)
    mask = (jnp.uint8(1) << (position % 8).astype(jnp.uint8)).astype(jnp.uint8)
    flipped = words.at[position // 8].set(words[position // 8] ^ mask)
    return x @ flipped.view(jnp.int8).reshape(weights.shape).astype(jnp.float32)


def change(golden, faulty, labels):
    return jnp.sum(faulty - golden)


def test_every_bit_of_a_linear_layer_once():
    """The output of word (i, j) changes by x_i * dw, with dw = +-2^k by bit k."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (4, 6)).astype(np.int8)
    x = rng.integers(-9, 10, (5, 4)).astype(np.float32)
    found = exhaustive(
        flip,
        (weights, x),
        positions=weights.size * 8,
        metrics=(change, outcomes.sdc1),
        golden=x @ weights.astype(np.float32),
        chunk=50,
    )
    bits = weights.view(np.uint8)[..., None] >> np.arange(8, dtype=np.uint8) & 1
    place = np.array([1, 2, 4, 8, 16, 32, 64, -128])
    delta = np.where(bits == 1, -place, place)
    expected = x.sum(0)[:, None, None] * delta
    np.testing.assert_array_equal(found.columns["change"], expected.ravel())
    assert found.trials == 192 and 0 < found.columns["sdc1"].mean() < 1
    top = 8 * 7 + 7  # the sign of word 7, in row 1 and column 1
    struck = x @ weights.astype(np.float32)
    struck[:, 1] += x[:, 1] * delta[1, 1, 7]
    np.testing.assert_array_equal(found.replay(top), struck)


def test_intervals_count_the_inputs_that_share_a_fault(whole):
    found = whole[0]
    counts = np.rint(found.columns["sdc1"] * 8).astype(int)
    assert found.interval("sdc1", 0.9) == clustered_wilson_interval(counts, 8, 0.9)
    with pytest.raises(ValueError, match="not the share of 8 inputs"):
        found.interval("output_distance")
    with pytest.raises(ValueError, match="columns are"):
        found.interval("sdc2")


def never(key, *args):
    raise AssertionError("work began")


@pytest.mark.parametrize(
    "options, match",
    [
        ({"trials": 0}, "trials=0"),
        ({"trials": 2**31}, "2\\*\\*31"),
        ({"batch": 0}, "batch=0"),
        ({"chunk": -1}, "chunk=-1"),
        ({"golden": np.array([[1.0, np.nan]])}, "1 golden outputs are NaN"),
        ({"golden": np.array([[np.inf, np.inf]])}, "2 golden outputs"),
        ({"stop": bool, "looks": [5, 5]}, "ascending"),
        ({"stop": bool, "looks": [0, 5]}, "ascending"),
        ({"metrics": (change, change)}, "share a name"),
        ({"metrics": ()}, "no metrics"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, match, tmp_path):
    good = {"trials": 3, "metrics": (change,), "records": tmp_path / "r"}
    with pytest.raises(ValueError, match=match):
        campaign(never, (), key=KEY, **(good | options))
    assert not (tmp_path / "r").exists()


def slow(values):
    time.sleep(0.01)
    return values


def sleepy(key, x):
    """As long for many trials together as for one."""
    kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(slow, kind, x + key[0], vmap_method="expand_dims")


def test_the_fastest_batch_is_measured():
    raw = jax.random.PRNGKey(0)
    options = {"key": raw, "metrics": (outcomes.due,), "seconds": 0.1}
    best = fastest_batch(sleepy, (jnp.ones((2, 2)),), candidates=(8, 1), **options)
    assert best == 8
    with pytest.raises(ValueError, match="no candidates"):
        fastest_batch(sleepy, (), candidates=(), **options)

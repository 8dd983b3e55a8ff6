"""Items parted over devices give what a loop gives, bit for bit, on any number."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnas.devices import across_processes, map_over_devices

pytestmark = pytest.mark.usefixtures("compiled_fully")


def chaotic(item, gain, shift):
    """Thousands of roundings: any other order of operations gives other bits."""
    start, times = item["start"], item["times"]

    def step(number, x):
        return jnp.sin(x * gain) + shift * jnp.mean(x) + 1e-3 * number

    values = lax.fori_loop(0, times, step, start)
    return {"values": values, "key": jax.random.key_data(item["key"]), "times": times}


def items(count):
    rng = np.random.default_rng(1)
    return {
        "start": jnp.asarray(rng.normal(size=(count, 4)), jnp.float32),
        "times": jnp.arange(count, dtype=jnp.int32) * 7 + 20,
        "key": jax.random.split(jax.random.key(2), count),
    }


SHARED = jnp.float32(2.7), jnp.array([0.3, -0.2, 0.7, 1.1])


def member(group, index):
    return jax.tree.map(lambda leaf: leaf[index], group)


def run(count):
    return map_over_devices(chaotic, items(count), *SHARED)


def bits(results):
    return np.asarray(results["values"]).view(np.uint32).tolist()


@pytest.mark.parametrize("count", [1, 4])
def test_equals_a_loop(count):
    group, one = items(count), jax.jit(chaotic)
    found = run(count)
    for index in range(count):
        expected = one(member(group, index), *SHARED)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert found[name].shape == (count, *value.shape)
            np.testing.assert_array_equal(found[name][index], value)


def test_items_do_not_meet():
    """A NaN in one item stays there, and an item alone is an item in company."""
    group = items(4)
    group["start"] = group["start"].at[1, 2].set(jnp.nan)
    values = np.asarray(map_over_devices(chaotic, group, *SHARED)["values"])
    clean = np.asarray(run(4)["values"])
    assert np.isnan(values[1]).all()
    np.testing.assert_array_equal(values[[0, 2, 3]], clean[[0, 2, 3]])


def divided(item, values):
    """A division that a program for several devices does not simplify as others do."""
    kept = values > item
    return jnp.sum(jnp.where(kept, values / jnp.sum(kept), 0))


def quotients(count):
    rng = np.random.default_rng(3)
    values = jnp.asarray(rng.normal(size=50), jnp.float32)
    levels = jnp.asarray(rng.normal(size=count), jnp.float32)
    return np.asarray(map_over_devices(divided, levels, values))


def test_a_single_process_gathers_its_own():
    found = across_processes({"a": np.arange(3), "b": np.float32(2)})
    np.testing.assert_array_equal(found["a"], [[0, 1, 2]])
    np.testing.assert_array_equal(found["b"], [2])


PROCESSES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import jax
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[3]))
import test_devices as tests
from jaxnas.devices import map_over_processes
group = tests.items(3)
results = map_over_processes(tests.chaotic, group, *tests.SHARED)
print(json.dumps({"processes": jax.process_count(), "bits": tests.bits(results)}))
"""


def test_two_processes_share_items_and_get_all_results():
    """One has two devices, the other one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    command = [sys.executable, "-c", PROCESSES, str(here), str(port)]
    both = [
        subprocess.Popen(
            [*command, str(number)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(2 - number)},
            cwd=here.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in both:
        report = json.loads(process.communicate()[0].splitlines()[-1])
        assert report == {"processes": 2, "bits": bits(run(3))}


COUNTS = (1, 3, 4, 5)
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import jax
import test_devices as tests
results = [tests.run(count) for count in tests.COUNTS]
print(json.dumps({
    "devices": jax.device_count(),
    "bits": [tests.bits(result) for result in results],
    "quotients": [tests.quotients(count).view("u4").tolist() for count in (1, 40)],
}))
"""


def test_three_devices_give_the_same_bits():
    """With fewer items than devices, as many, and numbers they do not divide."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu"}
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(here)],
        env=environment,
        cwd=here.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["devices"] == 3
    assert jax.device_count() != 3
    assert report["bits"] == [bits(run(count)) for count in COUNTS]
    assert report["quotients"] == [quotients(n).view("u4").tolist() for n in (1, 40)]


PRODUCT = """
import sys
sys.path.insert(0, sys.argv[1])
import jax
import test_devices as tests
print(jax.device_count(), tests.product().tobytes().hex())
"""


def product():
    """784 terms a sum, few sums: what XLA's threads would share out."""
    rng = np.random.default_rng(3)
    left, right = (rng.normal(size=(784, n)).astype(np.float32) for n in (64, 10))
    return np.asarray(jax.jit(lambda a, b: a.T @ b)(left, right))


def test_a_long_sum_is_the_same_on_one_device_and_on_eight():
    """In processes that nobody told how many threads to have."""
    pools = {"PJRT_NPROC", "NPROC"}
    kept = {name: value for name, value in os.environ.items() if name not in pools}
    here = Path(__file__).parent
    found = {}
    for devices in ("1", "8"):
        done = subprocess.run(
            [sys.executable, "-c", PRODUCT, str(here)],
            env=kept | {"JAX_NUM_CPU_DEVICES": devices, "JAX_PLATFORMS": "cpu"},
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        count, found[devices] = done.stdout.split()
        assert count == devices
    assert found["1"] == found["8"]

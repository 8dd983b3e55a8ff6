"""Exact round trips, damage, and processes killed while they save."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.checkpoints import latest_step, restore, save


class State(NamedTuple):
    params: dict
    key: jax.Array
    step: int


def state(seed=0):
    rng = np.random.default_rng(seed)
    every_bit = rng.integers(0, 2**32, 64, np.uint32).view(np.float32)
    params = {
        "block": [{"kernel": jnp.asarray(every_bit)}, {}],
        "half": jnp.asarray(rng.standard_normal((2, 3)), jnp.bfloat16),
        "empty": jnp.zeros((0, 3), jnp.int8),
        "mask": np.array([True, False]),
        "wide": np.array(2**40 + seed),
        "name.with/odd ['signs']": np.arange(3, dtype=np.uint16),
    }
    return State(params, jax.random.key_data(jax.random.key(seed)), seed)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_every_dtype_comes_back_bit_for_bit(tmp_path, capfd):
    save(tmp_path / "c", 3, state())
    assert_same(restore(tmp_path / "c", state(1)), state())
    shapes = jax.eval_shape(lambda: {"x": jnp.zeros(3)})
    save(tmp_path / "d", 0, {"x": jnp.arange(3.0)})
    assert_same(restore(tmp_path / "d", shapes), {"x": jnp.arange(3.0)})
    assert capfd.readouterr() == ("", "")


def test_the_newest_steps_stay(tmp_path):
    assert latest_step(tmp_path / "none") is None
    for step in (0, 5, 7):
        save(tmp_path, step, state(step))
    assert latest_step(tmp_path) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "7"]
    assert_same(restore(tmp_path, state(), step=5), state(5))
    assert_same(restore(tmp_path, state()), state(7))


def test_what_a_killed_process_leaves_is_neither_read_nor_in_the_way(tmp_path):
    save(tmp_path, 1, state(1))
    shutil.copytree(tmp_path / "1" / "arrays", tmp_path / "partial" / "arrays")
    assert latest_step(tmp_path) == 1
    save(tmp_path, 2, state(2))
    assert_same(restore(tmp_path, state()), state(2))
    assert not (tmp_path / "partial").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, os.remove])
def test_damage_to_any_file_is_found(tmp_path, damage):
    save(tmp_path / "whole", 0, state())
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len(files) > 3
    for number, path in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", copy)
        target = copy / path.relative_to(tmp_path / "whole")
        if damage is truncate and not target.read_bytes():
            continue
        damage(target)
        with pytest.raises(ValueError, match="is damaged: .*; delete this folder") as e:
            restore(copy, state())
        assert str(copy) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "template, message",
    [
        (
            {"w": jnp.zeros((2, 3))},
            r"leaf 'w' is float32\[3,2\], expected float32\[2,3\]",
        ),
        ({"w": jnp.zeros((3, 2), jnp.int32)}, r"expected int32\[3,2\]"),
        ({"w": jnp.zeros((3, 2)), "b": jnp.zeros(1)}, "it lacks leaf 'b'"),
        ({}, "it has an unknown leaf 'w'"),
    ],
)
def test_a_tree_of_another_configuration_is_refused(tmp_path, template, message):
    save(tmp_path, 0, {"w": jnp.zeros((3, 2))})
    with pytest.raises(ValueError, match=message + "; resume with the configuration"):
        restore(tmp_path, template)


def test_misuse_is_explained(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in .*start again"):
        restore(tmp_path, {})
    save(tmp_path, 4, {"a": np.ones(1)})
    with pytest.raises(
        ValueError, match=r"no checkpoint of step 3 .*found steps \[4\]"
    ):
        restore(tmp_path, {"a": np.ones(1)}, step=3)
    with pytest.raises(ValueError, match="cannot save step 4 .*latest step is 4"):
        save(tmp_path, 4, {"a": np.ones(1)})
    with pytest.raises(ValueError, match="keep is 0"):
        save(tmp_path, 5, {"a": np.ones(1)}, keep=0)
    with pytest.raises(ValueError, match="leaf 'k' is a typed random key; save jax"):
        save(tmp_path, 5, {"k": jax.random.key(0)})
    assert latest_step(tmp_path) == 4


WRITER = """
import sys
import numpy as np
from jaxnas.checkpoints import save
for step in range(10_000):
    save(sys.argv[1], step, {str(i): np.full(20_000, step, np.int32) for i in range(5)})
    print(step, flush=True)
"""


def test_sigkill_at_any_moment_leaves_a_complete_step(tmp_path):
    template = {str(i): np.zeros(20_000, np.int32) for i in range(5)}
    moments = random.Random(0)
    for trial in range(3):
        folder = tmp_path / str(trial)
        command = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reported = int(process.stdout.readline())
            time.sleep(moments.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            reported = max([reported, *map(int, process.stdout.read().split())])
        latest = latest_step(folder)
        assert reported <= latest <= reported + 1
        for leaf in restore(folder, template).values():
            assert (leaf == latest).all()

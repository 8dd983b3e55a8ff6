"""A small campaign, and a program that runs it in many ways and kills it.

As a program it forks before JAX has a backend: so every run is a process of its own,
with devices of its own, and none has to import JAX again.
"""

import functools
import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnas.faults import outcomes
from jaxnas.faults.campaigns import campaign

TRIALS = 2000
METRICS = (outcomes.due, outcomes.output_distance, outcomes.sdc1)


def network(weights, images):
    """A convolution, as its kernels are those that differ most between programs."""
    layout = ("NHWC", "HWIO", "NHWC")
    maps = jax.lax.conv_general_dilated(
        images, weights["conv"], (1, 1), "VALID", dimension_numbers=layout
    )
    return jax.nn.relu(maps).mean((1, 2)) @ weights["dense"]


def faulty(key, weights, images):
    """Three flips in the float32 words; of exponents they leave NaN and infinity."""
    flat, shape = ravel_pytree(weights)
    word, bit = jax.random.randint(key, (2, 3), 0, jnp.array([[flat.size], [32]]))
    masks = jnp.uint32(1) << bit.astype(jnp.uint32)
    words = jax.lax.bitcast_convert_type(flat, jnp.uint32)
    for i in range(3):
        words = words.at[word[i]].set(words[word[i]] ^ masks[i])
    return network(shape(jax.lax.bitcast_convert_type(words, jnp.float32)), images)


@functools.cache
def problem():
    """Weights and images, golden outputs, labels: by NumPy, which compiles nothing."""
    rng = np.random.default_rng(3)
    sizes = (3, 3, 1, 3), (3, 7), (8, 5, 5, 1)
    conv, dense, images = (rng.normal(size=size).astype("f") for size in sizes)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
    maps = np.einsum("nhwcxy,xyco->nhwo", windows, conv)
    golden = np.maximum(maps, 0).mean((1, 2)) @ dense
    labels = golden.argmax(1).astype(np.int32)
    labels[0] = (labels[0] + 1) % 7
    return ({"conv": conv, "dense": dense}, images), golden, labels


def run(trials=TRIALS, **options):
    args, golden, labels = problem()
    return campaign(
        faulty,
        args,
        key=jax.random.key(7),
        trials=trials,
        metrics=METRICS,
        golden=golden,
        labels=labels,
        **options,
    )


def digest(folder):
    """Of all files of a folder: names and bytes."""
    whole = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        content = path.read_bytes()
        whole.update(f"{path.name} {len(content)} ".encode() + content)
    return whole.hexdigest()


def size(folder):
    return sum(path.stat().st_size for path in Path(folder).glob("*.bin"))


def fork(function):
    """The process id of a child that calls `function` and ends."""
    child = os.fork()
    if child:
        return child
    try:
        function()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


def finish(child):
    status = os.waitpid(child, 0)[1]
    if status:
        raise SystemExit(f"a campaign ended with status {status}")


def on_devices(count, folder, **options):
    jax.config.update("jax_num_cpu_devices", count)
    run(records=folder, **options)


def as_process(number, port, folder):
    """One of two processes; they have two devices and one."""
    jax.config.update("jax_num_cpu_devices", 2 - number)
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    found = run(records=folder, chunk=150, stop=lambda columns: False)
    assert bool(found.columns) == (number == 0) and found.trials == TRIALS
    assert (jax.process_count(), jax.device_count()) == (2, 3)
    # In memory every process has everything, and what process 0 decides counts.
    stopped = run(
        chunk=150, stop=lambda columns: number == 0 and len(columns["due"]) > 200
    )
    assert stopped.trials == 243 and len(stopped.columns["due"]) == 243
    jax.distributed.shutdown()


def two_processes(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [fork(lambda n=n: as_process(n, port, folder)) for n in range(2)]
    for child in children:
        finish(child)


def killed(folder, total, seed, kills=10):
    """Records of a campaign that was killed when its files had reached random sizes."""
    rng = random.Random(seed)
    moments = sorted(rng.randrange(int(0.8 * total)) for _ in range(kills))
    sizes = []
    for moment in moments:
        child = fork(lambda: run(records=folder, resume=True, chunk=25))
        while size(folder) <= moment:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended by itself"
            time.sleep(1e-4)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        sizes.append(size(folder))
    finish(fork(lambda: run(records=folder, resume=True, chunk=25)))
    return sizes


def main(root, seed):
    warnings.simplefilter("ignore")  # JAX warns of forks, in case it has threads
    jax.config.update("jax_compilation_cache_dir", str(root / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    names = "two eight processes killed".split()
    folders = {name: root / name for name in names}
    finish(fork(lambda: on_devices(2, folders["two"], chunk=333)))
    finish(fork(lambda: on_devices(8, folders["eight"], chunk=7 * TRIALS // 10)))
    two_processes(folders["processes"])
    sizes = killed(folders["killed"], 4 * TRIALS * len(METRICS), seed)
    digests = {name: digest(folder) for name, folder in folders.items()}
    print(json.dumps({"digests": digests, "sizes": sizes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

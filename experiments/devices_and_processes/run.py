"""Is a search the same on one, two and eight devices, and shared by two processes?

Every run is a process of its own (or two) with so many CPU devices. It searches the
smoke variant of configs/digits.py, with networks struck by faults and children chosen
by a surrogate, and reports a digest of everything: genotypes, fitness, weights, tallies
and records. Usage:

    python experiments/devices_and_processes/run.py
"""

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS = {"1 device": [1], "2 devices": [2], "8 devices": [8], "2 processes": [2, 1]}
"""The devices of each process of a run."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        print(json.dumps(search(*map(int, arguments.process))), flush=True)
        return
    found = {name: run(devices) for name, devices in RUNS.items()}
    for name, report in found.items():
        print(name, report, flush=True)
    digests = [report["digests"] for report in found.values()]
    same = all(one == digests[0] for one in digests)
    result = {"same": same, "runs": found, "versions": versions()}
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "devices_and_processes.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["same"] else 1)


def run(devices: list[int]) -> dict:
    """What the processes of one run report, which must be the same."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--process", str(len(devices))]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(port)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(count)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, count in enumerate(devices)
    ]
    reports = [json.loads(p.communicate()[0].splitlines()[-1]) for p in processes]
    assert all(report == reports[0] for report in reports), reports
    return reports[0]


def search(processes: int, number: int, port: int) -> dict:
    """The whole search in this process, or its share of it."""
    import jax

    if processes > 1:
        jax.distributed.initialize(f"localhost:{port}", processes, number)
    from jaxnas.cli import load_config
    from jaxnas.preparation import GENERATION, START, prepare
    from jaxnas.search.evolution import front_of, generation, start

    config = load_config(HERE.parents[1] / "configs" / "digits.py", "smoke")
    objectives = ("validation_error", "struck_error", "weight_bytes", "latency_cycles")
    changes = dict(objectives=objectives, screening=2, strike_trials=4)
    changed = dataclasses.replace(config.evolution, **changes)
    stage = prepare(dataclasses.replace(config, evolution=changed), Path())
    state, individuals = start(stage.key(START), stage.problem)
    for step in range(1, changed.generations + 1):
        key = stage.key(GENERATION, step)
        state, children = generation(key, stage.problem, state)
        individuals += children
    front = front_of(state)
    parts = {"records": repr(individuals), "front": front[:3], "everything": state}
    return {
        "processes": jax.process_count(),
        "devices": jax.device_count(),
        "networks": len(individuals),
        "on_front": int(front.mask.sum()),
        "digests": {name: digest(part) for name, part in parts.items()},
    }


def digest(part) -> str:
    """Of a text or of the bytes of all arrays of a tree."""
    import jax

    whole = hashlib.sha256(part.encode() if isinstance(part, str) else b"")
    for leaf in jax.tree.leaves(part if not isinstance(part, str) else ()):
        whole.update(jax.device_get(leaf).tobytes())
    return whole.hexdigest()


def versions() -> dict:
    from importlib.metadata import version

    return {"python": platform.python_version(), "jax": version("jax")}


if __name__ == "__main__":
    main()

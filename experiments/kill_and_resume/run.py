"""Does a search that is killed again and again end in the same bytes?

Runs the smoke variant of configs/digits.py once without interruption; then again in
other folders, killed with SIGKILL at seeded random moments and continued with --resume
each time, until it was killed so many times. Usage:

    python experiments/kill_and_resume/run.py [--kills 10] [--seed 0]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
DIGITS = HERE.parents[1] / "configs" / "digits.py"
FILES = ("front.csv", "records.jsonl", "faults.jsonl", "progress.jsonl")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        finish(start(folder / "warm"))  # fills the compilation cache
        began = time.perf_counter()
        finish(start(folder / "whole"))
        duration = time.perf_counter() - began
        kills, killed = interrupted(folder, duration, arguments)
        same = {
            name: all(
                (run / name).read_bytes() == (folder / "whole" / name).read_bytes()
                for run in killed
            )
            for name in FILES
        }
    result = {
        "uninterrupted_seconds": duration,
        "interrupted_runs": len(killed),
        "kills": kills,
        "identical": same,
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "kill_and_resume.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(same, indent=2))
    sys.exit(0 if all(same.values()) else 1)


def interrupted(folder: Path, duration: float, arguments) -> tuple[list, list[Path]]:
    """Kill runs until there are enough kills; the last one is let to its end.

    A run that ends before its moment comes makes room for the next one. Returns what
    stood there at each kill, and the finished runs.
    """
    rng = random.Random(arguments.seed)
    kills, runs = [], [folder / "killed-0"]
    while len(kills) < arguments.kills:
        process, moment = start(runs[-1]), rng.uniform(0, duration)
        try:
            finish(process, moment)
            runs.append(folder / f"killed-{len(runs)}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            run = len(runs) - 1
            kills.append({"run": run, "after_seconds": moment, **state(runs[-1])})
            print(kills[-1], flush=True)
    finish(start(runs[-1]))
    return kills, runs


def state(out: Path) -> dict:
    def lines(name):
        path = out / name
        return path.read_text().count("\n") if path.exists() else 0

    checkpoints = [path for path in out.glob("checkpoints/*/*") if path.name.isdigit()]
    return {
        "checkpoints": len(checkpoints),
        "networks": lines("records.jsonl"),
        "fault_records": lines("faults.jsonl"),
        "front": (out / "front.csv").exists(),
    }


def start(out: Path) -> subprocess.Popen:
    """Begin the search in `out`, or go on with it."""
    command = [sys.executable, "-m", "jaxnas.cli", "search", str(DIGITS), "--smoke"]
    resume = ["--resume"] if (out / "config.json").exists() else []
    cache = {"JAX_COMPILATION_CACHE_DIR": str(out.parent / "xla")}
    return subprocess.Popen(
        [*command, f"--out={out}", *resume],
        stdout=subprocess.DEVNULL,
        env=os.environ | cache,
    )


def finish(process: subprocess.Popen, seconds: float | None = None) -> None:
    if process.wait(seconds) != 0:
        raise SystemExit(f"the search ended with status {process.returncode}")


if __name__ == "__main__":
    main()

"""Does a search that is killed again and again end in the same bytes?

Runs the smoke variant of configs/digits.py once without interruption; then again in
another folder, killed with SIGKILL at seeded random moments of the whole run's duration
and continued with --resume each time. Usage:

    python experiments/kill_and_resume/run.py [--kills 6]
"""

import argparse
import json
import random
import signal
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
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        finish(start(folder / "warm"))  # fills the compilation cache
        began = time.perf_counter()
        finish(start(folder / "whole"))
        duration = time.perf_counter() - began
        kills = interrupted(folder / "killed", duration, arguments)
        same = {
            name: (folder / "whole" / name).read_bytes()
            == (folder / "killed" / name).read_bytes()
            for name in FILES
        }
    result = {"uninterrupted_seconds": duration, "kills": kills, "identical": same}
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "kill_and_resume.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    sys.exit(0 if all(same.values()) else 1)


def interrupted(out: Path, duration: float, arguments) -> list[dict]:
    """Kill a run so many times, then let it end; what stood there at each kill."""
    rng = random.Random(arguments.seed)
    kills = []
    while len(kills) < arguments.kills:
        process = start(out, "--resume" if (out / "config.json").exists() else "")
        moment = rng.uniform(0.2, 0.8) * duration
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills.append({"after_seconds": moment, **state(out)})
            print(kills[-1], flush=True)
        else:
            break
    finish(start(out, "--resume"))
    return kills


def state(out: Path) -> dict:
    def lines(name):
        path = out / name
        return path.read_text().count("\n") if path.exists() else 0

    return {
        "networks": lines("records.jsonl"),
        "fault_records": lines("faults.jsonl"),
        "finished": (out / "front.csv").exists(),
    }


def start(out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxnas.cli", "search", str(DIGITS), "--smoke"]
    options = [option for option in options if option]
    return subprocess.Popen(
        [*command, f"--out={out}", *options], stdout=subprocess.DEVNULL
    )


def finish(process: subprocess.Popen) -> None:
    if process.wait() != 0:
        raise SystemExit(f"the search ended with status {process.returncode}")


if __name__ == "__main__":
    main()

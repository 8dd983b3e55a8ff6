"""Strictness shared by all tests, how they compile, and data beside the repository."""

import csv
import itertools
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of all time goes into compiling programs that run once. So XLA optimises nothing,
# but where rounding is at stake (see `compiled_fully`), and the older of its two code
# generators, where it still exists, takes half as long; products and sums are fused and
# rounded once as ever. This compiles as users do:
#     XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

import jax  # noqa: E402  (all of this is read when JAX is imported)
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from xdist.scheduler import LoadScopeScheduling  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_x64", False)
matplotlib.use("Agg")


SUPERNET = (
    "evolving",
    "experiment",
    "measurement",
    "search_evolution",
    "search_screening",
    "search_strikes",
    "training",
)
"""Files whose tests train the supernet of `search_helpers`."""


class ByFile(LoadScopeScheduling):
    """A worker takes whole files, and one of them all those of the supernet, so that
    what a file's tests share is compiled once."""

    def _split_scope(self, nodeid):
        stem = Path(nodeid.split("::")[0]).stem
        return "supernet" if stem.removeprefix("test_") in SUPERNET else stem


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """The largest group comes first."""
    names = {f"test_{name}" for name in SUPERNET}
    items.sort(key=lambda item: item.path.stem not in names)


@pytest.fixture(scope="module")
def compiled_fully():
    """XLA optimises all programs of a module and of its processes, as for users."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), "0")
        jax.clear_caches()
        jax.config.update(name, False)
        yield
    jax.config.update(name, before)
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared():
    """A path below `../shared`: `shared("data/mnist")`; skips where it is absent."""
    root = Path(__file__).parents[2] / "shared"

    def locate(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"needs ../shared/{relative} beside the repository")
        return path

    return locate


RATES = (1e-4, 1e-3, 1e-2)
OBJECTIVES = ["validation_error", "activation_fragility", "weight_bytes"]
CONFIG = {
    "name": "digits",
    "config": {
        "seed": 3,
        "space": {"stages": [{"widths": [4, 8]}, {"widths": [16]}]},
        "evolution": {"objectives": OBJECTIVES},
    },
}


@pytest.fixture
def finished_run(pristine_run, tmp_path):
    """A run directory of the test's own, as a search leaves it."""
    return shutil.copytree(pristine_run, tmp_path / "digits")


@pytest.fixture(scope="session")
def pristine_run(tmp_path_factory):
    """A run directory to be read only: 60 made-up networks, 10 on the front."""
    rng = np.random.default_rng(0)
    run = tmp_path_factory.mktemp("runs") / "digits"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(CONFIG))
    provenance = {"versions": {"jax": "0.10.2"}, "command": "jaxnas search c.py"}
    (run / "provenance.json").write_text(json.dumps(provenance))
    records, faults = [], []
    for number in range(60):
        size = np.exp(rng.uniform(6, 11))
        objectives = {
            "validation_error": 0.02 + 20 / size + 0.1 * rng.random() * (number >= 10),
            "weight_bytes": round(size) + 0.5,
            "macs": round(size) * 30,
            "latency_cycles": round(1000 + 2 * size),
            "activation_fragility": 8 * size**-0.2 * (1 + 0.1 * rng.random()),
            "weight_fragility": 4 * size**-0.5 * (1 + 0.1 * rng.random()),
        }
        parents = [int(rng.integers(number))] if number else []
        text = f"conv3x3:{number} | dense"
        names = ("id", "generation", "parents", "genotype", "architecture")
        row = (number, number // 10, parents, [number, 1], text)
        records.append(dict(zip(names, row, strict=True)) | {"objectives": objectives})
    front = sorted(records[:10], key=lambda r: r["objectives"]["validation_error"])
    schemes = itertools.product(
        ("fixed_point", "logarithmic"), ("weight", "activation")
    )
    for record, (scheme, target) in itertools.product(front, list(schemes)):
        clean = 1 - record["objectives"]["validation_error"]
        slope = record["objectives"][f"{target}_fragility"]
        slope *= 12 if scheme == "fixed_point" else 18
        for rate in RATES:
            accuracy = 0.1 + (clean - 0.1) * np.exp(-slope * rate)
            keys = {"id": record["id"], "scheme": scheme, "target": target}
            keys |= {"fault": "bit_flips"}
            counts = {"trials": 200, "images_per_trial": 539, "effective_trials": 200}
            measured = {"clean_accuracy": clean, "accuracy": accuracy}
            bounds = {"low": accuracy - 0.004, "high": accuracy + 0.003}
            others = {"sdc1": clean - accuracy, "due": 0.0}
            faults.append(keys | {"rate": rate} | counts | measured | bounds | others)
    with open(run / "front.csv", "w", newline="") as file:
        writer = csv.writer(file)
        objectives = list(front[0]["objectives"])
        tests = ["test_accuracy_fixed_point", "test_accuracy_logarithmic"]
        writer.writerow(["id", "generation", "architecture", *objectives, *tests])
        for r in front:
            values = list(r["objectives"].values())
            row = [r["id"], r["generation"], r["architecture"], *values, 0.97, 0.95]
            writer.writerow(row)
    progress = [
        {
            "generation": g,
            "evaluated": 10 * (g + 1),
            "front_size": 10,
            "hypervolume": 1 - 0.5 ** (g + 1),
            "best_validation_error": 0.1 / (g + 1),
        }
        for g in range(6)
    ]
    for name, rows in [
        ("records", records),
        ("faults", faults),
        ("progress", progress),
    ]:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (run / f"{name}.jsonl").write_text(lines)
    return run

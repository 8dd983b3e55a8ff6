"""How many layers and networks are costed a second, and how many by two peers?

Cycles alone of random layers; every cheap objective of random genotypes of the digits
space; cycles, DRAM traffic and energy of the same layers as SCALE-Sim and ZigZag, which
run as subprocesses in environments of their own. Ours is the throughput of large
batches on two host devices, compilation left out; the peers cost one layer after
another in one process, starting left out. Usage:

    JAX_NUM_CPU_DEVICES=2 python experiments/benchmarks/cost_models/run.py
        [--scalesim PYTHON] [--zigzag PYTHON] [--batch N] [--rounds N] [--chunk N]
"""

import argparse
import itertools
import json
import os
import platform
import runpy
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnas.hardware import (
    Accelerator,
    DramBytes,
    SystolicArray,
    after_first_fill,
    cycles,
    dram_bytes,
    dram_words,
    energy_pj,
    roofline_cycles,
)
from jaxnas.networks import space as spaces
from jaxnas.networks.space import SearchSpace
from jaxnas.search.objectives import CHEAP, cheap_objectives
from jaxnas.topology import LayerTable

HERE = Path(__file__).parent
DIGITS = HERE.parents[2] / "configs" / "digits.py"
DATAFLOWS = ("os", "ws", "is")
TASK = {"rows": 16, "columns": 16, "bandwidth": 10}
# Kernel side, inputs, outputs, output side, stride: those of CIFAR networks.
SHAPES = [(3, 16, 16, 16, 1), (3, 16, 32, 8, 2), (1, 24, 96, 8, 1), (3, 32, 32, 8, 1)]
SHAPES += [(5, 8, 24, 8, 1), (3, 3, 16, 16, 1)]
# And more for limited bandwidth: dense, odd and tiny ones.
MORE = [(5, 8, 48, 8, 1), (1, 256, 10, 1, 1), (3, 5, 7, 10, 1), (3, 4, 8, 4, 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scalesim")
    parser.add_argument("--zigzag")
    parser.add_argument("--batch", type=int, default=2**20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=1024)
    arguments = parser.parse_args()
    results = {
        "layers_per_second": layer_throughput(arguments),
        "networks_per_second": network_throughput(arguments),
        "peers": peers(arguments),
        "batch": arguments.batch,
        "chunk": arguments.chunk,
        "objectives": CHEAP,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "devices": len(jax.devices()),
        "load_average": os.getloadavg()[0],
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "cost_models.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def layer_throughput(arguments) -> dict:
    """Random layers costed a second: cycles alone, by dataflow and convention."""
    draw = np.random.default_rng(0).integers
    size = arguments.batch
    groups = draw(1, 4, size)
    table = columns(
        groups=groups,
        in_channels=groups * draw(1, 129, size),
        out_channels=groups * draw(1, 129, size),
        out_height=draw(1, 65, size),
        out_width=draw(1, 65, size),
        kernel_height=draw(1, 6, size),
        kernel_width=draw(1, 6, size),
    )
    found = {}
    for dataflow in ("os", "best"):
        for convention in ("scalesim", "realistic"):
            array = SystolicArray(dataflow=dataflow, convention=convention)
            cost = jax.jit(lambda table, array=array: cycles(table, array))
            found[f"{dataflow} {convention}"] = size / timed(cost, table, arguments)
    return found


def network_throughput(arguments) -> dict:
    """Genotypes a second: all cheap objectives, around an array and an accelerator."""
    config = runpy.run_path(str(DIGITS))["config"]().space
    space = SearchSpace(
        image=(8, 8, 1),
        classes=10,
        stages=config.stages,
        kernels=config.kernels,
        expansions=config.expansions,
        word_bits=config.word_bits,
    )
    counts = spaces.cardinalities(space)
    size = (arguments.batch, len(counts))
    genotypes = np.random.default_rng(0).integers(0, counts, size).astype(np.int32)
    found = {}
    for name, hardware in (
        ("array", SystolicArray()),
        ("accelerator", Accelerator(dataflow="os")),
    ):
        cost = chunked(cheap_objectives(space, hardware), arguments.chunk)
        found[name] = arguments.batch / timed(cost, genotypes, arguments)
    return found


def peers(arguments) -> dict:
    """The same layers by us and by each peer that is installed."""
    layers = [layer(*shape) for shape in SHAPES]
    size = arguments.batch
    table = columns(
        **{name: np.resize([one[name] for one in layers], size) for name in layers[0]}
    )

    def cost(table):
        moved = dram_bytes(table, hardware, padded=False)
        spent = cycles(table, hardware)
        return spent, moved.total, energy_pj(table, hardware, traffic=moved)

    found = {}
    for dataflow in DATAFLOWS:
        hardware = Accelerator(dataflow=dataflow, convention="scalesim")
        seconds = timed(jax.jit(cost), table, arguments)
        found[f"ours_{dataflow}_layers_per_second"] = size / seconds
    ours = min(found.values())
    if arguments.scalesim:
        ran = [simulate(arguments.scalesim, layers, d, "CALC") for d in DATAFLOWS]
        rate = len(layers) * len(ran) / sum(one["seconds"] for one in ran)
        found["scalesim_layers_per_second"] = rate
        found["ratio_to_scalesim"] = ours / rate
        found["scalesim_agreement"] = agreement(layers, ran)
        found["bandwidth_limited"] = bandwidth_limited(arguments.scalesim)
    if arguments.zigzag:
        ran = call(arguments.zigzag, "peer_zigzag.py", {"layers": layers})
        rate = len(layers) / ran["seconds"]
        found["zigzag_layers_per_second"] = rate
        found["ratio_to_zigzag"] = ours / rate
    return found


def agreement(layers: list[dict], ran: list[dict]) -> dict:
    """Cycles and DRAM words of the simulator against ours."""
    exact, errors = [], []
    for dataflow, one in zip(DATAFLOWS, ran, strict=True):
        hardware = Accelerator(dataflow=dataflow, convention="scalesim")
        table = columns(**{n: np.array([s[n] for s in layers]) for n in layers[0]})
        words = sum(part for part in dram_words(table, hardware, padded=False))
        spent = cycles(table, hardware) - 1  # as reported: one short per layer
        for i, report in enumerate(one["layers"]):
            exact.append(float(spent[i, 0]) == report["Total Cycles"])
            errors.append(abs(float(words[i, 0]) / dram(report) - 1))
    return {"cycles_exact": all(exact), "dram_mean_error": float(np.mean(errors))}


def bandwidth_limited(python: str) -> dict:
    """Total cycles of mode USER against the slowest part, given its own traffic."""
    layers = [layer(*shape) for shape in SHAPES + MORE]
    names = ("DRAM IFMAP Reads", "DRAM Filter Reads", "DRAM OFMAP Writes")
    links = [float(TASK["bandwidth"])] * 3
    errors = {"all traffic": [], "without the first fill": []}
    for kilobytes, dataflow in itertools.product((2, 64), DATAFLOWS):
        size = 1024 * kilobytes
        buffers = Accelerator(operand_sram_bytes=size, weight_sram_bytes=size)
        ran = simulate(python, layers, dataflow, "USER", kilobytes)
        for report in ran["layers"]:
            compute = report["Total Cycles"] - report["Stall Cycles"]
            traffic = DramBytes(*(np.float64(report[name]) for name in names))
            later = after_first_fill(traffic, buffers)
            for moved, found in zip((traffic, later), errors.values(), strict=True):
                limited = roofline_cycles(compute, moved, links)
                found.append(float(limited) / report["Total Cycles"] - 1)
    return {
        name: {"rows": len(e), "mape": np.abs(e).mean(), "worst": np.abs(e).max()}
        for name, e in errors.items()
    }


def dram(report: dict) -> float:
    return sum(value for name, value in report.items() if _is_traffic(name))


def _is_traffic(name: str) -> bool:
    return name.startswith("DRAM") and name.endswith(("Reads", "Writes"))


def simulate(python, layers: list[dict], dataflow, mode, kilobytes=64) -> dict:
    hardware = TASK | {"dataflow": dataflow, "mode": mode, "kilobytes": kilobytes}
    return call(python, "peer_scalesim.py", {"layers": layers, "hardware": hardware})


def call(python: str, script: str, task: dict) -> dict:
    done = subprocess.run(
        [python, str(HERE / script)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def layer(kernel: int, inputs: int, outputs: int, side: int, stride: int) -> dict:
    """One layer whose operand includes its padding."""
    shape = {"in_channels": inputs, "out_channels": outputs}
    for axis in ("height", "width"):
        shape |= {f"kernel_{axis}": kernel, f"stride_{axis}": stride}
        shape |= {f"out_{axis}": side, f"in_{axis}": (side - 1) * stride + kernel}
    return shape


def columns(**given) -> LayerTable:
    """Tables of one layer each, of words of eight bits."""
    size = len(next(iter(given.values())))
    full = dict.fromkeys(LayerTable._fields, np.ones((size, 1), np.int32))
    full |= {n: 8 * full[n] for n in full if n.endswith("_bits")}
    full |= {n: np.asarray(c, np.int32)[:, None] for n, c in given.items()}
    return LayerTable(**full | {"mask": full["mask"] == 1})


def chunked(cost, chunk: int):
    """Every device maps over chunks of its share, small enough for its cache."""
    mesh = Mesh(np.array(jax.devices()), "devices")

    def share(rows):
        parts = rows.reshape(-1, chunk, rows.shape[-1])
        found = jax.lax.map(jax.vmap(cost), parts)
        return found.reshape(rows.shape[0], -1)

    spec = PartitionSpec("devices")
    return jax.jit(jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec))


def timed(cost, batch, arguments) -> float:
    """Seconds of the fastest of several calls, the batch spread over the devices."""
    mesh = Mesh(np.array(jax.devices()), "devices")
    batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("devices")))
    jax.block_until_ready(cost(batch))
    seconds = []
    for _ in range(arguments.rounds):
        began = time.perf_counter()
        jax.block_until_ready(cost(batch))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    main()

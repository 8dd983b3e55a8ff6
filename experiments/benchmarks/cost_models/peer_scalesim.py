"""Simulates layers given as JSON on standard input with SCALE-Sim 3.0.0.

Prints seconds, and per layer cycles and DRAM words, as JSON on the last line. Runs in
an environment of its own, without jaxnas: pip install scalesim==3.0.0 numpy==2.2.6
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

from scalesim.scale_sim import scalesim

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = {kilobytes}
FilterSramSzkB = {kilobytes}
OfmapSramSzkB = {kilobytes}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = {bandwidth}
Dataflow = {dataflow}
MemoryBanks = 1
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = {bandwidth}
IfmapSRAMBankNum = 1
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = {bandwidth}
FilterSRAMBankNum = 1
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
"""
COLUMNS = ("in_height", "in_width", "kernel_height", "kernel_width")
COLUMNS += ("in_channels", "out_channels", "stride_height")


def main():
    task = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "run.cfg").write_text(CONFIG.format(**task["hardware"]))
        rows = [["name", *COLUMNS, ""]]
        for index, layer in enumerate(task["layers"]):
            sizes = [str(layer[name]) for name in COLUMNS]
            rows.append([f"layer{index}", *sizes, ""])
        text = "".join(",".join(row) + "\n" for row in rows)
        (folder / "topology.csv").write_text(text)
        layout = ["layout" + ",0" * 20 + ","]
        layout += [f"layer{i}" + ",1" * 20 + "," for i in range(len(task["layers"]))]
        (folder / "layout.csv").write_text("\n".join(layout) + "\n")
        simulator = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(folder / "run.cfg"),
            topology=str(folder / "topology.csv"),
            layout=str(folder / "layout.csv"),
            input_type_gemm=False,
        )
        began = time.perf_counter()
        simulator.run_scale(top_path=str(folder))
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "layers": read(folder / "run")}))


def read(folder: Path) -> list[dict]:
    """What the reports say, one dictionary a layer."""
    found = []
    reports = ("COMPUTE_REPORT.csv", "DETAILED_ACCESS_REPORT.csv")
    tables = [list(csv.DictReader((folder / name).open())) for name in reports]
    for compute, access in zip(*tables, strict=True):
        entries = {k.strip(): v for k, v in (compute | access).items() if k}
        found.append({k: float(v) for k, v in entries.items() if v})
    return found


if __name__ == "__main__":
    main()

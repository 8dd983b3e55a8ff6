"""Costs layers given as JSON on standard input with ZigZag 3.9.1 on its `tpu_like`.

Prints seconds and, per layer, latency and energy as JSON on the last line. Runs in an
environment of its own, without jaxnas: pip install zigzag-dse==3.9.1 six
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import zigzag
from zigzag.api import get_hardware_performance_zigzag

DIMENSIONS = ["B", "G", "K", "C", "OY", "OX", "FY", "FX"]


def main():
    logging.disable(logging.CRITICAL)
    layers = json.load(sys.stdin)["layers"]
    inputs = Path(zigzag.__file__).parent / "inputs"
    found, began = [], time.perf_counter()
    for layer in layers:
        with tempfile.TemporaryDirectory() as folder:
            energy, latency, *_ = get_hardware_performance_zigzag(
                [workload(layer)],
                str(inputs / "hardware" / "tpu_like.yaml"),
                str(inputs / "mapping" / "tpu_like.yaml"),
                dump_folder=folder,
                pickle_filename=f"{folder}/list.pickle",
                loma_show_progress_bar=False,
            )
        found.append({"energy": float(energy), "cycles": float(latency)})
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "layers": found}))


def workload(layer: dict) -> dict:
    stride = layer["stride_height"]
    sizes = [1, 1, layer["out_channels"], layer["in_channels"]]
    sizes += [layer["out_height"], layer["out_width"]]
    sizes += [layer["kernel_height"], layer["kernel_width"]]
    return {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"],
        "loop_dims": DIMENSIONS,
        "loop_sizes": sizes,
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
    }


if __name__ == "__main__":
    main()

"""What does quantising cost beside the plain arithmetic that it stands for?

Ten million float32 numbers are quantised by every family of formats, compiled, and by
plain jnp arithmetic of the same kind: a clipped rounding for grids, logarithm and power
for exponents and posits, both twice for two terms, a reduction of precision for floats,
a nearest-value search for code books. The two run in alternate rounds in one process;
the ratio is that of the medians. Bytes accessed are those of the compiled module,
beside one read and one write. Usage:

    python experiments/benchmarks/quantize_speed/run.py [--elements N] [--rounds N]
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxnas.numerics import (
    IEEE,
    Binary,
    Codebook,
    FixedPoint,
    Logarithmic,
    MiniFloat,
    Posit,
    PowerOfTwo,
    Ternary,
    TwoTermLogarithmic,
)

HERE = Path(__file__).parent
STEP = 2.0**-5


def grid(x, scale):
    """Fixed point of 8 bits."""
    return jnp.clip(jnp.round(x * (1 / scale)), -128, 127) * scale


def powers(x, scale):
    """Signed powers of 2**0.125, 127 of them."""
    exponent = jnp.round(8 * jnp.log2(jnp.abs(x) * (1 / scale)))
    power = jnp.exp2(jnp.clip(exponent, -127, 0) / 8)
    return jnp.sign(x) * jnp.where(exponent < -126.5, 0, power) * scale


def two_powers(x, scale):
    """The largest power of two in it, then the power nearest to the rest."""
    magnitude = jnp.abs(x) * (1 / scale)
    first = jnp.exp2(jnp.clip(jnp.floor(jnp.log2(magnitude)), -14, 0))
    exponent = jnp.round(jnp.log2(magnitude - first))
    second = jnp.where(exponent > -14.5, jnp.exp2(jnp.minimum(exponent, 0)), 0)
    return jnp.sign(x) * jnp.where(magnitude < 2**-14.5, 0, first + second) * scale


def search(values):
    """The value nearest to x; few are all compared, which is faster than a scan."""
    values = jnp.asarray(values)
    middle = (values[1:] + values[:-1]) / 2

    def search(x, scale):
        method = "compare_all" if len(values) <= 32 else "scan"
        return values[jnp.searchsorted(middle, x * (1 / scale), method=method)] * scale

    return search


def sign(x, scale):
    """One of two numbers."""
    return jnp.where(x < 0, -1, 1) * scale


def cast(dtype):
    """There and back; a reduction of precision that XLA does not cancel."""
    info = jnp.finfo(dtype)

    def there_and_back(x, scale):
        return jax.lax.reduce_precision(x * (1 / scale), info.nexp, info.nmant) * scale

    return there_and_back


GRID = tuple(i / 8 - 1 for i in range(16))
NORMAL = tuple(statistics.NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256))
E4M3 = MiniFloat(exponent=4, mantissa=3, specials="nan_only")
CASES = {
    "fixed_point_8": (FixedPoint(bits=8), grid),
    "offset_binary_8": (FixedPoint(bits=8, code="offset_binary"), grid),
    "logarithmic_8": (Logarithmic(bits=8, base=2**0.125), powers),
    "two_terms_9": (TwoTermLogarithmic(bits=9, base=2.0), two_powers),
    "two_terms_15": (TwoTermLogarithmic(bits=15, base=2.0), two_powers),
    "float16": (IEEE(name="float16"), cast(jnp.float16)),
    "bfloat16": (IEEE(name="bfloat16"), cast(jnp.bfloat16)),
    "e4m3": (E4M3, cast(jnp.float8_e4m3fn)),
    "power_of_two_8": (PowerOfTwo(), cast(jnp.bfloat16)),
    "codebook_4": (Codebook(values=GRID), search(GRID)),
    "codebook_8": (Codebook(values=NORMAL), search(NORMAL)),
    "ternary": (Ternary(), grid),
    "binary": (Binary(), sign),
    "posit_8": (Posit(bits=8), powers),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=10**7)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    x = jax.random.normal(jax.random.key(0), (arguments.elements,))
    rows = [measure(name, x, arguments.rounds) for name in CASES]
    write(rows, arguments)


def measure(name: str, x: jax.Array, rounds: int) -> dict:
    """Seconds of a format and of what it stands for, and the bytes of its module."""
    format, plain = CASES[name]
    scale = jnp.float32(STEP if plain is grid else 4.0)
    programs = {
        "quantize": jax.jit(format.quantize).lower(x, scale).compile(),
        "plain": jax.jit(plain).lower(x, scale).compile(),
    }
    seconds = {key: [] for key in programs}
    for number in range(rounds + 1):  # the first round warms up
        for key, program in programs.items():
            began = time.perf_counter()
            program(x, scale).block_until_ready()
            if number:
                seconds[key].append(time.perf_counter() - began)
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    row = {
        "format": name,
        "quantize_seconds": medians["quantize"],
        "plain": plain.__name__,
        "plain_seconds": medians["plain"],
        "ratio": medians["quantize"] / medians["plain"],
        "bytes_accessed": bytes_accessed(programs["quantize"]),
        "one_read_one_write": 2 * x.nbytes,
    }
    print(row, flush=True)
    return row


def bytes_accessed(program) -> float:
    cost = program.cost_analysis()
    return (cost[0] if isinstance(cost, list) else cost)["bytes accessed"]


def write(rows: list[dict], arguments: argparse.Namespace) -> None:
    results = {
        "rows": rows,
        "elements": arguments.elements,
        "rounds": arguments.rounds,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    (HERE / "results").mkdir(exist_ok=True)
    path = HERE / "results" / "quantize_speed.json"
    path.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

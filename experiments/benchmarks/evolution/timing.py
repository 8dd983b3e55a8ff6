"""What a run of generations takes: shared by environments with and without jaxnas."""

import time

TURNS = 9
"""Times that everything is run: machines have slow seconds."""


def spent(run, generations: int) -> tuple[float, float]:
    """Seconds a generation, by the clock and of CPU time."""
    wall, core = time.perf_counter(), time.process_time()
    run()
    spans = time.perf_counter() - wall, time.process_time() - core
    return spans[0] / generations, spans[1] / generations


def best(turns: list[tuple[float, float]]) -> dict:
    """The least of several such pairs, each for itself, in milliseconds."""
    wall, core = map(min, zip(*turns, strict=True))
    return {"ms": round(wall * 1e3, 3), "cpu_ms": round(core * 1e3, 3)}

"""Zeus' two monitors, used as their documentation says, for ``benchmarks/sampler.py`` to run.

Runs in an environment that has ``zeus`` and need not have joulescope. Prints one line of JSON: stretches with
the joules that Zeus told of the first GPU, the cores it kept busy, and what it set itself.

    python benchmarks/zeus_child.py monitor|power|power-20hz SECONDS
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from importlib.metadata import version
from typing import Any

SHORT_SECONDS = (0.4, 0.6)
"""Windows of many lengths: those of whole ticks of the counter would all be right, or all wrong."""

LONG = 10
"""So many short windows make a long one."""


def edges(seconds: float) -> list[float]:
    """When short windows begin and end, seconds since the beginning."""
    lots, found = random.Random(0), [0.0]
    while found[-1] < seconds:
        found.append(found[-1] + lots.uniform(*SHORT_SECONDS))
    return found


def monitor(seconds: float) -> dict[str, Any]:
    """``ZeusMonitor``: short and long windows at once, each begun when the one before has ended.

    ``sync_execution`` is off: there is no work on the stand-in GPU to wait for.
    """
    from zeus.monitor import ZeusMonitor

    meter = ZeusMonitor(cpu_indices=[])
    found: dict[str, list[tuple[int, int, float]]] = {"short": [], "long": []}
    begun: dict[str, int] = {}
    cpu_seconds, begin_ns = time.process_time(), time.monotonic_ns()
    for number, at_seconds in enumerate(edges(seconds)):
        time.sleep(max(begin_ns + round(at_seconds * 1e9) - time.monotonic_ns(), 0) / 1e9)
        for name, every in (("short", 1), ("long", LONG)):
            if number % every:
                continue
            if name in begun:
                told = meter.end_window(name, sync_execution=False)
                found[name].append((begun[name], time.monotonic_ns(), told.gpu_energy[0]))
            begun[name] = time.monotonic_ns()
            meter.begin_window(name, sync_execution=False)
    cpu_seconds, wall_ns = time.process_time() - cpu_seconds, time.monotonic_ns() - begin_ns
    return {"windows": found, "cpu_cores": cpu_seconds / (wall_ns / 1e9)}


def power(seconds: float, update_period: float | None) -> dict[str, Any]:
    """``PowerMonitor``: polls in processes of its own; asked afterwards for the same windows."""
    from zeus.monitor import PowerMonitor

    meter = PowerMonitor(update_period=update_period)
    try:
        time.sleep(1.0)
        begin, begin_ns, cpu_seconds = time.time(), time.monotonic_ns(), _cpu_seconds()
        marks = edges(seconds)
        time.sleep(marks[-1])
        cpu_cores = (_cpu_seconds() - cpu_seconds) / ((time.monotonic_ns() - begin_ns) / 1e9)
        found: dict[str, list[tuple[int, int, float]]] = {}
        for name, every in (("short", 1), ("long", LONG)):
            found[name] = []
            for start, end in zip(marks[::every], marks[every::every], strict=False):
                told = meter.get_energy(begin + start, begin + end)
                if told is not None:
                    stretch = begin_ns + round(start * 1e9), begin_ns + round(end * 1e9)
                    found[name].append((*stretch, told[0]))
    finally:
        meter.stop()
    return {"windows": found, "cpu_cores": cpu_cores, "update_period_seconds": meter.update_period}


def _cpu_seconds() -> float:
    """Of this process and the ones it started, user and system."""
    ticks = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    what, seconds = sys.argv[1], float(sys.argv[2])
    periods = {"power": None, "power-20hz": 0.05}
    told = power(seconds, periods[what]) if what in periods else monitor(seconds)
    versions = {name: version(name) for name in ("zeus", "nvidia-ml-py")}
    print(json.dumps({"versions": versions, **told}))


if __name__ == "__main__":
    main()

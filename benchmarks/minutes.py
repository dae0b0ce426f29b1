"""What summing up the minutes of engines costs: processor time, and bytes.

Processor time: the accountant alone, fed as in ``benchmarks/attribution_speed.py``, with and without minutes,
run in turn so that what else the machine does meets both alike; the ratio is that of the shortest runs, which
it met least. Gauges and statuses of GPUs come as a sidecar gets them. Bytes: lines of minutes of a simulated
service at several rates, as they are and compressed as the sidecar keeps them.

    python benchmarks/minutes.py [--repeat 7]
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.attribution_speed import Event, events, feed, served_seconds
from benchmarks.report import machine, save
from joulescope.attribution.accountant import Accountant
from joulescope.export.minute_ring import MinuteRing
from joulescope.minute_model import EngineMinute
from joulescope.minutes import json_line
from joulescope.model import (
    EnergyInterval,
    GpuStatus,
    StepDone,
)
from joulescope.replay import Replay
from joulescope.simulation.traces import SimulatedRun

BATCHES = (1, 8, 32, 128, 512)
REQUEST_STEPS = 200_000
MOST_STEPS = 40_000
WINDOWS_SECONDS = (0.5, 2.0)
RATES_PER_SECOND = (1.0, 8.0, 20.0)
SIMULATED_SECONDS = 300.0


def told_of(batch: int, window_seconds: float) -> list[Event]:
    """The events, with the gauges that a scheduler tells in each step."""
    request_steps = min(REQUEST_STEPS, MOST_STEPS * batch)
    return [
        replace(event, running=batch, waiting=0, kv_usage_ratio=0.5) if isinstance(event, StepDone) else event
        for event in events(batch, request_steps, window_seconds)
    ]


def seconds_for(told: list[Event], *, minutes: bool) -> float:
    """Processor seconds that the accountant takes, the GPU's statuses once a second included."""
    accountant = Accountant(minutes=minutes)
    status = GpuStatus("g", 0, power_limit_watts=700.0, sm_clock_hertz=1.7e9, throttle_reasons=frozenset())

    def before(interval: EnergyInterval) -> None:
        nonlocal status
        if interval.end_ns - status.time_ns >= 1e9:
            status = replace(status, time_ns=interval.end_ns)
            accountant.status(status)

    return feed(accountant, told, before)[0]


def cost(batch: int, window_seconds: float, repeat: int) -> dict[str, Any]:
    told = told_of(batch, window_seconds)
    intervals = sum(isinstance(event, EnergyInterval) for event in told)
    served = served_seconds(told)
    without, beside = [], []
    for _ in range(repeat):
        without.append(seconds_for(told, minutes=False))
        beside.append(seconds_for(told, minutes=True))
    more = min(beside) - min(without)
    return {
        "batch": batch,
        "window_seconds": window_seconds,
        "intervals": intervals,
        "ratio": min(beside) / min(without),
        "milliseconds_per_interval": 1e3 * more / intervals,
        "cores_per_gpu": more / served,
    }


def size(rate_per_second: float) -> dict[str, Any]:
    """Bytes of the whole minutes of a simulated service."""
    found: list[EngineMinute] = []
    run = SimulatedRun(SIMULATED_SECONDS, rate_per_second=rate_per_second, truth=False)
    for _ in Replay(run.records(), on_minute=found.append):
        pass
    whole = [each for each in found if each.end_wall_seconds - each.start_wall_seconds == 60.0]
    lines = [json_line(minute).encode() for minute in whole]
    ring = MinuteRing()
    begin = time.process_time()
    ring.take(whole)
    return {
        "requests_per_second": rate_per_second,
        "minutes": len(whole),
        "cells": sum(len(minute.tasks) for minute in whole) / len(whole),
        "line_bytes": sum(map(len, lines)) / len(lines),
        "kept_bytes": sum(len(zlib.compress(line)) for line in lines) / len(lines),
        "milliseconds_to_keep": 1e3 * (time.process_time() - begin) / len(whole),
    }


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# What minutes of engines cost\n",
        f"`python benchmarks/minutes.py`, {report['machine']}\n",
        f"Processor time of attribution with minutes by that without, shortest of {report['repeat']} runs "
        "each.\n",
        "| batch | interval, s | ratio | more, ms for each interval | more, cores for a busy GPU |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['batch']} | {row['window_seconds']:g} | {row['ratio']:.3f} "
        f"| {row['milliseconds_per_interval']:.2f} | {row['cores_per_gpu']:.5f} |"
        for row in report["cost"]
    ]
    lines += [
        "\n## Size\n",
        "Whole minutes of the simulated chat service (Llama-3.1-8B, one H100), one engine.\n",
        "| requests/s | cells | line, kB | compressed, kB | a day, compressed, MB | ms to keep one |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['requests_per_second']:g} | {row['cells']:.0f} | {row['line_bytes'] / 1e3:.1f} "
        f"| {row['kept_bytes'] / 1e3:.1f} | {1440 * row['kept_bytes'] / 1e6:.1f} "
        f"| {row['milliseconds_to_keep']:.1f} |"
        for row in report["size"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    report = {
        "machine": machine("joulescope-inference", "numpy"),
        "repeat": repeat,
        "cost": [cost(batch, window, repeat) for batch in BATCHES for window in WINDOWS_SECONDS],
        "size": [size(rate) for rate in RATES_PER_SECOND],
    }
    save("minutes", report, text_of(report))


if __name__ == "__main__":
    main()

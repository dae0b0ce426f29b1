"""What the sampler costs and how punctual it is, and the same meter read by Zeus.

``cost``: the sidecar's own sampler thread, sensor and meters on real ``pynvml`` with the stand-in driver, in
          real time: CPU, how late polls are, and what the driver is asked.
``zeus``: its intervals beside windows of Zeus' ``ZeusMonitor`` and ``PowerMonitor``, on the same driver under
          the same load, one after the other: error and CPU.

    python benchmarks/sampler.py [--part cost|zeus] [--seconds 20] [--zeus-python PATH]

Zeus is not among joulescope's dependencies. Give it an environment of its own:

    python -m venv /tmp/zeus && /tmp/zeus/bin/pip install zeus
    python benchmarks/sampler.py --zeus-python /tmp/zeus/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.meter_loads import LOADS, Truth, live, stand_in, truth_of
from benchmarks.report import machine, save
from joulescope.clock import SystemClock
from joulescope.model import EnergyInterval
from joulescope.sampling.meter import Meter
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.nvml import NvmlSensor
from tests.fake_nvml import FUNCTIONS, FakeDriver

GPUS, HERTZ = (1, 4, 8), (10.0, 20.0, 50.0)
SETTLE_SECONDS = 1.5
"""Opening the sensor, and the clock of ticks finding its period, are not part of what is measured."""

LOAD = replace(LOADS["wave_1s"], ramp=0.05)
"""It drifts a little, so that no two readings are alike: ``PowerMonitor`` leaves out repeated ones."""

ZEUS = {
    "monitor": "Zeus ZeusMonitor, begin_window and end_window",
    "power": "Zeus PowerMonitor, defaults",
    "power-20hz": "Zeus PowerMonitor, update_period=0.05",
}
HOW_TO_ZEUS = (
    "not looked at: no Python with zeus. `python -m venv /tmp/zeus && /tmp/zeus/bin/pip install zeus`, then"
    " `--zeus-python /tmp/zeus/bin/python`"
)

Stretch = tuple[int, int, float]
"""Start and end, nanoseconds, and the joules that somebody says were drawn between."""


@dataclass
class Watched:
    """What came from a sampler since its beginning was forgotten."""

    late_ns: list[int] = field(default_factory=list)
    read_ns: list[int] = field(default_factory=list)
    intervals: list[EnergyInterval] = field(default_factory=list)
    meters: dict[str, Meter] = field(default_factory=dict)

    def deliver(self, event: SamplerEvent) -> None:
        """For the sampler; what the pipeline does with readings is not part of this."""
        if isinstance(event, SensorOpened):
            self.meters = {info.gpu: Meter(info) for info in event.gpus}
        elif isinstance(event, Sampled):
            self.late_ns.append(event.late_ns)
            self.read_ns.append(event.read_ns)
            for reading in event.readings:
                self.intervals += self.meters[reading.gpu].add(reading)

    def forget(self) -> None:
        """Leaves out what was until now; the meters go on."""
        for seen in (self.late_ns, self.read_ns, self.intervals):
            seen.clear()


def run_sampler(driver: FakeDriver, hertz: float, seconds: float) -> tuple[Watched, dict[str, Any]]:
    """The real thread for so many seconds, and what it cost; this thread sleeps meanwhile."""
    clock, watched = SystemClock(), Watched()
    timer = DeadlineTimer(clock, 1 / hertz, Random(0))
    sampler = Sampler(lambda: NvmlSensor.open(clock), timer, clock, watched.deliver)
    sampler.start()
    try:
        time.sleep(SETTLE_SECONDS)
        watched.forget()
        calls, cpu, begin = _calls(driver), time.process_time(), time.monotonic()
        time.sleep(seconds)
        cpu, wall = time.process_time() - cpu, time.monotonic() - begin
        calls = {name: count - calls[name] for name, count in _calls(driver).items()}
    finally:
        stopped = sampler.stop(5.0)
    if not stopped or sampler.failure is not None:
        raise RuntimeError(f"the sampler did not end well: {sampler.failure}")
    return watched, {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "calls_per_second": {name: round(count / wall, 2) for name, count in calls.items() if count},
    }


def _calls(driver: FakeDriver) -> dict[str, int]:
    """How often the driver was asked so far, over all its GPUs."""
    uuids = driver.uuids()
    return {name: sum(driver.calls(uuid, name) for uuid in uuids) for name in FUNCTIONS}


def cost(gpus: int, hertz: float, seconds: float) -> dict[str, Any]:
    """One cell of the table: so many H100s at so many polls a second."""
    with stand_in([live("h100", f"GPU-{number}") for number in range(gpus)]) as driver:
        for uuid in driver.uuids():
            truth_of(LOAD, live("h100"), seconds).begin(driver, uuid)
        watched, spent = run_sampler(driver, hertz, seconds)
    late_ms = np.quantile(watched.late_ns, [0.5, 0.95, 0.99, 1.0]) / 1e6
    reads = len(watched.late_ns)
    return {
        "gpus": gpus,
        "hertz": hertz,
        "reads": reads,
        "cpu_seconds_per_read": spent["cpu_seconds"] / reads,
        "cpu_seconds_per_sample": spent["cpu_seconds"] / reads / gpus,
        "cpu_cores": spent["cpu_seconds"] / spent["wall_seconds"],
        "read_ms_p50": float(np.median(watched.read_ns)) / 1e6,
        "late_ms": dict(zip(("p50", "p95", "p99", "max"), map(float, late_ms), strict=True)),
        "calls_per_second": spent["calls_per_second"],
    }


# ------------------------------------------------------------------------------------ side by side


def errors_of(stretches: Sequence[Stretch], truth: Truth) -> dict[str, float] | None:
    """How wrong stretches are, percent of what is true; ``None`` if there are none."""
    if not stretches:
        return None
    true = np.array([truth.between(start_ns, end_ns) for start_ns, end_ns, _ in stretches])
    errors = np.abs(np.array([joules for _, _, joules in stretches]) / true - 1.0) * 100
    seconds = float(np.mean([end_ns - start_ns for start_ns, end_ns, _ in stretches])) / 1e9
    return {
        "count": float(len(errors)),
        "seconds": seconds,
        "error_p50": float(np.median(errors)),
        "error_p95": float(np.quantile(errors, 0.95)),
        "error_max": float(errors.max()),
    }


def joined(intervals: Iterable[EnergyInterval], seconds: float) -> list[Stretch]:
    """Neighbouring intervals put together to stretches of at least so many seconds."""
    found: list[Stretch] = []
    start_ns: int | None = None
    joules = 0.0
    for interval in intervals:
        start_ns = interval.start_ns if start_ns is None else start_ns
        joules += interval.energy_uj / 1e6
        if interval.end_ns - start_ns >= seconds * 1e9:
            found.append((start_ns, interval.end_ns, joules))
            start_ns, joules = None, 0.0
    return found


def own_side(driver: FakeDriver, uuid: str, truth: Truth, seconds: float) -> dict[str, Any]:
    """joulescope's row."""
    watched, spent = run_sampler(driver, 20.0, seconds)
    intervals = [interval for interval in watched.intervals if interval.gpu == uuid]
    windows = {"short": joined(intervals, 0.0), "long": joined(intervals, 5.0)}
    return _row(windows, truth, spent["cpu_seconds"] / spent["wall_seconds"], spent["calls_per_second"])


def zeus_side(
    python: str, what: str, driver: FakeDriver, truth: Truth, seconds: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """A row of Zeus', and the versions it runs with.

    Raises:
        RuntimeError: if Zeus fails, with what it printed.
    """
    child = Path(__file__).with_name("zeus_child.py")
    calls, begin = _calls(driver), time.monotonic()
    command = [python, str(child), what, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    wall = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    asked = {name: round((count - calls[name]) / wall, 2) for name, count in _calls(driver).items()}
    row = _row(told["windows"], truth, told["cpu_cores"], asked)
    return row | {"update_period_seconds": told.get("update_period_seconds")}, told["versions"]


def _row(
    windows: Mapping[str, Sequence[Stretch]], truth: Truth, cpu_cores: float, calls: Mapping[str, float]
) -> dict[str, Any]:
    return {
        **{name: errors_of(stretches, truth) for name, stretches in windows.items()},
        "cpu_cores": cpu_cores,
        "calls_per_second": {name: count for name, count in calls.items() if count},
    }


def has_zeus(python: str) -> bool:
    """Whether that interpreter finds Zeus."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('zeus') is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def side_by_side(python: str, gpus: int, seconds: float) -> dict[str, Any]:
    """joulescope and, where it is there, Zeus, each on all GPUs of one driver."""
    with stand_in([live("h100", f"GPU-{number}") for number in range(gpus)]) as driver:
        truths = {uuid: truth_of(LOAD, live("h100"), seconds).begin(driver, uuid) for uuid in driver.uuids()}
        uuid, truth = next(iter(truths.items()))
        rows: dict[str, Any] = {
            "joulescope, sampler and meters at 20 Hz": own_side(driver, uuid, truth, seconds)
        }
        if not has_zeus(python):
            return {"gpus": gpus, "rows": rows, "zeus": HOW_TO_ZEUS}
        versions: dict[str, str] = {}
        for what, title in ZEUS.items():
            rows[title], versions = zeus_side(python, what, driver, truth, seconds)
    return {"gpus": gpus, "rows": rows, "zeus": versions}


# ---------------------------------------------------------------------------------------- the page


def text_of(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [f"# The sampler: cost, punctuality, and Zeus beside it\n\n{report['machine']}\n"]
    if "cost" in report:
        lines += [
            f"`python benchmarks/sampler.py`, {report['seconds']:g} s of real time for each row; H100s of the"
            " stand-in driver. The time that a real driver takes to answer comes to it.\n",
            "| GPUs | Hz | CPU µs a sample | % of a core | late ms p50 | p95 | p99 | max | driver calls/s |",
            "|---|---|---|---|---|---|---|---|---|",
            *map(_cost_line, report["cost"]),
        ]
    if "zeus" in report:
        zeus = report["zeus"]
        lines += [
            f"\n## Beside Zeus\n\n{zeus['gpus']} H100s, {LOAD.title}, drifting; {report['seconds']:g} s each,"
            f" one after the other. Zeus: {zeus['zeus']}\n",
            "| | 0.5 s: error % p50 | p95 | 5 s: p50 | max | % of a core | driver calls/s |",
            "|---|---|---|---|---|---|---|",
            *(_side_line(title, row) for title, row in zeus["rows"].items()),
        ]
    return "\n".join(lines) + "\n"


def _cost_line(row: dict[str, Any]) -> str:
    late = " | ".join(f"{row['late_ms'][name]:.2f}" for name in ("p50", "p95", "p99", "max"))
    return (
        f"| {row['gpus']} | {row['hertz']:g} | {row['cpu_seconds_per_sample'] * 1e6:.0f} |"
        f" {row['cpu_cores'] * 100:.2f} | {late} | {_calls_text(row['calls_per_second'])} |"
    )


def _side_line(title: str, row: dict[str, Any]) -> str:
    figures = [("short", "error_p50"), ("short", "error_p95"), ("long", "error_p50"), ("long", "error_max")]
    cells = [f"{row[length][name]:.2f}" if row[length] else "–" for length, name in figures]
    calls = _calls_text(row["calls_per_second"])
    return f"| {title} | {' | '.join(cells)} | {row['cpu_cores'] * 100:.2f} | {calls} |"


def _calls_text(calls: Mapping[str, float]) -> str:
    most = sorted(calls.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {count:.0f}" for name, count in most if count >= 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=("all", "cost", "zeus"), default="all")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run, real time")
    parser.add_argument("--zeus-python", default=sys.executable, help="an interpreter that has zeus")
    arguments = parser.parse_args()
    report: dict[str, Any] = {
        "machine": machine("joulescope-inference", "nvidia-ml-py", "numpy"),
        "seconds": arguments.seconds,
    }
    if arguments.part in ("all", "cost"):
        report["cost"] = [cost(gpus, hertz, arguments.seconds) for gpus in GPUS for hertz in HERTZ]
    if arguments.part in ("all", "zeus"):
        report["zeus"] = side_by_side(arguments.zeus_python, max(GPUS), arguments.seconds)
    save("sampler" if arguments.part == "all" else f"sampler_{arguments.part}", report, text_of(report))


if __name__ == "__main__":
    main()

"""How true the joules of an interval are, by part, by load and by the way they are measured.

Each way reads the real ``pynvml`` on the stand-in driver, whose windows and ticks are those that somebody
measured on the part (arXiv 2312.02741) or that NVIDIA's header tells; its true joules are known. Time is
simulated: the same figures on every machine.

    python benchmarks/meters.py [--seconds 60] [--parts h100 a100] [--loads bursts]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pynvml  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.meter_loads import LOADS, NAMES, Truth, live, stand_in, truth_of
from benchmarks.report import machine, save
from joulescope.config import Settings
from joulescope.model import EnergyInterval, GpuInfo
from joulescope.sampling.counter import MeterCounters
from joulescope.sampling.meter import WINDOW_NS, Meter
from joulescope.sampling.power import PowerMeter, poll_hertz
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.nvml import NvmlSensor
from joulescope.units import ns_from_seconds
from tests.fake_nvml import DriverClock, FakeDriver, FakeGpu

GPU = "GPU-bench"
SETTINGS = Settings()
"""The sidecar's defaults."""

HERTZ, FAST_HERTZ = 20.0, 100.0
SETTLE_SECONDS = 2.0
"""Longer than any window: what a reading averages then belongs to the load."""

PHASES_NS = tuple(phase * 137_300_000 for phase in range(5))
"""How long the load begins after the driver's ticks do: fractions of every period used here."""

BUFFER_SECONDS = 1.0
"""How often the driver's buffer is emptied; it holds two seconds."""


@dataclass
class Bench:
    """One GPU of the stand-in driver under a load, and the time by which it goes."""

    driver: FakeDriver
    clock: DriverClock
    truth: Truth
    seed: int

    def timer(self, hertz: float) -> DeadlineTimer:
        """Deadlines as the sidecar keeps them, jitter included."""
        return DeadlineTimer(self.clock, 1 / hertz, Random(self.seed))


Way = Callable[[Bench, float], Sequence[EnergyInterval]]
"""Measures a bench for so many seconds. No interval: the part cannot be read that way."""


def by_sidecar(bench: Bench, seconds: float) -> Sequence[EnergyInterval]:
    """The sidecar's own sampler, sensor and meter, as they are set by default."""
    intervals: list[EnergyInterval] = []
    meters: dict[str, Meter] = {}

    def deliver(event: SamplerEvent) -> None:
        if isinstance(event, SensorOpened):
            meters.update({info.gpu: Meter(info) for info in event.gpus})
        elif isinstance(event, Sampled):
            for reading in event.readings:
                intervals.extend(meters[reading.gpu].add(reading))

    sampler = Sampler(
        lambda: NvmlSensor.open(bench.clock),
        bench.timer(SETTINGS.sample_hz),
        bench.clock,
        deliver,
        period_of=lambda gpus: 1.0 / poll_hertz(gpus, SETTINGS.sample_hz, SETTINGS.power_sample_hz),
    )
    end_ns = bench.clock.now_ns() + ns_from_seconds(seconds)
    while bench.clock.now_ns() < end_ns:
        sampler.step()
    sampler.stop(0.0)
    return intervals


def by_power(read: Callable[[Any], float], hertz: float, back_seconds: float = 0.0) -> Way:
    """Integrates a power reading, each held until the next.

    Args:
        read: milliwatts of a handle.
        back_seconds: how much earlier than it was read a reading is taken to be true.
    """

    def measure(bench: Bench, seconds: float) -> Sequence[EnergyInterval]:
        handle = pynvml.nvmlDeviceGetHandleByUUID(GPU)
        timer = bench.timer(hertz)
        back_ns = ns_from_seconds(back_seconds)
        meter = _power_meter()
        intervals: list[EnergyInterval] = []
        end_ns = bench.clock.now_ns() + ns_from_seconds(seconds)
        while bench.clock.now_ns() < end_ns:
            timer.wait()
            try:
                watts = read(handle) / 1000
            except pynvml.NVMLError:
                return []
            intervals += meter.add(bench.clock.now_ns() - back_ns, watts)
        return intervals

    return measure


def by_buffer(bench: Bench, seconds: float) -> Sequence[EnergyInterval]:
    """Sums the driver's own buffer of readings; each holds since the stamp of the one before."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(GPU)
    meter = _power_meter()
    intervals: list[EnergyInterval] = []
    seen_us = bench.clock.now_ns() // 1000
    end_ns = bench.clock.now_ns() + ns_from_seconds(seconds)
    while bench.clock.now_ns() < end_ns:
        bench.clock.advance(BUFFER_SECONDS)
        try:
            _, samples = pynvml.nvmlDeviceGetSamples(handle, pynvml.NVML_TOTAL_POWER_SAMPLES, seen_us)
        except pynvml.NVMLError:
            return []
        for sample in samples:
            intervals += meter.add(seen_us * 1000, sample.sampleValue.uiVal / 1000)
            seen_us = sample.timeStamp
    return intervals


def _power_meter() -> PowerMeter:
    return PowerMeter(GpuInfo(GPU, energy_source="power"), WINDOW_NS, MeterCounters())


def _instant(handle: Any) -> float:
    field = (pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_POWER_SCOPE_GPU)
    (told,) = pynvml.nvmlDeviceGetFieldValues(handle, [field])
    if told.nvmlReturn:
        raise pynvml.NVMLError(told.nvmlReturn)
    return float(told.value.uiVal)


_usage = pynvml.nvmlDeviceGetPowerUsage

WAYS: dict[str, Way] = {
    "sidecar": by_sidecar,
    "usage_20": by_power(_usage, HERTZ),
    "usage_100": by_power(_usage, FAST_HERTZ),
    "usage_back": by_power(_usage, HERTZ, back_seconds=0.5),
    "instant_20": by_power(_instant, HERTZ),
    "instant_100": by_power(_instant, FAST_HERTZ),
    "buffer": by_buffer,
}
TITLES = {
    "sidecar": "sidecar",
    "usage_20": "PowerUsage, 20 Hz",
    "usage_100": "PowerUsage, 100 Hz",
    "usage_back": "PowerUsage, 20 Hz, dated 0.5 s back",
    "instant_20": "POWER_INSTANT, 20 Hz",
    "instant_100": "POWER_INSTANT, 100 Hz",
    "buffer": "GetSamples",
}
"""PowerUsage stands for the field POWER_AVERAGE too: the same figure by NVIDIA's header and here."""


# --------------------------------------------------------------------------------------- the error


@dataclass(frozen=True)
class Errors:
    """Errors of one run, ratios of what is true."""

    total: float
    """Of all joules from the first interval's start to the last one's end; above 0: too many."""
    intervals: tuple[float, ...]
    """Of each interval, without sign."""


def errors_of(intervals: Sequence[EnergyInterval], truth: Truth) -> Errors | None:
    """What the intervals say against what is true; ``None`` if there are none."""
    if not intervals:
        return None
    told = np.array([interval.energy_uj for interval in intervals]) / 1e6
    true = np.array([truth.between(interval.start_ns, interval.end_ns) for interval in intervals])
    errors = np.abs(told / true - 1.0)
    return Errors(float(told.sum() / true.sum() - 1.0), tuple(errors.tolist()))


def summary_of(runs: Iterable[Errors | None]) -> dict[str, float] | None:
    """Percentages over several runs: the worst total, and median and 95th percentile of the intervals."""
    found = [run for run in runs if run is not None]
    if not found:
        return None
    every = np.concatenate([run.intervals for run in found]) * 100
    worst = max((run.total for run in found), key=abs)
    return {
        "total_worst": 100 * worst,
        "total_mean": 100 * float(np.mean([abs(run.total) for run in found])),
        "interval_p50": float(np.median(every)),
        "interval_p95": float(np.quantile(every, 0.95)),
    }


def measure(part: FakeGpu, load: str, way: Way, seconds: float, phase: int) -> Errors | None:
    """One run: one part, load, way and phase, from its own beginning of time."""
    with stand_in([part]) as driver:
        clock = DriverClock(1_000_000_000, driver=driver)
        clock.advance(PHASES_NS[phase] / 1e9)
        truth = truth_of(LOADS[load], part, seconds + SETTLE_SECONDS).begin(driver, GPU)
        clock.advance(SETTLE_SECONDS)
        pynvml.nvmlInit()
        try:
            return errors_of(way(Bench(driver, clock, truth, phase), seconds), truth)
        finally:
            pynvml.nvmlShutdown()


def compare(parts: Sequence[str], loads: Sequence[str], seconds: float, phases: int) -> dict[str, Any]:
    """Percentages by part, load and way."""
    return {
        part: {
            load: {
                name: summary_of(
                    measure(live(part, GPU), load, way, seconds, phase) for phase in range(phases)
                )
                for name, way in WAYS.items()
            }
            for load in loads
        }
        for part in parts
    }


# ---------------------------------------------------------------------------------------- the page


def text_of(report: dict[str, Any]) -> str:
    """The report as a page: the worst of each part, then all figures."""
    titles = " | ".join(TITLES[way] for way in WAYS)
    rule = "---|" * len(WAYS)
    errors = report["errors"]
    loads = list(dict.fromkeys(load for found in errors.values() for load in found))
    worst = {
        part: [_worst([ways[way] for ways in found.values()]) for way in WAYS]
        for part, found in errors.items()
    }
    lines = [
        f"# How true the meters are\n\n`python benchmarks/meters.py`, {report['machine']}\n",
        f"{report['seconds']:g} s of simulated time, {report['phases']} phases of load against the driver's"
        " ticks; percent. Parts in one row have the same figures. `-power`: the part without its counter.\n",
        "The worst of all loads: error of all joules · 95th percentile of the error of an interval of half a"
        f" second.\n\n| part | {titles} |\n|---|{rule}",
        *(f"| {parts} | {' | '.join(cells)} |" for parts, cells in grouped(worst)),
        "\nEach load: error of all joules in the worst phase · median · 95th percentile of the error of an"
        f" interval.\n\n| load | part | {titles} |\n|---|---|{rule}",
    ]
    for load in loads:
        rows = {part: [_cell(found[load][way]) for way in WAYS] for part, found in errors.items()}
        lines += [f"| {LOADS[load].title} | {parts} | {' | '.join(row)} |" for parts, row in grouped(rows)]
    return "\n".join(lines) + "\n"


def grouped(rows: Mapping[str, Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    """Rows with the same cells as one, their names joined."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, cells in rows.items():
        found.setdefault(tuple(cells), []).append(name)
    return [(", ".join(names), cells) for cells, names in found.items()]


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{_signed(found['total_worst'])} · {found['interval_p50']:.1f} · {found['interval_p95']:.1f}"


def _worst(found: Sequence[Mapping[str, float] | None]) -> str:
    there = [each for each in found if each is not None]
    if not there:
        return "–"
    total = max((each["total_worst"] for each in there), key=abs)
    return f"{_signed(total)} · {max(each['interval_p95'] for each in there):.1f}"


def _signed(percent: float) -> str:
    """With its sign, save where it rounds to nothing."""
    return "0.0" if abs(percent) < 0.05 else f"{percent:+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated, of each run")
    parser.add_argument("--phases", type=int, choices=range(1, len(PHASES_NS) + 1), default=len(PHASES_NS))
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--loads", nargs="+", choices=sorted(LOADS), default=list(LOADS))
    arguments = parser.parse_args()
    begin = time.monotonic()
    errors = compare(arguments.parts, arguments.loads, arguments.seconds, arguments.phases)
    report = {
        "machine": machine("joulescope-inference", "nvidia-ml-py", "numpy"),
        "seconds": arguments.seconds,
        "phases": arguments.phases,
        "took_seconds": round(time.monotonic() - begin, 1),
        "errors": errors,
    }
    save("meters", report, text_of(report))


if __name__ == "__main__":
    main()

"""What a GPU's energy meter can tell: before anything is measured with it, the meter is.

How often the energy counter ticks and in what units; how often each power reading is renewed and how much
time it averages, from steps of load of known instants; how long the calls take, alone and under load; what
the GPU draws with nothing to do, without and with a CUDA context; whether the counter and integrated power
agree; how near samples of GPM may lie; and what the driver's own buffer of power holds.

    python benchmarks/gpu/characterise.py                     # the first GPU as it is, no load started
    python benchmarks/gpu/characterise.py --burn              # and under loads made here (torch with CUDA)
    python benchmarks/gpu/characterise.py --simulated         # the simulated sensor
    python benchmarks/gpu/characterise.py --stand-in h100     # real pynvml on the stand-in driver

What cannot be looked at is named in the result, with the reason.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.gpu.sensor_page import text_of  # noqa: E402
from benchmarks.gpu.step_response import Burst, window_of  # noqa: E402
from benchmarks.gpu.torch_load import SPREAD_RATIO, NoTorchError, torch_bursts  # noqa: E402
from benchmarks.report import machine, save  # noqa: E402
from joulescope.clock import Clock, ManualClock, SystemClock  # noqa: E402
from joulescope.sensors.simulated import SimulatedSensor  # noqa: E402
from joulescope.simulation.gpu import SimulatedGpu  # noqa: E402
from joulescope.simulation.parts import World  # noqa: E402
from joulescope.simulation.worlds import H100_LLAMA_8B  # noqa: E402
from joulescope.units import ns_from_seconds, seconds_from_ns  # noqa: E402

POLL_SECONDS = 0.002
"""Short against every refresh known (10 ms and more), long against the calls (microseconds)."""

SLOW_EVERY = 50
"""Memory and utilisation are asked this seldom: they are known to change slowly."""

_SLOW = ("memory", "utilization", "sm_clock", "temperature", "throttle", "limit")
_WARM_UP_SECONDS = 5.0

BURSTS, ON_SECONDS, OFF_SECONDS = 10, 1.6, 1.6
"""Longer than any window known, and enough edges to fall into one of 25 ms some times."""

Call = Callable[[], float | None]


@dataclass(slots=True)
class Series:
    """What one call answered, and when: the middle of the call."""

    times_ns: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    took_ns: array[int] = field(default_factory=lambda: array("q"))

    def add(self, begin_ns: int, end_ns: int, value: float | None) -> None:
        self.took_ns.append(end_ns - begin_ns)
        if value is not None:
            self.times_ns.append((begin_ns + end_ns) // 2)
            self.values.append(value)

    def changes(self) -> NDArray[np.int64]:
        """Places at which the answer differs from the one before."""
        return np.flatnonzero(np.diff(np.asarray(self.values)) != 0) + 1


def watch(
    calls: Mapping[str, Call], clock: Clock, seconds: float, poll_seconds: float = POLL_SECONDS
) -> dict[str, Series]:
    """Makes all calls over and over for so many seconds."""
    series = {name: Series() for name in calls}
    begin_ns = due_ns = clock.now_ns()
    end_ns = begin_ns + ns_from_seconds(seconds)
    turn = 0
    while due_ns < end_ns:
        clock.sleep(max(seconds_from_ns(due_ns - clock.now_ns()), 0.0))
        for name, call in calls.items():
            if name not in _SLOW or turn % SLOW_EVERY == 0:
                before_ns = clock.now_ns()
                value = call()
                series[name].add(before_ns, clock.now_ns(), value)
        turn += 1
        due_ns = max(due_ns + ns_from_seconds(poll_seconds), clock.now_ns())
    return series


# ------------------------------------------------------------------------------------ what it tells


def report_of(series: Mapping[str, Series], timed: bool = True) -> dict[str, Any]:
    """The figures of one watch; what could not be seen is ``None``.

    Args:
        timed: whether the calls take real time; a simulated sensor's do not.
    """
    energy, power = series.get("energy"), series.get("power")
    counter_watts = None if energy is None else _counter_watts(energy)
    power_watts = None if power is None or not power.values else float(np.mean(power.values))
    return {
        "counter_tick_ms": None if energy is None else _periods_ms(energy),
        "counter_resolution_mj": None if energy is None else _resolution_mj(energy),
        "power_refresh_ms": {
            name: _periods_ms(each) for name, each in series.items() if name.startswith("power")
        },
        "power_watts": {
            name: _spread(np.asarray(each.values), 1.0)
            for name, each in series.items()
            if name.startswith("power")
        },
        "counter_watts": counter_watts,
        "counter_to_integrated_power": _counter_to_power(energy, power),
        "counter_to_integrated": {
            name: _counter_to_power(energy, each) for name, each in series.items() if name.startswith("power")
        },
        "watts": power_watts if counter_watts is None else counter_watts,
        "call_us": {name: _spread(np.asarray(each.took_ns), 1e-3) for name, each in series.items()}
        if timed
        else None,
    }


def _periods_ms(series: Series) -> dict[str, float] | None:
    """Time between changes. A reading that seldom changes may be renewed more often than is seen."""
    times = np.asarray(series.times_ns)[series.changes()]
    return _spread(np.diff(times), 1e-6)


def _spread(values: NDArray[Any], scale: float) -> dict[str, float] | None:
    """How many values there are, their 5th, 50th, 95th and 99th percentile, and the largest."""
    if not len(values):
        return None
    p5, p50, p95, p99, most = np.quantile(values, [0.05, 0.5, 0.95, 0.99, 1.0]) * scale
    found = {"p5": p5, "p50": p50, "p95": p95, "p99": p99, "max": most}
    return {"count": float(len(values)), **{name: round(float(value), 4) for name, value in found.items()}}


def _resolution_mj(series: Series) -> int | None:
    """The unit that the counter counts in: the greatest common divisor of its steps, millijoules."""
    millijoules = np.rint(np.asarray(series.values) * 1000).astype(np.int64)
    steps = np.diff(millijoules[series.changes()])
    return math.gcd(*steps.tolist()) if len(steps) else None


def _counter_watts(series: Series) -> float | None:
    """Mean power from the first tick to the last."""
    changes = series.changes()
    if len(changes) < 2:
        return None
    first, last = changes[0], changes[-1]
    seconds = seconds_from_ns(series.times_ns[last] - series.times_ns[first])
    return float(series.values[last] - series.values[first]) / seconds


def _counter_to_power(energy: Series | None, power: Series | None) -> float | None:
    """Joules by the counter over joules by power, each reading held until the next."""
    if energy is None or power is None or not len(power.times_ns):
        return None
    changes = energy.changes()
    if len(changes) < 2:
        return None
    start_ns, end_ns = energy.times_ns[changes[0]], energy.times_ns[changes[-1]]
    times = np.clip(np.append(np.asarray(power.times_ns), end_ns), start_ns, end_ns)
    joules = float((np.diff(times) * np.asarray(power.values)).sum()) * 1e-9
    counted = energy.values[changes[-1]] - energy.values[changes[0]]
    return counted / joules if joules else None


# ---------------------------------------------------------------------------------------- benches


def characterise_nvml(uuid: str | None, seconds: float, clock: Clock | None = None) -> dict[str, Any]:
    """A real GPU as it is now, through pynvml."""
    from benchmarks.gpu.nvml_probe import NvmlProbe

    with NvmlProbe(uuid) as probe:
        before = probe.state()
        report = report_of(watch(probe.calls, clock or SystemClock(), seconds))
        return {"gpu": probe.facts(), "state": {"before": before, "after": probe.state()}, **report}


def characterise_simulated(world: World, seed: int, seconds: float = 10.0) -> dict[str, Any]:
    """The simulated sensor, idle and under a load that alternates every 30 ms between two powers."""
    clock = ManualClock(1_000_000_000)
    gpu = SimulatedGpu(world.hardware, clock.time_ns, seed=seed)
    sensor = SimulatedSensor(gpu, clock)
    calls: dict[str, Call] = {
        "energy": lambda: sensor.read()[0].energy_joules,
        "power": lambda: sensor.read()[0].power_watts,
    }
    idle = report_of(watch(calls, clock, seconds), timed=False)
    for turn in range(int(seconds / 0.03)):
        begin_ns = clock.time_ns + turn * 30_000_000
        gpu.append(
            begin_ns, begin_ns + 30_000_000, world.hardware.power_limit_watts * (0.9 if turn % 2 else 0.6)
        )
    load = report_of(watch(calls, clock, seconds), timed=False)
    return {"gpu": {"name": world.hardware.name}, "idle": idle, "load": load, "idle_watts": idle["watts"]}


def bursts_report(
    series: Mapping[str, Series], bursts: Sequence[Burst], timed: bool = True
) -> dict[str, Any]:
    """What each power reading averages, and what the calls take in bursts and between them."""
    powers = {name: each for name, each in series.items() if name.startswith("power")}
    return {
        "bursts": len(bursts),
        "windows": {name: window_of(each.times_ns, each.values, bursts) for name, each in powers.items()},
        "call_us_in_burst": {name: _took_us(each, bursts, True) for name, each in series.items()}
        if timed
        else None,
        "call_us_in_pause": {name: _took_us(each, bursts, False) for name, each in series.items()}
        if timed
        else None,
    }


def _took_us(series: Series, bursts: Sequence[Burst], inside: bool) -> dict[str, float] | None:
    """Only where every call was answered: else it is not known which of them took how long."""
    if len(series.times_ns) != len(series.took_ns):
        return None
    times, within = np.asarray(series.times_ns), np.zeros(len(series.times_ns), dtype=bool)
    for begin_ns, end_ns in bursts:
        within |= (times >= begin_ns) & (times <= end_ns)
    return _spread(np.asarray(series.took_ns)[within == inside], 1e-3)


def characterise_loaded(uuid: str | None, seconds: float) -> dict[str, Any]:
    """A real GPU with a CUDA context, in bursts, and under a steady load, by products of matrices.

    Raises:
        NoTorchError: if there is no torch that reaches a GPU.
    """
    from benchmarks.gpu.driver_extras import GPM_SECONDS
    from benchmarks.gpu.nvml_probe import NvmlProbe

    clock = SystemClock()
    with torch_bursts() as load, NvmlProbe(uuid) as probe:
        clock.sleep(_WARM_UP_SECONDS)
        found: dict[str, Any] = {"context": report_of(watch(probe.calls, clock, seconds))}
        load.go(BURSTS, ON_SECONDS, OFF_SECONDS)
        longest_seconds = BURSTS * (ON_SECONDS + OFF_SECONDS * (1 + SPREAD_RATIO))
        series = watch(probe.calls, clock, longest_seconds)
        found["bursts"] = bursts_report(series, load.stamps())
        load.go(1, _WARM_UP_SECONDS + seconds + GPM_SECONDS + 2.0, 0.0)
        clock.sleep(_WARM_UP_SECONDS)
        found["load"] = report_of(watch(probe.calls, clock, seconds)) | extras_of(probe.handle, clock)
        load.stamps()
    return found


def extras_of(handle: Any, clock: Clock, timed: bool = True) -> dict[str, Any]:
    """GPM and the driver's buffer as they are now."""
    from benchmarks.gpu.driver_extras import buffer_of, gpm_of

    found = {"gpm": gpm_of(handle, clock), "buffer": buffer_of(handle, clock)}
    for each in found.values():
        if each is not None and not timed:
            each["call_us"] = None
    return found


def not_looked_at(found: Mapping[str, Any], why_no_load: str) -> dict[str, str]:
    """What is missing from a result, by name, with the reason."""
    lacks = {name: why_no_load for name in ("context", "bursts", "load") if found.get(name) is None}
    idle = found["idle"]
    silent = "the GPU or its driver does not tell"
    lacks |= {name: silent for name in ("gpm", "buffer") if idle.get(name) is None}
    lacks |= dict.fromkeys(found["gpu"].get("cannot_tell", ()), silent)
    bursts = found.get("bursts") or {"windows": {}}
    lacks |= {
        f"window of {name}": "too few renewals were seen to step"
        for name, window in bursts["windows"].items()
        if window is None
    }
    return lacks


def slug(name: str) -> str:
    """A GPU's name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def characterise_hardware(uuid: str | None, seconds: float, burn: bool) -> dict[str, Any]:
    """A real GPU, as far as it and this Python can be looked at."""
    from benchmarks.gpu.nvml_probe import NvmlProbe

    idle = characterise_nvml(uuid, seconds)
    with NvmlProbe(uuid) as probe:
        idle |= extras_of(probe.handle, SystemClock())
    found = {"gpu": idle.pop("gpu"), "idle": idle, "load": None, "idle_watts": idle["watts"]}
    why_no_load = "no load was started: --burn"
    if burn:
        try:
            found |= characterise_loaded(uuid, seconds)
        except NoTorchError as error:
            why_no_load = f"no load could be started: {error}"
    return found | {"not_looked_at": not_looked_at(found, why_no_load)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--simulated", action="store_true", help="the simulated sensor")
    kind.add_argument("--stand-in", metavar="PART", help="a part of the stand-in driver, as h100 or l40s")
    parser.add_argument("--gpu", help="UUID; default: the first GPU")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each state")
    parser.add_argument("--burn", action="store_true", help="also under loads started here (torch with CUDA)")
    arguments = parser.parse_args()
    if arguments.simulated:
        found = characterise_simulated(H100_LLAMA_8B, 0, arguments.seconds)
    elif arguments.stand_in:
        from benchmarks.gpu.stand_in import characterise_stand_in

        found = characterise_stand_in(arguments.stand_in, arguments.seconds)
    else:
        found = characterise_hardware(arguments.gpu, arguments.seconds, arguments.burn)
    report = {"machine": machine("joulescope-inference", "nvidia-ml-py", "torch", "vllm"), **found}
    save(f"gpu_sensor_{slug(str(found['gpu']['name']))}", report, text_of(report))


if __name__ == "__main__":
    main()

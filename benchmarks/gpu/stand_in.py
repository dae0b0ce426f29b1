"""The whole examination on a part of the stand-in driver, whose ticks and windows are known."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.characterise import (
    BURSTS,
    OFF_SECONDS,
    ON_SECONDS,
    POLL_SECONDS,
    bursts_report,
    extras_of,
    not_looked_at,
    report_of,
    watch,
)
from benchmarks.gpu.nvml_probe import NvmlProbe
from benchmarks.gpu.step_response import Burst
from benchmarks.meter_loads import live, stand_in
from joulescope.units import ns_from_seconds
from tests.fake_nvml import DriverClock, FakeDriver

GPU = "GPU-bench"
LOW_RATIO, HIGH_RATIO = 0.2, 0.9
"""Of the power limit."""

_PERIOD_SECONDS = ON_SECONDS + OFF_SECONDS + 0.0317
"""No multiple of a tick: each burst begins elsewhere between two."""


def characterise_stand_in(part: str, seconds: float) -> dict[str, Any]:
    """Through real pynvml, by the driver's own simulated clock: calls take no time and are not timed.

    Raises:
        KeyError: if there is no such part.
    """
    gpu = live(part, GPU)
    with stand_in([gpu]) as driver:
        clock = DriverClock(1_000_000_000, driver=driver)
        with NvmlProbe(GPU) as probe:
            facts = probe.facts()
            clock.advance(2.0 + POLL_SECONDS / 2)
            idle = report_of(watch(probe.calls, clock, seconds), timed=False)
            idle |= extras_of(probe.handle, clock, timed=False)
            begun = begin_bursts(driver, gpu.power_limit_watts)
            series = watch(probe.calls, clock, BURSTS * _PERIOD_SECONDS)
            bursts = bursts_report(series, begun, timed=False)
            driver.set_wave(GPU, *_watts(gpu.power_limit_watts), 0.06, 0.03)
            load = report_of(watch(probe.calls, clock, seconds), timed=False)
            load |= extras_of(probe.handle, clock, timed=False)
    found = {
        "gpu": {**facts, "name": f"{facts['name']} (stand-in driver)"},
        "idle": idle,
        "load": load,
        "bursts": bursts,
        "idle_watts": idle["watts"],
    }
    return found | {"not_looked_at": not_looked_at(found, "the stand-in driver has no CUDA")}


def begin_bursts(driver: FakeDriver, limit_watts: float) -> list[Burst]:
    """Lets the GPU work in bursts from now on; tells when the first of them will begin and end.

    The first is left out: the driver forgets what was drawn before the load was set.
    """
    now_ns = driver.now_ns()
    driver.set_wave(GPU, *_watts(limit_watts), _PERIOD_SECONDS, ON_SECONDS)
    begins = [now_ns + ns_from_seconds(number * _PERIOD_SECONDS) for number in range(1, BURSTS)]
    return [(begin_ns, begin_ns + ns_from_seconds(ON_SECONDS)) for begin_ns in begins]


def _watts(limit_watts: float) -> tuple[float, float]:
    return LOW_RATIO * limit_watts, HIGH_RATIO * limit_watts

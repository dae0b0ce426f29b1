"""Loads whose joules are known in closed form, and a stand-in driver that draws them.

The formulas here are not those of the stand-in library: a test holds the two against each other.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tests.fake_nvml import NOT_SUPPORTED, PARTS, FakeDriver, FakeGpu, build, load_here

WITHOUT_COUNTER = "-power"
NAMES = (
    *("v100", "a100", "h100", "h200", "b200", "gh200", "l40s", "pascal"),
    *(part + WITHOUT_COUNTER for part in ("v100", "a100", "h100", "l40s")),
)
"""Parts that are measured here. ``pascal`` has no energy counter, fields or buffer; ``…-power`` lacks the
counter alone, as behind a driver that does not let it be read."""


@dataclass(frozen=True)
class Load:
    """What a GPU draws, as ratios of its power limit: ``high`` at the start of each period, then ``low``.

    ``low`` is ``None`` for a GPU that draws between times what it draws with nothing to do.
    """

    title: str
    low: float | None
    high: float = 0.0
    period_seconds: float = 0.0
    high_seconds: float = 0.0
    ramp: float = 0.0
    """How much more it draws at the end of the run, evenly."""


def _square(period_seconds: float) -> Load:
    name = f"{period_seconds * 1000:.0f} ms" if period_seconds < 1 else f"{period_seconds:.0f} s"
    return Load(f"square wave, {name}", 0.3, 0.9, period_seconds, 0.4 * period_seconds)


LOADS = {
    "idle": Load("idle", None),
    "steady": Load("steady", 0.7),
    "wave_90ms": _square(0.09),
    "wave_100ms": _square(0.1),
    "wave_110ms": _square(0.11),
    "wave_1s": _square(1.0),
    "bursts": Load("bursts, 20 ms a second", None, 0.9, 1.0, 0.02),
    "ramp": Load("ramp of 25 ms steps", 0.2, 0.3, 0.025, 0.015, 0.6),
}
"""A wave is high for 40 % of its period: at one half, two polls a period would hide what they miss."""


@dataclass(frozen=True)
class Truth:
    """One load on one part from ``begin_ns`` on."""

    low_watts: float
    high_watts: float
    period_seconds: float
    high_seconds: float
    ramp_watts_per_second: float
    begin_ns: int = 0

    def joules(self, then_ns: int) -> float:
        """Drawn since the load began."""
        seconds = (then_ns - self.begin_ns) / 1e9
        drawn = self.low_watts * seconds + self.ramp_watts_per_second * seconds**2 / 2
        if self.period_seconds:
            periods, rest_seconds = divmod(seconds, self.period_seconds)
            high_seconds = periods * self.high_seconds + min(rest_seconds, self.high_seconds)
            drawn += (self.high_watts - self.low_watts) * high_seconds
        return drawn

    def between(self, start_ns: int, end_ns: int) -> float:
        """Joules of a stretch."""
        return self.joules(end_ns) - self.joules(start_ns)

    def begin(self, driver: FakeDriver, uuid: str) -> Truth:
        """Lets a GPU draw this from now on; says since when it does."""
        wave = (self.low_watts, self.high_watts, self.period_seconds, self.high_seconds)
        driver.set_wave(uuid, *wave, self.ramp_watts_per_second)
        return replace(self, begin_ns=driver.now_ns())


def truth_of(load: Load, part: FakeGpu, seconds: float) -> Truth:
    """What a part draws under a load, in a run of so many seconds."""
    limit_watts = part.power_limit_watts
    low_watts = part.power_watts if load.low is None else load.low * limit_watts
    return Truth(
        low_watts,
        load.high * limit_watts if load.high else low_watts,
        load.period_seconds,
        load.high_seconds,
        load.ramp * limit_watts / seconds,
    )


def live(part: str, uuid: str = "GPU-bench") -> FakeGpu:
    """A part whose counter runs, or is not shown."""
    gpu = replace(PARTS[part.removesuffix(WITHOUT_COUNTER)], uuid=uuid, live=True)
    if part.endswith(WITHOUT_COUNTER):
        return replace(gpu, codes=(*gpu.codes, ("energy", NOT_SUPPORTED)))
    return gpu


@cache
def _library() -> Path:
    """The stand-in library, built and loaded once a process."""
    folder = Path(tempfile.mkdtemp(prefix="joulescope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = build(folder)
    load_here(library)
    return library


@contextmanager
def stand_in(gpus: Sequence[FakeGpu]) -> Iterator[FakeDriver]:
    """A driver that ``pynvml`` finds in this process, and in those that it starts, meanwhile."""
    before = {name: os.environ.get(name) for name in ("FAKE_NVML_STATE", "LD_LIBRARY_PATH")}
    library = _library()
    with tempfile.TemporaryDirectory(prefix="joulescope-") as name:
        driver = FakeDriver(Path(name) / "state", gpus)
        os.environ |= {"FAKE_NVML_STATE": str(driver.path), "LD_LIBRARY_PATH": str(library.parent)}
        try:
            yield driver
        finally:
            for variable, value in before.items():
                if value is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = value
            driver.close()

"""What holds for a meter whatever it is fed."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from joulescope.clock import ManualClock
from joulescope.model import EnergyInterval, GpuInfo, GpuReading
from joulescope.sampling.meter import WINDOW_NS, Meter
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors.simulated import SimulatedSensor

GPU = "GPU-a"
INFO = GpuInfo(gpu=GPU, power_limit_watts=700.0)

gaps_ns = st.one_of(st.integers(1, 200_000_000), st.integers(1, 20_000_000_000))
events = st.lists(
    st.tuples(
        st.sampled_from(["draw"] * 8 + ["still"] * 4 + ["reset", "spike", "late", "repeat", "empty"]),
        gaps_ns,
        st.floats(0.01, 1),
    ),
    max_size=60,
)


@dataclass
class Course:
    """A counter's course, made event by event, that keeps account of what really happened."""

    time_ns: int = 1_000_000_000
    joules: float = 5_000.0
    first_joules: float = 5_000.0
    readings: list[GpuReading] = field(default_factory=list)
    risen_uj: int = 0
    breaks: dict[str, int] = field(default_factory=lambda: {"reset": 0, "spike": 0, "useless": 0})

    def happen(self, kind: str, gap_ns: int, size: float) -> None:
        if kind in ("late", "repeat", "empty"):
            self.breaks["useless"] += 1
            late_ns = self.time_ns - (gap_ns if kind == "late" else 0)
            energy = None if kind == "empty" else self.joules * size
            self.readings.append(GpuReading(GPU, late_ns, energy))
            return
        self.time_ns += gap_ns
        if kind == "draw":
            self.joules += round(700 * size * gap_ns / 1e9, 3)
        elif kind in ("reset", "spike"):
            self.end_stretch()
            self.breaks[kind] += 1
            self.joules = self.joules * size * 0.9 if kind == "reset" else self.joules + 1e9
            self.first_joules = self.joules
        self.readings.append(GpuReading(GPU, self.time_ns, self.joules))

    def end_stretch(self) -> None:
        self.risen_uj += round(1e6 * (self.joules - self.first_joules))


def check_order(intervals: list[EnergyInterval]) -> None:
    assert all(interval.energy_uj >= 0 for interval in intervals)
    assert all(interval.start_ns < interval.end_ns for interval in intervals)
    assert all(before.end_ns <= after.start_ns for before, after in pairwise(intervals))


@given(events=events, flushes=st.sets(st.integers(0, 60)))
def test_intervals_and_dropped_stretches_are_all_the_counter_did(
    events: list[tuple[str, int, float]], flushes: set[int]
) -> None:
    """Joules: intervals sum to the rises between breaks, exactly. Time: intervals + dropped = elapsed."""
    course = Course()
    course.readings.append(GpuReading(GPU, course.time_ns, course.joules))
    for event in events:
        course.happen(*event)
    course.end_stretch()
    meter = Meter(INFO)
    intervals: list[EnergyInterval] = []
    for place, reading in enumerate(course.readings):
        intervals += meter.add(reading)
        if place in flushes:
            intervals += meter.flush()
    intervals += meter.flush()
    check_order(intervals)
    assert sum(interval.energy_uj for interval in intervals) == course.risen_uj
    assert (meter.resets, meter.rejected, meter.skipped) == tuple(course.breaks.values())
    covered_ns = sum(interval.end_ns - interval.start_ns for interval in intervals)
    assert covered_ns + meter.counters.dropped_ns == course.time_ns - course.readings[0].time_ns


numbers = st.one_of(st.none(), st.floats(), st.floats(0, 1e6), st.sampled_from([0.0, 1.0, 4_294_967.295]))


@given(
    source=st.sampled_from(["counter", "power"]),
    limit=numbers,
    polls=st.lists(st.tuples(st.integers(-(10**10), 10**11), numbers, numbers), max_size=40),
)
def test_no_reading_whatever_breaks_a_meter(
    source: str, limit: float | None, polls: list[tuple[int, float | None, float | None]]
) -> None:
    """Any numbers in any order: no exception, no overlap, no negative energy."""
    meter = Meter(GpuInfo(gpu=GPU, power_limit_watts=limit, energy_source=source))
    intervals: list[EnergyInterval] = []
    for time_ns, joules, watts in polls:
        intervals += meter.add(GpuReading(GPU, time_ns, joules, watts))
    check_order(intervals + meter.flush())


class Sawtooth:
    """A GPU that draws ``low`` and ``high`` watts in turn, half a period each, known in closed form."""

    def __init__(self, low: float, high: float, period_seconds: float) -> None:
        self.low, self.high, self.period = low, high, period_seconds

    def gpus(self) -> list[GpuInfo]:
        return [INFO]

    def energy_joules_at(self, gpu: str, time_ns: int) -> float:
        periods, rest = divmod(time_ns / 1e9, self.period)
        low_seconds = min(rest, self.period / 2)
        high_seconds = rest - low_seconds
        whole = periods * (self.low + self.high) * self.period / 2
        return whole + self.low * low_seconds + self.high * high_seconds

    def power_watts_at(self, gpu: str, time_ns: int) -> float:
        return self.low if time_ns / 1e9 % self.period < self.period / 2 else self.high

    def memory_used_bytes_at(self, gpu: str, time_ns: int) -> int | None:
        return None

    def sm_utilization_ratio_at(self, gpu: str, time_ns: int) -> float | None:
        return None

    def power_limit_watts_at(self, gpu: str, time_ns: int) -> float | None:
        return 700.0

    def clocks_hertz_at(self, gpu: str, time_ns: int) -> tuple[float, float] | None:
        return None


@given(
    low=st.floats(0, 100),
    high=st.floats(100, 700),
    load_seconds=st.floats(0.02, 5),
    poll_seconds=st.floats(0.002, 1.5),
    seed=st.integers(0, 2**32),
)
def test_true_data_is_never_rejected(
    low: float, high: float, load_seconds: float, poll_seconds: float, seed: int
) -> None:
    """A ticking counter at any load up to the limit, polled at any rate, is measured whole and in windows."""
    clock = ManualClock(time_ns=10**12)
    sensor = SimulatedSensor(Sawtooth(low, high, load_seconds), clock)
    timer = DeadlineTimer(clock, poll_seconds, Random(seed))
    meter = Meter(INFO)
    intervals: list[EnergyInterval] = []
    readings: list[GpuReading] = []
    for _ in range(200):
        timer.wait()
        readings += sensor.read()
        intervals += meter.add(readings[-1])
    assert (meter.resets, meter.rejected, meter.skipped) == (0, 0, 0)
    longest_ns = WINDOW_NS + 100_000_000 + 3 * int(poll_seconds * 1e9)
    assert all(interval.end_ns - interval.start_ns <= longest_ns for interval in intervals if low > 1)
    intervals += meter.flush()
    first, last = readings[0].energy_joules, readings[-1].energy_joules
    assert first is not None
    assert last is not None
    assert sum(interval.energy_uj for interval in intervals) == round(1e6 * (last - first))

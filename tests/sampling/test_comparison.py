"""The energy counter beside the integral of power, over the same stretches of time."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.model import GpuInfo, GpuReading, MeterComparison
from joulescope.sampling.comparison import LEAST_SECONDS, RATIO_SECONDS
from joulescope.sampling.meter import Meter
from joulescope.sampling.power import HOLD_SECONDS

GPU = "GPU-a"
INFO = GpuInfo(gpu=GPU, power_limit_watts=700.0)


def at(seconds: float, joules: float | None = None, watts: float | None = None) -> GpuReading:
    return GpuReading(GPU, round(seconds * 1e9), energy_joules=joules, power_watts=watts)


def fed(readings: Iterable[GpuReading]) -> Meter:
    meter = Meter(INFO)
    for reading in readings:
        meter.add(reading)
    return meter


def compared(readings: Iterable[GpuReading]) -> MeterComparison | None:
    return fed(readings).comparison.totals()


def steady(seconds: float, *, watts: float, shown_watts: float, start: float = 0.0) -> list[GpuReading]:
    """Ten polls a second of a GPU that draws ``watts`` and shows ``shown_watts``."""
    times = [start + k / 10 for k in range(round(seconds * 10) + 1)]
    return [at(time, watts * time, shown_watts) for time in times]


@settings(deadline=None)
@given(watts=st.floats(1, 700), gain=st.floats(0.8, 1.2))
def test_constant_power_shows_the_gain(watts: float, gain: float) -> None:
    """Where power is constant the ratio is exactly how much more the counter shows than power."""
    totals = compared(steady(30, watts=watts, shown_watts=watts / gain))
    assert totals is not None
    assert totals.ratio == pytest.approx(gain, rel=1e-6)
    assert totals.counter_joules == pytest.approx(29.9 * watts, abs=1e-6)


def test_a_ticking_counter_is_compared_from_tick_to_tick() -> None:
    """Polls between two ticks, and the first one, whose tick lies before it, do not distort the sums."""
    ticks = [at(0.05 * k + 0.03, 100.0 * (k // 2 * 0.1), 100.0) for k in range(1, 800)]
    totals = compared(ticks)
    assert totals is not None
    assert totals.ratio == pytest.approx(1.0, rel=1e-9)
    assert totals.counter_joules == totals.power_joules == pytest.approx(3980.0)


truth = st.lists(
    st.tuples(
        st.sampled_from(["both"] * 8 + ["no power"] * 3 + ["hole", "reset", "spike", "late", "empty"]),
        st.integers(1, 999),
        st.integers(0, 700),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(events=truth)
def test_whatever_is_left_out_is_left_out_of_both(events: list[tuple[str, int, int]]) -> None:
    """Holes, resets, leaps and missing powers: where held power is the truth, the sums agree to rounding."""
    meter = Meter(INFO)
    millijoules, milliseconds, watts = 5_000_000, 1_000, 300
    meter.add(at(1.0, 5000.0, 300))
    for kind, gap, new_watts in events:
        hole = kind == "hole"
        duration = gap + (round(HOLD_SECONDS * 1000) if hole else 0)
        milliseconds += duration
        millijoules += duration * (new_watts if hole else watts)  # in a hole anything may be drawn
        if kind in ("reset", "spike"):
            millijoules = millijoules // 2 if kind == "reset" else millijoules + 10**12
        if kind == "late":
            meter.add(at(milliseconds / 1000 - 10_000, 0.0, 1.0))
        watts = watts if kind in ("no power", "empty") else new_watts
        joules = None if kind == "empty" else millijoules / 1000
        meter.add(at(milliseconds / 1000, joules, None if kind in ("no power", "empty") else watts))
    totals = meter.comparison.totals()
    assert totals is not None
    assert totals.counter_joules == pytest.approx(totals.power_joules, rel=1e-9, abs=1e-5)
    assert totals.ratio is None or totals.ratio == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None)
@given(
    low=st.floats(50, 200),
    high=st.floats(200, 700),
    period_seconds=st.floats(0.2, 40),
    poll_seconds=st.floats(0.05, 0.2),
)
def test_power_averaged_over_a_second_is_compared_fairly(
    low: float, high: float, period_seconds: float, poll_seconds: float
) -> None:
    """A driver's one-second mean costs at most half a second's worth of the load's swing at each end."""

    def joules(seconds: float) -> float:
        periods, rest = divmod(seconds, period_seconds)
        half = period_seconds / 2
        return periods * (low + high) * half + low * min(rest, half) + high * max(rest - half, 0.0)

    times = [2 + k * poll_seconds for k in range(round(70 / poll_seconds))]
    totals = compared([at(time, joules(time), joules(time) - joules(time - 1)) for time in times])
    assert totals is not None
    assert totals.ratio is not None
    swing_joules = (high - low) * (1.0 + 2 * poll_seconds)
    least_joules = low * (RATIO_SECONDS - 6)
    assert abs(totals.ratio - 1) <= swing_joules / least_joules + 1e-6


def test_the_ratio_is_that_of_the_last_minute() -> None:
    """What was drawn longer ago than a minute stands in the sums and no more in the ratio."""
    before = steady(200, watts=100, shown_watts=100)
    after = [at(200 + k / 10, 20_000 + 11.0 * k, 100.0) for k in range(1, 660)]
    totals = compared([*before, *after])
    assert totals is not None
    assert totals.ratio == pytest.approx(1.1)
    assert totals.counter_joules / totals.power_joules == pytest.approx(1.025, abs=0.001)


def test_there_is_no_ratio_before_enough_was_compared() -> None:
    """Twenty seconds must have been compared; the sums are there from the start."""
    totals = compared(steady(LEAST_SECONDS - 0.5, watts=100, shown_watts=100))
    assert totals is not None
    assert totals.ratio is None
    assert totals.power_joules > 0


def test_an_old_ratio_goes_when_power_is_no_longer_told() -> None:
    """A minute after the last power reading no ratio is claimed, though the counter goes on."""
    counting = [at(30 + k / 10, 3000 + 10.0 * k) for k in range(1, 700)]
    totals = compared([*steady(30, watts=100, shown_watts=100), *counting])
    assert totals is not None
    assert totals.ratio is None


def test_a_stuck_counter_shows() -> None:
    """A counter that stands still while power is drawn pulls the ratio down to 0, instead of freezing it."""
    stuck = [at(30 + k / 10, 3000.0, 100.0) for k in range(1, 700)]
    totals = compared([*steady(30, watts=100, shown_watts=100), *stuck])
    assert totals is not None
    assert totals.ratio == 0.0


def test_a_sleeping_counter_is_no_stuck_one() -> None:
    """One that ticks every 7 s is still compared whole: what was booked as nothing comes with the tick."""
    slow = [at(k / 10, 100.0 * (k // 70 * 7), 100.0) for k in range(1, 1000)]
    totals = compared(slow)
    assert totals is not None
    assert totals.ratio == pytest.approx(1.0, abs=0.15)


def test_one_meter_is_no_comparison() -> None:
    """Without power, or without a counter, nothing is said."""
    assert compared([at(k / 10, 10.0 * k) for k in range(300)]) is None
    assert compared([at(k / 10, None, 100.0) for k in range(300)]) is None


def test_a_power_that_cannot_be_is_not_held() -> None:
    """NVML's "not available" in milliwatts leaves the power before it in force."""
    readings = steady(30, watts=100, shown_watts=100)
    readings[50] = at(5.0, 500.0, 4_294_967.295)
    totals = compared(readings)
    assert totals is not None
    assert totals.ratio == pytest.approx(1.0)


def test_a_comparison_goes_on_in_the_next_meter() -> None:
    """A meter that is given up hands its sums on, so that they never fall."""
    first = fed(steady(30, watts=100, shown_watts=100))
    second = Meter(INFO, former=first)
    before = first.comparison.totals()
    for reading in steady(30, watts=100, shown_watts=100, start=100.0):
        second.add(reading)
    after = second.comparison.totals()
    assert before is not None
    assert after is not None
    assert after.counter_joules == pytest.approx(2 * before.counter_joules)

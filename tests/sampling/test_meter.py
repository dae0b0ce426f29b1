"""Readings in, intervals of energy out: one behaviour at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest

from joulescope.model import EnergyInterval, GpuInfo, GpuReading
from joulescope.sampling.counter import Delta, First, Reset, counter_step
from joulescope.sampling.meter import Meter

GPU = "GPU-a"
INFO = GpuInfo(gpu=GPU, power_limit_watts=700.0)
POWER_ONLY = GpuInfo(gpu=GPU, power_limit_watts=250.0, energy_source="power")


def at(seconds: float, joules: float | None = None, watts: float | None = None) -> GpuReading:
    return GpuReading(GPU, round(seconds * 1e9), energy_joules=joules, power_watts=watts)


def feed(meter: Meter, readings: Iterable[GpuReading]) -> list[EnergyInterval]:
    return [interval for reading in readings for interval in meter.add(reading)]


def spans(intervals: Iterable[EnergyInterval]) -> list[tuple[float, float, float]]:
    """(start s, end s, joules)."""
    return [(i.start_ns / 1e9, i.end_ns / 1e9, i.energy_uj / 1e6) for i in intervals]


def test_steps_of_a_counter_are_a_type() -> None:
    """The first value, a rise (possibly of nothing) and a fall are told apart."""
    assert counter_step(None, 5.0) == First()
    assert counter_step(5.0, 5.0) == Delta(0.0)
    assert counter_step(5.0, 7.5) == Delta(2.5)
    assert counter_step(5.0, 0.0) == Reset()


def test_interval_ends_at_the_first_change_after_the_window() -> None:
    """Polls between two ticks see the old value and never end an interval; it ends between two polls."""
    meter = Meter(INFO)
    polls = [(0.0, 100), (0.2, 120), (0.4, 140), (0.5, 140), (0.55, 140), (0.6, 160), (0.65, 160)]
    assert spans(feed(meter, [at(*poll) for poll in polls])) == [(0.0, 0.575, 60.0)]
    assert spans(meter.flush()) == [(0.575, 0.65, 0.0)]


def test_next_interval_starts_where_the_last_one_ended() -> None:
    """Intervals follow each other without a gap and sum to the counter's rise."""
    meter = Meter(INFO)
    intervals = feed(meter, [at(0.1 * k, 50.0 * k) for k in range(21)])
    assert spans(intervals) == [(0.0, 0.5, 250.0), (0.5, 1.0, 250.0), (1.0, 1.5, 250.0), (1.5, 2.0, 250.0)]
    assert meter.flush() == []


def test_sum_has_no_rounding_drift() -> None:
    """A thousand intervals of a third of a microjoule more than a joule sum to the rounded whole."""
    meter = Meter(INFO)
    step = 1 + 1e-6 / 3
    readings = [at(0.5 * k, 1e6 + step * k) for k in range(1001)]
    total = sum(interval.energy_uj for interval in feed(meter, readings))
    first, last = readings[0].energy_joules, readings[-1].energy_joules
    assert first is not None
    assert last is not None
    assert total == round(1e6 * (last - first))
    assert total != 1000 * round(1e6 * step)


def test_flush_closes_at_the_last_reading_and_goes_on() -> None:
    """After a flush everything the counter rose by is handed out, and further readings continue."""
    meter = Meter(INFO)
    assert feed(meter, [at(0.0, 10), at(0.1, 30), at(0.2, 30)]) == []
    assert spans(meter.flush()) == [(0.0, 0.2, 20.0)]
    assert meter.flush() == []
    assert spans(feed(meter, [at(0.3, 60), at(0.8, 90)])) == [(0.2, 0.8, 60.0)]


def test_counter_that_stands_still_stretches_the_window() -> None:
    """A sleeping GPU whose counter ticks after 4 s gets one interval of 4 s, never a made-up one."""
    meter = Meter(INFO)
    polls = [at(0.05 * k, 10.0) for k in range(80)]
    assert feed(meter, polls) == []
    assert spans(feed(meter, [at(4.0, 40.0)])) == [(0.0, 4.0, 30.0)]


def test_long_silence_gets_an_interval_of_its_own() -> None:
    """What was open before a hole of 10 s is closed at its last change; the counter covers the hole."""
    meter = Meter(INFO)
    readings = [at(0.0, 0), at(0.1, 20), at(0.15, 20), at(10.0, 3000), at(10.5, 3300)]
    assert spans(feed(meter, readings)) == [(0.0, 0.1, 20.0), (0.1, 10.0, 2980.0), (10.0, 10.5, 300.0)]


def test_reset_drops_only_the_stretch_around_it() -> None:
    """What is known up to the last change before a reset is kept; what follows starts afresh."""
    meter = Meter(INFO)
    readings = [at(0.0, 1000), at(0.1, 1030), at(0.15, 1030), at(0.2, 3), at(0.4, 23), at(0.7, 63)]
    assert spans(feed(meter, readings)) == [(0.0, 0.1, 30.0), (0.2, 0.7, 60.0)]
    assert (meter.resets, meter.rejected, meter.counters.dropped_ns) == (1, 0, 100_000_000)


def test_reset_to_zero_in_an_empty_window() -> None:
    """A reset right after the first reading gives no interval and no negative energy."""
    meter = Meter(INFO)
    assert feed(meter, [at(0.0, 1000), at(0.1, 0)]) == []
    assert meter.flush() == []
    assert meter.resets == 1


def test_impossible_rise_is_rejected() -> None:
    """A jump that the GPU cannot have drawn is dropped and counted, and measuring goes on behind it."""
    meter = Meter(INFO)
    readings = [at(0.0, 0), at(0.1, 50), at(0.2, 5_000), at(0.7, 5_200)]
    assert spans(feed(meter, readings)) == [(0.0, 0.1, 50.0), (0.2, 0.7, 200.0)]
    assert (meter.resets, meter.rejected) == (0, 1)


def test_single_nonsense_value_costs_two_stretches() -> None:
    """One absurd value and the return to the true one are a rejection and a reset, with nothing between."""
    meter = Meter(INFO)
    readings = [at(0.0, 0), at(0.1, 50), at(0.2, 9e12), at(0.3, 150), at(0.8, 400)]
    assert spans(feed(meter, readings)) == [(0.0, 0.1, 50.0), (0.3, 0.8, 250.0)]
    assert (meter.resets, meter.rejected) == (1, 1)


def test_change_may_cover_a_tick_more_than_the_polls() -> None:
    """Polls 1 ms apart around a tick of 100 ms at the limit show 70 J in 1 ms: true, not impossible."""
    meter = Meter(INFO)
    feed(meter, [at(0.0, 0), at(0.099, 0), at(0.1, 70), at(0.199, 70), at(0.2, 140)])
    assert meter.rejected == 0


def test_limit_raised_at_run_time_does_not_reject_true_energy() -> None:
    """Power readings above the limit known at the start raise the bound."""
    meter = Meter(GpuInfo(gpu=GPU, power_limit_watts=200.0))
    readings = [at(1.0 * k, 690.0 * k, watts=690.0) for k in range(10)]
    assert len(feed(meter, readings)) == 9
    assert meter.rejected == 0


def test_without_a_limit_only_the_absurd_is_rejected() -> None:
    """Where no limit is known a whole node's 10 kW pass, a terajoule does not."""
    meter = Meter(GpuInfo(gpu=GPU))
    assert spans(feed(meter, [at(0, 0), at(1, 10_000), at(2, 1e12)])) == [(0.0, 1.0, 10_000.0)]
    assert meter.rejected == 1


@pytest.mark.parametrize(
    "reading",
    [
        at(0.1, 40.0),
        at(0.05, 40.0),
        at(0.3),
        at(0.3, watts=100.0),
        at(0.3, math.nan),
        at(0.3, math.inf),
        at(0.3, -1.0),
    ],
    ids=["repeated", "late", "empty", "power only", "nan", "infinite", "negative"],
)
def test_useless_reading_is_skipped_and_counted(reading: GpuReading) -> None:
    """A reading that cannot be used changes nothing but the count."""
    meter = Meter(INFO)
    feed(meter, [at(0.0, 0), at(0.1, 50)])
    assert meter.add(reading) == []
    assert meter.skipped == 1
    assert spans(feed(meter, [at(0.6, 200)])) == [(0.0, 0.6, 200.0)]


def test_reading_of_another_gpu_is_a_bug() -> None:
    """A reading under another UUID raises instead of being mixed in."""
    with pytest.raises(ValueError, match="GPU-b"):
        Meter(INFO).add(GpuReading("GPU-b", 1))


def test_window_must_be_positive() -> None:
    """A window of 0 ns is refused."""
    with pytest.raises(ValueError, match="window_ns"):
        Meter(INFO, 0)


def test_foreign_trace_sampled_each_second() -> None:
    """A counter read once a second gives one interval a second."""
    meter = Meter(GpuInfo(gpu=GPU))
    assert spans(feed(meter, [at(k, 300.0 * k) for k in range(4)])) == [
        (0.0, 1.0, 300.0),
        (1.0, 2.0, 300.0),
        (2.0, 3.0, 300.0),
    ]


def test_power_is_held_until_the_next_reading() -> None:
    """Without a counter each power reading stands for the time after it, and the intervals say so."""
    meter = Meter(POWER_ONLY)
    intervals = feed(meter, [at(0.0, watts=100), at(0.25, watts=200), at(0.5, watts=50), at(0.75, watts=50)])
    assert spans(intervals) == [(0.0, 0.5, 75.0)]
    assert spans(meter.flush()) == [(0.5, 0.75, 12.5)]
    assert {interval.source for interval in intervals} == {"power"}


def test_power_is_not_held_over_a_long_silence() -> None:
    """Three seconds without a reading are dropped and counted, not filled with the last one."""
    meter = Meter(POWER_ONLY)
    readings = [at(0.0, watts=100), at(0.2, watts=100), at(3.2, watts=100), at(3.7, watts=100)]
    assert spans(feed(meter, readings)) == [(0.0, 0.2, 20.0), (3.2, 3.7, 50.0)]
    assert (meter.counters.holes, meter.counters.dropped_ns) == (1, 3_000_000_000)


def test_power_integral_has_no_rounding_drift() -> None:
    """A million nanosecond-odd intervals' worth of thirds of a watt still sum to the exact integral."""
    meter = Meter(POWER_ONLY, window_ns=1)
    readings = [GpuReading(GPU, 333_333 * k, power_watts=33.333333) for k in range(3001)]
    total = sum(interval.energy_uj for interval in feed(meter, readings))
    assert total == 33_333_333 * 333_333 * 3000 // 10**9


def test_impossible_power_is_rejected() -> None:
    """NVML's "not available" in milliwatts is no power reading; the one before it holds on."""
    meter = Meter(POWER_ONLY)
    assert spans(feed(meter, [at(0.0, watts=100), at(0.2, watts=4_294_967.295), at(0.5, watts=100)])) == [
        (0.0, 0.5, 50.0)
    ]
    assert meter.rejected == 1


def test_declared_power_source_ignores_a_counter() -> None:
    """A GPU declared as measured by power is, even where a figure of energy slips in."""
    meter = Meter(POWER_ONLY)
    intervals = feed(meter, [at(0.0, 1, watts=100), at(0.5, 999, watts=100)])
    assert [(interval.source, interval.energy_uj) for interval in intervals] == [("power", 50_000_000)]


def test_calibration_multiplies_what_the_counter_shows() -> None:
    """A card that shows 100 J for each 105 J has intervals of 105 J, and limits in its own joules."""
    meter = Meter(GpuInfo(gpu=GPU, power_limit_watts=700.0, calibration_factor=1.05))
    readings = [at(0.5 * k, 5_000 + 350.0 * k, watts=700) for k in range(5)]
    assert spans(feed(meter, readings)) == [(0.5 * k, 0.5 * k + 0.5, 367.5) for k in range(4)]
    assert meter.rejected == 0


def test_calibration_does_not_make_true_energy_impossible() -> None:
    """A card at its limit with a factor of 2 draws twice the limit that it shows, and is believed."""
    meter = Meter(GpuInfo(gpu=GPU, power_limit_watts=700.0, calibration_factor=2.0))
    feed(meter, [at(1.0 * k, 700.0 * k) for k in range(60)])
    assert meter.rejected == 0


def test_calibration_multiplies_integrated_power() -> None:
    """A GPU without a counter is calibrated by the same factor."""
    meter = Meter(GpuInfo(gpu=GPU, energy_source="power", calibration_factor=0.5))
    assert spans(feed(meter, [at(0.0, watts=100), at(0.5, watts=100)])) == [(0.0, 0.5, 25.0)]


def test_foreign_trace_with_power_only() -> None:
    """A trace that never shows a counter is measured by power although it did not say so."""
    meter = Meter(GpuInfo(gpu=GPU))
    intervals = feed(meter, [at(0.0, watts=300), at(0.5, watts=300)])
    assert [(interval.source, interval.energy_uj) for interval in intervals] == [("power", 150_000_000)]


def test_counter_takes_over_once_it_is_seen() -> None:
    """If the counter shows up later, power ends at its last reading and nothing is counted twice."""
    meter = Meter(INFO)
    readings = [at(0.0, watts=300), at(0.2, watts=300), at(0.3, 1000), at(0.4, watts=300), at(0.9, 1180)]
    intervals = feed(meter, readings)
    assert spans(intervals) == [(0.0, 0.2, 60.0), (0.3, 0.9, 180.0)]
    assert [interval.source for interval in intervals] == ["power", "counter"]
    assert meter.skipped == 1


def test_an_interval_has_the_worst_clock_error_of_its_readings() -> None:
    """Both edges count: the reading that ended one window began the next. Local readings have no error."""
    errors = [0.0, 0.004, 0.001, 0.0, 0.0, 0.002, 0.0, 0.0, 0.0]
    readings = [replace(at(0.25 * k, 50.0 * k), clock_error_seconds=error) for k, error in enumerate(errors)]
    intervals = feed(Meter(INFO), readings)
    assert [interval.clock_error_seconds for interval in intervals] == [0.004, 0.001, 0.002, 0.0]


def test_a_window_that_is_flushed_keeps_its_clock_error() -> None:
    """By power as by the counter."""
    for info, joules in ((INFO, 5.0), (POWER_ONLY, None)):
        meter = Meter(info)
        told = [at(0.0, joules, 100.0), at(0.1, joules and joules + 10.0, 100.0)]
        feed(meter, [replace(reading, clock_error_seconds=0.003) for reading in told])
        assert [interval.clock_error_seconds for interval in meter.flush()] == [0.003]

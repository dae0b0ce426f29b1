"""Counters that begin again: what is a wrap, what a reset, and what is not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.host_model import CpuShare, CpuTimes, HostDomain, HostInterval, HostReading
from joulescope.sampling.counter import Delta, First, Reset
from joulescope.sampling.host_meter import (
    POWER_CAP_WATTS,
    Hole,
    HostMeters,
    HostStep,
    Impossible,
    Wrap,
    cpu_share,
    host_step,
)
from joulescope.units import uj_from_joules

RANGE_JOULES = 262_143.32885
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("previous", "joules", "elapsed_seconds", "range_joules", "step"),
    [
        (None, 5.0, 1.0, RANGE_JOULES, First()),
        (5.0, 5.0, 1.0, RANGE_JOULES, Delta(0.0)),
        (5.0, 305.0, 1.0, RANGE_JOULES, Delta(300.0)),
        (262_000.0, 156.0, 1.0, 262_144.0, Wrap(300.0)),
        (100_000.0, 0.0, 1.0, RANGE_JOULES, Reset()),
        (300_000.0, 0.0, 1.0, RANGE_JOULES, Reset()),
        (100.0, 50.0, 1.0, None, Reset()),
        (5.0, 5_005.0, 1.0, RANGE_JOULES, Impossible()),
        (5.0, 5_005.0, 1.0, None, Impossible()),
        (5.0, 305.0, 200.0, RANGE_JOULES, Hole()),
        (5.0, 60_005.0, 200.0, None, Delta(60_000.0)),
        (5.0, 60_005.0, 3601.0, None, Hole()),
    ],
)
def test_what_lies_between_two_values(
    previous: float | None, joules: float, elapsed_seconds: float, range_joules: float | None, step: HostStep
) -> None:
    """A decrease is a wrap where so much can have been drawn, else a reset; a long silence is a hole."""
    assert host_step(previous, joules, elapsed_seconds, range_joules) == step


def reading(second: float, energy_joules: dict[str, float], cpu: CpuTimes | None = None) -> HostReading:
    return HostReading(round(second * SECOND), energy_joules, cpu)


def meters(range_joules: float | None = RANGE_JOULES) -> HostMeters:
    made = HostMeters()
    made.found([HostDomain("package-0", energy_range_joules=range_joules)])
    return made


@given(
    watts=st.lists(st.floats(0.0, 0.9 * POWER_CAP_WATTS), min_size=1, max_size=80),
    start=st.floats(0.0, 65_000.0),
)
def test_no_wrap_loses_or_invents_a_joule(watts: list[float], start: float) -> None:
    """However often the counter goes round, the intervals sum to what was drawn."""
    made, drawn, range_joules = meters(65_712.999613), 0.0, 65_712.999613
    total_uj = 0
    for second, power_watts in enumerate([0.0, *watts]):
        drawn += power_watts
        shown = round((start + drawn) % range_joules, 6)
        total_uj += sum(each.energy_uj for each in made.add(reading(second, {"package-0": shown})))
    meter = made.domains["package-0"]
    assert abs(total_uj - uj_from_joules(drawn)) <= 2 * len(watts)
    assert meter.wraps == int((start + drawn) // range_joules)
    assert (meter.resets, meter.rejected) == (0, 0)


def test_a_reset_is_counted_and_what_comes_after_is_measured() -> None:
    """The stretch across a reset is left out, and nothing beyond it."""
    made = meters()
    made.add(reading(0, {"package-0": 100_000.0}))
    assert made.add(reading(1, {"package-0": 3.0})) == []
    (interval,) = made.add(reading(2, {"package-0": 53.0}))
    assert interval == HostInterval("package-0", SECOND, 2 * SECOND, 50_000_000)
    assert made.domains["package-0"].resets == 1


def test_a_leap_and_a_silence_are_rejected() -> None:
    """Impossible rises, and silences in which the counter may have gone round, are counted and left out."""
    made = meters()
    made.add(reading(0, {"package-0": 0.0}))
    assert made.add(reading(1, {"package-0": 90_000.0})) == []
    assert made.add(reading(1000, {"package-0": 90_100.0})) == []
    assert made.domains["package-0"].rejected == 2


def test_a_domain_that_could_not_be_read_for_a_while_loses_nothing() -> None:
    """The counter went on meanwhile: the next reading covers the gap, with the CPU time of all of it."""
    made = meters()
    made.add(reading(0, {"package-0": 0.0, "dram-0": 0.0}, CpuTimes(0.0, 0.0, {"e": 0.0})))
    made.add(reading(1, {"dram-0": 1.0}, CpuTimes(1.0, 4.0, {"e": 0.5})))
    package, dram = made.add(reading(2, {"package-0": 80.0, "dram-0": 2.0}, CpuTimes(3.0, 8.0, {"e": 2.0})))
    assert (package.energy_uj, package.cpu) == (80_000_000, CpuShare(3.0, 8.0, {"e": 2.0}))
    assert (dram.energy_uj, dram.cpu) == (1_000_000, CpuShare(2.0, 4.0, {"e": 1.5}))


def test_a_reading_out_of_order_is_passed_over() -> None:
    """A reading that is not later than the one before changes nothing."""
    made = meters()
    made.add(reading(5, {"package-0": 10.0}))
    assert made.add(reading(5, {"package-0": 20.0})) == []
    assert made.add(reading(4, {"package-0": 5.0})) == []
    (interval,) = made.add(reading(6, {"package-0": 30.0}))
    assert interval.energy_uj == 20_000_000


def test_cpu_time_that_makes_no_sense_is_not_known() -> None:
    """The host's own time going back is no share; a missing reading neither."""
    assert cpu_share(None, CpuTimes(1.0, 2.0)) is None
    assert cpu_share(CpuTimes(1.0, 2.0), None) is None
    assert cpu_share(CpuTimes(5.0, 9.0), CpuTimes(4.0, 12.0)) is None


def test_a_machine_at_full_load_has_shares() -> None:
    """Where no CPU rested, the sum of all time may round below the busy time: it is still known."""
    full = cpu_share(CpuTimes(9.989, 9.989), CpuTimes(12.009, 12.008999))
    assert full is not None
    assert full.total_seconds == full.busy_seconds == pytest.approx(2.02)


def test_engines_that_come_and_go_between_readings() -> None:
    """One that is new counts from 0; one whose count began again has no known share; one unseen is told."""
    before = CpuTimes(0.0, 0.0, {"old": 9.0, "gone": 1.0})
    after = CpuTimes(5.0, 8.0, {"old": 2.0, "new": 3.0}, ("dark",))
    assert cpu_share(before, after) == CpuShare(5.0, 8.0, {"old": 0.0, "new": 3.0}, engines_unseen=True)

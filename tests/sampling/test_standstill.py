"""Counters that stop: who is suspected, and how often it is said."""

from __future__ import annotations

import logging

import pytest

from joulescope.model import GpuReading
from joulescope.sampling.standstill import Standstill
from tests.worlds import SECOND


def stand(watch: Standstill, joules: float | None, watts: float | None, since: int, until: int) -> None:
    """Readings once a second that all show the same."""
    for at in range(since, until):
        watch.add(GpuReading("GPU-a", at * SECOND, energy_joules=joules, power_watts=watts))


def test_a_stuck_counter_is_said_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """However long it stands there is one warning, and one line with how long it was when it runs again."""
    caplog.set_level(logging.INFO)
    watch = Standstill()
    stand(watch, 5.0, 300.0, 0, 60)
    stand(watch, 6.0, 300.0, 60, 65)
    (warning, over) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "GPU-a has stood still for 10 s, but it draws 300 W" in warning.getMessage()
    assert "runs again; it had stood still for 60 s" in over.getMessage()


@pytest.mark.parametrize("watts", [None, 0.0])
def test_without_power_nobody_is_suspected(caplog: pytest.LogCaptureFixture, watts: float | None) -> None:
    """A GPU that draws nothing, or of which that is not known, may have a counter that stands."""
    stand(Standstill(), 5.0, watts, 0, 60)
    assert not caplog.records


def test_a_counter_that_is_away_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Readings without a counter end the suspicion: what is not shown does not stand still."""
    watch = Standstill()
    stand(watch, 5.0, 300.0, 0, 9)
    stand(watch, None, 300.0, 9, 10)
    stand(watch, 5.0, 300.0, 10, 19)
    assert not caplog.records

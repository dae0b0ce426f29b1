"""The log of a sensor: each trouble once when it begins and once when it is over."""

from __future__ import annotations

import logging

import pytest

from joulescope.clock import ManualClock
from joulescope.sensors.troubles import Troubles

LOGGER = logging.getLogger("joulescope.test")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time_ns=10**9)


@pytest.fixture
def troubles(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> Troubles:
    caplog.set_level(logging.INFO)
    return Troubles(clock, LOGGER)


def test_it_is_over_after_a_minute_without_a_failure(
    troubles: Troubles, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers in between do not end it; the line that does tells how often and how long it failed."""
    for _ in range(10):
        troubles.failed("GPU a: power", "no")
        clock.advance(30.0)
        troubles.answered("GPU a: power")
    clock.advance(30.0)
    troubles.answered("GPU a: power")
    troubles.answered("GPU a: power")
    assert [record.getMessage() for record in caplog.records] == [
        "GPU a: power cannot be read: no",
        "GPU a: power answers again; it had failed 10 times in 270 s",
    ]


def test_parts_are_told_apart(troubles: Troubles, caplog: pytest.LogCaptureFixture) -> None:
    """One part's trouble does not hide another's, and one that never failed is never said to be over."""
    troubles.failed("GPU a", "no")
    troubles.failed("GPU b", "no")
    troubles.answered("GPU c")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_note_is_said_again_only_if_it_is_another(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    """What holds of a part is logged when it changes, and when it changes back."""
    for line in ("counts", "counts", "counts no more", "counts"):
        troubles.note(logging.INFO, "GPU a", line)
    assert [record.getMessage() for record in caplog.records] == ["counts", "counts no more", "counts"]

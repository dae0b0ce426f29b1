"""The intensity over time: refreshed, retried, counted, and forgotten when it is too old."""

from __future__ import annotations

import logging
import threading

import pytest

from joulescope.clock import ManualClock
from joulescope.errors import FetchError
from joulescope.factors.carbon import CarbonRefresher
from joulescope.factors.sources import Found

SECOND = 1_000_000_000
DOWN = FetchError("unreachable", "http://grid/: nobody there")


class Script:
    """A source that answers what the test says."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.answer: float | Exception = DOWN
        self.asked = threading.Event()

    def find(self) -> Found:
        self.asked.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return Found(self.answer, self.clock.now_ns())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SECOND)


@pytest.fixture
def script(clock: ManualClock) -> Script:
    return Script(clock)


@pytest.fixture
def carbon(clock: ManualClock, script: Script) -> CarbonRefresher:
    return CarbonRefresher(script, clock, refresh_seconds=300, max_age_seconds=900)


def test_nothing_is_claimed_before_it_is_found(carbon: CarbonRefresher, clock: ManualClock) -> None:
    """Before the first answer there is no figure, no age, and a count of failures."""
    carbon.step()
    state = carbon.state(clock.now_ns())
    assert (state.grams_per_joule, state.age_seconds) == (None, None)
    assert state.failures == {"unreachable": 1}


def test_a_figure_is_shown_until_it_is_too_old(
    carbon: CarbonRefresher, clock: ManualClock, script: Script
) -> None:
    """When refreshes fail the last figure stays for a while, then vanishes; its age goes on."""
    script.answer = 360.0
    assert carbon.step() == 300
    script.answer = DOWN
    clock.advance(900)
    carbon.step()
    assert carbon.state(clock.now_ns()).grams_per_joule == pytest.approx(1e-4)
    clock.advance(1)
    state = carbon.state(clock.now_ns())
    assert (state.grams_per_joule, state.age_seconds) == (None, 901)
    script.answer = 720.0
    carbon.step()
    state = carbon.state(clock.now_ns())
    assert (state.grams_per_joule, state.age_seconds) == (pytest.approx(2e-4), 0)


def test_pauses_grow_and_never_exceed_the_usual_one(carbon: CarbonRefresher, script: Script) -> None:
    """After a failure it is tried again soon, then ever more rarely; an answer ends that."""
    assert [carbon.step() for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]
    script.answer = 100.0
    assert carbon.step() == 300
    script.answer = DOWN
    assert carbon.step() == 10


def test_a_source_that_asks_for_peace_has_it(carbon: CarbonRefresher, script: Script) -> None:
    """A Retry-After that is longer than our own pause is kept."""
    script.answer = FetchError("status", "http://grid/: HTTP status 429", 1800.0)
    assert carbon.step() == 1800
    script.answer = FetchError("status", "http://grid/: HTTP status 429", 1.0)
    assert carbon.step() == 20


def test_the_log_tells_each_trouble_once(
    carbon: CarbonRefresher, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that is down for a day is one line, another trouble another, and its return a third."""
    caplog.set_level(logging.INFO)
    for answer in (DOWN, DOWN, FetchError("timeout", "http://grid/: slow"), 100.0, 100.0):
        script.answer = answer
        carbon.step()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


def test_a_bug_in_a_source_does_not_end_the_thread(
    carbon: CarbonRefresher, clock: ManualClock, script: Script
) -> None:
    """The thread asks at once when it starts, survives what it did not foresee, counts it, and stops."""
    script.answer = ZeroDivisionError()
    carbon.start()
    assert script.asked.wait(20)
    carbon.stop(20)
    assert carbon.state(clock.now_ns()).failures == {"internal_error": 1}

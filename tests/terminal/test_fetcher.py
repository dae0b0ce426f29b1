"""Reading in the background: failures are kept apart from the last figures, and pauses grow."""

from __future__ import annotations

import threading
from collections.abc import Callable

from joulescope.clock import ManualClock, SystemClock
from joulescope.model import Snapshot
from joulescope.terminal.fetcher import MAX_PAUSE_SECONDS, Fetcher
from joulescope.terminal.source import Reading, SourceError


class Scripted:
    """A source that answers by a list of steps, again and again the last."""

    place = "scripted"

    def __init__(self, *steps: Callable[[], Reading]) -> None:
        self.steps = list(steps)

    def read(self) -> Reading:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return step()


def answer(time_ns: int = 1) -> Callable[[], Reading]:
    return lambda: Reading(Snapshot(time_ns=time_ns, wall_seconds=0.0), None)


def refuse() -> Reading:
    raise SourceError("refused")


def test_readings_are_counted_and_dated() -> None:
    """Each brings its instant; the pause is what is left of the interval."""
    clock = ManualClock(5_000_000_000)

    def slow() -> Reading:
        clock.advance(0.3)
        return answer()()

    fetcher = Fetcher(Scripted(slow), clock, interval_seconds=1.0)
    assert abs(fetcher.step() - 0.7) < 1e-9
    link = fetcher.link()
    assert (link.count, link.received_ns, link.error) == (1, 5_300_000_000, None)
    clock.advance(2.0)
    assert link.age_seconds(clock.now_ns()) == 2.0


def test_failures_keep_the_last_figures_and_pauses_grow() -> None:
    """1, 2, 4, 8, then 15 s; the first success is as if nothing had been."""
    clock = ManualClock()
    fetcher = Fetcher(Scripted(answer(), *[refuse] * 6, answer(2)), clock, interval_seconds=1.0)
    fetcher.step()
    pauses = [fetcher.step() for _ in range(6)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    link = fetcher.link()
    assert link.reading is not None
    assert (link.failures, str(link.error), link.retry_ns) == (6, "refused", round(MAX_PAUSE_SECONDS * 1e9))
    fetcher.step()
    assert (fetcher.link().error, fetcher.link().failures, fetcher.link().count) == (None, 0, 2)


def test_figures_that_do_not_change_are_noticed() -> None:
    """The instant of the last change stays while the same snapshot comes."""
    clock = ManualClock()
    fetcher = Fetcher(Scripted(answer(1), answer(1), answer(2)), clock, interval_seconds=1.0)
    changed = []
    for _ in range(3):
        fetcher.step()
        changed.append(fetcher.link().changed_ns)
        clock.advance(1.0)
    assert changed == [0, 0, 2_000_000_000]


def test_an_answer_that_hangs_holds_up_nobody() -> None:
    """While the source does not answer, the state can be read, and stopping does not wait."""
    asked, release = threading.Event(), threading.Event()

    def hang() -> Reading:
        asked.set()
        release.wait(20.0)
        raise SourceError("too late")

    fetcher = Fetcher(Scripted(hang), SystemClock(), interval_seconds=1.0)
    fetcher.start()
    assert asked.wait(20.0)
    assert fetcher.link().reading is None
    fetcher.stop()
    release.set()


def test_each_try_is_announced() -> None:
    """Success and failure alike wake whoever draws."""
    calls = []
    fetcher = Fetcher(
        Scripted(answer(), refuse), ManualClock(), interval_seconds=1.0, notify=lambda: calls.append(1)
    )
    fetcher.step()
    fetcher.step()
    assert len(calls) == 2

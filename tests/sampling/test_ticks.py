"""When a counter ticked, told from polls that are not in step with it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from joulescope.sampling.ticks import TickClock

MS = 1_000_000


def changes(
    tick_ns: int, phase_ns: int, poll_ns: int, jitter_ns: int, seconds: float, seed: int = 1
) -> Iterator[tuple[int, int, int]]:
    """(poll before, poll that sees a change, when it truly ticked last)."""
    rng = random.Random(seed)
    before_ns, seen = 0, -1
    for number in range(1, int(seconds * 1e9 / poll_ns)):
        now_ns = number * poll_ns + rng.randint(-jitter_ns, jitter_ns)
        tick = (now_ns - phase_ns) // tick_ns
        if tick != seen:
            seen = tick
            yield before_ns, now_ns, phase_ns + tick * tick_ns
        before_ns = now_ns


@pytest.mark.parametrize("phase", [0, 13, 37, 71, 99])
def test_ticks_are_found_to_a_few_milliseconds(phase: int) -> None:
    """Polls every 47 ms confine ticks of 100 ms to a few milliseconds, wherever those lie."""
    clock = TickClock()
    told = [
        (clock.saw(before, now), true) for before, now, true in changes(100 * MS, phase * MS, 47 * MS, MS, 20)
    ]
    assert all(abs(tick - true) <= 6 * MS for tick, true in told[50:])
    assert clock.period_ns == pytest.approx(100 * MS, rel=2e-3)


def test_a_period_of_another_length_is_measured() -> None:
    """A counter that ticks every 160 ms is followed too."""
    clock = TickClock()
    told = [
        (clock.saw(before, now), true) for before, now, true in changes(160 * MS, 31 * MS, 47 * MS, MS, 60)
    ]
    assert clock.period_ns == pytest.approx(160 * MS, rel=0.01)
    assert all(abs(tick - true) <= 15 * MS for tick, true in told[-50:])


def test_a_tick_lies_between_the_polls_that_tell_of_it() -> None:
    """Whatever ticks and polls do, the answer is after the poll before and not after this one."""
    rng = random.Random(4)
    clock, before_ns = TickClock(), 0
    for _ in range(2000):
        now_ns = before_ns + rng.choice([1, 3, 40, 55, 90, 400, 3000]) * MS
        assert before_ns < clock.saw(before_ns, now_ns) <= now_ns
        before_ns = now_ns + rng.choice([0, 0, 45, 60]) * MS


def test_a_counter_that_ticks_faster_than_polls_has_just_ticked() -> None:
    """Where every poll sees another figure nothing is known but that the figure is fresh."""
    clock = TickClock()
    for before, now, _ in changes(10 * MS, 0, 50 * MS, MS, 5):
        assert clock.saw(before, now) == now
    assert clock.period_ns is None

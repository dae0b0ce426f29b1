"""The deadline timer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.clock import ManualClock
from joulescope.sampling.timer import DeadlineTimer, sleep_until

PERIOD_NS = 50_000_000


def make_timer(clock: ManualClock, jitter_ratio: float = 0.2, seed: int = 1) -> DeadlineTimer:
    return DeadlineTimer(clock, 0.05, Random(seed), jitter_ratio=jitter_ratio)


def test_deadlines_without_jitter_lie_on_the_grid() -> None:
    """Each deadline is start + k·period, and the first is due at once."""
    clock = ManualClock(time_ns=1_000)
    timer = make_timer(clock, jitter_ratio=0)
    ticks = [timer.wait() for _ in range(4)]
    assert [tick.deadline_ns for tick in ticks if tick] == [1_000 + k * PERIOD_NS for k in range(4)]
    assert all(tick and tick.late_ns == 0 and tick.missed == 0 for tick in ticks)


@given(
    seed=st.integers(0, 2**32),
    delays=st.lists(st.floats(0, 0.4), min_size=1, max_size=30),
    jitter_ratio=st.floats(0, 1),
)
def test_grid_never_drifts(seed: int, delays: list[float], jitter_ratio: float) -> None:
    """However late the caller comes, deadline k stays within its own period, and kept plus missed = k."""
    clock = ManualClock(time_ns=7)
    timer = make_timer(clock, jitter_ratio, seed)
    kept = missed = 0
    for delay in delays:
        tick = timer.wait()
        assert tick is not None
        kept, missed = kept + 1, missed + tick.missed
        assert kept + missed == tick.number + 1
        assert 0 <= tick.deadline_ns - 7 - tick.number * PERIOD_NS <= PERIOD_NS * jitter_ratio
        assert tick.late_ns == clock.now_ns() - tick.deadline_ns
        assert tick.late_ns < PERIOD_NS
        clock.advance(delay)


def test_jitter_spreads_the_deadlines_and_can_be_repeated() -> None:
    """Jitter differs from deadline to deadline, but the same seed gives the same deadlines."""

    def offsets(seed: int) -> list[int]:
        timer = make_timer(ManualClock(), seed=seed)
        ticks = [timer.wait() for _ in range(50)]
        return [tick.deadline_ns % PERIOD_NS for tick in ticks if tick]

    assert offsets(1) == offsets(1)
    assert offsets(1) != offsets(2)
    assert len(set(offsets(1))) > 40


def test_late_caller_fires_at_once_and_says_how_late() -> None:
    """A caller that comes within the period of its deadline misses none and is told its lateness."""
    clock = ManualClock()
    timer = make_timer(clock, jitter_ratio=0)
    timer.wait()
    clock.advance(0.06)
    tick = timer.wait()
    assert tick is not None
    assert (tick.number, tick.missed, tick.late_ns) == (1, 0, 10_000_000)


def test_missed_deadlines_are_skipped_and_counted() -> None:
    """After a stall of 3.5 periods the two deadlines whose periods are over count as missed."""
    clock = ManualClock()
    timer = make_timer(clock, jitter_ratio=0)
    timer.wait()
    clock.advance(0.175)
    tick = timer.wait()
    assert tick is not None
    assert (tick.number, tick.missed, tick.late_ns) == (3, 2, 25_000_000)


def test_restart_forgets_the_stall() -> None:
    """A new grid starts now: nothing counts as missed."""
    clock = ManualClock()
    timer = make_timer(clock)
    timer.wait()
    clock.advance(100.0)
    timer.restart()
    tick = timer.wait()
    assert tick is not None
    assert (tick.missed, tick.late_ns, tick.deadline_ns) == (0, 0, clock.now_ns())


def test_restart_may_lay_another_grid() -> None:
    """With a period of its own the new grid has that one, jitter in proportion, and later ones keep it."""
    clock = ManualClock()
    timer = make_timer(clock)
    timer.restart(0.01)
    deadlines = [tick.deadline_ns for tick in (timer.wait() for _ in range(50)) if tick is not None]
    assert all(0 <= at - number * 10_000_000 <= 2_000_000 for number, at in enumerate(deadlines))
    begin_ns = clock.now_ns()
    timer.restart()
    timer.wait()
    tick = timer.wait()
    assert tick is not None
    assert 10_000_000 <= tick.deadline_ns - begin_ns <= 12_000_000


def test_cancelled_wait_ends_within_a_slice() -> None:
    """A wait of 30 s that is cancelled after the third sleep slice is over after the third."""
    clock = ManualClock()
    assert not sleep_until(clock, 30_000_000_000, lambda: len(clock.sleeps) >= 3)
    assert len(clock.sleeps) == 3
    assert clock.now_ns() < 1_000_000_000
    timer = DeadlineTimer(clock, 30.0, Random(1))
    timer.wait()
    assert timer.wait(lambda: True) is None


@pytest.mark.parametrize(("period", "jitter"), [(0.0, 0.1), (-1.0, 0.1), (float("nan"), 0.1), (1.0, 1.5)])
def test_senseless_settings_are_refused(period: float, jitter: float) -> None:
    """A period that is not above 0 and a jitter beyond the period raise ValueError."""
    with pytest.raises(ValueError, match="must"):
        DeadlineTimer(ManualClock(), period, Random(1), jitter_ratio=jitter)

"""The bound on another node's clock: the truth always lies within it, whatever the network does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.link.clock import MAX_DRIFT_RATIO, LinkClock

MS, SECOND = 10**6, 10**9
DELAYS = st.integers(0, 2 * SECOND)


@dataclass
class TwoClocks:
    """Ours, and theirs that runs at another rate from one moment to the next."""

    ours_ns: int
    theirs_ns: float

    def pass_time(self, duration_ns: int, drift: float) -> None:
        """``drift`` is how much faster ours is for this while, in parts of theirs."""
        self.ours_ns += duration_ns
        self.theirs_ns += duration_ns / (1.0 + drift)


SHARES = st.floats(-0.98, 0.98)
"""Of the largest drift; what is left is room for rounding."""


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.tuples(DELAYS, DELAYS, DELAYS, st.integers(0, 5 * SECOND), SHARES), min_size=1, max_size=20),
    DELAYS,
    SHARES,
)
def test_the_truth_is_always_within_the_error(
    offset_ns: int, rounds: list[tuple[int, int, int, int, float]], later_ns: int, share: float
) -> None:
    """With delays of any length, the same or not on both ways, and drift that changes all the time below the
    bound, an instant of theirs is where it is said to be, give or take the error; the clock never jumps."""
    world, clock = TwoClocks(10**16, 10**16 - offset_ns), LinkClock()
    for out_ns, hold_ns, back_ns, pause_ns, drift_share in rounds:
        drift = drift_share * MAX_DRIFT_RATIO
        asked_ns = world.ours_ns
        world.pass_time(out_ns, drift)
        heard_ns = round(world.theirs_ns)
        world.pass_time(hold_ns, -drift)
        answered_ns = round(world.theirs_ns)
        world.pass_time(back_ns, drift)
        clock.exchange(asked_ns, heard_ns, answered_ns, world.ours_ns)
        world.pass_time(pause_ns, drift)
        _check(clock, world)
    world.pass_time(later_ns, share * MAX_DRIFT_RATIO)
    _check(clock, world)
    assert clock.jumps == 0
    assert clock.exchanges == len(rounds)


def _check(clock: LinkClock, world: TwoClocks) -> None:
    told_ns, error_seconds = clock.turn(round(world.theirs_ns))
    assert abs(told_ns - world.ours_ns) <= error_seconds * SECOND + 4  # floats of 10**16 are even numbers


def test_a_short_exchange_narrows_what_a_long_one_left_open() -> None:
    """The error is half the shortest round trip, and grows again by the drift only."""
    clock = LinkClock()
    clock.exchange(0, 1000 * SECOND + 400 * MS, 1000 * SECOND + 400 * MS, 800 * MS)
    assert clock.turn(1000 * SECOND + 400 * MS)[1] == pytest.approx(0.4)
    clock.exchange(SECOND, 1001 * SECOND + 1 * MS, 1001 * SECOND + 1 * MS, SECOND + 2 * MS)
    assert clock.turn(1001 * SECOND + 1 * MS) == (SECOND + 1 * MS, pytest.approx(0.001))
    assert clock.turn(1011 * SECOND + 1 * MS)[1] == pytest.approx(0.001 + 10 * MAX_DRIFT_RATIO)
    assert clock.turn(991 * SECOND + 1 * MS)[1] == pytest.approx(0.001 + 10 * MAX_DRIFT_RATIO)
    assert clock.offset_seconds == pytest.approx(-1000.0)
    assert clock.round_trip_seconds == pytest.approx(0.002)


def test_a_clock_that_stood_still_begins_anew() -> None:
    """A node that was suspended for an hour: what was known is given up, counted, and the new offset
    holds."""
    clock = LinkClock()
    clock.exchange(0, 0, 0, MS)
    clock.exchange(3600 * SECOND, SECOND, SECOND, 3600 * SECOND + MS)
    assert clock.jumps == 1
    assert clock.turn(SECOND)[0] == pytest.approx(3600 * SECOND, abs=MS)


def test_a_jump_within_an_exchange_leaves_nothing_known() -> None:
    """It answered later than we heard it: no offset can be true for that."""
    clock = LinkClock()
    clock.exchange(0, 0, 0, MS)
    clock.exchange(SECOND, SECOND, 5 * SECOND, SECOND + MS)
    assert (clock.jumps, clock.known, clock.offset_seconds) == (1, False, None)
    with pytest.raises(ValueError, match="no exchange"):
        clock.turn(0)


def test_time_that_runs_backwards_is_no_exchange() -> None:
    """A peer that lies is told from a clock that jumped: what was known stays."""
    clock = LinkClock()
    clock.exchange(0, 0, 0, MS)
    with pytest.raises(ValueError, match="backwards"):
        clock.exchange(SECOND, SECOND, SECOND - 1, 2 * SECOND)
    assert clock.known


def test_the_drift_is_measured() -> None:
    """Ours is 50 ppm faster: after ten seconds that is seen."""
    clock = LinkClock()
    for at in range(60):
        assert (clock.drift_ratio is None) == (at <= 10)
        ours_ns = at * SECOND + at * 50_000
        clock.exchange(ours_ns - MS, at * SECOND, at * SECOND, ours_ns + MS)
    assert clock.drift_ratio == pytest.approx(50e-6, rel=0.05)

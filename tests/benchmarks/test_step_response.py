"""What a power reading averages, told from steps of load."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.gpu.step_response import LEAST_STEP_WATTS, Burst, steps_of, window_of

MS = 1_000_000
BURSTS: list[Burst] = [
    (begin * MS, (begin + 1600) * MS) for begin in (2000, 5217, 8451, 11698, 14923, 18177, 21402, 24655)
]


def readings(
    window_ms: float, refresh_ms: int, *, noise_watts: float = 0.0, delay_ms: float = 0.0, high: float = 500.0
) -> tuple[list[int], list[float]]:
    """Polls every 2 ms of a reading that draws 100 W in pauses, by an integral over a fine grid."""
    lots = random.Random(1)
    fine = np.full(28_000, 100.0)
    for begin_ns, end_ns in BURSTS:
        fine[begin_ns // MS : end_ns // MS] = high
    drawn = np.concatenate([[0.0], np.cumsum(fine)])
    times, watts, shown = [], [], (-1, 0.0)
    for poll_ms in range(1101, 27_900, 2):
        renewed_ms = poll_ms - poll_ms % refresh_ms
        if renewed_ms != shown[0]:
            end, begin = renewed_ms - delay_ms, renewed_ms - delay_ms - window_ms
            mean = (drawn[round(end)] - drawn[round(begin)]) / (round(end) - round(begin))
            shown = renewed_ms, mean + lots.gauss(0.0, noise_watts)
        times.append(poll_ms * MS)
        watts.append(float(shown[1]))
    return times, watts


@pytest.mark.parametrize(("window_ms", "refresh_ms"), [(10, 20), (25, 100), (100, 100), (1000, 100)])
def test_the_window_is_found(window_ms: float, refresh_ms: int) -> None:
    """Windows and renewals as measured on silicon come out to 3 ms or 2 %, with a delay below 3 ms."""
    found = window_of(*readings(window_ms, refresh_ms), BURSTS)
    assert found is not None
    assert found["window_ms"] == pytest.approx(window_ms, abs=3, rel=0.02)
    assert found["delay_ms"] <= 3
    assert found["error_ratio"] < 0.02


def test_a_reading_that_comes_late_is_told_from_a_wide_one() -> None:
    """A mean of 100 ms that is shown 50 ms late is not taken for one of 200 ms."""
    found = window_of(*readings(100, 20, delay_ms=50), BURSTS)
    assert found is not None
    assert found["window_ms"] == pytest.approx(100, abs=5)
    assert found["delay_ms"] == pytest.approx(50, abs=5)


def test_noise_shows_as_what_is_left() -> None:
    """Noise of 2 % of the step leaves the window within a tenth and about so much unexplained."""
    found = window_of(*readings(100, 100, noise_watts=8.0), BURSTS)
    assert found is not None
    assert found["window_ms"] == pytest.approx(100, rel=0.1)
    assert 0.01 < found["error_ratio"] < 0.04


def test_a_load_too_small_to_see_gives_no_window() -> None:
    """Steps of less than the least one are not used; a frozen reading has none."""
    times, watts = readings(25, 100, high=100.0 + LEAST_STEP_WATTS / 2)
    assert steps_of(np.asarray(times), np.asarray(watts), BURSTS) == []
    assert window_of(times, watts, BURSTS) is None
    assert window_of([1, 2, 3], [5.0, 5.0, 5.0], BURSTS) is None

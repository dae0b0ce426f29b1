"""The benchmark of the regression alert: what it makes of series, and what hours and weeks it simulates."""

from __future__ import annotations

import pytest

from benchmarks.regression import HEALTHY_HOURS, Rise, detection, false_alarms, hour_of, week

pytestmark = pytest.mark.slow


def _rise(index: float = 1.0, tokens: float = 9000.0) -> Rise:
    return Rise(0.0, 8000.0 * index, 8000.0, 1500.0, tokens, 0.01)


def _rises(index: float) -> list[Rise]:
    return [Rise(60.0 + 30 * at, 8000.0 * index, 8000.0, 1500.0, 9000.0, 0.01) for at in range(4)]


@pytest.mark.real
def test_twenty_percent_take_a_quarter_of_an_hour_and_a_pause() -> None:
    """By the shipped rules: half of the long window, then 2 minutes; never before."""
    found = detection(_rises(1.2), [_rise()], seed=1)
    assert found["index"] == pytest.approx(1.2)
    assert found["before"] == 0
    assert found["critical"] == pytest.approx(17 * 60, abs=60)
    assert found["warning"] is not None


@pytest.mark.real
def test_what_is_as_usual_is_never_told() -> None:
    """No change, and a small one."""
    for index in (1.0, 1.03):
        found = detection(_rises(index), [_rise()], seed=1)
        assert (found["before"], found["critical"], found["warning"]) == (0, None, None)


@pytest.mark.real
def test_false_alarms_are_counted_by_episode() -> None:
    """Two bad hours, far apart, are two episodes; the index and joules per token are told as they were."""
    usual, bad = [_rise()] * 120, [_rise(1.3)] * 120
    found = false_alarms([*usual * HEALTHY_HOURS, *bad, *usual * 7, *bad, *usual * 3])
    assert found["episodes"]["critical"] == 2
    assert found["index_5m"][-1] == pytest.approx(1.3)
    assert found["joules_per_token_5m"][2] == pytest.approx(8 / 9, abs=1e-3)


def test_hours_differ_in_load_and_mix() -> None:
    """Quiet nights with long prompts, busy afternoons."""
    loads = [hour_of(hour)[0] for hour in range(24)]
    assert min(loads) == loads[4] == 0.25
    assert max(loads) == loads[16] == pytest.approx(1.5)
    long_prompts = {hour for hour in range(24) if any(kind.name == "long" for kind in hour_of(hour)[1])}
    assert long_prompts == {1, 2, 3, 4, 9, 10, 17}


def test_a_week_has_weekends() -> None:
    """At noon of a workday comes noon, at noon of the weekend the middle of the night."""
    hours = {hour: [_rise(tokens=hour)] for hour in range(24)}
    rises = week(hours, seed=1)
    assert len(rises) == 7 * 24 * 120
    assert rises[12 * 120].tokens == 12
    assert rises[(5 * 24 + 12) * 120].tokens == 0

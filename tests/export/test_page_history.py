"""The minutes that the live page can look back on: watts and joules from differences of snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.export.page.history import MAX_ENGINES, PARTS, History
from joulescope.model import BaselineTotals, EngineTotals, GpuTotals, Snapshot
from tests.export.samples import GPU_A, GPU_B, engine_a, gpu_a, rich_snapshot

SECOND = 1_000_000_000


def _gpu(until_seconds: float | None, scale: float, gpu: str = GPU_A) -> GpuTotals:
    """A GPU whose account stands at ``scale`` times some parts."""
    return replace(
        gpu_a(),
        info=replace(gpu_a().info, gpu=gpu),
        measured_joules=1000.0 * scale,
        attributed_joules=800.0 * scale,
        idle_joules=100.0 * scale,
        overhead_joules={"startup": 40.0 * scale, "preemption": 20.0 * scale},
        unattributed_joules={"no_engine": 40.0 * scale},
        accounted_until_ns=None if until_seconds is None else round(until_seconds * SECOND),
    )


def _engine(scale: float, gpus: tuple[str, ...] = (GPU_A,), name: str = "e") -> EngineTotals:
    joules = {
        (gpu, phase): part * scale for gpu in gpus for phase, part in (("prefill", 300.0), ("decode", 500.0))
    }
    tokens = {"generated": round(2000 * scale)}
    return replace(
        engine_a(),
        info=replace(engine_a().info, engine=name),
        attributed_joules=joules,
        tokens=tokens,
        baseline=None,
    )


def _at(seconds: float, gpus: tuple[GpuTotals, ...], engines: tuple[EngineTotals, ...] = ()) -> Snapshot:
    return replace(
        rich_snapshot(),
        time_ns=round(seconds * SECOND),
        wall_seconds=1_000_000.0 + seconds,
        gpus=gpus,
        engines=engines,
    )


def _points(history: History) -> list[dict[str, Any]]:
    told = json.loads(history.encode())
    assert told["parts"] == list(PARTS)
    points: list[dict[str, Any]] = told["points"]
    return points


def _watts(point: Mapping[str, Any]) -> dict[str, float]:
    return dict(zip(PARTS, point["w"], strict=True))


def test_watts_are_joules_over_the_accounted_time() -> None:
    """Two seconds between the looks, but 2.5 s accounted: the watts are of 2.5 s."""
    history = History()
    history.note(_at(10.0, (_gpu(9.0, 1.0),), (_engine(1.0),)))
    history.note(_at(12.0, (_gpu(11.5, 2.0),), (_engine(2.0),)))
    (point,) = _points(history)
    assert (point["t"], point["s"], point["gpus"]) == (1_000_012.0, 2.5, 1)
    assert _watts(point) == {"prefill": 120, "decode": 200, "idle": 40, "overhead": 24, "unattributed": 16}
    assert sum(point["w"]) == 1000.0 / 2.5
    assert point["e"] == {"e": [800.0, 2000, None, None]}


def test_gpus_are_added_each_over_its_own_time() -> None:
    """One GPU may be accounted further than another; their watts still add up."""
    history = History()
    gpus = (GPU_A, GPU_B)
    history.note(_at(10.0, (_gpu(9.0, 1.0), _gpu(9.0, 1.0, GPU_B)), (_engine(1.0, gpus),)))
    history.note(_at(12.0, (_gpu(11.0, 2.0), _gpu(13.0, 2.0, GPU_B)), (_engine(2.0, gpus),)))
    (point,) = _points(history)
    assert sum(point["w"]) == 1000.0 / 2.0 + 1000.0 / 4.0
    assert (point["gpus"], point["s"]) == (2, 3.0)


def test_a_gpu_whose_account_stands_still_is_not_zero_watts() -> None:
    """Its joules are not known yet: ``null``; when it goes on, the whole time since is divided by."""
    history = History()
    history.note(_at(10.0, (_gpu(9.0, 1.0),)))
    history.note(_at(12.0, (_gpu(9.0, 1.0),)))
    history.note(_at(14.0, (_gpu(13.0, 2.0),)))
    silent, back = _points(history)
    assert (silent["w"], silent["gpus"]) == (None, 0)
    assert (_watts(back)["idle"], back["s"]) == (25.0, 4.0)


def test_a_gpu_that_was_never_accounted_has_no_watts() -> None:
    """Before its first interval there is nothing to take a difference from, and after it neither."""
    history = History()
    for seconds, until in ((0.0, None), (2.0, None), (4.0, 3.0)):
        history.note(_at(seconds, (_gpu(until, 1.0),)))
    assert [point["w"] for point in _points(history)] == [None, None]


def test_an_engine_that_comes_later_counts_from_nothing() -> None:
    """All that it took since it was met is in its first point; one that left is in none."""
    history = History()
    history.note(_at(0.0, (), (_engine(1.0, name="old"),)))
    history.note(_at(2.0, (), (_engine(1.0, name="new"),)))
    (point,) = _points(history)
    assert point["e"] == {"new": [800.0, 2000, None, None]}


def test_counters_that_fall_are_left_out() -> None:
    """An engine's place taken by another of its name yields no negative joules; the next point is right."""
    history = History()
    for seconds, scale in ((0.0, 2.0), (2.0, 1.0), (4.0, 3.0)):
        history.note(_at(seconds, (), (_engine(scale),)))
    fallen, after = _points(history)
    assert fallen["e"] == {}
    assert after["e"] == {"e": [1600.0, 4000, None, None]}


def test_a_baseline_is_followed() -> None:
    """Actual and expected joules rise; without a baseline, or with another, both are unknown."""

    def compared(actual_joules: float | None, expected_joules: float | None) -> BaselineTotals:
        return BaselineTotals(1.0, "b", "learned", "0.32.0", 1.0, actual_joules, expected_joules, 0.01)

    history = History()
    baselines = (None, compared(None, None), compared(10.0, 8.0), compared(16.0, 13.0), compared(1.0, 1.0))
    for number, baseline in enumerate(baselines):
        history.note(_at(2.0 * number, (), (replace(_engine(1.0), baseline=baseline),)))
    found = [point["e"]["e"][2:] for point in _points(history)]
    assert found == [[None, None], [None, None], [6.0, 5.0], [None, None]]


def test_looks_between_the_steps_make_no_point() -> None:
    """The daemon shows a snapshot twice a second; a point is made every two seconds."""
    history = History()
    for half_seconds in range(13):
        history.note(_at(half_seconds / 2, (_gpu(half_seconds / 2, half_seconds),)))
    assert [point["t"] - 1_000_000 for point in _points(history)] == [2, 4, 6]


def test_the_past_is_bounded() -> None:
    """Ten minutes are kept, and of so many engines each its own figures."""
    history = History()
    engines = tuple(_engine(1.0, name=f"engine-{number}") for number in range(MAX_ENGINES + 10))
    for number in range(400):
        history.note(_at(2.0 * number, (), engines))
    points = _points(history)
    assert len(points) == 300
    assert points[-1]["t"] - points[0]["t"] == 598.0
    assert {len(point["e"]) for point in points} == {MAX_ENGINES}


def test_an_odd_name_does_not_end_the_history() -> None:
    """A lone surrogate in an engine's name becomes a question mark."""
    history = History()
    for number in range(2):
        history.note(_at(2.0 * number, (), (_engine(1.0 + number, name="odd\ud800"),)))
    assert list(_points(history)[0]["e"]) == ["odd?"]


looks = st.lists(
    st.tuples(
        st.floats(0.0, 5.0),  # time to the next look
        st.one_of(st.none(), st.floats(0.0, 1e6)),  # until when the GPU is accounted
        st.floats(0.0, 1e9),  # joules, rising or not
        st.booleans(),  # whether the engine is there
    ),
    max_size=30,
)


@given(looks)
def test_no_course_of_events_makes_a_negative_or_impossible_figure(
    looks: list[tuple[float, float | None, float, bool]],
) -> None:
    """Whatever comes and goes, watts and joules are finite and not negative, and the JSON holds."""
    history, now = History(), 0.0
    for gap, until, scale, engine in looks:
        now += gap
        history.note(_at(now, (_gpu(until, scale),), (_engine(scale),) if engine else ()))
    for point in _points(history):
        for each in [*(point["w"] or []), *(row[0] for row in point["e"].values())]:
            assert each >= 0.0
        assert point["s"] > 0.0


@pytest.mark.parametrize("count", [1, 16])
def test_the_total_over_a_stretch_is_what_was_measured(count: int) -> None:
    """Watts times seconds, summed over the points, are the joules of the account."""
    history = History()
    names = tuple(f"GPU-{number}" for number in range(count))
    for number in range(20):
        gpus = tuple(_gpu(2.0 * number + 0.25, 0.1 * number, name) for name in names)
        history.note(_at(2.0 * number, gpus, (_engine(0.1 * number, names),)))
    joules = sum(sum(point["w"]) * point["s"] for point in _points(history))
    assert joules == pytest.approx(1000.0 * 1.9 * count)

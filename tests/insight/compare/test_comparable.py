"""What speaks against laying two sides side by side is said, and nothing is said where nothing does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from joulescope.insight.compare.comparable import warnings_of
from joulescope.insight.compare.figures import point_of
from joulescope.insight.compare.values import (
    CLIENT,
    Mix,
    Origin,
    Part,
    Quality,
    Requests,
    Setup,
    Side,
    Work,
)

WORK = Work(1_000.0, 5_000.0, 60.0)


def side(name: str = "a", **changes: Any) -> Side:
    part = Part("m", steady=WORK, whole=WORK, requests=Requests(count=500), gpu_seconds=60.0)
    whole = point_of([part], "everything")
    made = Side(
        name=name,
        setup=Setup(model="m"),
        origin=Origin("joulescope", method="fitted-shapley 3"),
        points=(whole,),
        whole=whole,
        mix=Mix({"chat": 0.8, "code": 0.2}, 200.0, 400.0, 0.3),
        quality=Quality(steady_seconds=600.0),
    )
    return replace(made, **changes)


def told(first: Side, other: Side) -> dict[str, str]:
    return {each.code: each.text for each in warnings_of([first, other])}


def without(name: str) -> tuple[Any, ...]:
    """Points that tell joules by another definition only."""
    point = side().points[0]
    return (replace(point, figures={key: value for key, value in point.figures.items() if key != name}),)


def test_like_sides_are_laid_side_by_side_without_a_word() -> None:
    assert told(side(), side("b")) == {}


@pytest.mark.parametrize(
    ("code", "changes", "part"),
    [
        ("unit", {"setup": Setup(unit="image")}, "counted in tokens and in images"),
        ("definition", {"points": without("joules_per_unit")}, "b tells joules of the whole run only"),
        (
            "clock",
            {"origin": Origin("vllm bench", method="fitted-shapley 3", clock=CLIENT)},
            "its client saw",
        ),
        ("divided", {"origin": Origin("joulescope", divided=True)}, "what the division charged"),
        ("tasks", {"mix": Mix({"chat": 0.2, "code": 0.8}, 200.0, 400.0, 0.3)}, r"60% of the requests"),
        ("lengths", {"mix": Mix({}, 200.0, 800.0, 0.3)}, "answers of 400 and 800"),
        ("cached", {"mix": Mix({}, 200.0, 400.0, 0.9)}, "30% and 90%"),
        (
            "incomplete",
            {"quality": Quality(unattributed_ratio=0.05, steady_seconds=99.0)},
            "5.0% of the joules",
        ),
        (
            "incomplete",
            {"quality": Quality(unmeasured_ratio=0.2, steady_seconds=99.0)},
            "20.0% of the requests",
        ),
        (
            "failed",
            {"quality": Quality(failed_ratio=0.1, steady_seconds=99.0)},
            "10% of the requests were aborted",
        ),
        ("short", {"quality": Quality(steady_seconds=12.0)}, "only 12 s of work"),
        ("few", {"whole": replace(side().whole, requests=7)}, "only 7 requests"),
        ("source", {"quality": Quality(steady_seconds=99.0, remarks=("odd",))}, "odd"),
    ],
)
def test_each_reason_is_found_alone(code: str, changes: dict[str, Any], part: str) -> None:
    """One thing is changed, and it is the only thing that is said."""
    found = told(side(), side("b", **changes))
    assert list(found) == [code]
    assert part in found[code]


def test_sides_without_joules_can_be_compared_in_time_only() -> None:
    point = side().points[0]
    times = replace(point, figures={"units_per_second": point.figures["units_per_second"]})
    found = told(side(), side("b", points=(times,)))
    assert found == {"definition": "no joules are known of b: only its times can be compared"}
    assert told(side(points=(times,)), side("b", points=(times,))) == {}


def test_methods_matter_only_where_joules_are_divided() -> None:
    """Measured joules of GPUs are the same by any method; those charged to tasks are not."""
    older = Origin("joulescope", method="fitted-shapley 2")
    assert told(side(), side("b", origin=older)) == {}
    found = told(
        side(origin=Origin("joulescope", method="fitted-shapley 3", divided=True)),
        side("b", origin=replace(older, divided=True)),
    )
    assert list(found) == ["method"]


def test_tasks_of_sides_by_task_differ_by_name() -> None:
    found = told(side(setup=Setup(task="chat")), side("b", setup=Setup(task="code")))
    assert found == {"tasks": "the tasks differ: chat and code"}

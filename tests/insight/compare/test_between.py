"""Between two operating points: exact for the law of a step, consistent, and inside what was observed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.insight.compare.between import between
from joulescope.insight.compare.values import Figure, Point
from tests.insight.compare.made import H100, Law

BATCHES = st.floats(1.0, 512.0)


def point(batch: float, law: Law = H100, *, half: float | None = 0.01) -> Point:
    def figure(value: float) -> Figure:
        return Figure(value) if half is None else Figure(value, value * (1 - half), value * (1 + half))

    per_token, itl = law.per_token(batch), law.itl(batch)
    figures = {
        "batch": Figure(batch),
        "joules_per_unit": figure(per_token),
        "itl": figure(itl),
        "units_per_second": figure(batch / itl),
        "watts": figure(per_token * batch / itl),
        "ttft": figure(0.02 * batch**0.3),
    }
    return Point(f"batch {batch:g}", figures, 4, 100, 0.1, 240.0, 1000.0)


@given(BATCHES, BATCHES, st.floats(0.05, 0.95))
def test_the_law_of_a_step_is_met_exactly(one: float, other: float, share: float) -> None:
    """However far apart the points are, all figures of E = a + b·e and T = c + b·t are right."""
    if max(one, other) < 1.02 * min(one, other):
        return
    low, high = sorted((one, other))
    batch = low + share * (high - low)
    at = between(point(low), point(high), "batch", batch)
    for name in ("joules_per_unit", "itl", "units_per_second", "watts"):
        assert at.figures[name].value == pytest.approx(point(batch).figures[name].value, rel=1e-9)


@given(BATCHES, BATCHES, st.floats(0.05, 0.95))
def test_matched_on_time_it_is_the_batch_that_has_this_time(one: float, other: float, share: float) -> None:
    if max(one, other) < 1.02 * min(one, other):
        return
    low, high = sorted((one, other))
    batch = low + share * (high - low)
    at = between(point(high), point(low), "itl", H100.itl(batch))
    assert at.figures["batch"].value == pytest.approx(batch, rel=1e-6)
    assert at.figures["joules_per_unit"].value == pytest.approx(H100.per_token(batch), rel=1e-6)
    assert at.figures["itl"] == Figure(H100.itl(batch))


@given(st.lists(st.floats(0.01, 1e3), min_size=6, max_size=6), st.floats(0.05, 0.95))
def test_nothing_leaves_the_range_of_its_two_points(values: list[float], share: float) -> None:
    """Whatever was measured: an interpolated figure lies between those that it is made of."""
    names = ("joules_per_unit", "itl", "ttft")
    before, after = (
        Point(
            "",
            {"batch": Figure(batch), **{n: Figure(v) for n, v in zip(names, told, strict=True)}},
            1,
            1,
            None,
            None,
            None,
        )
        for batch, told in ((4.0, values[:3]), (16.0, values[3:]))
    )
    at = between(before, after, "batch", 4.0 + share * 12.0)
    for name in names:
        low, high = sorted((before.figures[name].value, after.figures[name].value))
        assert low * (1 - 1e-9) <= at.figures[name].value <= high * (1 + 1e-9)


def test_the_error_grows_with_the_gap_and_is_told_without_intervals_too() -> None:
    """From 28 to 36 the way between hardly matters, and real runs are not on it; from 8 to 256 it is all."""
    near = between(point(28), point(36), "batch", 32.0)
    far = between(point(8), point(256), "batch", 32.0)
    bare = between(point(8, half=None), point(256, half=None), "batch", 32.0)
    assert 0.005 < near.form["joules_per_unit"] < 0.02
    assert far.form["joules_per_unit"] > 0.1
    assert bare.form == far.form
    assert bare.figures["joules_per_unit"].low is None
    figure = far.figures["joules_per_unit"]
    assert figure.low is not None
    assert 1 - figure.low / figure.value >= far.form["joules_per_unit"]


def test_without_batches_figures_go_as_powers_of_what_is_matched_on() -> None:
    """Two runs of which only times are known: half way by logarithms is the geometric mean."""
    before, after = (
        Point("", {"ttft": Figure(ttft), "joules_per_unit": Figure(joules)}, 1, 1, None, None, None)
        for ttft, joules in ((0.1, 4.0), (0.4, 1.0))
    )
    at = between(before, after, "ttft", 0.2)
    assert at.figures["joules_per_unit"].value == pytest.approx(2.0)
    assert "batch" not in at.figures

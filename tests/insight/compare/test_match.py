"""Sides at one value: inside what was observed, and said so where they were not."""

from __future__ import annotations

import pytest

from joulescope.errors import ComparisonError
from joulescope.insight.compare.compare import compare
from joulescope.insight.compare.from_minutes import sources_of
from joulescope.insight.compare.match import Wish, automatic, parse_wish
from joulescope.insight.compare.sides import sides_of
from joulescope.insight.compare.values import At, Outside, Side
from tests.insight.compare.made import A100, H100, Law, kind_of, stretch


def side(name: str, batches: list[float], law: Law = H100, **changes: object) -> Side:
    (source,) = sources_of(stretch(batches, law, kind=kind_of(**changes), each=4), name)
    return sides_of([(name, source)])[0]


FAST = side("fast", [8.0, 15.0, 28.0, 50.0])
SLOW = side("slow", [12.0, 22.0, 40.0, 70.0], A100, gpu_name="NVIDIA A100-SXM4-80GB")


def test_matched_on_batch_both_are_at_that_batch() -> None:
    """A batch that neither was observed at: the figures of both laws there, within a percent."""
    found = compare([FAST, SLOW], [Wish("batch", (32.0,))])
    (match,) = found.matches
    for name, law in (("fast", H100), ("slow", A100)):
        at = match.sides[name]
        assert isinstance(at, At)
        assert at.figures["joules_per_unit"].value == pytest.approx(law.per_token(32.0), rel=0.01)
        assert at.figures["itl"].value == pytest.approx(law.itl(32.0), rel=0.01)
        assert len(at.between) == 2


def test_matched_on_time_each_is_at_its_own_batch() -> None:
    """16 ms between tokens is a batch of 22 on one and was never seen on the other."""
    found = compare([FAST, SLOW], [Wish("itl", (0.016,))])
    (match,) = found.matches
    slow, fast = match.sides["slow"], match.sides["fast"]
    assert isinstance(slow, At)
    assert slow.figures["batch"].value == pytest.approx((0.016 - A100.seconds) / A100.seconds_each, rel=0.02)
    assert isinstance(fast, Outside)
    assert (fast.low, fast.high) == (pytest.approx(H100.itl(8.0)), pytest.approx(H100.itl(50.0)))


def test_within_a_latency_the_cheapest_point_that_was_seen_is_told() -> None:
    """The fast side is faster than 16 ms at all its batches, so its largest is the cheapest."""
    found = compare([FAST, SLOW], [Wish("itl", (0.016,))])
    within = found.matches[0].within
    assert within["fast"].where == "batch 50"
    assert within["slow"].where == "batch 22"


def test_nothing_is_said_beyond_what_was_observed() -> None:
    found = compare([FAST, SLOW], [Wish("batch", (9.0, 65.0))])
    low, high = found.matches
    assert isinstance(low.sides["fast"], At)
    assert isinstance(low.sides["slow"], Outside)
    assert isinstance(high.sides["fast"], Outside)
    assert isinstance(high.sides["slow"], At)


def test_without_a_value_the_overlap_is_used_and_told_where_there_is_none() -> None:
    overlap = compare([FAST, SLOW])
    assert [match.value for match in overlap.matches] == [16.0, 32.0]
    far = side("far", [100.0, 180.0])
    found = compare([FAST, far], [Wish("batch")])
    assert found.matches == ()
    assert found.unmatched == ("no batch at which all sides were observed: fast 8 to 50; far 100 to 180",)


def test_a_point_at_the_value_is_taken_as_it_is() -> None:
    found = compare([FAST, SLOW], [Wish("batch", (50.5,))])
    at = found.matches[0].sides["fast"]
    assert isinstance(at, At)
    assert [point.where for point in at.between] == ["batch 50"]
    assert at.figures == FAST.points[-1].figures


def test_a_side_without_the_figure_says_so() -> None:
    found = compare([FAST, SLOW], [Wish("ttft_p90")])
    assert found.matches == ()
    assert "ttft_p90 is not known of fast, slow" in found.unmatched[0]


def test_the_frontier_has_no_point_that_another_beats() -> None:
    found = compare([FAST, SLOW])
    times = [point.value("itl") or 0 for _, point in found.frontier]
    joules = [point.value("joules_per_unit") or 0 for _, point in found.frontier]
    assert times == sorted(times)
    assert joules == sorted(joules, reverse=True)
    assert {name for name, _ in found.frontier} == {"fast"}


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("batch", Wish("batch")),
        ("batch=8,32", Wish("batch", (8.0, 32.0))),
        ("itl=20ms", Wish("itl", (0.02,))),
        ("TTFT_p90=0.5s", Wish("ttft_p90", (0.5,))),
        ("e2e=1.5 s", Wish("e2e", (1.5,))),
    ],
)
def test_wishes_are_read(text: str, wish: Wish) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("watts", "cannot be matched on; choose one of batch"),
        ("", "nothing cannot be matched on"),
        ("itl=20", "has no unit; write 20ms or 20s"),
        ("batch=8ms", "is no value; write it as batch=8,32"),
        ("itl=fast", "is no value; write it as itl=20ms"),
        ("itl=20h", "is no value"),
        ("batch=0", "must be more than 0"),
        ("batch=1e400", "'1e400' must be more than 0, and finite"),
        ("batch=8,,9", "is no value"),
    ],
)
def test_wrong_wishes_say_how_to_mend_them(text: str, part: str) -> None:
    with pytest.raises(ComparisonError, match=part):
        parse_wish(text)


@pytest.mark.parametrize(
    ("figure", "low", "high", "values"),
    [
        ("batch", 7.9, 260.0, (8.0, 32.0, 256.0)),
        ("batch", 9.0, 15.0, (11.6,)),
        ("itl", 0.007, 0.03, (0.01, 0.02)),
        ("itl", 0.011, 0.012, (0.0115,)),
    ],
)
def test_automatic_values_are_round_and_inside(
    figure: str, low: float, high: float, values: tuple[float, ...]
) -> None:
    assert automatic(figure, low, high) == pytest.approx(values)

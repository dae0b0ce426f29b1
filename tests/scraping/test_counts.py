"""Tokens counted over restarts: never less than before, never twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulescope.scraping.counts import MAX_SERIES, Delta, First, Reset, TokenCount, count_step

A, B = (("engine", "0"),), (("engine", "1"),)


def test_what_lies_between_two_looks_has_a_type() -> None:
    """The first page tells nothing, a rise tells itself, a fall or a restart tells what came since."""
    assert count_step(None, 7.0, first_page=True, restarted=False) == First()
    assert count_step(None, 7.0, first_page=False, restarted=False) == Delta(7.0)
    assert count_step(5.0, 7.0, first_page=False, restarted=False) == Delta(2.0)
    assert count_step(5.0, 3.0, first_page=False, restarted=False) == Reset(3.0)
    assert count_step(5.0, 7.0, first_page=False, restarted=True) == Reset(7.0)


def test_tokens_of_before_are_not_ours() -> None:
    """Counting begins with the first page; a series that joins later is counted from its beginning."""
    count = TokenCount()
    assert count.tokens is None
    assert not count.take({A: 1000.0}, restarted=False)
    assert count.tokens == 0
    count.take({A: 1010.0, B: 5.0}, restarted=False)
    assert count.tokens == 15


def test_a_restart_is_counted_from_zero() -> None:
    """A server that starts again adds what it counted since, also if it is past the old figure by then."""
    count = TokenCount()
    count.take({A: 100.0}, restarted=False)
    assert count.take({A: 30.0}, restarted=False)
    assert count.take({A: 50.0}, restarted=True)
    assert count.tokens == 80


def test_a_series_that_comes_back_is_not_counted_twice() -> None:
    """A rank that left the page for a while goes on from where it was."""
    count = TokenCount()
    count.take({A: 0.0, B: 0.0}, restarted=False)
    count.take({A: 10.0, B: 10.0}, restarted=False)
    count.take({A: 12.0}, restarted=False)
    count.take({A: 12.0, B: 11.0}, restarted=False)
    assert count.tokens == 23


def test_a_page_without_the_counter_changes_nothing() -> None:
    """What is not on the page is not known, and the count goes on afterwards."""
    count = TokenCount()
    count.take({A: 5.0}, restarted=False)
    assert not count.take(None, restarted=False)
    count.take({A: 9.0}, restarted=False)
    assert count.tokens == 4


def test_memory_is_bounded() -> None:
    """A server that invents a label with each page does not grow the sidecar."""
    count = TokenCount()
    for number in range(3 * MAX_SERIES):
        count.take({(("request", str(number)),): 1.0}, restarted=False)
    assert len(count._last) <= MAX_SERIES
    assert count.tokens == 3 * MAX_SERIES - 1


steps = st.lists(st.tuples(st.sampled_from(["go on"] * 4 + ["restart"]), st.integers(0, 1000)), max_size=40)


@given(st.integers(0, 10_000), steps)
def test_every_token_seen_is_counted_once(before: int, steps: list[tuple[str, int]]) -> None:
    """Whatever the server does, the count is what it made since the first page, and never falls."""
    count, shown, made = TokenCount(), float(before), 0.0
    count.take({A: shown}, restarted=False)
    for what, tokens in steps:
        shown = float(tokens) if what == "restart" else shown + tokens
        made += tokens
        count.take({A: shown}, restarted=what == "restart")
        assert count.tokens == made

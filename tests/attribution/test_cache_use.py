"""Whether a prefix cache was lost, or clients just ask for other things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.attribution.cache_use import CacheBook, CacheWatch, class_of


def book(*kinds: tuple[int, int], times: int = 200) -> CacheBook:
    """Counts so many requests of each kind (prompt tokens, of them cached)."""
    made = CacheBook()
    for _ in range(times):
        for prompt_tokens, cached_tokens in kinds:
            made.note(prompt_tokens, cached_tokens)
    return made


def watch(usual: CacheBook, *kinds: tuple[int, int], times: int = 300) -> tuple[CacheWatch, list[float]]:
    """A watch after so many requests of each kind, and what the last of each was more."""
    made = CacheWatch(usual.uses())
    more: list[float] = []
    for _ in range(times):
        more = [made.more_tokens(*kind) for kind in kinds]
    return made, more


USUAL = book((200, 100), (4000, 3600))


@pytest.mark.parametrize(("tokens", "at"), [(1, 0), (128, 0), (129, 1), (256, 1), (257, 2), (10**7, 11)])
def test_classes_end_at_powers_of_two(tokens: int, at: int) -> None:
    assert class_of(tokens) == at


def test_as_usual_nothing_is_more() -> None:
    made, more = watch(USUAL, (200, 100), (4000, 3600))
    assert made.common == pytest.approx(1.0)
    assert more == pytest.approx([0.0, 0.0])


def test_a_lost_cache_costs_what_used_to_be_found() -> None:
    """All lengths find nothing: what was found before is computed now."""
    made, more = watch(USUAL, (200, 0), (4000, 0))
    assert made.common == 0.0
    assert more == pytest.approx([100.0, 3600.0])


def test_half_a_cache_costs_half_of_it() -> None:
    made, more = watch(USUAL, (200, 50), (4000, 1800))
    assert made.common == pytest.approx(0.5)
    assert more == pytest.approx([50.0, 1800.0])


def test_a_cache_that_finds_more_spares() -> None:
    _, more = watch(book((200, 50), (4000, 1000)), (200, 100), (4000, 2000))
    assert more == pytest.approx([-50.0, -1000.0])


def test_one_length_alone_is_a_matter_of_what_is_asked() -> None:
    """Long prompts share nothing any more, short ones as much as ever: the cache is there."""
    _, more = watch(USUAL, (200, 100), (4000, 0))
    assert more == pytest.approx([0.0, 0.0])


def test_another_mix_says_nothing_of_the_cache() -> None:
    """Only long prompts come, and find nothing: other clients, or another cache; nobody can tell."""
    _, more = watch(USUAL, (4000, 0))
    assert more == [0.0]


def test_few_requests_say_nothing() -> None:
    _, more = watch(USUAL, (200, 0), (4000, 0), times=5)
    assert more == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=200))
def test_more_is_never_more_than_the_prompt(requests: list[tuple[int, int]]) -> None:
    """Whatever engines tell, cached beyond the prompt too."""
    made = CacheWatch(USUAL.uses())
    assert all(made.more_tokens(prompt, cached) <= prompt for prompt, cached in requests)

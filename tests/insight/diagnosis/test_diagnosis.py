"""What a diagnosis makes of windows that differ in what is written in their minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from joulescope.errors import PlanError
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.cache import UNCHANGED, common_found, found_by_class
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.minute_model import EngineMinute, TaskSums
from tests.insight.diagnosis.windows import minutes


def _dearer(window: Sequence[EngineMinute], factor: float) -> list[EngineMinute]:
    """The same steps at so many times the measured joules."""
    changed = []
    for minute in window:
        joules = minute.joules
        scaled = replace(
            joules,
            measured=joules.measured * factor,
            prefill=joules.prefill * factor,
            decode=joules.decode * factor,
            idle=joules.idle * factor,
        )
        changed.append(replace(minute, joules=scaled))
    return changed


def test_a_window_and_itself_differ_in_nothing() -> None:
    """No part is more than rounding, and nothing is named."""
    found = diagnose(minutes(), minutes())
    assert found.change == 0.0
    assert all(abs(part.joules_per_token) < 1e-12 for part in found.parts)
    assert found.named is None


def test_the_same_steps_at_more_joules_are_efficiency() -> None:
    """Neither clients nor limits nor clocks changed: the work itself became dearer."""
    found = diagnose(minutes(), _dearer(minutes(), 1.15))
    assert found.named is not None
    assert found.named.cause == causes.EFFICIENCY
    # By the model the limit would hold such steps back a little; the made-up ones are not.
    assert found.named.joules_per_token == pytest.approx(found.change, rel=0.1)
    assert "look for another version of vLLM" in found.named.sentence


def test_unattributed_joules_are_told_as_measured() -> None:
    """Exactly what was measured of them by token, and all of the change."""
    window = minutes()
    lost = [
        replace(
            each,
            joules=replace(each.joules, measured=each.joules.measured + 5e3, unattributed=5e3),
        )
        for each in window
    ]
    found = diagnose(window, lost)
    assert found.named is not None
    assert found.named.cause == causes.UNATTRIBUTED
    tokens = sum(each.tokens.generated for each in window)
    assert found.named.joules_per_token == pytest.approx(5e3 * len(window) / tokens)
    assert found.named.joules_per_token == pytest.approx(found.change)


def test_another_precision_owns_what_the_laws_do_otherwise() -> None:
    """With another model there is no telling its kernels from others: all that is in one part, and said."""
    other = [replace(each, kind=replace(each.kind, quantization="fp8")) for each in _dearer(minutes(), 0.8)]
    found = diagnose(minutes(), other)
    assert found.named is not None
    assert found.named.cause == causes.MODEL
    assert causes.EFFICIENCY not in {part.cause for part in found.parts}
    assert any("became another" in note for note in found.notes)


def test_a_window_without_a_cost_model_is_refused() -> None:
    """The message names the window and what to do."""
    bare = [replace(each, laws=None) for each in minutes()]
    with pytest.raises(PlanError, match=r"window B: .*no minute has a fitted cost model"):
        diagnose(minutes(), bare)


def test_different_units_are_not_compared() -> None:
    """Joules by image are no joules by token."""
    images = [replace(each, kind=replace(each.kind, unit="image")) for each in minutes()]
    with pytest.raises(PlanError, match="different units"):
        diagnose(minutes(), images)


def _prompts(of_class: dict[int, float]) -> list[TaskSums]:
    """A hundred prompts of each length, so much of each cached."""
    return [
        TaskSums(
            "",
            2 * length.bit_length() - 2,
            10,
            requests=100,
            prompt_tokens=100 * length,
            cached_tokens=round(100 * length * part),
        )
        for length, part in of_class.items()
    ]


def test_a_lost_cache_shows_in_all_lengths() -> None:
    """What all lengths have in common is the cache's; what one of them has is not."""
    before = _prompts({200: 0.5, 2000: 0.8})
    assert common_found(before, _prompts({200: 0.25, 2000: 0.4})).common == pytest.approx(0.5)
    assert common_found(before, _prompts({200: 0.5, 2000: 0.4})) == UNCHANGED
    assert common_found(before, _prompts({200: 0.0, 2000: 0.0})).common == 0.0
    assert found_by_class(before, _prompts({200: 0.5, 2000: 0.4})).cached(
        2000.0, 1600.0, {}
    ) == pytest.approx(800.0)


def test_a_cache_that_was_empty_is_filled_as_it_is_after() -> None:
    """From nothing no factor leads to something: the other window's parts are taken."""
    found = common_found(_prompts({200: 0.0}), _prompts({200: 0.5}))
    assert found.cached(200.0, 0.0, {15: 0.5}) == pytest.approx(99.5)
    assert found.inverse().cached(200.0, 100.0, {}) == 0.0

"""What a diagnosis makes of windows that differ in what is written in their minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from joulescope.errors import PlanError
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.cache import CacheChange, change_by_sort, common_change
from joulescope.insight.diagnosis.diagnosis import diagnose
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import EngineMinute, Joules, Steps, TaskSums
from joulescope.minutes import length_bin
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


def test_another_number_of_drafts_owns_what_the_steps_cost_otherwise() -> None:
    """The drafter computes in the steps: what it costs is no other efficiency of the same work."""
    drafting = []
    for each in _dearer(minutes(), 1.15):
        passes = each.tokens.generated - sum(cell.requests for cell in each.tasks)
        drafting.append(replace(each, tokens=replace(each.tokens, drafted=2 * passes)))
    found = diagnose(minutes(), drafting)
    assert found.named is not None
    assert found.named.cause == causes.SPECULATION
    assert [part.cause for part in found.parts].count(causes.SPECULATION) == 1
    assert causes.EFFICIENCY not in {part.cause for part in found.parts}
    assert sum(part.joules_per_token for part in found.parts) == pytest.approx(found.change)
    assert any("Other numbers of tokens are drafted" in note for note in found.notes)


def test_a_law_that_is_not_of_its_windows_steps_names_nothing() -> None:
    """As where kernels became slower in the middle of a window: at its end the law says of all its steps that
    they took longer than they did, and what it makes of the other window's is as unsure."""
    within = [
        replace(
            each,
            laws=each.laws
            and replace(each.laws, time_coefficients=tuple(1.3 * one for one in each.laws.time_coefficients)),
        )
        for each in minutes()
    ]
    found = diagnose(minutes(), within)
    (part,) = (part for part in found.parts if part.cause == causes.EFFICIENCY)
    assert any("too little in common" in note for note in found.notes)
    assert abs(part.joules_per_token) > 0.01 * found.before.joules_per_token
    assert part.error > 0.1 * found.before.joules_per_token
    assert found.named is None


def test_a_window_without_a_cost_model_is_refused() -> None:
    """The message names the window and what to do."""
    bare = [replace(each, laws=None) for each in minutes()]
    with pytest.raises(PlanError, match=r"window B: .*no minute has a fitted cost model"):
        diagnose(minutes(), bare)


def test_laws_without_covariances_are_taken_as_they_are() -> None:
    """As minutes may have them; the change is divided all the same."""
    plain = [
        replace(each, laws=each.laws and replace(each.laws, time_covariance=(), energy_covariance=()))
        for each in minutes()
    ]
    found = diagnose(minutes(), plain)
    assert all(abs(part.joules_per_token) < 0.01 * found.before.joules_per_token for part in found.parts)


@pytest.mark.parametrize("emptied", ["joules", "steps"])
def test_a_window_in_which_nothing_was_measured_is_refused(emptied: str) -> None:
    """As where GPUs could not be read: by name, and with what to do."""
    nothing = {"joules": {"joules": Joules()}, "steps": {"decode_steps": Steps(), "prefill_steps": Steps()}}
    bare = [replace(each, **nothing[emptied]) for each in minutes()]
    with pytest.raises(PlanError, match=r"window B: .*no joules or no steps were measured"):
        diagnose(minutes(), bare)


@pytest.mark.parametrize(
    "laws",
    [
        {"time_coefficients": (1e-3, 1e-5, 1e-13)},
        {"energy_coefficients": (0.0,) * 5},
        {"time_covariance": ((0.01,) * 2,) * 2},
    ],
    ids=["too few", "nothing", "another covariance"],
)
def test_a_cost_model_of_another_form_is_refused(laws: dict[str, Any]) -> None:
    """As minutes of a version to come may have it."""
    other = [replace(each, laws=each.laws and replace(each.laws, **laws)) for each in minutes()]
    with pytest.raises(PlanError, match="a cost model of another form than this version knows"):
        diagnose(minutes(), other)


def test_different_units_are_not_compared() -> None:
    """Joules by image are no joules by token."""
    images = [replace(each, kind=replace(each.kind, unit="image")) for each in minutes()]
    with pytest.raises(PlanError, match="different units"):
        diagnose(minutes(), images)


def _prompts(of_class: dict[int, float], task: str = "", requests: int = 100) -> list[TaskSums]:
    """A hundred prompts of each length, so much of each cached."""
    return [
        TaskSums(
            task,
            length_bin(length),
            10,
            requests=requests,
            prompt_tokens=requests * length,
            cached_tokens=round(requests * length * part),
        )
        for length, part in of_class.items()
    ]


def _cached(change: CacheChange, each: LengthClass, *, seen: bool, kept: bool) -> float:
    """Mean tokens that prompts of the one window find in the cache of the other."""
    parts = change.found(seen, kept).parts(each)
    assert sum(part.weight for part in parts) == pytest.approx(each.weight)
    return sum(part.weight * part.cached_tokens for part in parts) / each.weight


LONG = LengthClass(1.0, 2000.0, 100.0, 1600.0)


def test_a_lost_cache_shows_in_all_lengths() -> None:
    """What all lengths have in common is the cache's; what one of them has is not."""
    before = _prompts({200: 0.5, 2000: 0.8})
    halved = common_change(before, _prompts({200: 0.25, 2000: 0.4}))
    assert _cached(halved, LONG, seen=False, kept=True) == pytest.approx(800.0)
    assert not common_change(before, _prompts({200: 0.5, 2000: 0.4})).changed
    lost = common_change(before, _prompts({200: 0.0, 2000: 0.0}))
    assert _cached(lost, LONG, seen=False, kept=True) == 0.0
    apart = change_by_sort(before, _prompts({200: 0.5, 2000: 0.4}))
    assert _cached(apart, LONG, seen=False, kept=True) == pytest.approx(800.0)


def test_a_prompt_finds_its_prefix_or_does_not() -> None:
    """Where half is found of what was, half of the prompts find all of theirs, seen from either window."""
    change = common_change(_prompts({2000: 0.8}), _prompts({2000: 0.4}))
    for each, seen in ((LONG, False), (LengthClass(1.0, 2000.0, 100.0, 800.0), True)):
        found, missed = change.found(seen, True).parts(each)
        assert (found.weight, found.cached_tokens) == pytest.approx((0.5, 1600.0))
        assert (missed.weight, missed.cached_tokens) == (0.5, 0.0)


def test_a_cache_that_was_empty_is_filled_as_it_is_after() -> None:
    """From nothing no factor leads to something: the other window's parts are taken."""
    change = common_change(_prompts({200: 0.0}), _prompts({200: 0.5}))
    assert _cached(change, LengthClass(1.0, 200.0, 10.0), seen=False, kept=True) == pytest.approx(99.5)
    assert _cached(change, LengthClass(1.0, 200.0, 10.0, 100.0), seen=True, kept=False) == 0.0


def test_who_would_have_shared_prefixes_is_not_known_of_new_clients() -> None:
    """Of prompts that a cache never saw, some may have been found in it: of old clients, or all."""
    before, after = _prompts({200: 0.0, 2000: 0.5}), _prompts({2000: 0.0}, requests=400)
    change = common_change(before, after)
    none, every = (
        sum(part.weight * part.cached_tokens for part in change.found(True, False, sharing).parts(LONG))
        for sharing in (0.0, 1.0)
    )
    assert every == pytest.approx(0.5 * 1999.0)
    assert none < 0.1 * every


def test_tasks_of_one_length_are_told_apart() -> None:
    """One task shares prefixes, the other does not: that there is more of the other is no lost cache."""
    before = [*_prompts({2000: 0.8}, "chat", 300), *_prompts({2000: 0.0}, "new")]
    after = [*_prompts({2000: 0.8}, "chat"), *_prompts({2000: 0.0}, "new", 300)]
    assert not common_change(before, after).changed
    untold = [
        _prompts({2000: part}, requests=400) for part in (0.6, 0.2)
    ]  # the same requests where tasks are not told
    assert common_change(*untold).changed

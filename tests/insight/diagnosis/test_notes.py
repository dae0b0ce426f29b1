"""What a reader is told of windows that do not serve well: that they overlap, or changed within."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.planted import Plant
from joulescope.insight.diagnosis.diagnosis import diagnose
from tests.insight.diagnosis.windows import later, minutes


def test_minutes_of_both_windows_are_told() -> None:
    """Spans that overlap hide what changed; windows that do not have no such note."""
    old, new = list(minutes()), later(minutes(Plant("batch", 8)), 3600.0)
    apart = diagnose(old, new)
    assert not any("in both windows" in note for note in apart.notes)
    mixed = diagnose(old, [*old, *new])
    assert f"{len(old)} minutes are in both windows" in " ".join(mixed.notes)


def test_an_engine_that_was_started_anew_with_other_limits_is_told() -> None:
    """In which window, which limit, and what is taken of it; some blocks of KV cache are no change."""
    window = list(minutes())
    fewer = [replace(each, limits=replace(each.limits, max_num_seqs=8)) for each in window]
    found = diagnose(window, [*fewer, *later(window, 3600.0)], names=("monday", "tuesday"))
    (note,) = (note for note in found.notes if "max_num_seqs" in note)
    assert note.startswith("Window tuesday: max_num_seqs was 8, then 256, and is taken to have been 256")
    tokens = window[0].limits.kv_cache_tokens or 0
    some = [replace(each, limits=replace(each.limits, kv_cache_tokens=tokens - 64)) for each in window]
    assert not any("kv_cache_tokens" in note for note in diagnose(window, [*some, *window]).notes)


def test_a_window_is_called_by_its_name() -> None:
    """Which of them the structural model does not say well, and not by seconds of some epoch."""
    old = list(minutes())
    mixed = [*minutes(Plant("batch", 8)), *later(old, 3600.0)]
    notes = diagnose(old, mixed, names=("before", "now")).notes
    assert any("off by" in note and "for window now;" in note for note in notes), notes

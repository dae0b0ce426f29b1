"""What a reader must know of how far to trust a diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.between import Between
from joulescope.insight.diagnosis.window import Window

_FAR_OFF = 0.1
"""By how much, relative, the structural model may miss a window before that is said."""

_SAME = 0.02
"""A KV cache has some blocks more or less after each start; smaller differences are none."""

_LIMITS = ("max_num_seqs", "max_num_batched_tokens", "kv_cache_tokens")

_OWNERS = (
    {
        cause: f"The engine became another: what kernels, clocks, host and KV cache did is in '{title}'."
        for cause, title in ((cause, causes.CAUSES[cause].title) for cause in (causes.MODEL, causes.LAYOUT))
    }
    | {
        cause: "The fits of the two windows have too little in common to tell kernels, clocks and host "
        f"apart: all of it is in '{causes.CAUSES[cause].title}'."
        for cause in (causes.CLOCKS, causes.EFFICIENCY)
    }
    | {
        causes.SPECULATION: "Other numbers of tokens are drafted. What the drafter computes is in the steps, "
        "and no one tells it: what kernels, clocks and host did besides is in 'speculation' too."
    }
)
"""What is said where one cause owns all differences of the laws."""


def notes_of(made: Between, names: tuple[str, str]) -> list[str]:
    """Whole sentences.

    Args:
        names: of the two windows.
    """
    notes = [*_common(made)]
    if made.closed:
        notes.append(
            f"Clients wait for answers: {made.first.present:.1f} and {made.second.present:.1f} requests were "
            "there at any time. Load is their number; that slower answers bring fewer requests is told with "
            "its cause."
        )
    if made.owner is not None:
        notes.append(_OWNERS[made.owner])
    room = causes.KV_CAPACITY in made.players
    if room and made.cache.changed and causes.PREFIX_CACHE not in made.players:
        notes.append("Prefixes that the KV cache no longer holds, or now does, are in 'KV capacity'.")
    for window, name, misfit in zip((made.first, made.second), names, made.misfit, strict=True):
        if abs(misfit) > _FAR_OFF:
            notes.append(
                f"The structural model is off by {misfit:+.0%} for window {name}; parts are the less sure."
            )
        if window.left_out:
            notes.append(
                f"Window {name}: {window.left_out} minutes were left out, of another kind of the same engine."
            )
        notes += _changed_limits(window, name)
    return notes


def _common(made: Between) -> Iterator[str]:
    """Whether the windows share minutes: what these had is in both, and hides a part of the change."""
    there = {(each.start_wall_seconds, each.end_wall_seconds): each for each in made.second.minutes}
    shared = sum(
        there.get((each.start_wall_seconds, each.end_wall_seconds)) == each for each in made.first.minutes
    )
    if shared:
        yield (
            f"{shared} minutes are in both windows, so that less is seen of what changed: take windows that "
            "do not overlap."
        )


def _changed_limits(window: Window, name: str) -> Iterator[str]:
    """Limits that became others within a window, as where the engine was started anew."""
    by_time = sorted(window.minutes, key=lambda minute: minute.end_wall_seconds)
    for limit in _LIMITS:
        told = [value for each in by_time if (value := getattr(each.limits, limit)) is not None]
        values = [value for value, _ in groupby(told)]
        if values and max(values) > (1.0 + _SAME) * min(values):
            yield (
                f"Window {name}: {limit} was {', then '.join(map(str, values))}, and is taken to have been "
                f"{values[-1]} all the time: take a window in which nothing changed."
            )

"""The waterfall: from the J/token before, part by part, to that after."""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.insight.diagnosis.causes import CAUSES
from joulescope.insight.diagnosis.diagnosis import Diagnosis

_LEAST = 0.002
"""Of the J/token before: smaller parts that are not significant are drawn as one."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in J/token."""

    title: str
    begin: float
    end: float
    error: float
    kind: str
    """``level`` (a window), ``part``, or ``doubtful`` (a part that is not significant)."""

    @property
    def height(self) -> float:
        return self.end - self.begin


def bars_of(diagnosis: Diagnosis) -> list[Bar]:
    """The bars in order: the window before, the parts from the largest on, the window after."""
    before, after = diagnosis.before, diagnosis.after
    bars = [Bar(before.name, 0.0, before.joules_per_token, before.error, "level")]
    level, small = before.joules_per_token, []
    for part in diagnosis.parts:
        if not part.significant and abs(part.joules_per_token) < _LEAST * before.joules_per_token:
            small.append(part)
            continue
        end = level + part.joules_per_token
        kind = "part" if part.significant else "doubtful"
        bars.append(Bar(CAUSES[part.cause].title, level, end, part.error, kind))
        level = end
    if small:
        error = sum(part.error**2 for part in small) ** 0.5
        end = level + sum(part.joules_per_token for part in small)
        title = "the rest" if len(bars) > 1 else "all causes"
        bars.append(Bar(title, level, end, error, "doubtful"))
    bars.append(Bar(after.name, 0.0, after.joules_per_token, after.error, "level"))
    return bars


def span_of(bars: list[Bar]) -> tuple[float, float]:
    """From where to where a picture goes: from zero, unless all that happens is far above it."""
    ends = [each for bar in bars for each in ((bar.end,) if bar.kind == "level" else (bar.begin, bar.end))]
    low, high = min(ends), max(ends)
    room = 0.25 * (high - low)
    return (max(low - room, 0.0) if low > 0.6 * high and room > 0.0 else 0.0), high

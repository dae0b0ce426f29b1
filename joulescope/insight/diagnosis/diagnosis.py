"""The diagnosis: a change of J/token between two windows, its causes and what speaks for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulescope.errors import PlanError
from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.between import between
from joulescope.insight.diagnosis.clients import wait_for_answers
from joulescope.insight.diagnosis.errors import errors_of
from joulescope.insight.diagnosis.latents import Latents, latents_of
from joulescope.insight.diagnosis.notes import notes_of
from joulescope.insight.diagnosis.sentences import sentence_of
from joulescope.insight.diagnosis.split import shapley
from joulescope.insight.diagnosis.window import Window, window_of
from joulescope.minute_model import EngineMinute, Kind

_DOUBT = 3.0
_LEAST = 0.01
"""Of the J/token before: a smaller part is not worth a name, however sure it is."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one cause did."""

    cause: str
    """Of :data:`joulescope.insight.diagnosis.causes.CAUSES`."""
    joules_per_token: float
    """Positive: it made tokens dearer."""
    error: float
    """Standard error of it."""
    significant: bool
    """Whether it is beyond what chance and the model's error explain."""
    sentence: str
    """What is seen of it, and the lever to pull; empty where it is not significant."""


@dataclass(frozen=True, slots=True)
class Told:
    """One window as it is told."""

    name: str
    kind: Kind
    start_wall_seconds: float
    end_wall_seconds: float
    minutes: int
    left_out: int
    """Minutes of the same engine while it was of another kind (another model, layout or version)."""
    joules_per_token: float
    error: float
    """Standard error by the scatter of its minutes, J/token."""
    tokens: float
    latents: Latents
    misfit: float
    """Measured by modelled J/token, less one."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A change and its parts; ``before + Σ parts = after``."""

    engine: str
    unit: str
    before: Told
    after: Told
    parts: tuple[Part, ...]
    """The largest first."""
    closed_loop: bool
    """Whether clients were taken to wait for answers."""
    notes: tuple[str, ...]

    @property
    def change(self) -> float:
        """J/token."""
        return self.after.joules_per_token - self.before.joules_per_token

    @property
    def named(self) -> Part | None:
        """The first cause: the largest part that is significant and explains something."""
        return next(
            (part for part in self.parts if part.significant and part.cause != causes.UNEXPLAINED), None
        )


def diagnose(
    before: Sequence[EngineMinute],
    after: Sequence[EngineMinute],
    *,
    engine: str | None = None,
    names: tuple[str, str] = ("A", "B"),
    closed_loop: bool | None = None,
) -> Diagnosis:
    """Divides the change of J/token between two windows among its causes.

    Args:
        before, after: minutes of any engines.
        engine: label of the one to look at; may be left out where each window has only one.
        names: of the windows, for people.
        closed_loop: whether clients wait for answers, so that load is how many there are and not their
            requests a second; ``None``: as the minutes look.

    Raises:
        PlanError: too little is known of a window; the message says what is missing.
    """
    first, second = window_of(before, names[0], engine), window_of(after, names[1], engine)
    units = {each.observed.kind.unit for each in (first, second)}
    if len(units) > 1:
        raise PlanError(
            f"windows {names[0]} and {names[1]} count in different units ({', '.join(sorted(units))}), "
            "so that joules by unit cannot be compared"
        )
    closed = wait_for_answers(first, second) if closed_loop is None else closed_loop
    made = between(first, second, closed=closed)
    values = shapley(made.players, made.joules_per_token)
    errors = errors_of(made, values)
    ends = [
        _told(window, name, misfit)
        for window, name, misfit in zip((first, second), names, made.misfit, strict=True)
    ]
    parts = []
    for cause, value in sorted(values.items(), key=lambda item: -abs(item[1])):
        least = max(_DOUBT * errors[cause], _LEAST * first.joules_per_token)
        significant = abs(value) > least
        said = sentence_of(cause, value, *ends_of(ends), closed=closed) if significant else ""
        parts.append(Part(cause, value, errors[cause], significant, said))
    return Diagnosis(
        engine=second.observed.kind.engine,
        unit=second.observed.kind.unit,
        before=ends[0],
        after=ends[1],
        parts=tuple(parts),
        closed_loop=closed,
        notes=tuple(notes_of(made, names)),
    )


def ends_of(ends: Sequence[Told]) -> tuple[Latents, Latents]:
    return ends[0].latents, ends[1].latents


def _told(window: Window, name: str, misfit: float) -> Told:
    return Told(
        name=name,
        kind=window.observed.kind,
        start_wall_seconds=window.whole.start_wall_seconds,
        end_wall_seconds=window.whole.end_wall_seconds,
        minutes=len(window.minutes),
        left_out=window.left_out,
        joules_per_token=window.joules_per_token,
        error=window.error * window.joules_per_token,
        tokens=window.tokens,
        latents=latents_of(window),
        misfit=misfit,
    )

"""One side of a comparison: what the minutes of an engine in one window say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev

from joulescope.errors import PlanError
from joulescope.insight.capacity.observed import Observed, all_steps, is_of_known_form, observe
from joulescope.minute_model import EngineMinute, Kind, Laws, Steps
from joulescope.minutes import merge

_FEW = 3
"""So many minutes at least have a middle one."""

_UNSEEN = 0.005
_NEXT_TO_NOTHING = 1e-6
"""Of the latest coefficient."""

_LEAST_TOKENS = 100
"""A window in which fewer came out says nothing of joules per token."""


@dataclass(frozen=True, slots=True)
class Window:
    """An engine in a window of time."""

    minutes: tuple[EngineMinute, ...]
    """Of one kind."""
    whole: EngineMinute
    """Their sum."""
    observed: Observed
    laws: Laws
    """The cost model: coefficients as most of the later minutes have them, for those of one moment may be
    off, as where records end in the middle of an interval."""
    left_out: int
    """Minutes of the same engine while it was of another kind."""

    @property
    def tokens(self) -> float:
        return float(self.whole.tokens.generated)

    @property
    def joules_per_token(self) -> float:
        return self.whole.joules.measured / self.tokens

    @property
    def overhead(self) -> float:
        """J/token of start-up and empty steps."""
        joules = self.whole.joules
        return (joules.overhead_startup + joules.overhead_dummy_batch) / self.tokens

    @property
    def unattributed(self) -> float:
        return self.whole.joules.unattributed / self.tokens

    @property
    def modelled(self) -> float:
        """J/token of what a model of steps, waiting and idle time can say something of."""
        return self.joules_per_token - self.overhead - self.unattributed

    @property
    def error(self) -> float:
        """Standard error of the J/token by the scatter of the minutes, as a part of it."""
        full = [each for each in self.minutes if each.tokens.generated > 0 and each.load.seconds > 30.0]
        if len(full) < 3:
            return 0.05
        mean = self.joules_per_token
        tokens = [each.tokens.generated for each in full]
        apart = [each.joules.measured - mean * count for each, count in zip(full, tokens, strict=True)]
        count = len(full)
        return math.sqrt(sum(each * each for each in apart) * count / (count - 1)) / sum(tokens) / mean

    @property
    def present(self) -> float:
        """Mean requests that run or wait."""
        load = self.whole.load
        return (load.running_seconds + load.waiting_seconds) / load.seconds if load.seconds > 0.0 else 0.0

    @property
    def present_error(self) -> float:
        """Standard error of clients that wait for answers, by the scatter of the minutes, as a part of them;
        those that are between an answer and their next request are not seen."""
        full = [each.load for each in self.minutes if each.load.seconds > 30.0]
        if len(full) < 3 or self.present <= 0.0:
            return 0.02
        there = [(each.running_seconds + each.waiting_seconds) / each.seconds for each in full]
        return math.hypot(stdev(there) / math.sqrt(len(there)) / self.present, _UNSEEN)

    def steps(self) -> tuple[Steps, Steps]:
        return all_steps(self.whole)


def window_of(minutes: Sequence[EngineMinute], name: str, engine: str | None) -> Window:
    """What the minutes of one window say of an engine.

    Args:
        name: of the window, for messages.
        engine: its label; may be left out where there is only one.

    Raises:
        PlanError: too little is known; the message says what and where.
    """
    try:
        observed = observe(_settled(minutes), engine)
    except PlanError as error:
        raise PlanError(f"window {name}: {error}") from None
    label = observed.kind.engine
    mine = [each for each in minutes if each.kind.engine == label]
    kept = tuple(each for each in mine if each.kind == observed.kind)
    (whole,) = merge(kept)
    if whole.tokens.generated < _LEAST_TOKENS:
        raise PlanError(
            f"window {name}: engine {label} generated {whole.tokens.generated} tokens in it; "
            f"joules per token need {_LEAST_TOKENS} at least. Take a longer window"
        )
    if whole.joules.measured <= 0.0 or not any(each.steps > 0.0 for each in all_steps(whole)):
        raise PlanError(
            f"window {name}: of engine {label} no joules or no steps were measured. Take another window, "
            "or check that its GPUs are read with 'joulescope doctor'"
        )
    whole = replace(whole, limits=observed.service.limits)
    laws = next(each.laws for each in _settled(kept) if each.laws is not None)
    return Window(kept, whole, observed, laws, len(mine) - len(kept))


def _settled(minutes: Sequence[EngineMinute]) -> list[EngineMinute]:
    """The same minutes with laws that are those of their kind's later minutes together."""
    by_kind: dict[Kind, list[EngineMinute]] = {}
    for minute in sorted(minutes, key=lambda each: each.end_wall_seconds):
        by_kind.setdefault(minute.kind, []).append(minute)
    laws = {kind: _laws([each.laws for each in mine if each.laws]) for kind, mine in by_kind.items()}
    return [replace(each, laws=each.laws and laws[each.kind]) for each in minutes]


def _laws(told: Sequence[Laws]) -> Laws | None:
    """Of laws in the order of time the latest, with the middle one of each coefficient of the later half."""
    if not told:
        return None
    latest = told[-1]
    if not all(map(is_of_known_form, told)):
        return latest
    later = told[min(len(told) // 2, max(len(told) - _FEW, 0)) :]
    alike = [each for each in later if each.cost == latest.cost]
    times = _middle([each.time_coefficients for each in alike], latest.time_coefficients)
    joules = _middle([each.energy_coefficients for each in alike], latest.energy_coefficients)
    return replace(
        latest,
        time_coefficients=times,
        energy_coefficients=joules,
        time_covariance=_relative_to(times, latest.time_covariance, latest.time_coefficients),
        energy_covariance=_relative_to(joules, latest.energy_covariance, latest.energy_coefficients),
        idle_watts=median(each.idle_watts for each in alike),
    )


def _middle(rows: Sequence[tuple[float, ...]], latest: tuple[float, ...]) -> tuple[float, ...]:
    """The middle one of each coefficient; never nothing, for covariances are relative."""
    return tuple(
        max(median(column), _NEXT_TO_NOTHING * last)
        for column, last in zip(zip(*rows, strict=True), latest, strict=True)
    )


def _relative_to(
    coefficients: tuple[float, ...],
    covariance: tuple[tuple[float, ...], ...],
    told_with: tuple[float, ...],
) -> tuple[tuple[float, ...], ...]:
    """A covariance that was told relative to some coefficients, relative to others; none stays none."""
    if not covariance:
        return ()
    factors = [told / each if each > 0.0 else 1.0 for told, each in zip(told_with, coefficients, strict=True)]
    return tuple(
        tuple(value * one * other for value, other in zip(row, factors, strict=True))
        for row, one in zip(covariance, factors, strict=True)
    )

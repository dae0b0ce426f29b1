"""One side of a comparison: what the minutes of an engine in one window say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from joulescope.errors import PlanError
from joulescope.insight.capacity.observed import Observed, observe
from joulescope.minute_model import EngineMinute, Steps
from joulescope.minutes import merge

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

    def steps(self) -> tuple[Steps, Steps]:
        return self.whole.decode_steps, self.whole.prefill_steps


def window_of(minutes: Sequence[EngineMinute], name: str, engine: str | None) -> Window:
    """What the minutes of one window say of an engine.

    Args:
        name: of the window, for messages.
        engine: its label; may be left out where there is only one.

    Raises:
        PlanError: too little is known; the message says what and where.
    """
    try:
        observed = observe(minutes, engine)
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
    whole = replace(whole, limits=observed.service.limits)
    return Window(kept, whole, observed, len(mine) - len(kept))

"""Drivers of an engine's joules per token, as values: some may be of one window and some of the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from joulescope.insight.bisection import narrowed
from joulescope.insight.diagnosis.cache import Found
from joulescope.insight.steady import LengthClass, Operation, Service, Workload, steady_state

_LEAST_DUTY = 0.01


@dataclass(frozen=True, slots=True)
class State:
    """Everything that decides how an engine fares."""

    classes: tuple[LengthClass, ...]
    """What is asked for; ``cached_tokens`` as it was where the classes were seen."""
    shared_tokens: float
    found: Found
    """How many of the prompts find their prefix, against where the classes were seen."""
    arrivals_per_second: float
    duty: float
    """Part of the time in which anything arrives, 0..1."""
    service: Service
    clients: float | None = None
    """So many requests are there at any time, for whoever sends one waits for its answer; the rate follows.
    ``None``: they come at their rate, whatever the engine does."""

    def workload(self, duty: float) -> Workload:
        """While requests arrive."""
        classes = tuple(part for each in self.classes for part in self.found.parts(each))
        if self.clients is not None:
            return Workload(classes, concurrency=self.clients, shared_tokens=self.shared_tokens)
        rate = self.arrivals_per_second / duty
        return Workload(classes, arrivals_per_second=rate, shared_tokens=self.shared_tokens)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a state fares."""

    joules_per_token: float
    operation: Operation
    """While requests arrive."""
    busy_ratio: float


def fare(state: State) -> Outcome:
    """Joules per token of a state, by the structural model.

    While nothing arrives the engine is idle: what a burst leaves behind is taken to be served in it.
    """
    duty = max(min(state.duty, 1.0), _LEAST_DUTY)
    operation = steady_state(state.workload(duty), state.service)
    laws = state.service.laws
    idle_watts = laws.idle_watts * state.service.gpu_count
    watts = duty * operation.watts + (1.0 - duty) * idle_watts
    tokens = duty * operation.tokens_per_second
    return Outcome(watts / max(tokens, 1e-9), operation, duty * operation.busy_ratio)


def duty_of(state: State, busy_ratio: float) -> float:
    """The part of the time in which requests must arrive for the engine to be busy for so much of it.

    1 where they may arrive at any time, and where clients wait for answers.
    """
    if state.clients is not None:
        return 1.0
    if fare(replace(state, duty=1.0)).busy_ratio - busy_ratio < 0.02:
        return 1.0

    def is_too_small(duty: float) -> bool:
        return fare(replace(state, duty=duty)).busy_ratio < busy_ratio

    low, high = narrowed(max(0.2 * busy_ratio, _LEAST_DUTY), 1.0, is_too_small, 20)
    return 0.5 * (low + high)

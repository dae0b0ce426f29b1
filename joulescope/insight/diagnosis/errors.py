"""How sure a part is: standard errors, in J/token.

A driver that was measured on some requests or fitted to some steps would have come out a little otherwise on
others; what that would have made of the joules is the error of its part. Limits are known exactly; there the
structural model's own error remains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from joulescope.insight.diagnosis import causes
from joulescope.insight.diagnosis.between import Between
from joulescope.insight.diagnosis.drivers import State, fare
from joulescope.insight.diagnosis.law_change import own_misfit
from joulescope.insight.diagnosis.window import Window

_DRAWS = 12
_SEED = 20260122

_OF_PART = 0.05
"""Of every modelled part, relative: how far the structural model's differences are from the simulator's."""

_OF_LEVEL = 0.005
"""Of J/token: the same of its level, which is what cannot be explained."""


def errors_of(made: Between, parts: Mapping[str, float]) -> dict[str, float]:
    """The standard error of each part."""
    found = {}
    for cause, part in parts.items():
        own = math.hypot(_sampled(made, cause), _of_owner(made) if cause == made.owner else 0.0)
        found[cause] = math.hypot(own, _OF_PART * part if cause != causes.UNEXPLAINED else 0.0)
    return found


def _sampled(made: Between, cause: str) -> float:
    ends = ((made.first, made.state(frozenset())), (made.second, made.state(frozenset(made.players))))
    if cause == causes.MIX:
        return math.hypot(*(_mix(window, state) for window, state in ends))
    if cause == causes.LOAD:
        return math.hypot(*(_load(window, state) for window, state in ends))
    if cause == causes.PREFIX_CACHE:
        return math.hypot(*(_cache(window, state) for window, state in ends), _sharing(made))
    if cause == causes.SPECULATION:
        return math.hypot(*(_drafts(window, state) for window, state in ends))
    if cause in (causes.EFFICIENCY, causes.HOST, causes.CLOCKS) and made.change is not None:
        state = ends[1][1]
        return math.hypot(_slower(state, made.change.time_error), made.change.joules_error * _level(state))
    if cause == causes.UNEXPLAINED:
        level = 0.5 * (made.first.joules_per_token + made.second.joules_per_token)
        return math.hypot(
            *(window.error * window.joules_per_token / 2.0 for window, _ in ends), _OF_LEVEL * level
        )
    return 0.0


def _of_owner(made: Between) -> float:
    """Where one cause owns all that the laws do otherwise, its part is found by the law of each window for
    the steps of the other: the less sure, the less a law says of its own."""
    off = [own_misfit(window) for window in (made.first, made.second)]
    return 0.5 * math.hypot(off[1] * made.first.joules_per_token, off[0] * made.second.joules_per_token)


def _level(state: State) -> float:
    return fare(state).joules_per_token


def _mix(window: Window, state: State) -> float:
    """Other requests of the same clients: as many of each length as chance will have it."""
    luck = np.random.default_rng(_SEED)
    drawn = []
    for _ in range(_DRAWS):
        counts = luck.poisson([each.weight for each in state.classes])
        classes = tuple(
            replace(each, weight=float(count))
            for each, count in zip(state.classes, counts, strict=True)
            if count
        )
        if classes:
            drawn.append(_level(replace(state, classes=classes)))
    return float(np.std(drawn)) if len(drawn) > 1 else 0.0


def _load(window: Window, state: State) -> float:
    if state.clients is not None:
        more = replace(state, clients=state.clients * (1.0 + window.present_error))
        return abs(_level(more) - _level(state))
    started = max(window.whole.load.requests_started, 1)
    more = replace(state, arrivals_per_second=state.arrivals_per_second * (1.0 + 1.0 / math.sqrt(started)))
    return abs(_level(more) - _level(state))


def _cache(window: Window, state: State) -> float:
    """Whether a prompt is found at all is a matter of chance, prompt by prompt."""
    requests = max(sum(cell.requests for cell in window.whole.tasks), 1)
    prompts = sum(cell.prompt_tokens for cell in window.whole.tasks)
    part = min(sum(cell.cached_tokens for cell in window.whole.tasks) / max(prompts, 1), 1.0)
    if part <= 0.0:
        return 0.0
    relative = math.sqrt((1.0 - part) / (part * requests))
    less = replace(state, found=state.found.fewer(max(1.0 - relative, 0.0)))
    return abs(_level(less) - _level(state))


def _sharing(made: Between) -> float:
    """Where nothing was found in one window, nobody knows how many of its prompts would have shared prefixes:
    evenly from none to all of those that the other window did not have."""
    if not made.cache.from_nothing:
        return 0.0
    only = frozenset({causes.PREFIX_CACHE})
    widths = []
    for chosen, second in ((frozenset(made.players) - only, True), (only, False)):
        state = made.state(chosen)
        none, every = (
            _level(replace(state, found=made.cache.found(second, not second, sharing)))
            for sharing in (0.0, 1.0)
        )
        widths.append(abs(every - none) / math.sqrt(12.0))
    return 0.5 * sum(widths)


def _drafts(window: Window, state: State) -> float:
    drafted = window.whole.tokens.drafted
    if not drafted:
        return 0.0
    service = state.service
    error = service.drafted_per_pass * 0.5 / math.sqrt(drafted)
    more = replace(service, tokens_per_pass=service.tokens_per_pass + error)
    return abs(_level(replace(state, service=more)) - _level(state))


def _slower(state: State, error: float) -> float:
    laws = state.service.laws
    times = (*laws.time_coefficients[:2], *(each * (1.0 + error) for each in laws.time_coefficients[2:]))
    service = replace(state.service, laws=replace(laws, time_coefficients=times))
    return abs(_level(replace(state, service=service)) - _level(state))

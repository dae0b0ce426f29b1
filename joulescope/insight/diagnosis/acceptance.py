"""How many tokens a pass brings to requests of each task, where tokens are drafted.

Code is easier to draft than chat, so another mix of tasks has other drafts accepted, and no drafter changed.
Minutes tell accepted drafts of all requests together. But in an engine all requests are in the same steps, so
that the time from a request's first token to its end says in how many passes it got its tokens.

Drafts are accepted one after the other, up to the first that is wrong. What a task and a drafter have to
do with it is a factor of the chance of each, not of the tokens that come of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from joulescope.insight.bisection import narrowed
from joulescope.insight.diagnosis.window import Window
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import TaskSums

_KNOWN_REQUESTS = 30
_LEAST = 0.05
"""Tasks that get tokens at paces nearer than this, relative, are taken to have drafts accepted alike."""

_SURE = 0.999
"""Drafts are never right more often."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Tokens that a pass brings, in two windows."""

    mean: tuple[float, float] = (1.0, 1.0)
    """Of all requests of each window."""
    by_task: tuple[Mapping[str, float], Mapping[str, float]] = field(default=({}, {}))
    """With the drafts of each window; empty where tasks are alike, or not told apart."""
    scale: tuple[float, float] = (1.0, 1.0)
    """What is left between both, so that they agree for the requests of each window."""
    apart: float = 0.0
    """By how much drafts differ that is not the mix's, relative."""

    def of(self, classes: Sequence[LengthClass], second: bool) -> float:
        """Tokens a pass of requests with drafts as in the one window, or in the other."""
        if not self.by_task[second]:
            return self.mean[second]
        return self.scale[second] * _together(_decoded(classes), self.by_task[second])


def passes_between(first: Window, second: Window) -> Passes:
    """Of two windows of one engine."""
    windows = (first, second)
    services = [window.observed.service for window in windows]
    mean = (services[0].tokens_per_pass, services[1].tokens_per_pass)
    alike = Passes(mean, apart=abs(mean[1] / mean[0] - 1.0))
    if max(mean) <= 1.0:
        return alike
    told = [_tokens_by_task(window) for window in windows]
    if max(max(each.values(), default=1.0) / min(each.values(), default=1.0) for each in told) < 1.0 + _LEAST:
        return alike
    one, other = _completed(told, [max(service.drafted_per_pass, 0.0) for service in services])
    if not one or not other:
        return alike
    asked = [_decoded(window.observed.workload.classes) for window in windows]
    scale = (mean[0] / _together(asked[0], one), mean[1] / _together(asked[1], other))
    apart = abs(mean[1] / (scale[0] * _together(asked[1], one)) - 1.0)
    return Passes(mean, (one, other), scale, apart)


def _tokens_by_task(window: Window) -> dict[str, float]:
    """Tokens that a pass brings to each task of which enough is known."""
    paces = _paces(window.whole.tasks)
    level = _together(_decoded(window.observed.workload.classes), paces) if paces else 1.0
    mean = window.observed.service.tokens_per_pass
    return {task: mean * pace / level for task, pace in paces.items()}


def _paces(tasks: Iterable[TaskSums]) -> dict[str, float]:
    """Tokens a second after the first token, by task, relative to those of all."""
    sums: dict[str, list[float]] = {}
    for cell in tasks:
        of_task = sums.setdefault(cell.task, [0.0, 0.0, 0.0])
        decoded, decoding = cell.output_tokens - cell.requests, cell.seconds - cell.first_token_seconds
        for at, value in enumerate((cell.requests, decoded, decoding)):
            of_task[at] += value
    known = {
        task: (tokens, seconds)
        for task, (requests, tokens, seconds) in sums.items()
        if requests >= _KNOWN_REQUESTS and tokens > 0.0 and seconds > 0.0
    }
    tokens, seconds = (sum(each[at] for each in known.values()) for at in (0, 1))
    return {task: each[0] / each[1] * seconds / tokens for task, each in known.items()}


def _completed(
    told: Sequence[Mapping[str, float]], drafted: Sequence[float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Both windows with the tasks of both: where a task is missing, its drafts are accepted as much more or
    less often as those of the tasks of both. Without such tasks, as often."""
    chances = [
        {task: _chance(tokens, drafts) for task, tokens in each.items()}
        for each, drafts in zip(told, drafted, strict=True)
    ]
    common = chances[0].keys() & chances[1].keys()
    old, new = (sum(each[task] for task in common) for each in chances)
    factor = new / old if old > 0.0 and new > 0.0 else 1.0
    every = chances[0].keys() | chances[1].keys()
    before = {task: chances[0].get(task, chances[1].get(task, 0.0) / factor) for task in every}
    after = {task: chances[1].get(task, chances[0].get(task, 0.0) * factor) for task in every}
    return (
        {task: _tokens(chance, drafted[0]) for task, chance in before.items()},
        {task: _tokens(chance, drafted[1]) for task, chance in after.items()},
    )


def _tokens(chance: float, drafted: float) -> float:
    """Mean tokens of a pass, if each draft is right with a chance and those after a wrong one are lost."""
    chance = min(max(chance, 0.0), _SURE)
    return float((1.0 - chance ** (drafted + 1.0)) / (1.0 - chance))


def _chance(tokens: float, drafted: float) -> float:
    """The chance by which so many tokens come out of a pass."""
    low, high = narrowed(0.0, _SURE, lambda chance: _tokens(chance, drafted) < tokens, 40)
    return 0.5 * (low + high)


def _decoded(classes: Sequence[LengthClass]) -> dict[str, float]:
    """Tokens that come out after the first, by task."""
    tokens: dict[str, float] = {}
    for each in classes:
        more = each.weight * max(each.output_tokens - 1.0, 0.0)
        tokens[each.task] = tokens.get(each.task, 0.0) + more
    return tokens


def _together(tokens: Mapping[str, float], by_pass: Mapping[str, float]) -> float:
    """Tokens a pass of all requests: tokens by the passes that they take. A task of which little is known
    gets as many as the others."""
    known = {task: count for task, count in tokens.items() if task in by_pass and count > 0.0}
    passes = sum(count / by_pass[task] for task, count in known.items())
    return sum(known.values()) / passes if passes > 0.0 else 1.0

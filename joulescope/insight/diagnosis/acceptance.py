"""How many tokens a pass brings to requests of each task, where tokens are drafted.

Code is easier to draft than chat, so another mix of tasks has other drafts accepted, and no drafter changed.
Minutes tell accepted drafts of all requests together. But in an engine all requests are in the same steps, so
that the time from a request's first token to its end says in how many passes it got its tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from joulescope.insight.diagnosis.window import Window
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import TaskSums

_KNOWN_REQUESTS = 30
_LEAST = 0.05
"""Tasks that get tokens at paces nearer than this, relative, are taken to have drafts accepted alike."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Tokens that a pass brings, in two windows."""

    mean: tuple[float, float] = (1.0, 1.0)
    """Of all requests of each window."""
    paces: Mapping[str, float] = field(default_factory=dict)
    """By task, relative. Empty where tasks are alike, or not told apart."""
    mixes: tuple[float, float] = (1.0, 1.0)
    """What the paces come to under the mix of each window."""

    def of(self, classes: Sequence[LengthClass], second: bool) -> float:
        """Tokens a pass of requests with drafts as in the one window, or in the other."""
        return self.mean[second] * _together(_decoded(classes), self.paces) / self.mixes[second]

    @property
    def apart(self) -> float:
        """By how much drafts differ that is not the mix's, relative."""
        one, other = (mean / mix for mean, mix in zip(self.mean, self.mixes, strict=True))
        return abs(other / one - 1.0)


def passes_between(first: Window, second: Window) -> Passes:
    """Of two windows of one engine."""
    windows = (first, second)
    mean = (first.observed.service.tokens_per_pass, second.observed.service.tokens_per_pass)
    if max(mean) <= 1.0:
        return Passes(mean)
    told = [_paces(window.whole.tasks) for window in windows]
    paces = _both(told)
    if not paces or max(paces.values()) - min(paces.values()) < _LEAST:
        return Passes(mean)
    one, other = (_together(_decoded(window.observed.workload.classes), paces) for window in windows)
    return Passes(mean, paces, (one, other))


def _paces(tasks: Iterable[TaskSums]) -> dict[str, tuple[int, float]]:
    """By task: requests, and tokens a second after the first token."""
    sums: dict[str, list[float]] = {}
    for cell in tasks:
        of_task = sums.setdefault(cell.task, [0, 0.0, 0.0])
        for at, value in enumerate(
            (cell.requests, cell.output_tokens - cell.requests, cell.seconds - cell.first_token_seconds)
        ):
            of_task[at] += value
    return {
        task: (int(requests), tokens / seconds)
        for task, (requests, tokens, seconds) in sums.items()
        if requests >= _KNOWN_REQUESTS and tokens > 0.0 and seconds > 0.0
    }


def _both(told: Sequence[dict[str, tuple[int, float]]]) -> dict[str, float]:
    """Paces relative to those of the tasks that both windows know, weighted by requests."""
    common = told[0].keys() & told[1].keys()
    if not common:
        return {}
    level = []
    for window in told:
        weight = sum(window[task][0] for task in common)
        level.append(sum(window[task][0] * window[task][1] for task in common) / weight)
    paces = {}
    for task in told[0].keys() | told[1].keys():
        known = [
            (window[task][0], window[task][1] / of)
            for window, of in zip(told, level, strict=True)
            if task in window
        ]
        paces[task] = sum(count * pace for count, pace in known) / sum(count for count, _ in known)
    return paces


def _decoded(classes: Sequence[LengthClass]) -> dict[str, float]:
    """Tokens that come out after the first, by task."""
    tokens: dict[str, float] = {}
    for each in classes:
        more = each.weight * max(each.output_tokens - 1.0, 0.0)
        tokens[each.task] = tokens.get(each.task, 0.0) + more
    return tokens


def _together(tokens: Mapping[str, float], paces: Mapping[str, float]) -> float:
    """The pace of all: tokens by the passes that they take."""
    passes = sum(count / paces.get(task, 1.0) for task, count in tokens.items())
    return sum(tokens.values()) / passes if passes > 0.0 else 1.0

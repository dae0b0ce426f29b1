"""How much more, or less, of the prompts is found cached, whatever their lengths.

Other prompts find other parts of themselves; a cache that was lost, or grew, shows in *all* lengths. Only
what they have in common is the cache's; the rest is the mix's. The same rule as
:mod:`joulescope.attribution.cache_use` has for the efficiency index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from joulescope.attribution.cache_use import class_of
from joulescope.minute_model import TaskSums
from joulescope.minutes import length_bin

_KNOWN_REQUESTS = 30
_TELLING = 0.05
_LEAST, _LOST = 0.03, 0.02


@dataclass(frozen=True, slots=True)
class Found:
    """Factors of what of a prompt is found cached, against where the prompts were seen. Infinite: nothing was
    cached there."""

    common: float = 1.0
    by_class: Mapping[int, float] = field(default_factory=dict)
    """By class of length, where that is told apart."""

    @property
    def changed(self) -> bool:
        return self.common != 1.0 or any(each != 1.0 for each in self.by_class.values())

    def inverse(self) -> Found:
        return Found(_inverse(self.common), {at: _inverse(each) for at, each in self.by_class.items()})

    def cached(self, prompt_tokens: float, cached_tokens: float, usual: Mapping[int, float]) -> float:
        """What of a prompt is found, of which so much was; ``usual``: :func:`usual_of`."""
        of_class = class_of(int(prompt_tokens))
        factor = self.by_class.get(of_class, self.common)
        most = max(prompt_tokens - 1.0, 0.0)
        if math.isinf(factor):
            return most * min(usual.get(length_bin(int(prompt_tokens)), 0.0), 1.0)
        return min(cached_tokens * factor, most)


UNCHANGED = Found()


def common_found(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> Found:
    """How much more or less of prompts is found after, as far as all classes of length agree."""
    ratios = list(_ratios(before, after).values())
    if not ratios:
        return UNCHANGED
    common = max(ratios) if max(ratios) < 1.0 else max(min(ratios), 1.0)
    return Found(common) if abs(common - 1.0) > _LEAST else UNCHANGED


def found_by_class(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> Found:
    """The same, each class for itself: prefixes that are used less are evicted first."""
    ratios = _ratios(before, after)
    return Found(1.0, {at: each for at, each in ratios.items() if abs(each - 1.0) > _LEAST})


def _ratios(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> dict[int, float]:
    """Cached part after by that before, of classes of which enough is known."""
    old, new = _by_class(before), _by_class(after)
    ratios = {}
    for at in old.keys() & new.keys():
        (count, was), (again, now) = old[at], new[at]
        if min(count, again) >= _KNOWN_REQUESTS and max(was, now) >= _TELLING:
            ratios[at] = now / was if was > 0.0 else math.inf
    return ratios


def _inverse(factor: float) -> float:
    if math.isinf(factor):
        return 0.0
    return 1.0 / factor if factor > _LOST else math.inf


def usual_of(tasks: Sequence[TaskSums]) -> dict[int, float]:
    """Part of the prompts that is cached, by bin of length: finer than the classes, for lengths that share
    prefixes are often of one kind of request."""
    sums: dict[int, list[int]] = {}
    for cell in tasks:
        of_bin = sums.setdefault(cell.prompt_bin, [0, 0])
        of_bin[0] += cell.prompt_tokens
        of_bin[1] += cell.cached_tokens
    return {at: cached / prompt for at, (prompt, cached) in sums.items() if prompt}


def _by_class(tasks: Sequence[TaskSums]) -> dict[int, tuple[int, float]]:
    sums: dict[int, list[int]] = {}
    for cell in tasks:
        if cell.requests and cell.prompt_tokens:
            of_class = sums.setdefault(class_of(cell.prompt_tokens // cell.requests), [0, 0, 0])
            for at, value in enumerate((cell.requests, cell.prompt_tokens, cell.cached_tokens)):
                of_class[at] += value
    return {at: (requests, cached / prompt) for at, (requests, prompt, cached) in sums.items()}

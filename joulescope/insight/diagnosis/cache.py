"""How much more, or less, of the prompts is found cached, whatever their lengths.

Other prompts find other parts of themselves; a cache that was lost, or grew, shows in *all* lengths. Only
what they have in common is the cache's; the rest is the mix's. The same rule as
:mod:`joulescope.attribution.cache_use` has for the efficiency index.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.attribution.cache_use import class_of
from joulescope.minute_model import TaskSums

_KNOWN_REQUESTS = 30
_TELLING = 0.05


def found_ratio(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> float:
    """Cached part of prompts after, by the same before, as far as all classes of length agree; 1: they do not,
    or nothing is known. Infinite: nothing was cached before."""
    old, new = _by_class(before), _by_class(after)
    ratios = []
    for at in old.keys() & new.keys():
        (count, was), (again, now) = old[at], new[at]
        if min(count, again) >= _KNOWN_REQUESTS and max(was, now) >= _TELLING:
            ratios.append(now / was if was > 0.0 else float("inf"))
    if not ratios:
        return 1.0
    return max(ratios) if max(ratios) < 1.0 else max(min(ratios), 1.0)


def usual_of(tasks: Sequence[TaskSums]) -> dict[int, float]:
    """Part of the prompts that is cached, by class of length."""
    return {at: part for at, (_, part) in _by_class(tasks).items()}


def _by_class(tasks: Sequence[TaskSums]) -> dict[int, tuple[int, float]]:
    sums: dict[int, list[int]] = {}
    for cell in tasks:
        if cell.requests and cell.prompt_tokens:
            of_class = sums.setdefault(class_of(cell.prompt_tokens // cell.requests), [0, 0, 0])
            for at, value in enumerate((cell.requests, cell.prompt_tokens, cell.cached_tokens)):
                of_class[at] += value
    return {at: (requests, cached / prompt) for at, (requests, prompt, cached) in sums.items()}

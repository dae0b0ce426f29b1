"""How much more, or less, of the prompts is found cached, whatever their lengths and tasks.

Other prompts find other parts of themselves; a cache that was lost, or grew, shows in *all* lengths and
tasks. Only what they have in common is the cache's; the rest is the mix's. The same rule as
:mod:`joulescope.attribution.cache_use` has for the efficiency index.

A prompt finds its prefix or does not. Where less is found than in the other window, some of the prompts are
taken to find all that such prompts found there, and the others nothing: that is dearer for the GPU's
power than if each found a little less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from joulescope.attribution.cache_use import class_of
from joulescope.insight.steady import LengthClass
from joulescope.minute_model import TaskSums
from joulescope.minutes import length_bin

_KNOWN_REQUESTS = 30
_TELLING = 0.05
_LEAST, _LOST = 0.03, 0.02
_ALIKE = 2.0
"""Classes whose ratios differ by fewer standard errors agree, and are pooled."""

Sort = tuple[str, int]
"""Task and class of length."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What of prompts is cached in a window, finer than by :data:`Sort`: lengths that share prefixes are
    often of one kind of request."""

    cached: Mapping[Sort, float]
    """Part of the prompt tokens, by task and bin of length."""
    requests: Mapping[Sort, int]
    """By the same."""

    def left_in(self, other: Usual) -> dict[Sort, float]:
        """Which part of another window's requests may be of clients as in this one, by task and bin.

        The other's requests are taken for a part of such as these, alike of each sort, and others. That part
        is at most what is left of the sort that fell most.
        """
        mine, theirs = (max(sum(each.requests.values()), 1) for each in (self, other))
        left = 1.0
        for at, count in self.requests.items():
            if count >= _KNOWN_REQUESTS:
                now = other.requests.get(at, 0)
                left = min(left, (now + _ALIKE * math.sqrt(now + 1.0)) / theirs / (count / mine))
        return {
            at: min(left * self.requests.get(at, 0) / mine / (count / theirs), 1.0)
            for at, count in other.requests.items()
            if count
        }


@dataclass(frozen=True, slots=True)
class Hits:
    """How many prompts of a window find what the other window's do: 1 for the window that finds more."""

    common: float = 1.0
    by_sort: Mapping[Sort, float] = field(default_factory=dict)
    """Where that is told apart."""

    def of(self, sort: Sort) -> float:
        return self.by_sort.get(sort, self.common)


ALL_HIT = Hits()


@dataclass(frozen=True, slots=True)
class Found:
    """What prompts of the one window find in the cache of the other."""

    seen: Hits = ALL_HIT
    """Of the window that the prompts are from."""
    kept: Hits = ALL_HIT
    """Of the window that the cache is from."""
    usual: Usual | None = None
    """Of the other window, for prompts of which nothing was found where they were seen."""
    known: Mapping[Sort, float] = field(default_factory=dict)
    """Part of those prompts, by task and bin of length, that is of clients as in the other window."""
    sharing: float = 0.5
    """How many of the others share prefixes as much, 0..1. Nobody knows."""

    def fewer(self, factor: float) -> Found:
        """So many times as many prompts find theirs."""
        by_sort = {sort: factor * hits for sort, hits in self.kept.by_sort.items()}
        return replace(self, kept=Hits(factor * self.kept.common, by_sort))

    def parts(self, each: LengthClass) -> tuple[LengthClass, ...]:
        """A class of prompts, divided into those that find their prefix and those that do not."""
        sort = (each.task, class_of(int(each.prompt_tokens)))
        seen, kept = self.seen.of(sort), self.kept.of(sort)
        if seen == kept == 1.0:
            return (each,)
        most = max(each.prompt_tokens - 1.0, 0.0)
        if seen > 0.0:
            full = min(each.cached_tokens / seen, most)
            hit = kept / seen * each.cached_tokens / full if full > 0.0 else 0.0
        else:
            full, hit = most * self._usual_part(each), kept
        return _divided(each, full, min(hit, 1.0))

    def _usual_part(self, each: LengthClass) -> float:
        """Cached part of prompts of which nothing was cached here, as of such prompts in the other window."""
        if self.usual is None:
            return 0.0
        at = (each.task, length_bin(int(each.prompt_tokens)))
        known = self.known.get(at, 0.0)
        return min(self.usual.cached.get(at, 0.0), 1.0) * (known + (1.0 - known) * self.sharing)


UNCHANGED = Found()


def _divided(each: LengthClass, cached_tokens: float, part: float) -> tuple[LengthClass, ...]:
    """So many of a class find so much, and the others nothing."""
    found = replace(each, weight=part * each.weight, cached_tokens=cached_tokens)
    missed = replace(each, weight=(1.0 - part) * each.weight, cached_tokens=0.0)
    return tuple(one for one in (found, missed) if one.weight > 0.0)


@dataclass(frozen=True, slots=True)
class CacheChange:
    """What of prompts is found in both windows."""

    hits: tuple[Hits, Hits] = (ALL_HIT, ALL_HIT)
    usual: tuple[Usual, Usual] = (Usual({}, {}), Usual({}, {}))
    left: tuple[Mapping[Sort, float], Mapping[Sort, float]] = ({}, {})
    """For the prompts of each window: :meth:`Usual.left_in` it of the other."""

    @property
    def changed(self) -> bool:
        return self.hits[0] != self.hits[1]

    @property
    def from_nothing(self) -> bool:
        """Whether nothing was found in one of the windows."""
        values = [value for hits in self.hits for value in (hits.common, *hits.by_sort.values())]
        return min(values) == 0.0

    def found(self, seen: bool, kept: bool, sharing: float = 0.5) -> Found:
        """What prompts of the one window (``True``: the second) find in the cache of the other."""
        if not self.changed:
            return UNCHANGED
        return Found(self.hits[seen], self.hits[kept], self.usual[not seen], self.left[seen], sharing)


def common_change(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> CacheChange:
    """How much more or less of prompts is found after, as far as all of their sorts agree."""
    ratios = _ratios(before, after)
    common = _common(list(ratios.values()))
    if not abs(common.value - 1.0) > max(_LEAST, _ALIKE * common.error):
        return CacheChange()
    one, other = _hits(common.value)
    return _change((Hits(one), Hits(other)), before, after)


def change_by_sort(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> CacheChange:
    """The same, each sort for itself: prefixes that are used less are evicted first."""
    apart = {
        sort: _hits(ratio.value)
        for sort, ratio in _ratios(before, after).items()
        if abs(ratio.value - 1.0) > _LEAST
    }
    one, other = (Hits(1.0, {sort: each[at] for sort, each in apart.items()}) for at in (0, 1))
    return _change((one, other), before, after)


def _change(hits: tuple[Hits, Hits], before: Sequence[TaskSums], after: Sequence[TaskSums]) -> CacheChange:
    old, new = _usual(before), _usual(after)
    return CacheChange(hits, (old, new), (new.left_in(old), old.left_in(new)))


@dataclass(frozen=True, slots=True)
class _Ratio:
    """Cached part after by that before; infinite: nothing was cached before."""

    value: float
    error: float
    """Standard error."""


_NONE = _Ratio(1.0, 0.0)


def _common(ratios: Sequence[_Ratio]) -> _Ratio:
    """The ratio nearest to none, pooled with all that agree with it within chance; 1 where some rise and
    others fall."""
    if not ratios:
        return _NONE
    low, high = (pick(ratios, key=lambda each: each.value) for pick in (min, max))
    if low.value <= 1.0 <= high.value:
        # A sort that is beyond doubt unchanged, or the other way, says that it is not the cache.
        return _NONE
    nearest = high if high.value < 1.0 else low
    if math.isinf(nearest.value):
        return nearest
    alike = [
        each
        for each in ratios
        if math.isfinite(each.value)
        and abs(each.value - nearest.value) <= _ALIKE * math.hypot(each.error, nearest.error)
    ]
    weights = [1.0 / max(each.error, 1e-3) ** 2 for each in alike]
    mean = sum(w * each.value for w, each in zip(weights, alike, strict=True)) / sum(weights)
    return _Ratio(mean, sum(weights) ** -0.5)


def _hits(ratio: float) -> tuple[float, float]:
    """Of the first and of the second window."""
    if math.isinf(ratio):
        return 0.0, 1.0
    if ratio <= _LOST:
        return 1.0, 0.0
    return (1.0, ratio) if ratio < 1.0 else (1.0 / ratio, 1.0)


def _ratios(before: Sequence[TaskSums], after: Sequence[TaskSums]) -> dict[Sort, _Ratio]:
    """Of sorts of which enough is known."""
    old, new = _by_sort(before), _by_sort(after)
    ratios = {}
    for sort in old.keys() & new.keys():
        (count, was), (again, now) = old[sort], new[sort]
        if min(count, again) >= _KNOWN_REQUESTS and max(was, now) >= _TELLING:
            ratios[sort] = _ratio(count, was, again, now)
    return ratios


def _ratio(count: int, was: float, again: int, now: float) -> _Ratio:
    if was <= 0.0:
        return _Ratio(math.inf, 0.0)
    errors = [math.sqrt(max(part * (1.0 - part), 0.0) / of) for part, of in ((was, count), (now, again))]
    return _Ratio(now / was, math.hypot(errors[1], errors[0] * now / was) / was)


def _usual(tasks: Sequence[TaskSums]) -> Usual:
    sums: dict[Sort, list[int]] = {}
    for cell in tasks:
        of_bin = sums.setdefault((cell.task, cell.prompt_bin), [0, 0, 0])
        for at, value in enumerate((cell.requests, cell.prompt_tokens, cell.cached_tokens)):
            of_bin[at] += value
    return Usual(
        cached={at: cached / prompt for at, (_, prompt, cached) in sums.items() if prompt},
        requests={at: requests for at, (requests, _, _) in sums.items()},
    )


def _by_sort(tasks: Sequence[TaskSums]) -> dict[Sort, tuple[int, float]]:
    sums: dict[Sort, list[int]] = {}
    for cell in tasks:
        if cell.requests and cell.prompt_tokens:
            sort = (cell.task, class_of(cell.prompt_tokens // cell.requests))
            of_sort = sums.setdefault(sort, [0, 0, 0])
            for at, value in enumerate((cell.requests, cell.prompt_tokens, cell.cached_tokens)):
                of_sort[at] += value
    return {sort: (requests, cached / prompt) for sort, (requests, prompt, cached) in sums.items()}

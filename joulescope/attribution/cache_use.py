"""How much of the prompts is found in a cache, against how much used to be.

That fewer tokens are cached may have two causes. The cache was lost (switched off, too small, an upgrade):
then prompts of *every* length find less than such prompts used to. Or clients ask for other things: then
some lengths find as much as ever. Only what all lengths have in common counts as gained or lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulescope.attribution.baseline import CacheUse

_SHORTEST, _CLASSES = 128, 12
"""Classes end at 128 tokens, 256, 512 and so on; what is longer than the last counts with it."""

_KNOWN_REQUESTS = 30
"""So many requests of a class must have been seen for its usual part to be known."""

_KEPT_OF_CLASS, _TOLD = 0.99, 25.0
"""Some hundred of the latest requests of a class tell how it fares; from so many on they are heeded."""

_KEPT_OF_MIX, _ALIKE = 0.995, 0.75
"""The mix of some two hundred of the latest requests, and how much of it must be as it used to be."""

_TELLING = 0.05
"""A class of which less than this part used to be cached says nothing about the cache."""


def class_of(prompt_tokens: int) -> int:
    """Which class a prompt is in."""
    return min(max((max(prompt_tokens, 1) - 1).bit_length() - _SHORTEST.bit_length() + 1, 0), _CLASSES - 1)


class CacheBook:
    """Counts prompts by class of length while a baseline is made."""

    def __init__(self) -> None:
        self._sums = [[0, 0, 0] for _ in range(_CLASSES)]

    def note(self, prompt_tokens: int, cached_tokens: int) -> None:
        """A request that finished."""
        sums = self._sums[class_of(prompt_tokens)]
        sums[0] += 1
        sums[1] += prompt_tokens
        sums[2] += min(cached_tokens, prompt_tokens)

    def uses(self) -> tuple[CacheUse, ...]:
        """The classes of which anything was seen."""
        return tuple(CacheUse(_SHORTEST << at, *sums) for at, sums in enumerate(self._sums) if sums[0])


class CacheWatch:
    """Compares the latest requests with how such requests used to fare.

    Args:
        usual: of the baseline.
    """

    def __init__(self, usual: Sequence[CacheUse]) -> None:
        known = [use for use in usual if use.requests >= _KNOWN_REQUESTS and use.prompt_tokens]
        cached = {class_of(use.up_to_tokens): use.cached_tokens / use.prompt_tokens for use in known}
        self._usual = {at: ratio for at, ratio in cached.items() if ratio >= _TELLING}
        total = sum(use.requests for use in usual)
        self._usual_mix = {class_of(use.up_to_tokens): use.requests / total for use in usual}
        self._mix = dict.fromkeys(range(_CLASSES), 0.0)
        self._latest: dict[int, list[float]] = {}

    def more_tokens(self, prompt_tokens: int, cached_tokens: int) -> float:
        """How many more tokens of this prompt were to be computed than if the cache were as it used to be.

        Negative if there were fewer.
        """
        at = class_of(prompt_tokens)
        self._mix = {each: _KEPT_OF_MIX * weight for each, weight in self._mix.items()}
        self._mix[at] += 1.0 - _KEPT_OF_MIX
        usual = self._usual.get(at)
        if usual is None:
            return 0.0
        latest = self._latest.setdefault(at, [0.0, 0.0, 0.0])
        for index, value in enumerate((1.0, usual * prompt_tokens, min(cached_tokens, prompt_tokens))):
            latest[index] = _KEPT_OF_CLASS * latest[index] + value
        return (1.0 - self.common) * usual * prompt_tokens

    @property
    def common(self) -> float:
        """By what factor prompts of all lengths find more or less than before; 1 where they disagree, and
        where other lengths are asked for than used to be."""
        alike = sum(min(weight, self._usual_mix.get(at, 0.0)) for at, weight in self._mix.items())
        if alike < _ALIKE:
            return 1.0
        ratios = [found / expected for seen, expected, found in self._latest.values() if seen >= _TOLD]
        if not ratios:
            return 1.0
        return max(ratios) if max(ratios) < 1.0 else max(min(ratios), 1.0)

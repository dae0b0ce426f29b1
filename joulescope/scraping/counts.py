"""Tokens counted from a server's counters, which start over whenever the server does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joulescope.scraping.page import Labels

MAX_SERIES = 4096
"""Series of one counter that are remembered after they left the page."""


@dataclass(frozen=True, slots=True)
class First:
    """Nothing to compare with: what was counted before we looked is not ours to tell."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The series went on by so many tokens, possibly none."""

    tokens: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The series began again; since then it counted so many tokens."""

    tokens: float


CountStep = First | Delta | Reset


def count_step(previous: float | None, value: float, *, first_page: bool, restarted: bool) -> CountStep:
    """What lies between two looks at one series. One that was not there the last time began at 0."""
    if previous is None:
        return First() if first_page else Delta(value)
    if restarted or value < previous:
        return Reset(value)
    return Delta(value - previous)


class TokenCount:
    """Sums up the series of one counter from the first page on, over restarts of the server."""

    def __init__(self) -> None:
        self.tokens: float | None = None
        """Counted so far; ``None`` before the counter was first seen."""
        self._last: dict[Labels, float] = {}
        self._begun = False

    def start_over(self) -> None:
        """The next page is of another server: compare nothing with it, and go on from there."""
        self._last.clear()
        self._begun = False

    def take(self, values: Mapping[Labels, float] | None, *, restarted: bool) -> bool:
        """Takes the counter's series of one page; true if one of them began again."""
        if values is None:
            return False
        first_page, self._begun = not self._begun, True
        counted, reset = self.tokens or 0.0, False
        for labels, value in values.items():
            step = count_step(self._last.get(labels), value, first_page=first_page, restarted=restarted)
            reset = reset or isinstance(step, Reset)
            counted += 0.0 if isinstance(step, First) else step.tokens
        self.tokens = counted
        self._remember(values, restarted)
        return reset

    def _remember(self, values: Mapping[Labels, float], restarted: bool) -> None:
        """Keeps what left the page too, so that it may come back without being counted twice."""
        if restarted or len(self._last) + len(values) > MAX_SERIES:
            self._last.clear()
        self._last.update(values)

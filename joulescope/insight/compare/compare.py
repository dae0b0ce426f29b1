"""Puts a comparison together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joulescope.insight.compare.comparable import warnings_of
from joulescope.insight.compare.frontier import frontier
from joulescope.insight.compare.match import Wish, matched
from joulescope.insight.compare.values import Comparison, Match, Side

DEFAULT = (Wish("batch"), Wish("itl"))


def compare(
    sides: Sequence[Side],
    wishes: Sequence[Wish] = (),
    *,
    show: Sequence[str] = (),
    skipped: Mapping[str, int] | None = None,
) -> Comparison:
    """Everything that can be said of the sides; the first is what the others are held against.

    Without ``wishes`` they are matched on batch, and where that cannot be, on inter-token time.
    """
    matches: list[Match] = []
    unmatched: list[str] = []
    for wish in (wishes or DEFAULT) if len(sides) > 1 else ():
        found, why = matched(sides, wish)
        matches += found
        unmatched += why
        if found and not wishes:
            break
    return Comparison(
        sides=tuple(sides),
        matches=tuple(matches),
        frontier=frontier(sides),
        warnings=warnings_of(sides),
        unmatched=tuple(unmatched),
        skipped=dict(skipped or {}),
        shown=tuple(dict.fromkeys([*show, *(wish.figure for wish in wishes)])),
    )

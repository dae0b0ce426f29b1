"""Stretches of time: union, complement, overlap. A span is ``(start_ns, end_ns)``, end excluded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[int, int]


def clip(spans: Iterable[Span], start_ns: int, end_ns: int) -> list[Span]:
    """The parts of the spans that lie inside, empty ones left out."""
    clipped = ((max(start, start_ns), min(end, end_ns)) for start, end in spans)
    return [(start, end) for start, end in clipped if start < end]


def union(spans: Iterable[Span]) -> list[Span]:
    """The same time without overlaps, sorted."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def complement(spans: Sequence[Span], start_ns: int, end_ns: int) -> list[Span]:
    """What ``spans`` (sorted, disjoint) leave free between two instants."""
    free: list[Span] = []
    at = start_ns
    for start, end in spans:
        if start > at:
            free.append((at, min(start, end_ns)))
        at = max(at, end)
    if at < end_ns:
        free.append((at, end_ns))
    return free


def length_ns(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)

"""Sides out of sources: parts that belong together become operating points, and all of them the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from joulescope.insight.compare.figures import mean_output, point_of
from joulescope.insight.compare.samples import quantiles
from joulescope.insight.compare.values import Key, Mix, Part, Point, Quality, Sample, Setup, Side, Source

SPAN = math.sqrt(2.0)
"""Batches that differ by no more than this factor are one operating point."""
LEAST_BUSY_SECONDS = 5.0
"""A part with less work than this is in the whole, and in no point of its own."""
_UNKNOWN = "?"


def sides_of(sources: Sequence[tuple[str, Source]]) -> tuple[Side, ...]:
    """A side for each source. Names given by the user are kept; others are made of what differs."""
    names = _names([name for name, _ in sources], [source for _, source in sources])
    return tuple(_side(name, source) for name, (_, source) in zip(names, sources, strict=True))


def _side(name: str, source: Source) -> Side:
    samples: dict[Key | None, list[Sample]] = {}
    for each in source.samples:
        samples.setdefault(each.key, []).append(each)

    def made(where: str, parts: Sequence[Part]) -> Point:
        ended = [each for part in parts for each in samples.get(part.key, ())]
        return point_of(parts, where, quantiles(ended))

    points = [made(where, parts) for where, parts in grouped(source.parts)]
    return Side(
        name=name,
        setup=source.setup,
        origin=source.origin,
        points=tuple(sorted(points, key=_order)),
        whole=made("everything", source.parts),
        mix=mix_of(source.parts),
        quality=_quality(source),
    )


def _order(point: Point) -> tuple[bool, float]:
    batch = point.value("batch")
    return batch is None, batch or 0.0


def grouped(parts: Sequence[Part]) -> list[tuple[str, list[Part]]]:
    """Parts by operating point: those of one group, else those of about one batch.

    Ramps are in none, unless there is nothing else.
    """
    parts = [part for part in parts if not part.ramp] or list(parts)
    groups: dict[str, list[Part]] = {}
    for part in parts:
        if part.group:
            groups.setdefault(part.group, []).append(part)
    batches = sorted(
        (part.batch.total / part.batch.count, place, part)
        for place, part in enumerate(parts)
        if not part.group and part.batch is not None and part.batch.count >= LEAST_BUSY_SECONDS
    )
    first, members = 0.0, []  # type: ignore[var-annotated]
    clusters: list[list[tuple[int, Part]]] = []
    for batch, place, part in batches:
        if not members or batch > first * SPAN:
            first, members = batch, []
            clusters.append(members)
        members.append((place, part))
    in_time = [[part for _, part in sorted(cluster, key=lambda each: each[0])] for cluster in clusters]
    return [*groups.items(), *((_where(cluster), cluster) for cluster in in_time)]


def _where(parts: Sequence[Part]) -> str:
    batches = [part.batch.total / part.batch.count for part in parts if part.batch is not None]
    low, high = f"{min(batches):.3g}", f"{max(batches):.3g}"
    return f"batch {low}" if low == high else f"batch {low}–{high}"


def mix_of(parts: Sequence[Part]) -> Mix:
    """What was asked for, over all parts."""
    requests = [part.requests for part in parts]
    tasks: dict[str, int] = {}
    for each in requests:
        for task, count in each.tasks.items():
            tasks[task] = tasks.get(task, 0) + count
    told = [each for each in requests if each.prompt_tokens is not None and each.count]
    prompts, count = sum(each.prompt_tokens or 0.0 for each in told), sum(each.count for each in told)
    cached = [each.cached_tokens for each in told if each.cached_tokens is not None]
    return Mix(
        tasks={} if set(tasks) <= {""} else _shares(tasks),
        prompt_tokens=prompts / count if count else None,
        output_units=mean_output(parts),
        cached_ratio=sum(cached) / prompts if cached and prompts else None,
    )


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    whole = sum(counts.values())
    return {name: number / whole for name, number in counts.items()} if whole else {}


def _only_ramps(source: Source) -> tuple[str, ...]:
    if not source.parts or not all(part.ramp for part in source.parts):
        return ()
    return ("its load began or ended in every minute: what its points cost is not that of a steady load",)


def _quality(source: Source) -> Quality:
    parts = source.parts
    requests = sum(part.requests.count for part in parts)
    measured = sum(part.whole.joules or 0.0 for part in parts if part.whole is not None)
    steady = [part.steady.seconds for part in parts if part.steady is not None and part.lasted]
    return Quality(
        failed_ratio=_part(sum(part.requests.failed for part in parts), requests),
        unmeasured_ratio=_part(sum(part.requests.unmeasured for part in parts), requests),
        unattributed_ratio=_part(sum(part.unattributed_joules for part in parts), measured),
        steady_seconds=sum(steady) if steady else None,
        remarks=(*source.remarks, *_only_ramps(source)),
    )


def _part(some: float, whole: float) -> float:
    return some / whole if whole else 0.0


def _names(given: Sequence[str], sources: Sequence[Source]) -> list[str]:
    """Given names, extended by what differs where one name has several setups.

    A source that tells nothing of what differs is called after what wrote it.
    """
    setups = [source.setup for source in sources]
    made = []
    for name, source in zip(given, sources, strict=True):
        same = [each for other, each in zip(given, setups, strict=True) if other == name] if name else setups
        differs = _differing(source.setup, same)
        if differs and set(differs.split()) == {_UNKNOWN}:
            differs = source.origin.format
        made.append(" ".join(filter(None, (name, differs))) or source.setup.model or _UNKNOWN)
    return _unique(made)


def _differing(setup: Setup, others: Sequence[Setup]) -> str:
    """The values in which a setup differs from others, in words."""
    words = []
    for field in fields(Setup):
        if len({getattr(each, field.name) for each in others}) > 1:
            value = getattr(setup, field.name)
            text = f"{value} GPU{'s' * (value != 1)}" if field.name == "gpu_count" and value else value
            words.append(str(text or _UNKNOWN).rpartition("/")[2])
    return " ".join(words)


def _unique(names: Sequence[str]) -> list[str]:
    """Numbers where names are the same."""
    taken: dict[str, int] = {}
    made = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        made.append(name if taken[name] == 1 else f"{name} ({taken[name]})")
    return made

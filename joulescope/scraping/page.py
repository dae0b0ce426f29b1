"""One ``/metrics`` page, read: from text to the few figures that we ask for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from joulescope.errors import FetchError
from joulescope.scraping.kinds import BREAKDOWN_LABEL, KINDS, RANK_LABELS, START_TIME, ServerKind

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says. ``None`` where it does not say."""

    kind: ServerKind | None
    """``None`` for a page without a sample: TGI's before its first request."""
    generated_tokens: Mapping[Labels, float] | None = None
    """The counter, series by series."""
    prompt_tokens: Mapping[Labels, float] | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage_ratio: float | None = None
    start_seconds: float | None = None
    """When the process started that tells, as it says."""


def read_page(body: bytes) -> Page:
    """The figures of a page in Prometheus' text format 0.0.4.

    Only lines that are asked for are parsed: a server's histograms are a hundred times as many.

    Raises:
        FetchError: if it is no such page, or one of another server.
    """
    try:
        lines = [line for line in body.decode("utf-8").split("\n") if line.strip() and line[0] != "#"]
    except UnicodeDecodeError:
        raise FetchError("malformed", "it is not text") from None
    kind = next((kind for kind in KINDS if any(line.startswith(kind.prefix) for line in lines)), None)
    if kind is None:
        if lines:
            raise FetchError(
                "unknown_server",
                "it has no metrics of vLLM, SGLang or TGI; SGLang has them with --enable-metrics",
            )
        return Page(None)
    samples = _samples(lines, kind.samples | {START_TIME})
    return Page(
        kind=kind,
        generated_tokens=_counter(samples[kind.generated_tokens], kind.counters_come_late),
        prompt_tokens=_counter(samples[kind.prompt_tokens], kind.counters_come_late),
        running=_requests(samples[kind.running]),
        waiting=_requests(samples[kind.waiting]),
        kv_usage_ratio=_ratio(samples.get(kind.kv_usage, ())),
        start_seconds=next((sample.value for sample in samples[START_TIME]), None),
    )


def _samples(lines: Iterable[str], names: frozenset[str]) -> dict[str, list[Sample]]:
    """The samples of each name. Without their ``# TYPE`` lines the parser leaves names as they are."""
    wanted = "\n".join(line for line in lines if line.partition("{")[0].split(" ", 1)[0] in names)
    found: dict[str, list[Sample]] = {name: [] for name in names}
    try:
        for family in text_string_to_metric_families(wanted + "\n"):
            for sample in family.samples:
                found[sample.name].append(sample)
    except (ValueError, KeyError, IndexError):
        raise FetchError("malformed", "it is not in Prometheus' text format") from None
    return found


def _counter(samples: Iterable[Sample], comes_late: bool) -> Mapping[Labels, float] | None:
    values: dict[Labels, float] = {}
    for sample in samples:
        if not (math.isfinite(sample.value) and sample.value >= 0):
            raise FetchError("out_of_range", f"{sample.name} cannot be {sample.value:g}")
        values[tuple(sorted(sample.labels.items()))] = sample.value
    return values if values or comes_late else None


def _requests(samples: Iterable[Sample]) -> int | None:
    """The sum over ranks that have requests of their own."""
    values = list(_by_group(samples))
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        return None
    return round(sum(values))


def _ratio(samples: Iterable[Sample]) -> float | None:
    """The mean over ranks with a KV cache of their own."""
    values = list(_by_group(samples))
    if not values or not all(0 <= value <= 1 for value in values):
        return None
    return sum(values) / len(values)


def _by_group(samples: Iterable[Sample]) -> Iterator[float]:
    """One value for ranks that work on the same requests: the largest, as they may lag a step behind."""
    groups: dict[Labels, float] = {}
    for sample in samples:
        if sample.labels.get(BREAKDOWN_LABEL):
            continue
        key = tuple(sorted(item for item in sample.labels.items() if item[0] not in RANK_LABELS))
        groups[key] = max(groups.get(key, sample.value), sample.value)
    yield from groups.values()

"""Prometheus text and OpenMetrics, made from one snapshot a scrape."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from joulescope.export.metric import Kind, Metric
from joulescope.export.metrics import METRICS
from joulescope.model import HistogramState, Snapshot

GetSnapshot = Callable[[], Snapshot]

MAX_EXEMPLAR_RUNES = 128
"""OpenMetrics 1.0: names and values of an exemplar's labels together; more make a scrape invalid."""

GZIP_LEVEL = 5

BASE_UNITS = ("joules", "watts", "bytes", "seconds", "ratio", "grams_per_joule", "per_joule")
"""Units that OpenMetrics states beside the name; it requires that the family's name ends with them."""


class SnapshotCollector(Collector):
    """The table's families, filled from one snapshot. Families without a value are left out."""

    def __init__(self, get_snapshot: GetSnapshot) -> None:
        self._get_snapshot = get_snapshot

    def collect(self) -> Iterator[Family]:
        snapshot = self._get_snapshot()
        for metric in METRICS:
            family = family_of(metric, snapshot)
            if family.samples:
                yield family

    def describe(self) -> Iterator[Family]:
        """The empty families: registering reads no snapshot."""
        for metric in METRICS:
            yield Family(metric.family, metric.help, metric.kind.value)


def family_of(metric: Metric, snapshot: Snapshot) -> Family:
    """One family of the exposition. No ``_created`` samples: they would double the series."""
    unit = metric.unit if metric.unit in BASE_UNITS and metric.kind is not Kind.INFO else ""
    if metric.kind is Kind.HISTOGRAM:
        return _histogram_family(metric, snapshot, unit)
    family = Family(metric.family, metric.help, metric.kind.value, unit)
    for point in metric.read(snapshot):
        if not isinstance(point.value, HistogramState):
            family.add_sample(metric.name, dict(zip(metric.labels, point.labels, strict=True)), point.value)
    return family


def _histogram_family(metric: Metric, snapshot: Snapshot, unit: str) -> Family:
    family = HistogramMetricFamily(metric.family, metric.help, labels=metric.labels, unit=unit)
    for point in metric.read(snapshot):
        if isinstance(point.value, HistogramState):
            family.add_metric(point.labels, list(_buckets(point.value)), point.value.total)
    return family


def _buckets(state: HistogramState) -> Iterator[tuple[str, float] | tuple[str, float, Exemplar]]:
    exemplars = state.exemplars or (None,) * len(state.counts)
    bounds = (*state.bounds, float("inf"))
    for bound, count, given in zip(bounds, accumulate(state.counts), exemplars, strict=True):
        exemplar = _exemplar(given)
        le = "+Inf" if bound == float("inf") else repr(float(bound))
        yield (le, count) if exemplar is None else (le, count, exemplar)


def _exemplar(given: tuple[Mapping[str, str], float, float] | None) -> Exemplar | None:
    if given is None:
        return None
    labels, value, wall_seconds = given
    if sum(len(name) + len(text) for name, text in labels.items()) > MAX_EXEMPLAR_RUNES:
        return None
    return Exemplar(dict(labels), value, wall_seconds)


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered exposition and the HTTP headers that describe it."""

    body: bytes
    headers: Mapping[str, str]


class Exposition:
    """Renders ``/metrics``: the snapshot's families, then the process's own CPU time and memory."""

    def __init__(self, get_snapshot: GetSnapshot, *, process_metrics: bool = True) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(SnapshotCollector(get_snapshot))
        if process_metrics:
            ProcessCollector(registry=self._registry)

    def render(self, accept: str = "", accept_encoding: str = "") -> Page:
        """The format that ``Accept`` prefers: OpenMetrics (with exemplars) if named, else text 0.0.4."""
        encode, content_type = choose_encoder(accept)
        body = encode(self._registry)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(accept_encoding):
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Page(body, headers)


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110, 12.5.3; ``q=0`` forbids it)."""
    for offer in accept_encoding.lower().split(","):
        coding, _, parameters = offer.partition(";")
        if coding.strip() == "gzip":
            weight = parameters.replace(" ", "").removeprefix("q=") or "1"
            return weight.strip("0.") != ""
    return False

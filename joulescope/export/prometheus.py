"""Prometheus text and OpenMetrics, made once of each snapshot, however many scrape it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from joulescope.export.lines import Encode, Lines
from joulescope.export.metric import Kind, Metric
from joulescope.export.metrics import METRICS
from joulescope.model import HistogramState, PageTotals, Snapshot

GetSnapshot = Callable[[], Snapshot]

MAX_EXEMPLAR_RUNES = 128
"""OpenMetrics 1.0: names and values of an exemplar's labels together; more make a scrape invalid."""

GZIP_LEVEL = 5

MAX_KEPT = 8
"""Forms of one snapshot that are kept: the formats that clients may ask for are a handful."""

BASE_UNITS = (
    "joules", "watts", "bytes", "seconds", "ratio", "grams_per_joule", "per_joule", "joules_per_token",
)  # fmt: skip
"""Units that OpenMetrics states beside the name; it requires that the family's name ends with them."""


_HISTOGRAMS = tuple(metric for metric in METRICS if metric.kind is Kind.HISTOGRAM)
_OTHERS = tuple(metric for metric in METRICS if metric.kind is not Kind.HISTOGRAM)


class SnapshotCollector(Collector):
    """The table's families, filled from one snapshot. Families without a value are left out."""

    def __init__(self, get_snapshot: GetSnapshot, metrics: Sequence[Metric] = METRICS) -> None:
        self._get_snapshot = get_snapshot
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        snapshot = self._get_snapshot()
        for metric in self._metrics:
            family = family_of(metric, snapshot)
            if family.samples:
                yield family

    def describe(self) -> Iterator[Family]:
        """The empty families: registering reads no snapshot."""
        for metric in self._metrics:
            yield Family(metric.family, metric.help, metric.kind.value)


def family_of(metric: Metric, snapshot: Snapshot) -> Family:
    """One family of the exposition. No ``_created`` samples: they would double the series."""
    if metric.kind is Kind.HISTOGRAM:
        return _histogram_family(metric, snapshot, _unit(metric))
    family = _empty(metric)
    for point in metric.read(snapshot):
        if not isinstance(point.value, HistogramState):
            family.add_sample(metric.name, dict(zip(metric.labels, point.labels, strict=True)), point.value)
    return family


def _unit(metric: Metric) -> str:
    return metric.unit if metric.unit in BASE_UNITS and metric.kind is not Kind.INFO else ""


def _empty(metric: Metric) -> Family:
    """The family of a metric that is no histogram, without a sample."""
    return Family(metric.family, metric.help, metric.kind.value, _unit(metric))


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


def without_exemplars(snapshot: Snapshot) -> Snapshot:
    """For those who may not know of traces: each exemplar says what the request of one took."""
    engines = (
        replace(
            each,
            joules_per_request=replace(each.joules_per_request, exemplars=()),
            joules_per_output_token=replace(each.joules_per_output_token, exemplars=()),
        )
        for each in snapshot.engines
    )
    return replace(snapshot, engines=tuple(engines))


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered exposition and the HTTP headers that describe it."""

    body: bytes
    headers: Mapping[str, str]


class Exposition:
    """Renders ``/metrics``: the snapshot's families, then the process's own CPU time and memory.

    A page is made once of each snapshot and format, by the first who asks; all others get the same bytes. The
    making holds Python's lock, and eight scrapers at once would hold it eight times as long.
    """

    def __init__(
        self, get_snapshot: GetSnapshot, *, process_metrics: bool = True, exemplars: bool = True
    ) -> None:
        self._get_snapshot = get_snapshot
        self._exemplars = exemplars
        self._registry = CollectorRegistry()
        self._registry.register(SnapshotCollector(self._told, _HISTOGRAMS))
        if process_metrics:
            ProcessCollector(registry=self._registry)
        self._lock = threading.Lock()
        self._pages = self._told_pages = PageTotals()
        self._snapshot: Snapshot | None = None
        self._kept: dict[tuple[str, bool], Page] = {}
        self._lines: dict[str, Lines] = {}

    def render(self, accept: str = "", accept_encoding: str = "") -> Page:
        """The format that ``Accept`` prefers: OpenMetrics (with exemplars) if named, else text 0.0.4."""
        encode, content_type = choose_encoder(accept)
        packed = accepts_gzip(accept_encoding)
        snapshot = self._get_snapshot()
        with self._lock:
            if snapshot is not self._snapshot:
                self._snapshot, self._told_pages, self._kept = snapshot, self._pages, {}
            page = self._kept.get((content_type, packed))
            if page is None:
                page = self._make(encode, content_type, packed)
                if len(self._kept) < MAX_KEPT:
                    self._kept[content_type, packed] = page
            return page

    def _make(self, encode: Encode, content_type: str, packed: bool) -> Page:
        begin = time.perf_counter()
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        plain = self._kept.get((content_type, False))
        body = self._body(encode, content_type) if plain is None else plain.body
        if packed:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        taken_seconds = time.perf_counter() - begin
        self._pages = PageTotals(self._pages.made + 1, self._pages.seconds + taken_seconds)
        return Page(body, headers)

    def _body(self, encode: Encode, content_type: str) -> bytes:
        """The plain families line by line, then what the library writes anew: histograms, and the process."""
        lines = self._lines.get(content_type) or Lines(encode)
        if len(self._lines) < MAX_KEPT:
            self._lines[content_type] = lines
        told = self._told()
        text = "".join(lines.of(metric, _empty(metric), list(metric.read(told))) for metric in _OTHERS)
        return text.encode("utf-8") + encode(self._registry)

    def _told(self) -> Snapshot:
        """The snapshot of this page, with what the pages of those before it took."""
        assert self._snapshot is not None
        snapshot = self._snapshot if self._exemplars else without_exemplars(self._snapshot)
        return replace(snapshot, sidecar=replace(snapshot.sidecar, pages=self._told_pages))


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110, 12.5.3; ``q=0`` forbids it)."""
    for offer in accept_encoding.lower().split(","):
        coding, _, parameters = offer.partition(";")
        if coding.strip() == "gzip":
            weight = parameters.replace(" ", "").removeprefix("q=") or "1"
            return weight.strip("0.") != ""
    return False

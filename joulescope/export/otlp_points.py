"""The metric table as OTLP data points: names, units, kinds and values, from one snapshot.

The points are built directly and not through instruments of the SDK. Our figures are kept elsewhere, as
totals; the SDK's instruments count for themselves, have no histogram that takes a given state, and fold
what exceeds 2,000 series of a metric into one. OpenTelemetry calls this a metric producer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from joulescope import __version__
from joulescope.export.metric import Kind, Metric, Point
from joulescope.export.metrics import METRICS
from joulescope.export.otlp import SCOPE
from joulescope.model import HistogramState, Snapshot

UNITS = {
    "joules": "J",
    "watts": "W",
    "bytes": "By",
    "bytes_per_second": "By/s",
    "seconds": "s",
    "hertz": "Hz",
    "celsius": "Cel",
    "ratio": "1",
    "grams_per_joule": "g/J",
    "per_joule": "/J",
    "joules_per_token": "J/{token}",
    "": "1",
}
"""UCUM codes; what is counted becomes an annotation such as ``{request}``."""

SINGULAR = {"refreshes": "refresh", "diagnoses": "diagnosis"}
"""Of what is counted, where it is not the plural without its s."""

ATTRIBUTES = {"gpu": "hw.id"}
"""Labels for which there is a convention; all others stand in our namespace."""

HARDWARE = {"hw.type": "gpu"}
"""What the convention wants beside ``hw.id`` on each of its own metrics."""

ADDITIVE_UNITS = ("bytes", "requests", "sessions")
"""Gauges that may be summed over their labels; OpenTelemetry calls them up-down counters."""


def otel_name(metric: Metric) -> str:
    """``joulescope_idle_energy_joules_total`` is ``joulescope.idle_energy``: units are not in OTel names."""
    if metric.otel_name:
        return metric.otel_name
    name = metric.name.removesuffix("_total")
    if metric.unit in UNITS and metric.unit:
        name = name.removesuffix("_" + metric.unit)
    return "joulescope." + name.removeprefix("joulescope_")


def otel_unit(metric: Metric) -> str:
    """The unit in UCUM."""
    return UNITS.get(metric.unit) or "{" + SINGULAR.get(metric.unit, metric.unit.removesuffix("s")) + "}"


def otel_attributes(metric: Metric, labels: Sequence[str]) -> dict[str, str]:
    """The labels by their OpenTelemetry names."""
    names = (ATTRIBUTES.get(label, f"joulescope.{label}") for label in metric.labels)
    attributes = dict(zip(names, labels, strict=True))
    return {**attributes, **HARDWARE} if metric.otel_name.startswith("hw.") else attributes


def otel_kind(metric: Metric) -> str:
    """``counter``, ``updowncounter``, ``gauge`` or ``histogram``, as OpenTelemetry calls instruments."""
    if metric.kind in (Kind.COUNTER, Kind.HISTOGRAM):
        return str(metric.kind.value)
    return "updowncounter" if metric.unit in ADDITIVE_UNITS else "gauge"


_Key = tuple[str, tuple[str, ...]]
_Value = float | HistogramState


class Since:
    """Turns totals into what came since the last delivery, for backends that want deltas.

    A figure that was sent and not taken stays in what the next export says: nothing is lost between.
    """

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self._taken: dict[_Key, _Value] = {}
        self._told: dict[_Key, _Value] = {}
        self._told_ns = start_ns

    def of(self, metric: Metric, point: Point, time_ns: int) -> _Value:
        """The point's value less what was already taken."""
        key = (metric.name, point.labels)
        self._told[key], self._told_ns = point.value, time_ns
        return _less(point.value, self._taken.get(key))

    def taken(self) -> None:
        """The last export was delivered."""
        self._taken, self._told = self._told, {}
        self.start_ns = self._told_ns


def _less(value: _Value, before: _Value | None) -> _Value:
    if before is None:
        return value
    if isinstance(value, HistogramState) and isinstance(before, HistogramState):
        counts = tuple(now - then for now, then in zip(value.counts, before.counts, strict=True))
        exemplars = tuple(None if each in before.exemplars else each for each in value.exemplars)
        return HistogramState(value.bounds, counts, value.total - before.total, exemplars)
    if isinstance(value, HistogramState) or isinstance(before, HistogramState):
        raise TypeError("a metric is a histogram or a number, not both by turns")
    return value - before


def metrics_data(snapshot: Snapshot, resource: Resource, since: Since | None = None) -> MetricsData:
    """The whole table at one instant; with ``since`` counters and histograms are deltas."""
    time_ns = round(snapshot.wall_seconds * 1e9)
    start_ns = round(snapshot.sidecar.start_wall_seconds * 1e9) if since is None else since.start_ns
    made = (_metric(metric, snapshot, (start_ns, time_ns), since) for metric in METRICS)
    scope = ScopeMetrics(InstrumentationScope(SCOPE, __version__), [each for each in made if each], "")
    return MetricsData([ResourceMetrics(resource, [scope], resource.schema_url)])


def _metric(
    metric: Metric, snapshot: Snapshot, times_ns: tuple[int, int], since: Since | None
) -> OtelMetric | None:
    """One metric with all its points; nothing if it has none."""
    points = list(metric.read(snapshot))
    if not points:
        return None
    kind = otel_kind(metric)
    start_ns, time_ns = times_ns
    temporality = AggregationTemporality.CUMULATIVE
    if since is not None and kind in ("counter", "histogram"):
        temporality = AggregationTemporality.DELTA
        points = [Point(point.labels, since.of(metric, point, time_ns)) for point in points]
    if since is not None and kind == "updowncounter":
        start_ns = round(snapshot.sidecar.start_wall_seconds * 1e9)
    made = [_point(point, otel_attributes(metric, point.labels), start_ns, time_ns) for point in points]
    return OtelMetric(otel_name(metric), metric.help, otel_unit(metric), _data(kind, made, temporality))


def _data(kind: str, points: list[Any], temporality: AggregationTemporality) -> Any:
    if kind == "gauge":
        return Gauge(points)
    if kind == "histogram":
        return Histogram(points, temporality)
    return Sum(points, temporality, is_monotonic=kind == "counter")


def _point(
    point: Point, attributes: dict[str, str], start_ns: int, time_ns: int
) -> NumberDataPoint | HistogramDataPoint:
    value = point.value
    if not isinstance(value, HistogramState):
        return NumberDataPoint(attributes, start_ns, time_ns, value)
    unknown: Any = None  # least and largest were not kept, and OTLP need not have them
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=start_ns,
        time_unix_nano=time_ns,
        count=sum(value.counts),
        sum=value.total,
        bucket_counts=value.counts,
        explicit_bounds=value.bounds,
        min=unknown,
        max=unknown,
        exemplars=list(_exemplars(value)),
    )


def _exemplars(state: HistogramState) -> Iterator[Exemplar]:
    """Those that lead to a trace; without one an exemplar says nothing that the buckets do not."""
    for given in state.exemplars:
        if given is None:
            continue
        labels, value, wall_seconds = given
        trace_id, span_id = _number(labels, "trace_id"), _number(labels, "span_id")
        if trace_id and span_id:
            yield Exemplar({}, value, round(wall_seconds * 1e9), span_id, trace_id)


def _number(labels: Mapping[str, str], name: str) -> int | None:
    try:
        return int(labels.get(name, ""), 16)
    except ValueError:
        return None

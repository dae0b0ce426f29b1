"""The metric table over OTLP: observable instruments that read the snapshot.

Where OpenTelemetry has a convention (``hw.energy``, ``hw.gpu.*``) the figure goes under it and not a
second time under a name of ours. Histograms are not sent: the SDK has no observable histogram, and
the spans carry the figures of each request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from joulescope import __version__
from joulescope.export.metric import Kind, Metric
from joulescope.export.metrics import METRICS
from joulescope.export.otlp import SCOPE
from joulescope.model import HistogramState, Snapshot

_logger = logging.getLogger(__name__)

UNITS = {
    "joules": "J",
    "watts": "W",
    "bytes": "By",
    "seconds": "s",
    "ratio": "1",
    "grams_per_joule": "g/J",
    "per_joule": "/J",
    "": "1",
}
"""UCUM codes; what is counted becomes an annotation such as ``{request}``."""

ADDITIVE_UNITS = ("bytes", "requests", "sessions")
"""Gauges that may be summed over their labels; OpenTelemetry calls them up-down counters."""

MARGIN = 0.9
"""Share of the time to close that the SDK is given; it oversteps by what its last call takes."""

Callback = Callable[[CallbackOptions], Iterable[Observation]]


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
    return UNITS.get(metric.unit) or "{" + metric.unit.removesuffix("s") + "}"


def otel_attributes(metric: Metric, labels: Sequence[str]) -> dict[str, str]:
    """``gpu`` is the convention's ``hw.id``; other labels stand in our namespace."""
    names = ("hw.id" if label == "gpu" else f"joulescope.{label}" for label in metric.labels)
    attributes = dict(zip(names, labels, strict=True))
    return {**attributes, "hw.type": "gpu"} if metric.otel_name.startswith("hw.") else attributes


class _Pass:
    """One snapshot for all instruments of a collection, so that the figures of an export fit together.

    The SDK asks each instrument once a collection: being asked a second time by one of them means that a
    new collection has begun.
    """

    def __init__(self, get_snapshot: Callable[[], Snapshot]) -> None:
        self._get_snapshot = get_snapshot
        self._snapshot: Snapshot | None = None
        self._seen: set[str] = set()

    def snapshot_for(self, metric: Metric) -> Snapshot:
        if self._snapshot is None or metric.name in self._seen:
            self._snapshot = self._get_snapshot()
            self._seen.clear()
        self._seen.add(metric.name)
        return self._snapshot


def _callback(metric: Metric, current: _Pass) -> Callback:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        for point in metric.read(current.snapshot_for(metric)):
            if not isinstance(point.value, HistogramState):
                yield Observation(point.value, otel_attributes(metric, point.labels))

    return observe


def _instrument(meter: Meter, metric: Metric, callback: Callback) -> None:
    name, unit, help = otel_name(metric), otel_unit(metric), metric.help
    if metric.kind is Kind.COUNTER:
        meter.create_observable_counter(name, [callback], unit, help)
    elif metric.unit in ADDITIVE_UNITS:
        meter.create_observable_up_down_counter(name, [callback], unit, help)
    else:
        meter.create_observable_gauge(name, [callback], unit, help)


class OtlpMetrics:
    """Sends the table each ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds (60,000), and once at the end."""

    def __init__(
        self,
        get_snapshot: Callable[[], Snapshot],
        resource: Resource,
        *,
        exporter: MetricExporter | None = None,
    ) -> None:
        reader = PeriodicExportingMetricReader(exporter or OTLPMetricExporter())
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        self._closed = False
        meter = self._provider.get_meter(SCOPE, __version__)
        current = _Pass(get_snapshot)
        for metric in METRICS:
            if metric.kind is not Kind.HISTOGRAM:
                _instrument(meter, metric, _callback(metric, current))

    def close(self, timeout_seconds: float) -> None:
        """A last export, cut off after the time; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._provider.shutdown(timeout_millis=timeout_seconds * 1000 * MARGIN)
        except Exception as error:
            _logger.warning(
                "the last OTLP metrics were not delivered within %s s: %s", timeout_seconds, error
            )

"""A small, real OTLP/HTTP receiver: listens on the loopback, decodes the protobufs, keeps what came.

with otlp_receiver() as receiver:
    ...  # OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint
    spans = receiver.wait_for_spans(1)
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags

PATIENCE_SECONDS = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class ReceivedEvent:
    """One event of a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span, decoded. Ids are lower-case hex; ``parent_span_id`` is empty at the root of a trace."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    trace_state: str
    parent_is_remote: bool
    """The SDK sets only the two remote bits of the flags, not the sampled one."""
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str
    events: tuple[ReceivedEvent, ...] = ()


@dataclass(frozen=True)
class ReceivedExemplar:
    """One exemplar of a histogram; ids are lower-case hex."""

    value: float
    time_ns: int
    trace_id: str
    span_id: str


@dataclass(frozen=True)
class ReceivedPoint:
    """One data point of a metric. ``kind`` is ``counter``, ``updowncounter``, ``gauge`` or ``histogram``;
    the value of a histogram is its sum."""

    name: str
    unit: str
    kind: str
    attributes: dict[str, Any]
    value: float
    time_ns: int
    resource: dict[str, Any]
    start_ns: int = 0
    is_delta: bool = False
    counts: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    exemplars: tuple[ReceivedExemplar, ...] = ()
    has_extremes: bool = False


@dataclass
class Receiver:
    """What has arrived so far. ``status`` is what the next requests are answered with, with ``headers``."""

    endpoint: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    rejects: tuple[int, str] = (0, "")
    """What a successful answer says of spans or points that were not taken."""
    body: bytes | None = None
    """In place of the answer that OTLP wants."""
    spans: list[ReceivedSpan] = field(default_factory=list)
    points: list[ReceivedPoint] = field(default_factory=list)
    requests: int = 0
    hold: threading.Event | None = None
    """While set to an event, answers wait until it is set."""
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for_spans(self, count: int, timeout_seconds: float = PATIENCE_SECONDS) -> list[ReceivedSpan]:
        """The spans, once there are at least ``count``."""
        return self._wait(lambda: self.spans if len(self.spans) >= count else [], timeout_seconds)

    def wait_for_points(self, name: str, timeout_seconds: float = PATIENCE_SECONDS) -> list[ReceivedPoint]:
        """The points of one metric, once there are any."""
        return self._wait(lambda: [point for point in self.points if point.name == name], timeout_seconds)

    def wait_for_requests(self, count: int, timeout_seconds: float = PATIENCE_SECONDS) -> int:
        """The number of requests that came in, once they are ``count``; held ones included."""
        return self._wait(lambda: self.requests if self.requests >= count else 0, timeout_seconds)

    def _wait(self, found: Callable[[], T], timeout_seconds: float) -> T:
        with self.arrived:
            if not self.arrived.wait_for(lambda: bool(found()), timeout_seconds):
                raise AssertionError(
                    f"after {timeout_seconds} s: {self.requests} requests, {len(self.spans)} spans, "
                    f"{len(self.points)} points"
                )
            result = found()
            return list(result) if isinstance(result, list) else result  # type: ignore[return-value]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return None if kind is None else getattr(value, kind)


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def decode_spans(body: bytes) -> Iterator[ReceivedSpan]:
    """Spans of an ``ExportTraceServiceRequest``."""
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex(),
                    trace_state=span.trace_state,
                    parent_is_remote=bool(span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    is_error=span.status.code == 2,
                    attributes=_attributes(span.attributes),
                    resource=resource,
                    scope=scope_spans.scope.name,
                    events=tuple(
                        ReceivedEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
                        for event in span.events
                    ),
                )


def _data(metric: Any) -> tuple[str, Any]:
    if metric.HasField("sum"):
        return ("counter" if metric.sum.is_monotonic else "updowncounter"), metric.sum
    if metric.HasField("gauge"):
        return "gauge", metric.gauge
    if metric.HasField("histogram"):
        return "histogram", metric.histogram
    raise AssertionError(f"metric {metric.name!r} is neither sum, gauge nor histogram")


def _of_histogram(point: Any) -> dict[str, Any]:
    """What only points of histograms have."""
    return {
        "counts": tuple(point.bucket_counts),
        "bounds": tuple(point.explicit_bounds),
        "has_extremes": point.HasField("min") or point.HasField("max"),
        "exemplars": tuple(
            ReceivedExemplar(each.as_double, each.time_unix_nano, each.trace_id.hex(), each.span_id.hex())
            for each in point.exemplars
        ),
    }


def decode_points(body: bytes) -> Iterator[ReceivedPoint]:
    """Points of an ``ExportMetricsServiceRequest``: sums, gauges and histograms with explicit bounds."""
    for resource_metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = _attributes(resource_metrics.resource.attributes)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                kind, data = _data(metric)
                is_histogram = kind == "histogram"
                for point in data.data_points:
                    yield ReceivedPoint(
                        name=metric.name,
                        unit=metric.unit,
                        kind=kind,
                        attributes=_attributes(point.attributes),
                        value=point.sum if is_histogram else getattr(point, point.WhichOneof("value")),
                        time_ns=point.time_unix_nano,
                        resource=resource,
                        start_ns=point.start_time_unix_nano,
                        is_delta=kind != "gauge" and data.aggregation_temporality == 1,
                        **(_of_histogram(point) if is_histogram else {}),
                    )


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with receiver.arrived:
                receiver.requests += 1
                receiver.arrived.notify_all()
            if receiver.hold is not None:
                receiver.hold.wait(PATIENCE_SECONDS)
            self.answer(self.take(body))

        def take(self, body: bytes) -> bytes:
            if receiver.status != 200:
                return b""
            with receiver.arrived:
                answer: Any
                if self.path == "/v1/traces":
                    receiver.spans.extend(decode_spans(body))
                    answer = ExportTraceServiceResponse()
                    answer.partial_success.rejected_spans = receiver.rejects[0]
                else:
                    receiver.points.extend(decode_points(body))
                    answer = ExportMetricsServiceResponse()
                    answer.partial_success.rejected_data_points = receiver.rejects[0]
                answer.partial_success.error_message = receiver.rejects[1]
                receiver.arrived.notify_all()
            return bytes(answer.SerializeToString()) if receiver.body is None else receiver.body

        def answer(self, body: bytes) -> None:
            self.send_response(receiver.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Test output stays quiet."""

    return Handler


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is part of some tests."""


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    """A receiver on a free port of the loopback; stopped at the end of the block."""
    receiver = Receiver(endpoint="")
    server = _QuietServer(("127.0.0.1", 0), _handler(receiver))
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_SECONDS)

"""One span for each finished request, sent over OTLP/HTTP by a thread of its own.

The SDK's batch processor is not used: it tells nobody how many spans it dropped or failed to send, and
older releases wait up to half a minute for an unreachable collector when they are closed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from joulescope import __version__
from joulescope.clock import WallAnchor
from joulescope.export.otlp import SCOPE
from joulescope.export.span_attributes import SPAN_NAME, attributes_of
from joulescope.model import FinishedRequest

_logger = logging.getLogger(__name__)

OUTCOMES = ("exported", "failed", "dropped", "unsampled")

QUEUE_SIZE = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
BATCH_SIZE = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
DELAY_MILLISECONDS = ("OTEL_BSP_SCHEDULE_DELAY", 5000)
"""Standard variables of the batch span processor and their standard defaults."""


def _setting(environ: Mapping[str, str], setting: tuple[str, int]) -> int:
    name, default = setting
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) == 0:
        _logger.warning("%s is %r, not a positive whole number: using %d", name, text, default)
        return default
    return int(text)


class SpanMaker:
    """Turns accounts into spans. A request that came with a ``traceparent`` gets a child span, with its
    trace id and sampling decision; any other gets the root of a new trace, as the SDK's sampler decides."""

    def __init__(self, anchor: WallAnchor, resource: Resource) -> None:
        self._anchor = anchor
        self._ended = _Ended()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(SCOPE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def spans_of(self, requests: Sequence[FinishedRequest]) -> list[ReadableSpan]:
        """The spans to send; requests that are not sampled have none."""
        for request in requests:
            self._make(request)
        return self._ended.take()

    def _make(self, request: FinishedRequest) -> None:
        span = self._tracer.start_span(
            SPAN_NAME,
            context=self._parent(request),
            kind=SpanKind.INTERNAL,
            attributes=attributes_of(request),
            start_time=self._anchor.wall_of(request.start_ns),
        )
        if request.finish_reason == "error":
            span.set_status(StatusCode.ERROR)
        span.end(self._anchor.wall_of(request.end_ns))

    def _parent(self, request: FinishedRequest) -> Context:
        """The context that the request came with; an empty one if it had none, or none that is valid."""
        carrier = {"traceparent": request.trace_parent, "tracestate": request.trace_state}
        return self._propagator.extract(carrier, Context())


class _Ended(SpanProcessor):
    """Keeps the spans that ended; those not sampled never arrive here."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


class OtlpSpans:
    """Sends spans of finished requests; a :class:`joulescope.export.RequestSink`.

    Outcomes: ``exported``, ``failed`` (refused, or the collector could not be reached in time),
    ``dropped`` (the queue was full, or the process ended first), ``unsampled``.
    """

    name = "otlp"

    def __init__(
        self,
        anchor: WallAnchor,
        resource: Resource,
        *,
        exporter: SpanExporter | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._maker = SpanMaker(anchor, resource)
        self._exporter = exporter or OTLPSpanExporter()
        self._queue_size = _setting(environ, QUEUE_SIZE)
        self._batch_size = min(_setting(environ, BATCH_SIZE), self._queue_size)
        self._delay_seconds = _setting(environ, DELAY_MILLISECONDS) / 1000
        self._queue: deque[FinishedRequest] = deque()
        self._in_flight = 0
        self._counts = Counter[str]()
        self._wake = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="joulescope-otlp-spans", daemon=True)
        self._thread.start()

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Queues the requests; what finds no room is dropped. Returns at once."""
        with self._wake:
            room = 0 if self._closing else max(self._queue_size - len(self._queue), 0)
            self._queue.extend(requests[:room])
            self._counts["dropped"] += len(requests[room:])
            if len(self._queue) >= self._batch_size:
                self._wake.notify()

    def counts(self) -> Mapping[str, int]:
        """Requests by outcome; those queued or under way are in none."""
        with self._wake:
            return {outcome: self._counts[outcome] for outcome in OUTCOMES}

    def close(self, timeout_seconds: float) -> None:
        """Sends what is queued. What is not delivered when the time is over is counted and left."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_seconds)
        with self._wake:
            self._abandoned = True
            self._counts["dropped"] += len(self._queue)
            self._counts["failed"] += self._in_flight
            self._queue.clear()
        self._exporter.shutdown()

    def _run(self) -> None:
        while batch := self._next_batch():
            spans = self._maker.spans_of(batch)
            succeeded = self._send(spans)
            self._settle(len(batch), len(spans), succeeded)

    def _next_batch(self) -> list[FinishedRequest]:
        """Waits for a full batch or for the delay to pass with something queued; empty: it is over."""
        with self._wake:
            while not self._closing and len(self._queue) < self._batch_size:
                if not self._wake.wait(self._delay_seconds) and self._queue:
                    break
            batch = [self._queue.popleft() for _ in range(min(self._batch_size, len(self._queue)))]
            self._in_flight = len(batch)
            return batch

    def _send(self, spans: Sequence[ReadableSpan]) -> bool:
        if not spans:
            return True
        try:
            return self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:
            _logger.exception("sending %d spans failed", len(spans))
            return False

    def _settle(self, taken: int, sent: int, succeeded: bool) -> None:
        with self._wake:
            self._in_flight = 0
            if not self._abandoned:
                self._counts["unsampled"] += taken - sent
                self._counts["exported" if succeeded else "failed"] += sent

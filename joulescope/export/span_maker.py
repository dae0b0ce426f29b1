"""Finished requests as OpenTelemetry spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from joulescope import __version__
from joulescope.clock import WallAnchor
from joulescope.export.otlp import SCOPE
from joulescope.export.phases import phases_of
from joulescope.export.span_attributes import (
    EVENT_ATTRIBUTES,
    PHASE_ATTRIBUTES,
    PHASE_NAME,
    SPAN_NAME,
    attributes_of,
    phase_attributes,
)
from joulescope.model import FinishedRequest

SPANS, EVENTS, NONE = "spans", "events", "none"


@dataclass(frozen=True, slots=True)
class MadeSpans:
    """The spans of a batch; requests that are not sampled have none."""

    spans: list[ReadableSpan]
    requests: int
    """How many requests they are of."""


class SpanMaker:
    """Turns accounts into spans. A request that came with a ``traceparent`` gets a child of that span, with
    its trace id and sampling decision, beside vLLM's own; any other gets the root of a new trace, as the
    SDK's sampler decides.

    Args:
        phases: ``spans``, a child span for each phase; ``events``, an event on the request's span for
            each; ``none``.
    """

    def __init__(self, anchor: WallAnchor, resource: Resource, phases: str = SPANS) -> None:
        self._anchor = anchor
        self._phases = phases
        self._ended = _Ended()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(SCOPE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def make(self, requests: Sequence[FinishedRequest]) -> MadeSpans:
        """The spans of these requests, each request's own before those of its phases."""
        sampled = sum(self._make(request) for request in requests)
        return MadeSpans(self._ended.take(), sampled)

    def _make(self, request: FinishedRequest) -> bool:
        span = self._tracer.start_span(
            SPAN_NAME,
            context=self._parent(request),
            kind=SpanKind.INTERNAL,
            attributes=attributes_of(request),
            start_time=self._anchor.wall_of(request.start_ns),
        )
        sampled = span.is_recording()
        if request.finish_reason == "error":
            span.set_status(StatusCode.ERROR)
        if sampled and self._phases == EVENTS:
            self._add_events(span, request)
        span.end(self._anchor.wall_of(request.end_ns))
        if sampled and self._phases == SPANS:
            self._add_children(span, request)
        return sampled

    def _add_events(self, span: Span, request: FinishedRequest) -> None:
        for phase in phases_of(request):
            span.add_event(
                PHASE_NAME.format(phase=phase.name),
                phase_attributes(EVENT_ATTRIBUTES, request, phase),
                self._anchor.wall_of(phase.start_ns),
            )

    def _add_children(self, span: Span, request: FinishedRequest) -> None:
        context = set_span_in_context(span, Context())
        for phase in phases_of(request):
            child = self._tracer.start_span(
                PHASE_NAME.format(phase=phase.name),
                context=context,
                attributes=phase_attributes(PHASE_ATTRIBUTES, request, phase),
                start_time=self._anchor.wall_of(phase.start_ns),
            )
            child.end(self._anchor.wall_of(phase.end_ns))

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

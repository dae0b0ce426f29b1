"""One POST to a collector, and what the answer means.

The SDK's exporter reads the standard variables, encodes, and compresses. What it does about an answer is
taken from it: it repeats by rules that changed from release to release, tells nobody how many spans a
collector refused, and takes a redirect (the login page of an ingress) for success. So it gets a session
that makes exactly one request of each export and keeps the answer.

What may be repeated, and when, is said by the OTLP specification 1.x, under "OTLP/HTTP Response".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from joulescope.export.otlp import timeout_seconds

RETRYABLE = (429, 502, 503, 504)
"""All other errors are for good: the collector would say the same again."""

MAX_ANSWER_BYTES = 1 << 16
MAX_RETRY_AFTER_SECONDS = 600.0
MAX_MESSAGE_CHARACTERS = 200

_HINTS = {
    401: "; are the credentials in OTEL_EXPORTER_OTLP_HEADERS right?",
    403: "; are the credentials in OTEL_EXPORTER_OTLP_HEADERS right?",
    404: "; is the path right? OTEL_EXPORTER_OTLP_ENDPOINT is the base, without /v1/traces",
    413: "; smaller batches help (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)",
}
_MISTAKES = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    ValueError,
)


class Verdict(Enum):
    """What became of one export."""

    DELIVERED = "delivered"
    LATER = "later"
    """It may be tried again: nobody answered, or the collector asked for patience."""
    REFUSED = "refused"
    """For good."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector said, or why it said nothing."""

    verdict: Verdict
    reason: str = ""
    """For the log: holds no header, and nothing of the URL but its host."""
    rejected: int = 0
    """Of a delivered batch, how many spans or points the collector did not take."""
    retry_after_seconds: float | None = None


ReadPartial = Callable[[bytes], tuple[int, str]]
"""Reads how many items an answer rejects, and what it says about them; raises if it is no such answer."""


class _Undelivered(Exception):
    """Ends the exporter's own handling of an answer."""


class OneAttempt(requests.Session):
    """Makes one request of each export and keeps what came of it. No wait for the peer's next bytes is longer
    than the timeout; one that sends them singly can take longer in all, of the exporter's thread alone."""

    def __init__(self, read_partial: ReadPartial) -> None:
        super().__init__()
        self._read_partial = read_partial
        self.answer: Answer | None = None

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        if self.answer is not None:
            raise _Undelivered  # an exporter that tries again at once
        kwargs.update(stream=True, allow_redirects=False)
        try:
            with super().request(method, url, *args, **kwargs) as response:
                body = next(response.iter_content(MAX_ANSWER_BYTES), b"")
        except _MISTAKES as error:
            self.answer = Answer(Verdict.REFUSED, f"the endpoint cannot be used: {cause_of(error)}")
            raise _Undelivered from None
        except OSError as error:  # the base of all that requests raises, and of a certificate file's absence
            self.answer = Answer(Verdict.LATER, cause_of(error))
            raise _Undelivered from None
        self.answer = answer_of(response.status_code, response.headers, body, self._read_partial)
        if self.answer.verdict is not Verdict.DELIVERED:
            raise _Undelivered
        return response


def answer_of(status: int, headers: Mapping[str, str], body: bytes, read_partial: ReadPartial) -> Answer:
    """What an HTTP answer means to whoever sent spans or metrics."""
    if status in RETRYABLE:
        return Answer(Verdict.LATER, f"HTTP status {status}", retry_after_seconds=retry_after(headers))
    if not 200 <= status < 300:
        hint = "; it leads elsewhere" if 300 <= status < 400 else _HINTS.get(status, "")
        return Answer(Verdict.REFUSED, f"HTTP status {status}{hint}")
    try:
        rejected, message = read_partial(body)
    except Exception:  # a protobuf DecodeError: accepted, by something that may not be a collector
        return Answer(Verdict.DELIVERED, "its answer is not OTLP: is the endpoint a collector's?")
    text = "".join(letter if letter.isprintable() else " " for letter in message[:MAX_MESSAGE_CHARACTERS])
    return Answer(Verdict.DELIVERED, text, rejected=max(rejected, 0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a ``Retry-After`` asks for: a number, or an instant on the peer's own clock (``Date``)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        seconds = (parsedate_to_datetime(text) - parsedate_to_datetime(headers["Date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def cause_of(error: BaseException) -> str:
    """What went wrong, in words that hold no URL: its query or user may be a secret."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.strerror:
            return at.strerror
        at = at.__cause__ or at.__context__
    return type(error).__name__


def _rejected_spans(body: bytes) -> tuple[int, str]:
    partial = ExportTraceServiceResponse.FromString(body).partial_success
    return partial.rejected_spans, partial.error_message


def _rejected_points(body: bytes) -> tuple[int, str]:
    partial = ExportMetricsServiceResponse.FromString(body).partial_success
    return partial.rejected_data_points, partial.error_message


class SpanPost:
    """Sends spans to the collector that the standard variables name; one call is one request."""

    def __init__(self, environ: Mapping[str, str] = os.environ, endpoint: str | None = None) -> None:
        self._session = OneAttempt(_rejected_spans)
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint, timeout=timeout_seconds(environ, "TRACES"), session=self._session
        )
        _silence(OTLPSpanExporter)

    def __call__(self, spans: Sequence[ReadableSpan]) -> Answer:
        return _attempt(self._session, lambda: self._exporter.export(spans))

    def close(self) -> None:
        """Gives the connection back."""
        self._session.close()


class MetricPost:
    """The same for metrics."""

    def __init__(self, environ: Mapping[str, str] = os.environ, endpoint: str | None = None) -> None:
        self._session = OneAttempt(_rejected_points)
        self._exporter = OTLPMetricExporter(
            endpoint=endpoint, timeout=timeout_seconds(environ, "METRICS"), session=self._session
        )
        _silence(OTLPMetricExporter)

    def __call__(self, metrics: MetricsData) -> Answer:
        return _attempt(self._session, lambda: self._exporter.export(metrics))

    def close(self) -> None:
        """Gives the connection back."""
        self._session.close()


def _attempt(session: OneAttempt, export: Callable[[], object]) -> Answer:
    session.answer = None
    try:
        export()
    except _Undelivered:
        pass
    except Exception as error:
        return Answer(Verdict.REFUSED, f"it could not be encoded: {error!r}"[:MAX_MESSAGE_CHARACTERS])
    return session.answer or Answer(Verdict.REFUSED, "it could not be encoded")


def _silence(exporter: type) -> None:
    """The exporter logs several lines for each failure; ours are one for each stretch of them."""
    logging.getLogger(exporter.__module__).setLevel(logging.CRITICAL)

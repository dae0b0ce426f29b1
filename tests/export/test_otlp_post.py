"""What a collector's answer, or its silence, means."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from joulescope.export.otlp_post import (
    MAX_RETRY_AFTER_SECONDS,
    Answer,
    SpanPost,
    Verdict,
    answer_of,
    cause_of,
    retry_after,
)
from joulescope.export.otlp_resource import create_resource
from joulescope.export.span_maker import SpanMaker
from tests.export.otlp_world import ANCHOR
from tests.export.samples import finished
from tests.otlp_receiver import Receiver


def send(endpoint: str, **environ: str) -> Answer:
    post = SpanPost(environ, endpoint=endpoint)
    answer = post(SpanMaker(ANCHOR, create_resource({})).make([finished()]).spans)
    post.close()
    return answer


def to(receiver: Receiver, **environ: str) -> Answer:
    return send(f"{receiver.endpoint}/v1/traces", **environ)


def test_a_collector_that_takes_them(receiver: Receiver) -> None:
    """Delivered, with one request."""
    assert to(receiver) == Answer(Verdict.DELIVERED)
    assert (receiver.requests, len(receiver.spans)) == (1, 1)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_be_repeated_is_later(receiver: Receiver, status: int) -> None:
    """The four of the specification; the exporter itself repeats none of them."""
    receiver.status, receiver.headers = status, {"Retry-After": "17"}
    answer = to(receiver)
    assert (answer.verdict, answer.retry_after_seconds) == (Verdict.LATER, 17.0)
    assert answer.reason == f"HTTP status {status}"
    assert receiver.requests == 1


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, ""),
        (401, "credentials"),
        (404, "path"),
        (408, ""),
        (413, "smaller batches"),
        (500, ""),
        (501, ""),
    ],
)
def test_every_other_error_is_for_good(receiver: Receiver, status: int, hint: str) -> None:
    """Also those that older exporters repeated; some say what to look at."""
    receiver.status = status
    answer = to(receiver)
    assert answer.verdict is Verdict.REFUSED
    assert answer.reason.startswith(f"HTTP status {status}")
    assert hint in answer.reason
    assert receiver.requests == 1


def test_a_redirect_is_no_delivery(receiver: Receiver) -> None:
    """The login page of an ingress took nothing, and what we send goes to no place that nobody named."""
    receiver.status, receiver.headers = 302, {"Location": f"{receiver.endpoint}/login"}
    answer = to(receiver)
    assert (answer.verdict, answer.reason) == (Verdict.REFUSED, "HTTP status 302; it leads elsewhere")
    assert receiver.requests == 1


def test_an_answer_that_is_not_otlp_is_said(receiver: Receiver) -> None:
    """Any web server answers 200 to something; the spans count as taken, and the log asks."""
    receiver.body = b"<html>It works!</html>" * 100_000
    answer = to(receiver)
    assert answer.verdict is Verdict.DELIVERED
    assert "is the endpoint a collector's?" in answer.reason


def test_nobody_listens() -> None:
    """Later, with the reason in words and nothing of the URL, where a token may be."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = send(f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/v1/traces?token=secret")
    assert answer == Answer(Verdict.LATER, "Connection refused")


def test_a_collector_that_says_nothing(receiver: Receiver) -> None:
    """Later, after the standard timeout."""
    receiver.hold = threading.Event()
    answer = to(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="0.05")
    assert answer == Answer(Verdict.LATER, "no answer in time")


def test_a_peer_that_hangs_up() -> None:
    """Later: a connection that breaks says nothing about the spans."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        answer = send(f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces")
        thread.join()
    assert answer.verdict is Verdict.LATER


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "http://[::1"])
def test_an_endpoint_that_is_none_is_for_good(endpoint: str) -> None:
    """Waiting mends no setting."""
    answer = send(endpoint)
    assert answer.verdict is Verdict.REFUSED
    assert answer.reason.startswith("the endpoint cannot be used")


def test_a_certificate_file_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may yet be mounted: later, in words."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    assert send("https://127.0.0.1:1/v1/traces").verdict is Verdict.LATER


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "5"}, 5.0),
        ({"Retry-After": "99999999"}, MAX_RETRY_AFTER_SECONDS),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Fri, 27 Nov 2026 10:00:30 GMT"}, None),
        (
            {"Retry-After": "Fri, 27 Nov 2026 10:00:30 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"},
            30.0,
        ),
        (
            {"Retry-After": "Fri, 27 Nov 2026 09:00:00 GMT", "Date": "Fri, 27 Nov 2026 10:00:00 GMT"},
            0.0,
        ),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or an instant, which counts on the peer's clock and not on ours; bounded."""
    assert retry_after(headers) == seconds


def test_a_message_of_the_peer_is_bounded_and_printable() -> None:
    """What it says goes into the log."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "bad\r\n\x1b[0m" + "x" * 10_000

    def read(body: bytes) -> tuple[int, str]:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
        return partial.rejected_spans, partial.error_message

    answer = answer_of(200, {}, response.SerializeToString(), read)
    assert (answer.verdict, answer.rejected) == (Verdict.DELIVERED, 3)
    assert answer.reason.isprintable()
    assert len(answer.reason) == 200


def test_causes_are_words() -> None:
    """The innermost error of the system is the one that says something."""
    refused = requests.ConnectionError("HTTPConnectionPool(host='h'): /v1/traces?token=secret")
    refused.__context__ = OSError(111, "Connection refused")
    assert cause_of(refused) == "Connection refused"
    assert cause_of(requests.ConnectionError("token=secret")) == "ConnectionError"
    assert "CERTIFICATE_VERIFY_FAILED" in cause_of(ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]"))

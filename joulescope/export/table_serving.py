"""Rows of the metric table that tell how the sidecar's own pages are served."""

from __future__ import annotations

from collections.abc import Iterator

from joulescope.export.metric import Kind, Metric, Point, per_label
from joulescope.model import Snapshot
from joulescope.serving_model import HTTP_CODES, REFUSED_CONNECTIONS


def _responses(snapshot: Snapshot) -> Iterator[Point]:
    yield from per_label((), snapshot.serving.responses, HTTP_CODES)


def _refused(snapshot: Snapshot) -> Iterator[Point]:
    yield from per_label((), snapshot.serving.refused_connections, REFUSED_CONNECTIONS)


def _usable(snapshot: Snapshot) -> Iterator[Point]:
    if (usable := snapshot.serving.config_usable) is not None:
        yield Point((), int(usable))


def _failures(snapshot: Snapshot) -> Iterator[Point]:
    if snapshot.serving.config_usable is not None:
        yield Point((), snapshot.serving.config_failures)


def _not_after(snapshot: Snapshot) -> Iterator[Point]:
    if (seconds := snapshot.serving.certificate_not_after_seconds) is not None:
        yield Point((), seconds)


SERVING = (
    Metric(
        "joulescope_http_responses_total",
        Kind.COUNTER,
        "responses",
        ("code",),
        "Answers of the sidecar's own HTTP server, by status: 401 without the right password or token, 403 "
        "where single requests are not served, 429 beyond the configured rate, 503 while too many pages are "
        "made or passwords checked, or while not ready.",
        _responses,
    ),
    Metric(
        "joulescope_http_connections_refused_total",
        Kind.COUNTER,
        "connections",
        ("reason",),
        "Connections that were ended early: handshake (of TLS, came to nothing), client_certificate (its "
        "names are not on the list), configuration (the file cannot be used), crowded (made room for a newer "
        "one), slow (neither asked nor read in time).",
        _refused,
    ),
    Metric(
        "joulescope_web_config_usable",
        Kind.GAUGE,
        "",
        (),
        "1 if the web configuration file could be used when it was last looked at, else 0; a minute after it "
        "turns 0 nobody is let in any more. Absent without such a file.",
        _usable,
    ),
    Metric(
        "joulescope_web_config_failures_total",
        Kind.COUNTER,
        "failures",
        (),
        "Times that the web configuration file became unusable, or unusable in another way. Absent without "
        "such a file.",
        _failures,
    ),
    Metric(
        "joulescope_web_certificate_not_after_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Wall time at which the certificate that the sidecar shows expires. Absent without TLS.",
        _not_after,
    ),
)
"""Pages are served in a thread of their own; these are its counts at the instant of the snapshot."""

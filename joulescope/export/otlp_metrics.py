"""Sends the metric table over OTLP/HTTP, again and again, by a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from joulescope.export.otlp import whole_setting
from joulescope.export.otlp_points import Since, metrics_data
from joulescope.export.otlp_post import Answer, MetricPost, Verdict
from joulescope.model import Snapshot

_logger = logging.getLogger(__name__)

INTERVAL_MILLISECONDS = ("OTEL_METRIC_EXPORT_INTERVAL", 60_000)
TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


class Post(Protocol):
    """Sends metrics, once."""

    def __call__(self, metrics: MetricsData) -> Answer:
        """Blocks for as long as an export may take; never raises."""
        ...

    def close(self) -> None:
        """Gives up what is held."""
        ...


class OtlpMetrics:
    """Sends the table each ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds, and once at the end.

    An export that is not taken is not repeated: the next one, with the same totals, is soon due. With
    deltas it says what the lost one would have said too.
    """

    def __init__(
        self,
        get_snapshot: Callable[[], Snapshot],
        resource: Resource,
        *,
        post: Post | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._get_snapshot = get_snapshot
        self._resource = resource
        self._post = post or MetricPost(environ)
        self._interval_seconds = whole_setting(environ, *INTERVAL_MILLISECONDS) / 1000
        self._since = self._deltas(environ)
        self._complaint = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="joulescope-otlp-metrics", daemon=True)
        self._thread.start()

    def _deltas(self, environ: Mapping[str, str]) -> Since | None:
        """What keeps the last totals, if deltas are wanted; ``lowmemory`` means to keep none."""
        wanted = environ.get(TEMPORALITY, "").strip().lower() or "cumulative"
        if wanted == "delta":
            return Since(round(self._get_snapshot().sidecar.start_wall_seconds * 1e9))
        if wanted not in ("cumulative", "lowmemory"):
            _logger.warning(
                "%s is %r, not cumulative, delta or lowmemory: using cumulative", TEMPORALITY, wanted
            )
        return None

    def close(self, timeout_seconds: float) -> None:
        """A last export, left behind after the time; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            _logger.warning("the last OTLP metrics were not delivered within %.2g s", timeout_seconds)
        self._post.close()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_seconds):
            self.export_now()
        self.export_now()

    def export_now(self) -> None:
        """One export of the snapshot as it stands; blocks for as long as that may take."""
        try:
            answer = self._post(metrics_data(self._get_snapshot(), self._resource, self._since))
        except Exception:
            _logger.exception("internal error while sending OTLP metrics; please report it")
            return
        if answer.verdict is Verdict.DELIVERED and self._since is not None:
            self._since.taken()
        rejected = (
            f"it refused {answer.rejected} points: {answer.reason}" if answer.rejected else answer.reason
        )
        if rejected and rejected != self._complaint:
            _logger.warning("the OTLP collector does not take metrics: %s", rejected)
        self._complaint = rejected

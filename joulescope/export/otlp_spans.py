"""Spans of finished requests, sent over OTLP/HTTP by a thread of its own.

The SDK's batch processor is not used: it tells nobody how many spans it dropped or failed to send, gives a
batch up after ten seconds, and older releases wait up to half a minute for an unreachable collector when
they are closed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from joulescope.clock import Clock, SystemClock, WallAnchor
from joulescope.export.otlp import whole_setting
from joulescope.export.otlp_backoff import Backoff
from joulescope.export.otlp_post import Answer, SpanPost, Verdict
from joulescope.export.span_maker import SPANS, MadeSpans, SpanMaker
from joulescope.model import FinishedRequest
from joulescope.units import ns_from_seconds

_logger = logging.getLogger(__name__)

OUTCOMES = ("exported", "rejected", "failed", "dropped", "unsampled")

QUEUE_SIZE = ("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
BATCH_SIZE = ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
DELAY_MILLISECONDS = ("OTEL_BSP_SCHEDULE_DELAY", 5000)
"""Standard variables of the batch span processor and their standard defaults; here they count requests."""

GIVE_UP_SECONDS = 7200.0
"""How long a batch is tried: longer than a collector is away for an upgrade, and not for ever, since one that
some proxy cannot bear would keep the others waiting."""


class Post(Protocol):
    """Sends spans, once."""

    def __call__(self, spans: Sequence[ReadableSpan]) -> Answer:
        """Blocks for as long as an export may take; never raises."""
        ...

    def close(self) -> None:
        """Gives up what is held."""
        ...


class OtlpSpans:
    """Sends spans of finished requests; a :class:`joulescope.export.RequestSink`.

    A batch that the collector could not take waits and is tried again, with growing pauses. Behind it
    requests wait in a bounded queue, from which the oldest are dropped: a backend takes late what is recent.

    Outcomes: ``exported``; ``rejected``, the collector answered that it does not take it; ``failed``, tried
    and not delivered, after two hours or at the end; ``dropped``, never tried: the queue was full, or the
    process ended; ``unsampled``.
    """

    name = "otlp"

    def __init__(
        self,
        anchor: WallAnchor,
        resource: Resource,
        *,
        post: Post | None = None,
        phases: str = SPANS,
        environ: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._maker = SpanMaker(anchor, resource, phases)
        self._post = post or SpanPost(environ)
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._queue_size = whole_setting(environ, *QUEUE_SIZE)
        self._batch_size = min(whole_setting(environ, *BATCH_SIZE), self._queue_size)
        self._delay_seconds = whole_setting(environ, *DELAY_MILLISECONDS) / 1000
        self._queue: deque[FinishedRequest] = deque()
        self._in_flight = 0
        self._counts = Counter[str]()
        self._complaint = ""
        self._wake = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="joulescope-otlp-spans", daemon=True)
        self._thread.start()

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        """Queues the requests; what finds no room pushes out the oldest. Returns at once."""
        with self._wake:
            if self._closing:
                self._counts["dropped"] += len(requests)
                return
            self._queue.extend(requests)
            excess = max(len(self._queue) - self._queue_size, 0)
            for _ in range(excess):
                self._queue.popleft()
            self._counts["dropped"] += excess
            if len(self._queue) >= self._batch_size:
                self._wake.notify()

    def counts(self) -> Mapping[str, int]:
        """Requests by outcome; those queued or under way are in none."""
        with self._wake:
            return {outcome: self._counts[outcome] for outcome in OUTCOMES}

    def close(self, timeout_seconds: float) -> None:
        """Sends what is queued, each batch once. What is not delivered when the time is over is counted
        and left."""
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
        self._post.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                made = self._maker.make(batch)
            except Exception:
                _logger.exception("internal error while making spans; please report it")
                self._settle("failed", len(batch))
                continue
            self._settle("unsampled", len(batch) - made.requests)
            if made.spans and not self._deliver(made) and self._closing:
                return

    def _next_batch(self) -> list[FinishedRequest]:
        """Waits for a full batch or for the delay to pass with something queued; empty: it is over."""
        with self._wake:
            while not self._closing and len(self._queue) < self._batch_size:
                if not self._wake.wait(self._delay_seconds) and self._queue:
                    break
            batch = [self._queue.popleft() for _ in range(min(self._batch_size, len(self._queue)))]
            self._in_flight = len(batch)
            return batch

    def _deliver(self, made: MadeSpans) -> bool:
        """Tries a batch until it is taken, refused or given up; whether the collector answered."""
        give_up_ns = self._clock.now_ns() + ns_from_seconds(GIVE_UP_SECONDS)
        while True:
            last = self._closing
            answer = self._post(made.spans)
            if answer.verdict is not Verdict.LATER:
                self._backoff.reset()
                self._settle_answered(made.requests, answer)
                return True
            self._complain(f"{answer.reason}; requests wait, {self._queue_size} at most, and are tried again")
            pause_seconds = self._backoff.after_failure(answer.retry_after_seconds)
            if last or self._clock.now_ns() >= give_up_ns:
                self._settle("failed", made.requests)
                return False
            with self._wake:
                self._wake.wait_for(lambda: self._closing, pause_seconds)

    def _settle_answered(self, requests: int, answer: Answer) -> None:
        """A collector says how many spans it refused, not which: at most so many requests are concerned."""
        if answer.verdict is Verdict.REFUSED:
            self._complain(answer.reason)
            self._settle("rejected", requests)
            return
        rejected = min(answer.rejected, requests)
        if rejected:
            self._complain(
                f"it refused {answer.rejected} spans of a batch: {answer.reason or 'no reason told'}"
            )
        elif answer.reason:
            self._complain(answer.reason)
        elif self._complaint:
            self._complaint = ""
            _logger.info("spans are delivered again")
        self._settle("rejected", rejected)
        self._settle("exported", requests - rejected)

    def _settle(self, outcome: str, requests: int) -> None:
        with self._wake:
            if not self._abandoned:
                self._in_flight -= requests
                self._counts[outcome] += requests

    def _complain(self, complaint: str) -> None:
        """Once for each stretch of the same."""
        if complaint != self._complaint:
            self._complaint = complaint
            _logger.warning("the OTLP collector does not take spans: %s", complaint)

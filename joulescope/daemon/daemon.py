"""The only place where rooms are wired: build, start, run, close, and undo a half start."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from joulescope.clock import Clock, SystemClock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.answers import Answers
from joulescope.daemon.closing import close_together
from joulescope.daemon.engine_samplers import EngineSamplers
from joulescope.daemon.gpu_watch import GpuWatch
from joulescope.daemon.host_watch import HostWatch, engine_processes, host_poller
from joulescope.daemon.ledger_keeper import LedgerPart
from joulescope.daemon.links import Links
from joulescope.daemon.minute_keeper import MinuteKeeper
from joulescope.daemon.parts import balance_line, keeper_of, outcomes_of, pipeline_of, rules_of, sampler_of
from joulescope.daemon.sensor_choice import asks_engines, first_error, opener, readiness, silence_ns
from joulescope.daemon.surroundings import Surroundings
from joulescope.export import RequestSink
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.otlp import metrics_enabled, traces_enabled
from joulescope.export.otlp_metrics import OtlpMetrics
from joulescope.export.otlp_resource import create_resource
from joulescope.export.otlp_spans import OtlpSpans
from joulescope.export.page.history import History
from joulescope.export.records import RequestLog
from joulescope.export.request_ids_shown import ids_shown_to
from joulescope.export.requests_json import MAX_REQUESTS
from joulescope.ingest.listener import Listener
from joulescope.ingest.trace import TraceWriter
from joulescope.model import FinishedRequest, OpenRequest, Snapshot
from joulescope.sampling.host_poller import HostPoller
from joulescope.sampling.sampler import SamplerEvent
from joulescope.sensors import Sensor
from joulescope.units import NANOSECONDS_PER_SECOND, ns_from_seconds

_logger = logging.getLogger(__name__)

TURN_SECONDS = 0.25
"""Pause between two turns of the accounting loop. Waking for each record would cost twice the CPU, and
the joules of a step are known half a second later anyway."""

SNAPSHOT_NS = NANOSECONDS_PER_SECOND // 2
"""Exporters see figures at most this old."""

CLOSE_SECONDS = 0.75
"""Time to flush everything after SIGTERM: the process is gone in a second, and no pod waits for it."""

SERVE_SECONDS = 0.3  # for answers under way to go out before a server ends
_MAX_EVENTS = 4096
_MAX_ROUNDS = 64
"""Reads of the sockets in one turn: a peer that never stops talking cannot keep the rest from its work."""


class Daemon:
    """The sidecar: a listening socket, a sampler, the pipeline, and exporters.

    One thread owns the pipeline: it takes in records and readings, settles, publishes an immutable
    snapshot, and hands finished requests to the sinks. Everybody else reads the snapshot.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_sensor: Callable[[], Sensor] | None,
        clock: Clock,
        sinks: Sequence[RequestSink] = (),
        recorder: TraceWriter | None = None,
        wall: WallAnchor | None = None,
        host: HostPoller | None = None,
        surroundings: Surroundings | None = None,
        answers: Answers | None = None,
        ledger: LedgerPart | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._answers = answers or Answers()
        self._ledger = ledger or LedgerPart()
        self._sinks = [*sinks, *self._answers.sinks, *self._ledger.sinks]
        self._surroundings = surroundings or Surroundings()
        self._keeper = keeper_of(settings)
        self._pipeline = pipeline_of(settings, wall, recorder, self._keeper)
        self._minutes = MinuteKeeper(self._pipeline, self._ledger.sinks, settings, clock)
        self._pipeline.sources.stale_ns = silence_ns(settings)
        self._pipeline.sources.heeds_samplers = asks_engines(settings)
        self._engine_samplers: EngineSamplers | None = None
        if asks_engines(settings):
            self._engine_samplers = EngineSamplers(
                self._pipeline, settings.sample_hz, settings.power_sample_hz
            )
        self._links = Links.build(settings, self._pipeline, clock)
        self._host = None if host is None else HostWatch(host, self._pipeline.host)
        if open_sensor is None:
            self._pipeline.sensor_down()
        self._sampler = open_sensor and sampler_of(settings, open_sensor, clock, self.deliver)
        self._listener: Listener | None = None
        self._history = History()
        self._http = self._http_server()
        self._otlp_metrics: OtlpMetrics | None = None
        self._events: deque[SamplerEvent] = deque(maxlen=_MAX_EVENTS)
        self._gpus = GpuWatch(
            self._pipeline,
            [gpu for gpu, _ in settings.calibration],
            first_error(settings, self._sampler is not None),
        )
        self._recent: deque[FinishedRequest] = deque(maxlen=MAX_REQUESTS)
        self._errors: Counter[str] = Counter()
        self._snapshot = self._pipeline.snapshot(clock.now_ns())
        self._open = self._pipeline.open_requests()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._undo = ExitStack()
        self.address: tuple[str, int] = (settings.listen_host, settings.listen_port)

    def _http_server(self) -> HttpServer:
        settings = self.settings
        return HttpServer(
            settings.listen_host,
            settings.listen_port,
            create_app(
                self.snapshot,
                self.ready,
                get_requests=lambda: (self.open_requests(), self.recent_requests()),
                shows_ids=ids_shown_to(settings.request_ids, settings.listen_host),
                exemplars=settings.request_ids != "hidden",
                get_baselines=self._keeper.page,
                history=self._history,
                minutes=self._minutes.ring,
                diagnosis=self._minutes.page,
                routes=self._answers.routes(self.open_request),
            ),
            rules=rules_of(settings, self._clock),
            clock=self._clock,
        )

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        open_sensor: Callable[[], Sensor] | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
        extra_sinks: Sequence[RequestSink] = (),
    ) -> Daemon:
        """A daemon with the parts that the settings and the ``OTEL_*`` variables ask for.

        Args:
            open_sensor: overrides the sensor that ``settings.sensor`` names; the demo does.
            extra_sinks: get every finished request too.

        Raises:
            ConfigError, MissingExtra, TraceError: if one of the parts cannot be had.
        """
        clock = clock or SystemClock()
        wall = WallAnchor.now()
        if open_sensor is None:
            open_sensor = opener(clock, settings)
        surroundings = Surroundings.build(settings, clock, wall, environ)
        sinks = list(extra_sinks)
        if settings.request_log is not None:
            sinks.append(RequestLog(settings.request_log, wall))
        resource = create_resource(environ, instance=settings.socket)
        if traces_enabled(environ):
            sinks.append(OtlpSpans(wall, resource, phases=settings.otlp_phases, environ=environ))
        recorder = None if settings.record is None else TraceWriter(Path(settings.record))
        daemon = cls(
            settings,
            open_sensor=open_sensor,
            clock=clock,
            sinks=sinks,
            recorder=recorder,
            wall=wall,
            host=host_poller(clock, Path(settings.host_sysfs)) if settings.host == "auto" else None,
            surroundings=surroundings,
            answers=Answers.build(settings, clock, wall, environ),
            ledger=LedgerPart.build(settings, clock, wall),
        )
        if metrics_enabled(environ):
            daemon._otlp_metrics = OtlpMetrics(daemon.snapshot, resource, environ=environ)
        return daemon

    # ---------------------------------------------------------------------------------------- life

    def open(self) -> None:
        """Opens the socket, so that engines can connect; :meth:`turn` takes in what they send."""
        self._listener = Listener(Path(self.settings.socket), self.settings.socket_mode)
        self._undo.callback(self._listener.close)

    def start(self) -> None:
        """Starts everything; if a part fails, those that had started are stopped again.

        Raises:
            ConfigError: if the socket or the address cannot be had.
        """
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            self.open()
            self.address = self._http.start()
            self._undo.callback(self._http.stop, SERVE_SECONDS)
            self._links.start()
            self._undo.callback(self._links.stop, SERVE_SECONDS)
            self._answers.start(self.open_request)
            self._undo.callback(self._answers.stop, SERVE_SECONDS)
            if self._sampler is not None:
                self._sampler.start()
            for part in (self._surroundings, self._keeper, self._ledger, self._minutes.diagnoses):
                part.start()
            self._thread = threading.Thread(target=self._run, name="joulescope-accounting", daemon=True)
            self._thread.start()
            undo.pop_all()
        _logger.info("listening for engines on %s", self.settings.socket)
        _logger.info("serving %s/metrics", self.url)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> Snapshot:
        """Accounts for what has come in, flushes the exporters, and stops. Returns the final snapshot."""
        deadline_ns = self._clock.now_ns() + ns_from_seconds(timeout_seconds)
        if self._sampler is not None:
            self._sampler.stop(0.25 * timeout_seconds)
        self._stopping.set()
        if self._thread is None:
            self._finish()
        else:
            self._thread.join(0.5 * timeout_seconds)
        otlp = [] if self._otlp_metrics is None else [self._otlp_metrics.close]
        closes = [*(sink.close for sink in self._sinks), *otlp, self._keeper.stop, self._stop_serving]
        close_together(closes, lambda: self._left(deadline_ns))
        self._surroundings.stop(0.0)  # a fetch under way dies with the process
        self._undo.close()
        for gpu in self._snapshot.gpus:
            _logger.info("%s", balance_line(gpu))
        return self._snapshot

    def _stop_serving(self, timeout_seconds: float) -> None:
        seconds = min(SERVE_SECONDS, timeout_seconds)
        close_together([self._http.stop, self._answers.stop, self._minutes.diagnoses.stop], lambda: seconds)

    def _left(self, deadline_ns: int) -> float:
        return max((deadline_ns - self._clock.now_ns()) / 1e9, 0.05)

    # ------------------------------------------------------------------------------------- reading

    def snapshot(self) -> Snapshot:
        """The latest published snapshot; reading it changes nothing."""
        return self._snapshot

    def recent_requests(self) -> Sequence[FinishedRequest]:
        """The last finished requests, oldest first."""
        return tuple(self._recent)

    def open_requests(self, limit: int = MAX_REQUESTS) -> Sequence[OpenRequest]:
        """Requests that run or wait, or whose last joules are not divided yet; the costliest first."""
        return self._open.costliest(limit)

    def open_request(self, request_id: str) -> Sequence[OpenRequest]:
        """Those with this id: the engine's own, or the client's, which several may share."""
        return self._open.of(request_id)

    @property
    def url(self) -> str:
        """Where the pages are, once started."""
        return self._http.url

    def ready(self) -> tuple[bool, str]:
        """Whether energy can be accounted for now, and a sentence that says why."""
        if self._thread is None or not self._thread.is_alive():
            return False, "the accounting loop is not running"
        said = "" if self._engine_samplers is None else self._engine_samplers.complaint
        complaint = "; ".join(filter(None, (said, self._links.complaint())))
        return readiness(self.settings, self._snapshot, self.sensor_error, complaint)

    # ----------------------------------------------------------------------------- the owning thread

    def deliver(self, event: SamplerEvent) -> None:
        """Takes an event of the sampler, from any thread; the next turn handles it."""
        self._events.append(event)

    def _run(self) -> None:
        published_ns = 0
        while not self._stopping.is_set():
            with self._guarded():
                self.turn(0.0)
            now_ns = self._clock.now_ns()
            if now_ns - published_ns >= SNAPSHOT_NS:
                published_ns = now_ns
                with self._guarded():
                    self.publish()
            self._stopping.wait(TURN_SECONDS)
        with self._guarded():
            self.turn(0.0)
        self._finish()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What fails in here, a bug, costs this turn, or this exporter, and not the process."""
        try:
            yield
        except Exception:
            self._errors["internal_error"] += 1
            if self._errors["internal_error"] <= 10:
                _logger.exception("internal error while accounting; please report it")

    def turn(self, wait_seconds: float = 0.0) -> None:
        """Takes in what has arrived, settles what is ripe, hands out what has finished."""
        rounds = 1
        while self._take_in(wait_seconds) and rounds < _MAX_ROUNDS:
            wait_seconds, rounds = 0.0, rounds + 1
        self._gpus.heard(self._links.turn(self._clock.now_ns()))
        while self._events:
            self._gpus.handle(self._events.popleft())
        if self._host is not None:
            self._host.turn(lambda: engine_processes(self._pipeline.sessions, self._listener))
        if self._engine_samplers is not None and self._listener is not None:
            self._engine_samplers.turn(self._listener, self._clock.now_ns())
        self._pipeline.settle(self._clock.now_ns())
        self._keeper.turn(self._pipeline.efficiencies)
        self._hand_out()
        self._notice_failures()

    def _take_in(self, wait_seconds: float) -> bool:
        """Handles what the sockets hold now; true if there may be more.

        Settling before all is read would take an engine for silent whose records are waiting here.
        """
        arrived = False
        if self._listener is not None:
            for arrival in self._listener.poll(wait_seconds):
                arrived = True
                if arrival.records:
                    now_ns = self._clock.now_ns()
                    self._gpus.heard(self._pipeline.take(arrival.session, arrival.records, now_ns))
                if arrival.closed:
                    self._pipeline.close_session(arrival.session, self._clock.now_ns(), arrival.closed)
        return arrived

    @property
    def sensor_error(self) -> str:
        """Why no energy is measured; empty when it is, or when none is wanted."""
        return self._gpus.error

    @property
    def host_error(self) -> str:
        """Why the host's own energy is not measured; empty when it is, or when it is not wanted."""
        return "" if self._host is None else self._host.error

    def _hand_out(self) -> None:
        finished = self._pipeline.drain_finished()
        if finished:
            self._recent.extend(finished)
            for sink in self._sinks:
                with self._guarded():
                    sink.export(finished)
        with self._guarded():
            self._minutes.turn()
            self._ledger.turn(self._pipeline.open_minutes)

    def _notice_failures(self) -> None:
        """Says once, in log and counter, that a part has stopped for good while the rest goes on."""
        error = self._pipeline.record_error
        if error is not None and not self._errors["record_stopped"]:
            self._errors["record_stopped"] += 1
            _logger.error("recording stopped, accounting goes on: %s", error)
        failure = None if self._sampler is None else self._sampler.failure
        if failure is not None and not self._errors["sampler_stopped"]:
            self._errors["sampler_stopped"] += 1
            self._gpus.stopped(f"the sampler stopped: {failure!r}; please report it, and restart")

    def publish(self) -> None:
        """Makes the accounts as they stand the snapshot that everybody reads."""
        self._pipeline.flush_recording()
        rejected = self._errors + self._links.rejected()
        if self._listener is not None:
            rejected.update(self._listener.rejected())
        snapshot = self._pipeline.snapshot(
            self._clock.now_ns(),
            rejected=rejected,
            exported=outcomes_of(self._sinks),
            sampler=None if self._sampler is None else self._sampler.statistics(),
        )
        snapshot = replace(snapshot, serving=self._http.totals(), links=self._links.totals())
        self._snapshot = self._surroundings.beside(self._minutes.beside(self._ledger.beside(snapshot)))
        self._history.note(self._snapshot)
        self._open = self._pipeline.open_requests()
        self._answers.observe(self._snapshot)

    def _finish(self) -> None:
        self._pipeline.finish(self._clock.now_ns())
        self._hand_out()
        self.publish()

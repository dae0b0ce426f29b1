"""The relay on a worker node: hears workers, has their GPUs read, tells the head; accounts for nothing."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from joulescope.clock import Clock
from joulescope.config import Settings
from joulescope.daemon.parts import sampler_of
from joulescope.daemon.relay_samplers import WorkerSamplers
from joulescope.daemon.sensor_choice import silence_ns
from joulescope.daemon.wishes import Place
from joulescope.gpu_records import gpu_record, sample_record, status_record
from joulescope.hook import wire
from joulescope.ingest.events import Unheard
from joulescope.ingest.listener import Arrival, Listener
from joulescope.ingest.sessions import Sessions
from joulescope.link.client import LinkClient
from joulescope.model import GpuInfo, GpuReading, GpuStatus
from joulescope.pipeline.gpu_sources import GpuSources
from joulescope.sampling.sampler import Sampled, SamplerEvent, SensorDown, SensorOpened
from joulescope.sensors import Sensor

_logger = logging.getLogger(__name__)

MAX_KEPT = 8192
"""Readings that wait for the head: 25 seconds of sixteen GPUs at the usual pace. Counters go on without
them."""

_PER_FRAME = 256
_PLACES_FROM = 1_000_000
"""Sessions of the readings of an engine's GPUs: numbers that the listener does not come to."""


class Relay:
    """Everything of a relay but its threads. Used from one thread; ``deliver`` may be called from any."""

    def __init__(
        self,
        settings: Settings,
        link: LinkClient,
        clock: Clock,
        *,
        open_sensor: Callable[[], Sensor] | None,
    ) -> None:
        self.settings = settings
        self.link = link
        self._clock = clock
        self._sessions = Sessions(Unheard())
        self._sources = GpuSources(self._sessions)
        self._sources.stale_ns = silence_ns(settings)
        self._samplers = WorkerSamplers(self._sessions, self._sources, settings)
        self._sampler = open_sensor and sampler_of(settings, open_sensor, clock, self.deliver)
        if open_sensor is None:
            self._sources.own_closed()
        self._events: deque[SamplerEvent] = deque(maxlen=4096)
        self._listener: Listener | None = None
        self._hellos: dict[int, wire.Hello] = {}
        self._places: dict[Place, int] = {}
        self._next_place = _PLACES_FROM
        self._told: dict[str, GpuInfo] = {}
        self._statuses: dict[str, GpuStatus] = {}
        self._kept: deque[GpuReading] = deque(maxlen=MAX_KEPT)
        self._said: set[int] = set()
        """Sessions that the head knows of, on this link."""
        self._epoch = 0
        self._announced = False
        self.dropped = 0
        """Readings that the head never gets: it was away for too long."""
        self.sensor_error = "" if open_sensor is None else "no sensor has answered yet"

    def start(self) -> None:
        """Opens the socket and begins to read; raises ConfigError if the socket cannot be had."""
        self._listener = Listener(Path(self.settings.socket), self.settings.socket_mode)
        if self._sampler is not None:
            self._sampler.start()

    def close(self, timeout_seconds: float) -> None:
        """Says goodbye, if there is anybody, and stops."""
        if self._sampler is not None:
            self._sampler.stop(timeout_seconds)
        if self._listener is not None:
            self._listener.close()

    def deliver(self, event: SamplerEvent) -> None:
        """Takes an event of the own sensor's sampler."""
        self._events.append(event)

    # ------------------------------------------------------------------------------------ each turn

    def turn(self, wait_seconds: float) -> None:
        """Takes in what has come, asks for what is missing, and sends what can be sent."""
        assert self._listener is not None
        for arrival in self._listener.poll(wait_seconds):
            self._take(arrival, self._listener)
        while self._events:
            self._handle(self._events.popleft())
        self._samplers.turn(self._listener, self._clock.now_ns())
        self._send()

    def _take(self, arrival: Arrival, listener: Listener) -> None:
        now_ns = self._clock.now_ns()
        engines = [
            each for each in arrival.records if isinstance(each, wire.Hello) and each.engine is not None
        ]
        if engines:
            listener.hang_up(arrival.session)
            self._close(arrival.session, now_ns, "not_here")
            if not self._announced:
                self._announced = True
                _logger.error(
                    "an engine reports to this relay: a relay takes workers only; run joulescope serve "
                    "beside it"
                )
            return
        self._sessions.take(arrival.session, arrival.records)
        for record in arrival.records:
            if isinstance(record, wire.Hello) and record.worker is not None:
                self._hellos[arrival.session] = wire.Hello(
                    session=arrival.session,
                    time_ns=record.time_ns,
                    role="worker",
                    hook_version=record.hook_version,
                    worker=record.worker,
                )
        self._keep(self._sources.judge(arrival.session, arrival.records, now_ns))
        if arrival.closed:
            self._close(arrival.session, now_ns, arrival.closed)

    def _close(self, session: int, now_ns: int, reason: str) -> None:
        self._sessions.close(session, now_ns, reason)
        self._sources.forget(session)
        self._said.discard(session)
        if self._hellos.pop(session, None) is not None:
            farewell = wire.Bye(session=session, time_ns=now_ns, reason=reason)
            self.link.send(self._epoch, [farewell])

    def _handle(self, event: SamplerEvent) -> None:
        if isinstance(event, SensorOpened):
            self._sources.own_opened(event.gpus)
        elif isinstance(event, Sampled):
            self.sensor_error = "" if event.readings else self.sensor_error
            self._keep(self._sources.admit_own(event.readings))
        elif isinstance(event, SensorDown):
            self._sources.own_closed()
            if self.sensor_error != str(event.error):
                self.sensor_error = str(event.error)
                _logger.warning("%s (workers are asked to read their GPUs)", event.error)

    def _keep(self, readings: Sequence[GpuReading]) -> None:
        """Readings of GPUs that workers here use; the rest is nobody's business."""
        places = self._samplers.places()
        for reading in readings:
            if reading.gpu in places:
                self.dropped += len(self._kept) == MAX_KEPT
                self._kept.append(reading)

    # -------------------------------------------------------------------------------------- sending

    def _send(self) -> None:
        epoch = self.link.epoch
        if not epoch:
            self._epoch = 0
            return
        places = self._samplers.places()
        if epoch != self._epoch:
            self._told.clear()
            self._statuses.clear()
            self._said.clear()
            self._epoch = epoch
        hellos = [each for each in self._greetings(places) if each.session not in self._said]
        if hellos and not self.link.send(epoch, hellos):
            return
        self._said.update(each.session for each in hellos)
        while self._kept:
            batch = [self._kept[at] for at in range(min(_PER_FRAME, len(self._kept)))]
            if not self.link.send(
                epoch, [each for reading in batch for each in self._records(reading, places)]
            ):
                return
            for _ in batch:
                self._kept.popleft()
        self._take_leave(epoch, set(places.values()))

    def _take_leave(self, epoch: int, used: Collection[Place]) -> None:
        """Ends the sessions of engines that are gone: the head keeps a place for each."""
        for place in [place for place in self._places if place not in used]:
            session = self._places[place]
            farewell = wire.Bye(session=session, time_ns=self._clock.now_ns(), reason="not_needed")
            if session in self._said and not self.link.send(epoch, [farewell]):
                return
            self._said.discard(session)
            del self._places[place]

    def _greetings(self, places: Mapping[str, Place]) -> Iterator[wire.Hello]:
        yield from self._hellos.values()
        for facts in dict.fromkeys(places.values()):
            instance, index = facts
            if facts not in self._places:
                self._places[facts] = self._next_place
                self._next_place += 1
            yield wire.Hello(
                session=self._places[facts],
                time_ns=self._clock.now_ns(),
                role=wire.SAMPLER,
                sampler=wire.SamplerFacts(instance_id=instance, data_parallel_index=index),
            )

    def _records(self, reading: GpuReading, places: Mapping[str, Place]) -> Iterator[wire.Record]:
        """A reading, and before it what is new about its GPU."""
        place = places.get(reading.gpu)
        session = self._places.get(place) if place is not None else None
        if session is None:
            return
        info = self._sources.info(reading.gpu)
        found: list[wire.Record] = []
        if info is not None and self._told.get(reading.gpu) is not info:
            self._told[reading.gpu] = info
            found.append(gpu_record(info))
        if reading.status is not None and self._statuses.get(reading.gpu) is not reading.status:
            self._statuses[reading.gpu] = reading.status
            found.append(status_record(reading.status))
        for record in (*found, sample_record(reading)):
            record.session = session
            yield record

    def ready(self) -> tuple[bool, str]:
        """Whether the head is reached, and a sentence about it."""
        told = self.link.error
        if told:
            return False, f"no link to the head: {told}; {len(self._kept)} readings wait"
        return True, f"the link to the head is up; workers use {len(self._samplers.places())} GPU(s) here"

"""Reads the GPUs that the sidecar wants, and sends what they show, until one side has enough."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec

from joulescope.clock import Clock
from joulescope.errors import JoulescopeError, SensorLost
from joulescope.gpu_records import gpu_record, sample_record, status_record
from joulescope.hook.link import Link
from joulescope.hook.wire import AnyRecord, Bye, Hello, Wanted, encode_frame, wanted_in
from joulescope.model import GpuReading, GpuStatus
from joulescope.sampling.power import poll_hertz
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorDown, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors import Sensor
from joulescope.units import ns_from_seconds

TURN_SECONDS = 0.25
"""The sidecar takes in what has come as often."""

PATIENCE_SECONDS = 8.0
"""A driver that is left alone for so long after failing has failed four times running: this process ends."""

SILENCE_NS = 30 * 10**9
"""A driver that has not returned from a call for so long hangs."""

SLOWEST_HZ, FASTEST_HZ, USUAL_HZ = 0.1, 1000.0, 20.0
_MAX_BUFFER_BYTES = 256 * 1024
_MAX_EVENTS = 4096
_STOP_SECONDS = 1.0
_MAX_REASON = 300


def link_to(path: str) -> Link:
    """A connection to the sidecar, not opened yet, with a buffer of a few seconds of samples."""
    return Link(path, max_buffer_bytes=_MAX_BUFFER_BYTES)


class GivenUpError(JoulescopeError):
    """GPUs cannot be read here; the message says why."""


class Station:
    """One connection and what is read for it. One thread sends and listens, a second one polls the driver.

    Args:
        link: not connected yet.
        hello: the greeting.
        open_sensor: opens the driver for these UUIDs.
        alone: tells that the engine is gone.
    """

    def __init__(
        self,
        link: Link,
        hello: Callable[[], Hello],
        open_sensor: Callable[[Sequence[str]], Sensor],
        clock: Clock,
        alone: Callable[[], bool],
    ) -> None:
        self._link = link
        self._hello = hello
        self._open_sensor = open_sensor
        self._clock = clock
        self._alone = alone
        self._encoder = msgspec.msgpack.Encoder()
        self._wanted: Wanted | None = None
        self._sampler: Sampler | None = None
        self._events: deque[SamplerEvent] = deque(maxlen=_MAX_EVENTS)
        self._statuses: dict[str, GpuStatus] = {}
        self._heard_ns = 0

    def run(self) -> None:
        """Until the sidecar or the engine has gone.

        Raises:
            GivenUpError: if the GPUs cannot be read; the sidecar was told, too.
        """
        if not self._link.connect(self._clock.now_ns()):
            return
        self._send([self._hello()])
        try:
            while self.turn(TURN_SECONDS):
                pass
        except GivenUpError as error:
            self._send([Bye(time_ns=self._clock.now_ns(), reason=str(error)[:_MAX_REASON])])
            raise
        finally:
            self._stop()

    def turn(self, wait_seconds: float) -> bool:
        """Listens, waiting so long at most, and sends what was read; False when all is over.

        Raises:
            GivenUpError: see :meth:`run`.
        """
        self._link.wait_readable(wait_seconds)
        wanted = wanted_in(self._link.receive())
        if self._alone() or self._link.hung_up or not self._link.connected:
            return False
        if wanted is not None:
            if not wanted.gpus:
                return False
            self._want(wanted)
        self._send(list(self._records()))
        self._check()
        return True

    def _want(self, wanted: Wanted) -> None:
        if wanted == self._wanted:
            return
        self._stop()
        self._wanted, self._heard_ns = wanted, self._clock.now_ns()
        gpus, hertz = tuple(wanted.gpus), _possible_hertz(wanted.sample_hz)
        power_hertz = _possible_hertz(wanted.power_sample_hz)
        timer = DeadlineTimer(self._clock, 1.0 / hertz, Random())
        events = self._events = deque(maxlen=_MAX_EVENTS)
        self._sampler = Sampler(
            lambda: self._open_sensor(gpus),
            timer,
            self._clock,
            events.append,
            period_of=lambda found: 1.0 / poll_hertz(found, hertz, power_hertz),
        )
        self._sampler.start()

    def _stop(self) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler is not None and not sampler.stop(_STOP_SECONDS):
            raise GivenUpError("the driver does not return from a call")

    def _records(self) -> Iterator[AnyRecord]:
        while self._events:
            event = self._events.popleft()
            self._heard_ns = self._clock.now_ns()
            if isinstance(event, SensorOpened):
                yield from map(gpu_record, event.gpus)
            elif isinstance(event, Sampled):
                for reading in event.readings:
                    yield from self._reading(reading)
            elif isinstance(event, SensorDown):
                passing = isinstance(event.error, SensorLost) and event.retry_seconds < PATIENCE_SECONDS
                if not passing:
                    raise GivenUpError(str(event.error))

    def _reading(self, reading: GpuReading) -> Iterator[AnyRecord]:
        status = reading.status
        if status is not None and self._statuses.get(reading.gpu) is not status:
            self._statuses[reading.gpu] = status
            yield status_record(status)
        yield sample_record(reading)

    def _check(self) -> None:
        if self._sampler is None:
            return
        if self._sampler.failure is not None:
            raise GivenUpError(f"{type(self._sampler.failure).__name__}: {self._sampler.failure}")
        period_ns = ns_from_seconds(1.0 / SLOWEST_HZ)
        if self._clock.now_ns() - self._heard_ns > SILENCE_NS + period_ns:
            raise GivenUpError("the driver has not answered for half a minute")

    def _send(self, records: list[AnyRecord]) -> None:
        """What finds no room is dropped: counters are cumulative, so that no joule is lost with a sample."""
        now_ns = self._clock.now_ns()
        if records:
            self._link.send(encode_frame(records, self._encoder), len(records), now_ns)
        else:
            self._link.flush(now_ns)


def _possible_hertz(hertz: float) -> float:
    return min(max(hertz, SLOWEST_HZ), FASTEST_HZ) if math.isfinite(hertz) else USUAL_HZ

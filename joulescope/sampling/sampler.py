"""The thread that reads a sensor: opens it, reads it at each deadline, opens it again when it is lost.

It keeps nothing: what it sees goes to one callback as typed events, in order, from its own thread.
Between :class:`SensorDown` and the next :class:`SensorOpened` nothing is known about any GPU, and the
receiver must not go on showing the last reading.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from joulescope.clock import Clock
from joulescope.errors import SensorChanged, SensorError
from joulescope.model import CallTime, GpuInfo, GpuReading, SamplerStatistics
from joulescope.sampling.timer import DeadlineTimer, Tick, sleep_until
from joulescope.sensors import Sensor
from joulescope.units import ns_from_seconds, seconds_from_ns

_logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_LAST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SensorOpened:
    """The sensor answers; these are its GPUs from now on."""

    time_ns: int
    gpus: Sequence[GpuInfo]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One batch of readings. A GPU that is missing could not be read this time."""

    readings: Sequence[GpuReading]
    late_ns: int
    """How long after its deadline the read began."""
    read_ns: int
    """How long the whole batch took."""
    read_failures: Mapping[str, int] = field(default_factory=dict)
    """Failed reads by GPU since the sampler was started, over all openings of the sensor."""


@dataclass(frozen=True, slots=True)
class SensorDown:
    """The sensor cannot be opened, or does not answer any more."""

    time_ns: int
    error: SensorError
    retry_seconds: float
    """It is opened again after this pause."""


SamplerEvent = SensorOpened | Sampled | SensorDown


class Sampler:
    """Reads a sensor for as long as it is left running."""

    def __init__(
        self,
        open_sensor: Callable[[], Sensor],
        timer: DeadlineTimer,
        clock: Clock,
        deliver: Callable[[SamplerEvent], None],
        *,
        period_of: Callable[[Sequence[GpuInfo]], float | None] = lambda gpus: None,
    ) -> None:
        """Makes a sampler that does nothing yet.

        Args:
            deliver: called from the sampler's thread; should return soon, since reads wait for it.
            period_of: seconds between polls of the GPUs that a sensor was opened with; ``None`` leaves the
                timer as it is.
        """
        self._open_sensor = open_sensor
        self._period_of = period_of
        self._timer = timer
        self._clock = clock
        self._deliver = deliver
        self._sensor: Sensor | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._backoff_seconds = BACKOFF_FIRST_SECONDS
        self._closed_failures: Counter[str] = Counter()
        self._closed_times: dict[str, CallTime] = {}
        self._reads = self._missed = self._late_ns = self._read_ns = self._opened = self._down = 0
        self.failure: Exception | None = None
        """What ended the thread before it was told to stop: a bug, or an error of ``deliver``."""

    @property
    def running(self) -> bool:
        """True while the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread.

        Raises:
            RuntimeError: on a second start.
        """
        if self._thread is not None:
            raise RuntimeError("this sampler was started before; make a new one")
        self._thread = threading.Thread(target=self._run, name="joulescope-sampler", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float) -> bool:
        """Tells the thread to end and waits for it; False if it still hangs, most likely in the driver."""
        self._stopping.set()
        if self._thread is None:
            self._close_sensor()
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def step(self) -> None:
        """One turn of the loop: opens the sensor if it is closed, else waits for a deadline and reads."""
        try:
            if self._sensor is None:
                self._open()
            else:
                self._read(self._sensor)
        except SensorError as error:
            self._lose(error)

    def statistics(self) -> SamplerStatistics:
        """May be called from any thread."""
        return SamplerStatistics(
            reads=self._reads,
            missed_deadlines=self._missed,
            late_seconds=seconds_from_ns(self._late_ns),
            read_seconds=seconds_from_ns(self._read_ns),
            opened=self._opened,
            down=self._down,
            call_times=self._all_call_times(),
        )

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.step()
        except Exception as error:
            self.failure = error
            _logger.exception("the sampler ended early: no GPU is read any more")
        finally:
            self._close_sensor()

    def _open(self) -> None:
        sensor = self._open_sensor()
        self._sensor = sensor
        self._opened += 1
        gpus = sensor.gpus()
        self._timer.restart(self._period_of(gpus))
        self._deliver(SensorOpened(self._clock.now_ns(), gpus))

    def _read(self, sensor: Sensor) -> None:
        tick = self._timer.wait(self._stopping.is_set)
        if tick is None:
            return
        start_ns = self._clock.now_ns()
        readings = sensor.read()
        read_ns = self._clock.now_ns() - start_ns
        if readings:
            self._backoff_seconds = BACKOFF_FIRST_SECONDS
        self._count(tick, read_ns)
        self._deliver(Sampled(readings, tick.late_ns, read_ns, self._all_failures(sensor)))

    def _count(self, tick: Tick, read_ns: int) -> None:
        self._reads += 1
        self._missed += tick.missed
        self._late_ns += tick.late_ns
        self._read_ns += read_ns

    def _all_failures(self, sensor: Sensor) -> dict[str, int]:
        failures = dict(self._closed_failures)
        for gpu, count in sensor.read_failures().items():
            failures[gpu] = failures.get(gpu, 0) + count
        return failures

    def _all_call_times(self) -> dict[str, CallTime]:
        sensor, times = self._sensor, dict(self._closed_times)
        return times if sensor is None else _joined(times, sensor.call_times())

    def _lose(self, error: SensorError) -> None:
        self._close_sensor()
        self._down += 1
        pause_seconds = 0.0 if isinstance(error, SensorChanged) else self._backoff_seconds
        self._backoff_seconds = min(2 * pause_seconds or BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS)
        now_ns = self._clock.now_ns()
        self._deliver(SensorDown(now_ns, error, pause_seconds))
        sleep_until(self._clock, now_ns + ns_from_seconds(pause_seconds), self._stopping.is_set)

    def _close_sensor(self) -> None:
        sensor, self._sensor = self._sensor, None
        if sensor is not None:
            failed = {gpu: count for gpu, count in sensor.read_failures().items() if count}
            self._closed_failures.update(failed)  # MIG instances that are gone leave nothing behind
            self._closed_times = _joined(self._closed_times, sensor.call_times())
            sensor.close()


def _joined(before: Mapping[str, CallTime], after: Mapping[str, CallTime]) -> dict[str, CallTime]:
    nothing = CallTime(0, 0.0)
    return {
        name: CallTime(
            before.get(name, nothing).calls + after.get(name, nothing).calls,
            before.get(name, nothing).seconds + after.get(name, nothing).seconds,
        )
        for name in {**before, **after}
    }

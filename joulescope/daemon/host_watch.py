"""The daemon's part for the host: polls it in each turn, feeds its pipeline, and says what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from joulescope.clock import Clock
from joulescope.errors import SensorError, SensorLost
from joulescope.host_model import EngineProcess
from joulescope.ingest.listener import Listener
from joulescope.ingest.sessions import Sessions
from joulescope.pipeline.host import HostPipeline
from joulescope.sampling.host_poller import Engines, HostDown, HostFound, HostPoller, HostRead
from joulescope.sensors.grace import GraceSensor
from joulescope.sensors.powercap import PowercapSensor
from joulescope.sensors.processes import EngineProcesses

_logger = logging.getLogger(__name__)


def host_poller(clock: Clock, sysfs: Path) -> HostPoller:
    """Polls the powercap zones below ``sysfs``, or Grace's meters, and the processes of this machine."""
    grace = GraceSensor(clock, sysfs)

    def open_zones() -> PowercapSensor | GraceSensor:
        try:
            return PowercapSensor.open(sysfs)
        except SensorError:
            if grace.look():
                return grace
            raise

    return HostPoller(open_zones, EngineProcesses(clock), clock)


class HostWatch:
    """Takes what a poller tells into the host's accounts."""

    def __init__(self, poller: HostPoller, pipeline: HostPipeline) -> None:
        self._poller = poller
        self._pipeline = pipeline
        self.error = ""
        """Why the host's own energy is not measured; empty when it is."""

    def turn(self, engines: Callable[[], Engines]) -> None:
        """Reads the host if it is time to; ``engines`` names the processes of those that are connected."""
        for event in self._poller.poll(engines):
            if isinstance(event, HostRead):
                self._pipeline.read(event.reading, event.read_failures)
            elif isinstance(event, HostFound):
                self._found(event)
            else:
                self._down(event)

    def _found(self, event: HostFound) -> None:
        self.error = ""
        self._pipeline.found(event.domains)
        _logger.info("reading host energy: %s", ", ".join(each.domain for each in event.domains))
        if event.skipped:
            skipped = "; ".join(f"{zone}: {reason}" for zone, reason in event.skipped.items())
            _logger.info("zones of the host that are not read: %s", skipped)

    def _down(self, event: HostDown) -> None:
        """A host that never had counters is no fault; one that lost them is. Each reason is told once."""
        self._pipeline.down(event.read_failures)
        if self.error != str(event.error):
            self.error = str(event.error)
            level = logging.WARNING if isinstance(event.error, SensorLost) else logging.INFO
            _logger.log(level, "%s", event.error)


def engine_processes(sessions: Sessions, listener: Listener | None) -> Engines:
    """The processes of each connected engine, as the kernel knows the other ends of the socket."""
    return {
        engine: [
            EngineProcess(session, None if listener is None else listener.peer_pid(session))
            for session in numbers
        ]
        for engine, numbers in sessions.engine_sessions().items()
    }

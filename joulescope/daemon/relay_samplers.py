"""Asks workers on this node to read the GPUs that the relay's own sensor does not."""

from __future__ import annotations

import logging

from joulescope.config import Settings
from joulescope.daemon.wishes import READABLE, Place, Wishes
from joulescope.hook import wire
from joulescope.ingest.listener import Listener
from joulescope.ingest.sessions import Sessions
from joulescope.pipeline.gpu_sources import GpuSources

_logger = logging.getLogger(__name__)


class WorkerSamplers:
    """At most one sampler for each engine that has workers here, started by the one of lowest local rank."""

    def __init__(self, sessions: Sessions, sources: GpuSources, settings: Settings) -> None:
        self._sessions = sessions
        self._sources = sources
        self._settings = settings
        self._heard = Wishes()

    def places(self) -> dict[str, Place]:
        """By GPU that workers here use: the engine that they are of."""
        return {
            worker.gpu: (worker.instance_id, worker.data_parallel_index)
            for worker in self._sessions.workers().values()
            if worker.gpu
        }

    def turn(self, listener: Listener, now_ns: int) -> None:
        """Asks, corrects, or sends away, as far as something has changed."""
        if not self._sources.own_known:
            return
        wishes = self._wishes(now_ns)
        found: set[Place] = set()
        for number, facts in self._sessions.samplers().items():
            place = facts.instance_id, facts.data_parallel_index
            if place in found or place not in wishes:
                listener.hang_up(number)
                self._sessions.close(number, now_ns, "not_needed")
                self._sources.forget(number)
            else:
                found.add(place)
                self._heard.say(listener, number, wishes[place], now_ns)
        for facts, reason in self._sources.drain_complaints():
            _logger.warning("in the container of workers of %s no GPU is read: %s", facts.instance_id, reason)
        asked = set(found)
        for number, worker in self._sessions.workers_that_start_samplers().items():
            place = worker.instance_id, worker.data_parallel_index
            if place in wishes and place not in asked:
                asked.add(place)
                self._heard.say(listener, number, wishes[place], now_ns, again=True)
        self._heard.forget_all_but({*self._sessions.samplers(), *self._sessions.workers()})

    def _wishes(self, now_ns: int) -> dict[Place, wire.Wanted]:
        gpus: dict[Place, list[str]] = {}
        for gpu, place in self.places().items():
            if gpu.startswith(READABLE) and not self._sources.own_reads(gpu, now_ns):
                gpus.setdefault(place, []).append(gpu)
        settings = self._settings
        return {
            place: wire.Wanted(
                gpus=sorted(names), sample_hz=settings.sample_hz, power_sample_hz=settings.power_sample_hz
            )
            for place, names in gpus.items()
        }

"""Asks engines to read the GPUs that the sidecar cannot, and sends their samplers away when it can.

State is kept on this side only. What is wanted of whom is computed anew in each turn from who is connected
and what the own sensor reads; a peer hears of it when it changes, and an engine again while it has sent
nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from joulescope.daemon.wishes import READABLE, Place, Wishes
from joulescope.hook import wire
from joulescope.ingest.listener import Listener
from joulescope.model import EngineInfo
from joulescope.pipeline import Pipeline
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

MISSING_NS = 30 * NANOSECONDS_PER_SECOND
"""A GPU that its sampler has not found after this time is not visible there either."""

_MAX_COMPLAINED = 64


class EngineSamplers:
    """The sidecar's end of the samplers inside engines. Used from the thread that owns the pipeline."""

    def __init__(self, pipeline: Pipeline, sample_hz: float, power_sample_hz: float) -> None:
        self._pipeline = pipeline
        self._sample_hz = sample_hz
        self._power_sample_hz = power_sample_hz
        self._heard = Wishes()
        self._complained: dict[str, str] = {}
        self.complaint = ""
        """Why the last sampler that gave up could not read; empty before the first."""

    def turn(self, listener: Listener, now_ns: int) -> None:
        """Asks, corrects, or hangs up, as far as something has changed."""
        sources, sessions = self._pipeline.sources, self._pipeline.sessions
        engines = sessions.can_start_samplers()
        self._note_complaints(engines)
        if not sources.own_known:
            return
        wishes = dict(self._wishes(engines, now_ns))
        found: dict[Place, int] = {}
        for number, facts in sessions.samplers().items():
            place = (facts.instance_id, facts.data_parallel_index)
            wish = wishes.get(place)
            if place in found or wish is None:
                self._hang_up(listener, number, now_ns)
            else:
                found[place] = number
                self._heard.say(listener, number, wish, now_ns)
                self._note_missing(engines, place, number, now_ns)
        for number, info in engines.items():
            place = _place(info)
            if place not in found:
                self._ask(listener, number, wishes.get(place), now_ns)
        self._heard.forget_all_but({*engines, *found.values()})

    def _wishes(self, engines: Mapping[int, EngineInfo], now_ns: int) -> Iterator[tuple[Place, wire.Wanted]]:
        """What each engine's sampler should read. A GPU that two engines name is asked of the first.

        An engine that names no GPU may drive any of those that the operator lists and nobody names.
        """
        listed = self._pipeline.scope.uuids
        asked: set[str] = set(self._pipeline.sessions.remote_gpus())  # of these a relay tells
        for info in sorted(engines.values(), key=lambda info: not info.gpus):
            named = list(info.gpus) or sorted(listed or ())
            gpus = [
                gpu
                for gpu in named
                if gpu.startswith(READABLE)
                and gpu not in asked
                and (listed is None or gpu in listed)
                and not self._pipeline.sources.own_reads(gpu, now_ns)
            ]
            asked.update(gpus)
            if gpus:
                yield (
                    _place(info),
                    wire.Wanted(gpus=gpus, sample_hz=self._sample_hz, power_sample_hz=self._power_sample_hz),
                )

    def _ask(self, listener: Listener, engine: int, wish: wire.Wanted | None, now_ns: int) -> None:
        """Asks an engine that has no sampler, and takes that back when it is no more wished."""
        if wish is not None:
            self._heard.say(listener, engine, wish, now_ns, again=True)
            return
        said = self._heard.said(engine)
        if said is not None and said.wanted.gpus:
            self._heard.say(listener, engine, wire.Wanted(), now_ns)

    def _hang_up(self, listener: Listener, session: int, now_ns: int) -> None:
        listener.hang_up(session)
        self._pipeline.close_session(session, now_ns, "not_needed")

    def _note_complaints(self, engines: Mapping[int, EngineInfo]) -> None:
        """Says in the log why a sampler gave up, once for each engine and reason."""
        for facts, reason in self._pipeline.sources.drain_complaints():
            place = (facts.instance_id, facts.data_parallel_index)
            self._complain(engines, place, f"no GPU is read: {reason}")

    def _note_missing(
        self, engines: Mapping[int, EngineInfo], place: Place, sampler: int, now_ns: int
    ) -> None:
        """Says in the log which GPUs a sampler does not find, though it reads others."""
        said = self._heard.said(sampler)
        if said is not None and now_ns - said.time_ns > MISSING_NS:
            missing = sorted(set(said.wanted.gpus).difference(self._pipeline.sources.described(sampler)))
            if missing:
                self._complain(engines, place, f"a sampler runs and does not find {', '.join(missing)}")

    def _complain(self, engines: Mapping[int, EngineInfo], place: Place, reason: str) -> None:
        names = [info.engine for info in engines.values() if _place(info) == place]
        engine = names[0] if names else "an engine that is gone"
        if self._complained.get(engine) != reason:
            if len(self._complained) >= _MAX_COMPLAINED:
                self._complained.clear()
            self._complained[engine] = reason
            _logger.warning("in the container of %s %s", engine, reason)
        self.complaint = f"in the container of {engine} {reason}"


def _place(info: EngineInfo) -> Place:
    return info.instance_id, info.data_parallel_index

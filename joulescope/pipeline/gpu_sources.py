"""Which of several readers of a GPU is believed: the sidecar's own sensor, or a sampler inside its engine.

At any time one source measures a GPU. The own sensor wins whenever it reads; a sampler's readings count while
the own sensor does not know the GPU or has been silent, and only for GPUs that an engine of the sampler's
own instance names. What is refused is counted, and nothing of it is recorded or shown.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from joulescope.gpu_records import gpu_info, gpu_reading, gpu_status
from joulescope.hook import wire
from joulescope.ingest.sessions import Sessions
from joulescope.model import GpuInfo, GpuReading, GpuStatus
from joulescope.units import NANOSECONDS_PER_SECOND

_logger = logging.getLogger(__name__)

OWN = 0
"""Stands for the own sensor where sessions stand for samplers; no session has this number."""

STALE_NS = 2 * NANOSECONDS_PER_SECOND
"""A source that is silent for longer may be replaced by another."""

SENSOR = "engine"
"""What :attr:`joulescope.model.GpuInfo.sensor` says of a GPU that a sampler reads."""

AFAR = "relay"
"""The same of a GPU in another node, of which a relay tells."""

_AHEAD_NS = NANOSECONDS_PER_SECOND
_BEHIND_NS = 60 * NANOSECONDS_PER_SECOND
"""Readings from further away than these were taken by another clock."""

_MAX_TEXT = 256
_MAX_COMPLAINTS = 16
_MAX_TOLD = 64
_MAX_BYTES = 2**60

R = TypeVar("R", bound=wire.Record)


@dataclass(slots=True)
class _Elected:
    """Who measures a GPU, and when it last did."""

    source: int
    seen_ns: int


class GpuSources:
    """Keeps the readers of all GPUs apart.

    ``rejected`` counts by reason: ``stranger_gpu`` (no engine of the sampler's instance names it),
    ``spare_sample`` (another source measures the GPU), ``wrong_clock`` (taken at an instant that cannot be),
    ``malformed_gpu``, ``before_gpu`` (a sample of a GPU that was not described), and ``unasked_sample``
    (samplers are not to be heeded).
    """

    def __init__(self, sessions: Sessions, named: Collection[str] | None = None) -> None:
        """``named`` are GPUs that the operator lists: any connected sampler may speak of them too."""
        self.rejected: Counter[str] = Counter()
        self.own_known = False
        """Whether the own sensor has said what it can read, be it nothing."""
        self.heeds_samplers = True
        """Whether samplers are believed at all: by choice of the operator they may not be."""
        self.stale_ns = STALE_NS
        self._sessions = sessions
        self._named = frozenset(named or ())
        self._own: dict[str, GpuInfo] = {}
        self._own_seen_ns: dict[str, int] = {}
        self._facts: dict[int, wire.SamplerFacts] = {}
        self._complaints: deque[tuple[wire.SamplerFacts, str]] = deque(maxlen=_MAX_COMPLAINTS)
        self._told: dict[int, dict[str, GpuInfo]] = {}
        self._statuses: dict[tuple[int, str], GpuStatus] = {}
        self._elected: dict[str, _Elected] = {}

    # ----------------------------------------------------------------------------------- the own sensor

    def own_opened(self, gpus: Iterable[GpuInfo]) -> None:
        """The own sensor can read these too. (A trace tells of them one by one.)"""
        self.own_known = True
        for info in gpus:
            self._own[info.gpu] = info
            self._own_seen_ns.pop(info.gpu, None)

    def own_closed(self) -> None:
        """The own sensor can read nothing until it is opened again."""
        self.own_known = True
        self._own.clear()
        self._own_seen_ns.clear()
        self._elected = {gpu: each for gpu, each in self._elected.items() if each.source != OWN}

    def own_reads(self, gpu: str, now_ns: int) -> bool:
        """Whether the own sensor reads this GPU, or may be about to, so that nobody else needs to.

        A sampler that reads stays until it does: a sensor that was opened may still tell nothing.
        """
        if gpu not in self._own or not self.measured_by_own(gpu):
            return False
        return now_ns - self._own_seen_ns.setdefault(gpu, now_ns) <= self.stale_ns

    def admit_own(self, readings: Iterable[GpuReading]) -> list[GpuReading]:
        """All of them: the own sensor wins."""
        admitted = list(readings)
        for reading in admitted:
            self._own_seen_ns[reading.gpu] = reading.time_ns
            self._elect(reading.gpu, OWN, reading.time_ns)
        return admitted

    # ---------------------------------------------------------------------------------------- samplers

    def judge(
        self, session: int, records: Sequence[wire.AnyRecord], now_ns: int | None = None
    ) -> list[GpuReading]:
        """The readings in what a session sent that are to be believed; none if it is no sampler's.

        ``now_ns`` is the time at which they came, for a look at their own.
        """
        facts = self._sessions.sampler(session)
        if facts is None:
            self._note_end(session, records)
            return []
        allowed = self._allowed(session, facts)
        self._facts[session] = facts
        self._told.setdefault(session, {})
        admitted = []
        for record in records:
            if not isinstance(record, (wire.Gpu, wire.Sample, wire.GpuStatus)):
                continue
            if not self.heeds_samplers and not self._sessions.origin(session):
                self.rejected["unasked_sample"] += 1
            elif record.gpu not in allowed:
                self.rejected["stranger_gpu"] += 1
                self._keep(session, record)
            elif isinstance(record, wire.Gpu):
                self._describe(session, record)
            elif isinstance(record, wire.GpuStatus):
                self._statuses[session, record.gpu] = _sane_status(gpu_status(_finite(record)))
            elif self._admits(session, record, now_ns):
                status = self._statuses.get((session, record.gpu))
                admitted.append(gpu_reading(_sane(record), status))
        return admitted

    def _allowed(self, session: int, facts: wire.SamplerFacts) -> frozenset[str]:
        if self._sessions.origin(session):  # what the operator lists is of this node, or named there too
            return self._sessions.gpus_afar(session)
        return self._sessions.gpus_beside(facts) | self._named

    def described(self, session: int) -> Collection[str]:
        """The GPUs that a sampler has said it can read."""
        return self._told.get(session, {}).keys()

    def forget(self, session: int) -> None:
        """The session has ended: another source may measure its GPUs at once."""
        self._told.pop(session, None)
        self._facts.pop(session, None)
        for key in [key for key in self._statuses if key[0] == session]:
            del self._statuses[key]
        for gpu in [gpu for gpu, each in self._elected.items() if each.source == session]:
            del self._elected[gpu]

    def _keep(self, session: int, record: wire.Gpu | wire.Sample | wire.GpuStatus) -> None:
        """Of a GPU that nobody names yet: a sampler describes it once, and may be here before its engine."""
        if isinstance(record, wire.Gpu) and len(self._told[session]) < _MAX_TOLD:
            self._describe(session, record)

    def _describe(self, session: int, record: wire.Gpu) -> None:
        if record.energy_source not in ("counter", "power"):
            self.rejected["malformed_gpu"] += 1
            return
        record = _finite(record)
        plain = msgspec.structs.replace(
            record,
            name=record.name[:_MAX_TEXT],
            driver_version=record.driver_version[:_MAX_TEXT],
            power_limit_watts=_above_zero(record.power_limit_watts),
            calibration_factor=1.0,  # the settings decide
            instances=[],  # an engine on an instance is alone to be asked, and no sampler is asked for it
            energy_split="",
            parent="",
            slices=None,
            slices_total=None,
            capabilities={
                name: told[:_MAX_TEXT] if isinstance(told, str) else told
                for name, told in record.capabilities.items()
            },
        )
        self._told[session][record.gpu] = replace(
            gpu_info(plain), sensor=AFAR if self._sessions.origin(session) else SENSOR
        )

    def _admits(self, session: int, sample: wire.Sample, now_ns: int | None) -> bool:
        if sample.gpu not in self._told[session]:
            self.rejected["before_gpu"] += 1
            return False
        if now_ns is not None and not now_ns - _BEHIND_NS <= sample.time_ns <= now_ns + _AHEAD_NS:
            self.rejected["wrong_clock"] += 1
            return False
        elected = self._elected.get(sample.gpu)
        other = elected if elected is not None and elected.source != session else None
        if other is not None and sample.time_ns - other.seen_ns <= self.stale_ns:
            self.rejected["spare_sample"] += 1
            return False
        self._elect(sample.gpu, session, sample.time_ns)
        return True

    def _note_end(self, session: int, records: Sequence[wire.AnyRecord]) -> None:
        facts = self._facts.get(session)
        if facts is not None:
            farewells = (record.reason for record in records if isinstance(record, wire.Bye))
            self._complaints.extend((facts, reason[:_MAX_TEXT]) for reason in farewells)

    def drain_complaints(self) -> list[tuple[wire.SamplerFacts, str]]:
        """Samplers that gave up since the last call, and why: a farewell is all that they say of it."""
        told = list(self._complaints)
        self._complaints.clear()
        return told

    # ---------------------------------------------------------------------------------------- election

    def info(self, gpu: str) -> GpuInfo | None:
        """What the source that measures the GPU says of it; the same object until that changes."""
        elected = self._elected.get(gpu)
        if elected is None or elected.source == OWN:
            return self._own.get(gpu)
        return self._told.get(elected.source, {}).get(gpu)

    def measured_by_own(self, gpu: str) -> bool:
        """Whether the own sensor measures the GPU, or nobody yet."""
        elected = self._elected.get(gpu)
        return elected is None or elected.source == OWN

    def whole(self, uuid: str) -> str:
        """The GPU that a MIG instance is a part of: the driver measures whole GPUs only."""
        known = self._own.get(uuid)
        if known is not None:
            return known.parent or uuid
        wholes = (info.gpu for info in self._own.values() if uuid in info.instances)
        return next(wholes, uuid)

    def parts(self, gpu: str) -> list[str]:
        """The MIG instances of a GPU among which its joules are split."""
        return [info.gpu for info in self._own.values() if info.parent == gpu]

    def _elect(self, gpu: str, source: int, time_ns: int) -> None:
        elected = self._elected.get(gpu)
        if elected is None:
            self._elected[gpu] = _Elected(source, time_ns)
        elif elected.source == source:
            elected.seen_ns = max(elected.seen_ns, time_ns)
            return
        else:
            self._elected[gpu] = _Elected(source, time_ns)
        if elected is not None or source != OWN:
            reader = "this sidecar" if source == OWN else f"a sampler in its engine (session {source})"
            _logger.info("GPU %s is read by %s from now on", gpu, reader)


def _finite(record: R) -> R:
    """The record without figures that are none."""
    found = {name: getattr(record, name) for name in record.__struct_fields__}
    broken = {
        name: None for name, value in found.items() if isinstance(value, float) and not math.isfinite(value)
    }
    return msgspec.structs.replace(record, **broken)


def _above_zero(watts: float | None) -> float | None:
    return watts if watts is not None and watts > 0 else None


def _sane_status(status: GpuStatus) -> GpuStatus:
    """The status without a power limit that cannot be one: joules are judged by it. The rest is shown."""
    return replace(status, power_limit_watts=_above_zero(status.power_limit_watts))


def _sane(sample: wire.Sample) -> wire.Sample:
    """The sample without what a GPU cannot show; what it has drawn is for the meter to judge."""
    sample = _finite(sample)
    watts, used, busy = sample.power_watts, sample.memory_used_bytes, sample.sm_utilization_ratio
    return msgspec.structs.replace(
        sample,
        power_watts=watts if watts is not None and watts >= 0 else None,
        memory_used_bytes=used if used is not None and 0 <= used < _MAX_BYTES else None,
        sm_utilization_ratio=busy if busy is not None and 0 <= busy <= 1 else None,
    )

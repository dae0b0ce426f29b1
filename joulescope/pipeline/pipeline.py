"""Records and readings in, finished requests and snapshots out.

``serve``, ``demo``, ``record`` and ``replay`` all run this same object; they differ only in where the
records come from. Single-threaded: whoever feeds it also reads it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from joulescope.attribution.accountant import Accountant
from joulescope.attribution.cost import CostModel, ModelMaker
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.instances import MAX_INSTANCES, Instances
from joulescope.attribution.open_requests import OpenRequests
from joulescope.attribution.policy import Policy
from joulescope.clock import WallAnchor
from joulescope.errors import TraceError
from joulescope.gpu_records import gpu_record, sample_record, status_record
from joulescope.hook import wire
from joulescope.ingest.sessions import Sessions
from joulescope.ingest.trace import TraceWriter
from joulescope.minute_model import EngineMinute
from joulescope.model import (
    EnergyInterval,
    EngineTotals,
    FinishedRequest,
    GpuInfo,
    GpuReading,
    GpuStatus,
    GpuTotals,
    SamplerStatistics,
    SidecarTotals,
    Snapshot,
)
from joulescope.pipeline.gpu_sources import GpuSources
from joulescope.pipeline.host import HostPipeline
from joulescope.pipeline.scope import Named, Scope
from joulescope.pipeline.watched import Watched, cut, measures
from joulescope.sampling.meter import WINDOW_NS, Meter
from joulescope.units import joules_from_uj, seconds_from_ns

_logger = logging.getLogger(__name__)

NOT_FROM_HOOKS = (wire.Gpu, wire.Sample, wire.GpuStatus, wire.HostDomain, wire.HostSample)
"""What is not recorded as it comes: a replay takes it for the sidecar's own. Of what samplers inside engines
send, that which was believed is recorded as readings of the GPU; no other connection should send any."""


class Pipeline:
    """Wires sessions, meters and the accountant.

    Args:
        policy: who pays, and how long to wait.
        scope: which GPUs are measured.
        window_ns: least length of the intervals that are divided.
        wall: anchor from monotonic to wall time.
        calibration: factor by GPU; by default what each :class:`~joulescope.model.GpuInfo` says.
        recorder: everything that comes in is also written there; an error of it ends the recording and
            nothing else.
        make_model: see :class:`joulescope.attribution.accountant.Accountant`.
        efficiencies: compares what work costs with what it used to cost; without, nothing is compared.
        minutes: what engines did is summed up minute by minute, and must be drained.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        scope: Scope | None = None,
        *,
        window_ns: int = WINDOW_NS,
        wall: WallAnchor | None = None,
        calibration: Callable[[str], float] | None = None,
        recorder: TraceWriter | None = None,
        make_model: ModelMaker = CostModel,
        efficiencies: Efficiencies | None = None,
        minutes: bool = False,
    ) -> None:
        self.scope = scope or Scope()
        self.wall = wall or WallAnchor.now()
        self.recorder = recorder
        self.record_error: TraceError | None = None
        policy = replace(policy or Policy(), assume_all_gpus=self.scope.is_fixed)
        self.efficiencies = efficiencies
        self.accountant = Accountant(policy, make_model, efficiencies, minutes=minutes)
        self.accountant.set_wall_offset(self.wall.wall_ns - self.wall.monotonic_ns)
        self.sessions = Sessions(self.accountant)
        self.host = HostPipeline(self._record)
        self._instances = Instances()
        self._window_ns = window_ns
        self._calibration = calibration
        self.sources = GpuSources(self.sessions, self.scope.uuids)
        self._watched: dict[str, Watched] = {}
        self._named = Named(self.scope, self.sessions, self.sources, self._whole, self.begin_anew)
        self._read_failures: Mapping[str, int] = {}
        self._full: set[str] = set()
        self._start_wall_seconds = self.wall.wall_ns / 1e9

    # ------------------------------------------------------------------------------------------ engines

    def take(
        self, session: int, records: Sequence[wire.AnyRecord], now_ns: int | None = None, origin: str = ""
    ) -> Sequence[GpuReading]:
        """Records of one connection, in their order, which came at ``now_ns`` if that is known; from the node
        ``origin`` if not from this one.

        Gives the readings of GPUs among them that were believed.
        """
        if self.recorder is not None:
            for record in records:
                record.session = session
            self._record([record for record in records if not isinstance(record, NOT_FROM_HOOKS)])
        self.sessions.take(session, records, origin)
        believed = self.sources.judge(session, records, now_ns)
        self._read(believed)
        return believed

    def close_session(self, session: int, time_ns: int, reason: str) -> None:
        self._record([wire.Bye(session=session, time_ns=time_ns, reason=reason)])
        self.sessions.close(session, time_ns, reason)
        self.sources.forget(session)

    # --------------------------------------------------------------------------------------------- GPUs

    def gpus_found(self, gpus: Iterable[GpuInfo]) -> None:
        """The sensor can read these from now on."""
        gpus = list(gpus)
        self.sources.own_opened(gpus)
        for info in gpus:
            watched = self._watched.get(info.gpu)
            if watched is not None and self.sources.measured_by_own(info.gpu):
                self._describe(watched, info)
            elif info.parent in self._watched and self._has_room(info.gpu):
                self._watch(info.gpu)

    def sensor_down(self) -> None:
        """No GPU can be read by the own sensor until the next :meth:`gpus_found`."""
        self.sources.own_closed()

    def read(self, readings: Iterable[GpuReading], read_failures: Mapping[str, int] | None = None) -> None:
        """A batch of the own sensor's readings."""
        self._read_failures = self._read_failures if read_failures is None else read_failures
        self._read(self.sources.admit_own(readings))

    def _read(self, readings: Sequence[GpuReading]) -> None:
        """Readings that are believed; those of GPUs that are none of our business are forgotten at once."""
        if readings:
            self._named.note(readings[-1].time_ns)
        kept = [
            reading
            for reading in readings
            if self._named.is_in_scope(reading.gpu, reading.time_ns) and self._has_room(reading.gpu)
        ]
        for reading in kept:
            watched = self._watched.get(reading.gpu) or self._watch(reading.gpu)
            told = self.sources.info(reading.gpu)
            if told is not None and told is not watched.told:
                self._describe(watched, told)
            self._take_status(watched, reading.status)
            watched.reading = reading
            intervals = watched.meter.add(reading)
            self._account(self._instances.take(reading.gpu, reading.time_ns, intervals))
            if self.recorder is not None:  # at once: a status holds from its own sample on
                self._record([sample_record(reading)])

    def _account(self, intervals: Iterable[EnergyInterval]) -> None:
        for interval in intervals:
            self.accountant.interval(interval)

    def breaks(self, gpu: str) -> tuple[int, int]:
        """How often the meter of a GPU fell, and showed what cannot be; of one that is not measured never."""
        watched = self._watched.get(gpu)
        return (0, 0) if watched is None else watched.breaks

    def _take_status(self, watched: Watched, status: GpuStatus | None) -> None:
        """Records what was read anew; a power limit that was changed holds from now on."""
        if status is None or status is watched.status:
            return
        watched.status = status
        self.accountant.status(status)
        self._account(self._instances.status(status))
        if self.recorder is not None:
            self._record([status_record(status)])
        limit_watts = status.power_limit_watts
        if limit_watts is not None and limit_watts != watched.info.power_limit_watts:
            watched.info = replace(watched.info, power_limit_watts=limit_watts)
            watched.meter.set_limit(limit_watts)
            self.accountant.gpu_found(watched.info)

    def _whole(self, uuid: str) -> str:
        """The GPU that a MIG instance is, or while no sensor is open was, a part of."""
        whole = self.sources.whole(uuid)
        if whole != uuid:
            return whole
        return next((gpu for gpu, each in self._watched.items() if uuid in each.info.instances), uuid)

    def _watch(self, gpu: str) -> Watched:
        told = self.sources.info(gpu)
        info = self._calibrated(told or GpuInfo(gpu))
        watched = self._watched[gpu] = Watched(info, Meter(info, self._window_ns), told)
        self.accountant.gpu_found(info)
        if self.recorder is not None:
            self._record([gpu_record(info)])
        self._account(self._instances.found(info))
        for part in self.sources.parts(gpu):
            if part not in self._watched and self._has_room(part):
                self._watch(part)
        return watched

    def _has_room(self, gpu: str) -> bool:
        """Whether this GPU may have an account: too many instances of one, one after the other, get none."""
        info = self.sources.info(gpu)
        if gpu in self._watched or info is None or not info.parent or self._instances.may_join(info):
            return True
        if info.parent not in self._full:
            self._full.add(info.parent)
            _logger.warning(
                "GPU %s was cut into more than %d MIG instances since the start; its joules are not split "
                "while there are new ones; restart to begin anew", info.parent, MAX_INSTANCES,
            )  # fmt: skip
        return False

    def begin_anew(self, gpu: str) -> None:
        """Stops measuring; what comes later, if anything, starts with a fresh meter.

        The trace says so by the GPU's record, once more.
        """
        self._named.forget(gpu)
        watched = self._watched.get(gpu)
        if watched is not None:
            self._renew(watched)
            self._account(self._instances.restart(gpu))
            watched.reading = None
            self._record([gpu_record(watched.info)])

    def _describe(self, watched: Watched, told: GpuInfo) -> None:
        """Brings up to date what is known of a GPU; one that now measures otherwise gets a new meter.

        Another source alone is no reason for one: all clients of a driver see the same counter.
        """
        info = self._calibrated(told)
        before, watched.info, watched.told = watched.info, info, told
        self.accountant.gpu_found(info)
        if measures(before) != measures(info):
            self._renew(watched)
        if info.power_limit_watts is not None:  # else the last one goes on to bound what is believed
            watched.meter.set_limit(info.power_limit_watts)
        if gpu_record(before) != gpu_record(info):
            self._record([gpu_record(info)])
        if (measures(before), cut(before)) != (measures(info), cut(info)):
            self._account(self._instances.found(info))

    def _renew(self, watched: Watched) -> None:
        last = watched.meter.flush()
        if last:
            self._account(self._instances.take(watched.info.gpu, last[-1].end_ns, last))
        watched.past.update(resets=watched.meter.resets, rejected=watched.meter.rejected)
        watched.meter = Meter(watched.info, self._window_ns, watched.meter)

    def _calibrated(self, info: GpuInfo) -> GpuInfo:
        whole = info.parent or info.gpu
        factor = info.calibration_factor if self._calibration is None else self._calibration(whole)
        return replace(info, calibration_factor=factor)

    # ------------------------------------------------------------------------------------------ results

    def settle(self, now_ns: int) -> None:
        """Accounts for what is known by now."""
        self._named.note(now_ns)
        self.accountant.settle(now_ns)

    def finish(self, now_ns: int, reason: str = "closed") -> None:
        """Accounts for everything that came in, waiting for nothing. Nothing may come in afterwards."""
        for gpu, watched in self._watched.items():
            self._account(self._instances.take(gpu, 0, watched.meter.flush()))
        self._account(self._instances.flush())
        self.accountant.close(now_ns, reason)
        recorder, self.recorder = self.recorder, None
        try:
            if recorder is not None:
                recorder.close()
        except TraceError as error:
            self._stop_recording(error)

    def drain_finished(self) -> list[FinishedRequest]:
        return self.accountant.drain_finished()

    def drain_minutes(self) -> list[EngineMinute]:
        """Minutes of engines to whose ends everything is accounted, since the last call."""
        return self.accountant.drain_minutes()

    def open_minutes(self, now_ns: int) -> list[EngineMinute]:
        """Minutes that are not closed, as far as they are accounted; each comes once more when it is."""
        return [] if self.accountant.minutes is None else self.accountant.minutes.peek(now_ns)

    @property
    def late_minutes(self) -> int:
        """Minutes to which something came after they were closed."""
        return 0 if self.accountant.minutes is None else self.accountant.minutes.late

    def open_requests(self) -> OpenRequests:
        """Requests whose accounts are open; the view does not change afterwards."""
        return self.accountant.open_requests()

    def snapshot(
        self,
        now_ns: int,
        *,
        rejected: Mapping[str, int] | None = None,
        exported: Mapping[tuple[str, str], int] | None = None,
        sampler: SamplerStatistics | None = None,
    ) -> Snapshot:
        """Everything that exporters may show, as of now."""
        gpus = tuple(self._gpu_totals(watched, now_ns) for watched in self._watched.values())
        accounted = [gpu.accounted_until_ns for gpu in gpus if gpu.up and gpu.accounted_until_ns]
        return Snapshot(
            time_ns=now_ns,
            wall_seconds=self.wall.wall_of(now_ns) / 1e9,
            gpus=gpus,
            engines=self.accountant.engine_totals(),
            sidecar=SidecarTotals(
                start_wall_seconds=self._start_wall_seconds,
                sessions=self.sessions.open_count,
                records=dict(self.sessions.records),
                rejected_records=self._rejected(rejected or {}),
                attribution_lag_seconds=seconds_from_ns(now_ns - min(accounted)) if accounted else None,
                exported=dict(exported or {}),
                sampler=sampler,
            ),
            host=self.host.totals(now_ns, self.sessions.engine_sessions()),
        )

    def open_joules(self, engine: EngineTotals) -> float:
        """Attributed to requests of this engine that have not finished."""
        return joules_from_uj(self.accountant.open_uj(engine.info.engine))

    def _rejected(self, elsewhere: Mapping[str, int]) -> dict[str, int]:
        total = Counter(self.sessions.rejected)
        total.update(elsewhere)
        total.update(self.sources.rejected)
        total["late_interval"] += self.accountant.late_intervals
        for tally in self.accountant.tallies.values():
            total.update(tally.ignored)
        return {reason: count for reason, count in total.items() if count}

    def _gpu_totals(self, watched: Watched, now_ns: int) -> GpuTotals:
        gpu = watched.info.gpu
        return replace(
            watched.totals(
                self.accountant.gpu_state(gpu), now_ns, readable=self.sources.info(gpu) is not None
            ),
            read_failures=self._read_failures.get(gpu, 0),
            whole_joules=self._whole_joules(gpu),
        )

    def _whole_joules(self, gpu: str) -> float | None:
        parts = self._instances.of(gpu)
        accounts = [self.accountant.gpu_state(each).account for each in (gpu, *parts)]
        return joules_from_uj(sum(account.measured_uj for account in accounts)) if parts else None

    def flush_recording(self) -> None:
        """Puts what was recorded so far on disk, so that little is lost if the process is killed."""
        try:
            if self.recorder is not None:
                self.recorder.flush()
        except TraceError as error:
            self._stop_recording(error)

    def _stop_recording(self, error: TraceError) -> None:
        self.record_error, self.recorder = error, None

    def _record(self, records: Sequence[wire.AnyRecord]) -> None:
        if self.recorder is None:
            return
        try:
            self.recorder.write(list(records))
        except TraceError as error:
            self._stop_recording(error)

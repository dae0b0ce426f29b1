"""Records and readings in, finished requests and snapshots out.

``serve``, ``demo``, ``record`` and ``replay`` all run this same object; they differ only in where the
records come from. Single-threaded: whoever feeds it also reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from joulescope.attribution.accountant import Accountant
from joulescope.attribution.cost import CostModel, ModelMaker
from joulescope.attribution.policy import Policy
from joulescope.clock import WallAnchor
from joulescope.errors import TraceError
from joulescope.gpu_records import gpu_record, sample_record, status_record
from joulescope.hook import wire
from joulescope.host_pipeline import HostPipeline
from joulescope.ingest.sessions import Sessions
from joulescope.ingest.trace import TraceWriter
from joulescope.model import (
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
from joulescope.sampling.meter import WINDOW_NS, Meter, calibrated
from joulescope.units import NANOSECONDS_PER_SECOND, joules_from_uj, seconds_from_ns

FRESH_NS = 2 * NANOSECONDS_PER_SECOND
"""A reading older than this is not shown any more: stale is not fresh."""

NOT_FROM_HOOKS = (wire.Gpu, wire.Sample, wire.GpuStatus, wire.HostDomain, wire.HostSample)
"""What a connection has no business to send: recorded, a replay would take it for the sidecar's own."""

NAMED_NS = 60 * NANOSECONDS_PER_SECOND
"""A GPU is still measured this long after its engine went, so that a restart is seen whole; not
longer, since the next user of the GPU may be a stranger."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which GPUs are measured: all, these, or (``None``) those that engines name."""

    all_gpus: bool = False
    uuids: Collection[str] | None = None


@dataclass
class _Watched:
    """What the pipeline keeps about one GPU beside its account."""

    info: GpuInfo
    meter: Meter
    reading: GpuReading | None = None
    status: GpuStatus | None = None
    past: Counter[str] = field(default_factory=Counter)
    """Resets and rejections of meters that were given up."""

    @property
    def breaks(self) -> tuple[int, int]:
        """Resets and rejections of all its meters."""
        return self.meter.resets + self.past["resets"], self.meter.rejected + self.past["rejected"]


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
    ) -> None:
        self.scope = scope or Scope()
        self.wall = wall or WallAnchor.now()
        self.recorder = recorder
        self.record_error: TraceError | None = None
        named = self.scope.all_gpus or self.scope.uuids is not None
        self.accountant = Accountant(replace(policy or Policy(), assume_all_gpus=named), make_model)
        self.accountant.wall_offset_ns = self.wall.wall_ns - self.wall.monotonic_ns
        self.sessions = Sessions(self.accountant)
        self.host = HostPipeline(self._record)
        self._window_ns = window_ns
        self._calibration = calibration
        self._found: dict[str, GpuInfo] = {}
        self._watched: dict[str, _Watched] = {}
        self._named_ns: dict[str, int] = {}
        self._read_failures: Mapping[str, int] = {}
        self._start_wall_seconds = self.wall.wall_ns / 1e9

    # ------------------------------------------------------------------------------------------ engines

    def take(self, session: int, records: Sequence[wire.AnyRecord]) -> None:
        """Records of one connection, in their order."""
        if self.recorder is not None:
            for record in records:
                record.session = session
            self._record([record for record in records if not isinstance(record, NOT_FROM_HOOKS)])
        self.sessions.take(session, records)

    def close_session(self, session: int, time_ns: int, reason: str) -> None:
        self._record([wire.Bye(session=session, time_ns=time_ns, reason=reason)])
        self.sessions.close(session, time_ns, reason)

    # --------------------------------------------------------------------------------------------- GPUs

    def gpus_found(self, gpus: Iterable[GpuInfo]) -> None:
        """The sensor can read these from now on."""
        for found in gpus:
            info = self._found[found.gpu] = self._calibrated(found)
            watched = self._watched.get(info.gpu)
            if watched is not None:
                self._describe(watched, info)

    def sensor_down(self) -> None:
        """No GPU can be read until the next :meth:`gpus_found`."""
        self._found.clear()

    def read(self, readings: Iterable[GpuReading], read_failures: Mapping[str, int] | None = None) -> None:
        """A batch of readings; those of GPUs that are none of our business are forgotten at once."""
        self._read_failures = self._read_failures if read_failures is None else read_failures
        readings = list(readings)
        if readings:
            self._note_named(readings[-1].time_ns)
        kept = [reading for reading in readings if self._in_scope(reading.gpu, reading.time_ns)]
        for reading in kept:
            watched = self._watched.get(reading.gpu) or self._watch(reading.gpu)
            self._take_status(watched, reading.status)
            watched.reading = reading
            for interval in watched.meter.add(reading):
                self.accountant.interval(interval)
        if kept and self.recorder is not None:
            self._record([sample_record(reading) for reading in kept])

    def breaks(self, gpu: str) -> tuple[int, int]:
        """How often the meter of a GPU fell, and showed what cannot be; of one that is not measured never."""
        watched = self._watched.get(gpu)
        return (0, 0) if watched is None else watched.breaks

    def _take_status(self, watched: _Watched, status: GpuStatus | None) -> None:
        """Records what was read anew; a power limit that was changed holds from now on."""
        if status is None or status is watched.status:
            return
        watched.status = status
        if self.recorder is not None:
            self._record([status_record(status)])
        limit_watts = status.power_limit_watts
        if limit_watts is not None and limit_watts != watched.info.power_limit_watts:
            watched.info = replace(watched.info, power_limit_watts=limit_watts)
            watched.meter.set_limit(limit_watts)
            self.accountant.gpu_found(watched.info)

    def _note_named(self, now_ns: int) -> None:
        """Remembers which GPUs connected engines and workers name, and when they last did."""
        if not self.scope.all_gpus and self.scope.uuids is None:
            for gpu in self.sessions.engine_gpus():
                self._named_ns[self._whole(gpu)] = now_ns

    def _whole(self, uuid: str) -> str:
        """The GPU that a MIG instance is a part of: the driver measures whole GPUs only."""
        wholes = (info.gpu for info in self._found.values() if uuid in info.instances)
        return next(wholes, uuid)

    def _in_scope(self, gpu: str, time_ns: int) -> bool:
        if self.scope.uuids is not None:
            return gpu in {self._whole(uuid) for uuid in self.scope.uuids}
        if self.scope.all_gpus:
            return True
        named_ns = self._named_ns.get(gpu)
        if named_ns is None:
            return False
        if time_ns - named_ns > NAMED_NS:
            self._unwatch(gpu)
            return False
        return True

    def _watch(self, gpu: str) -> _Watched:
        info = self._found.get(gpu) or self._calibrated(GpuInfo(gpu))
        watched = self._watched[gpu] = _Watched(info, Meter(info, self._window_ns))
        self.accountant.gpu_found(info)
        if self.recorder is not None:
            self._record([gpu_record(info)])
        return watched

    def _unwatch(self, gpu: str) -> None:
        """Stops measuring; what comes later, if anything, starts with a fresh meter."""
        self._named_ns.pop(gpu, None)
        watched = self._watched.get(gpu)
        if watched is not None:
            self._renew(watched)
            watched.reading = None

    def _describe(self, watched: _Watched, info: GpuInfo) -> None:
        """Brings up to date what is known of a GPU; one that now measures otherwise gets a new meter."""
        before, watched.info = watched.info, info
        self.accountant.gpu_found(info)
        old, new = ((each.energy_source, each.calibration_factor) for each in (before, info))
        if old != new:
            self._renew(watched)
            self._record([gpu_record(info)])

    def _renew(self, watched: _Watched) -> None:
        for interval in watched.meter.flush():
            self.accountant.interval(interval)
        watched.past.update(resets=watched.meter.resets, rejected=watched.meter.rejected)
        watched.meter = Meter(watched.info, self._window_ns, watched.meter.comparison)

    def _calibrated(self, info: GpuInfo) -> GpuInfo:
        factor = info.calibration_factor if self._calibration is None else self._calibration(info.gpu)
        return replace(info, calibration_factor=factor)

    # ------------------------------------------------------------------------------------------ results

    def settle(self, now_ns: int) -> None:
        """Accounts for what is known by now."""
        self.accountant.settle(now_ns)

    def finish(self, now_ns: int, reason: str = "closed") -> None:
        """Accounts for everything that came in, waiting for nothing. Nothing may come in afterwards."""
        for watched in self._watched.values():
            for interval in watched.meter.flush():
                self.accountant.interval(interval)
        self.accountant.close(now_ns, reason)
        recorder, self.recorder = self.recorder, None
        try:
            if recorder is not None:
                recorder.close()
        except TraceError as error:
            self._stop_recording(error)

    def drain_finished(self) -> list[FinishedRequest]:
        return self.accountant.drain_finished()

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
        total["late_interval"] += self.accountant.late_intervals
        for tally in self.accountant.tallies.values():
            total.update(tally.ignored)
        return {reason: count for reason, count in total.items() if count}

    def _gpu_totals(self, watched: _Watched, now_ns: int) -> GpuTotals:
        state = self.accountant.gpu_state(watched.info.gpu)
        account, reading, gpu = state.account, watched.reading, watched.info.gpu
        fresh = reading is not None and now_ns - reading.time_ns <= FRESH_NS
        return GpuTotals(
            info=replace(watched.info, energy_source=watched.meter.source),
            measured_joules=joules_from_uj(account.measured_uj),
            attributed_joules=joules_from_uj(account.attributed_uj),
            idle_joules=joules_from_uj(account.idle_uj),
            overhead_joules={key: joules_from_uj(uj) for key, uj in account.overhead_uj.items()},
            unattributed_joules={key: joules_from_uj(uj) for key, uj in account.unattributed_uj.items()},
            residual_joules=joules_from_uj(account.residual_uj),
            intervals=account.intervals,
            counter_resets=watched.breaks[0],
            rejected_intervals=watched.breaks[1],
            read_failures=self._read_failures.get(gpu, 0),
            up=fresh and gpu in self._found,
            reading=calibrated(reading, watched.info.calibration_factor) if fresh and reading else None,
            accounted_until_ns=state.settled_ns or None,
            comparison=watched.meter.comparison.totals(),
            counter_tick_seconds=watched.meter.tick_seconds,
        )

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

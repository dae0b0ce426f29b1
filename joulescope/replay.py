"""Runs a trace through the live path's own pipeline, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from joulescope.attribution.cost import CostModel, ModelMaker
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.policy import Policy
from joulescope.clock import WallAnchor
from joulescope.gpu_records import gpu_info, gpu_reading, gpu_status
from joulescope.hook import wire
from joulescope.host_records import host_domain, host_reading
from joulescope.minute_model import EngineMinute
from joulescope.model import FinishedRequest, GpuInfo, GpuStatus, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.sampling.meter import WINDOW_NS
from joulescope.units import NANOSECONDS_PER_SECOND

_SETTLE_EVERY_NS = NANOSECONDS_PER_SECOND // 4
_EVERYTHING = Scope(all_gpus=True)


@dataclass
class Replay:
    """A trace on its way through the pipeline.

    Iterating hands out finished requests as their accounts close; afterwards :attr:`snapshot` holds the
    final totals. The trace's own GPUs are all measured, and an engine that names none has all.
    """

    records: Iterable[wire.AnyRecord]
    policy: Policy = field(default_factory=Policy)
    window_ns: int = WINDOW_NS
    scope: Scope = _EVERYTHING
    make_model: ModelMaker = CostModel
    calibration: Callable[[str], float] | None = None
    """Factor by GPU, in place of those that the trace gives."""
    efficiencies: Efficiencies | None = None
    on_minute: Callable[[EngineMinute], None] | None = None
    """Called with each minute of an engine when it is closed; without, none are made."""
    on_progress: Callable[[int], None] | None = None
    """Called now and then with the number of records read."""
    request_steps: int = 0
    record_count: int = 0
    snapshot: Snapshot | None = None
    open_requests: int = 0
    wall: WallAnchor | None = None
    _statuses: dict[str, GpuStatus] = field(default_factory=dict, init=False)
    _infos: dict[str, GpuInfo] = field(default_factory=dict, init=False)

    def __iter__(self) -> Iterator[FinishedRequest]:
        iterator = iter(self.records)
        first = next(iterator, None)
        self.wall = _anchor(first)
        pipeline = Pipeline(
            self.policy,
            self.scope,
            window_ns=self.window_ns,
            wall=self.wall,
            calibration=self.calibration,
            make_model=self.make_model,
            efficiencies=self.efficiencies,
            minutes=self.on_minute is not None,
        )
        now_ns = settled_ns = 0
        if first is not None:
            now_ns = settled_ns = self.feed(pipeline, first)
        for record in iterator:
            time_ns = self.feed(pipeline, record)
            now_ns = max(now_ns, time_ns)
            if now_ns - settled_ns >= _SETTLE_EVERY_NS:
                settled_ns = now_ns
                pipeline.settle(now_ns)
                self._hand_out_minutes(pipeline)
                yield from pipeline.drain_finished()
                if self.on_progress is not None:
                    self.on_progress(self.record_count)
        pipeline.finish(now_ns)
        self._hand_out_minutes(pipeline)
        yield from pipeline.drain_finished()
        self.snapshot = pipeline.snapshot(now_ns)
        self.open_requests = sum(engine.requests_open for engine in self.snapshot.engines)

    def _hand_out_minutes(self, pipeline: Pipeline) -> None:
        if self.on_minute is not None:
            for minute in pipeline.drain_minutes():
                self.on_minute(minute)

    def feed(self, pipeline: Pipeline, record: wire.AnyRecord) -> int:
        """Gives one record to the pipeline and returns the instant that it speaks of, or 0."""
        self.record_count += 1
        if isinstance(record, wire.Step):
            self.request_steps += len(record.request)
            pipeline.take(record.session, (record,))
            return record.output_end_ns
        if isinstance(record, wire.Sample):
            pipeline.read((gpu_reading(record, self._statuses.get(record.gpu)),))
            return record.time_ns
        if isinstance(record, wire.GpuStatus):
            self._take_status(gpu_status(record))
            return 0
        if isinstance(record, wire.Gpu):
            self._found(pipeline, gpu_info(record))
            return 0
        if isinstance(record, wire.HostSample):
            pipeline.host.read(host_reading(record))
            return record.time_ns
        if isinstance(record, wire.HostDomain):
            pipeline.host.add_found(host_domain(record))
            return 0
        if isinstance(record, wire.TraceHeader):
            return 0
        pipeline.take(record.session, (record,))
        return _time_of(record)

    def _take_status(self, status: GpuStatus) -> None:
        """What comes with the next sample; a changed limit belongs to what is known of the GPU."""
        self._statuses[status.gpu] = status
        info = self._infos.get(status.gpu)
        if info is not None and status.power_limit_watts is not None:
            self._infos[status.gpu] = replace(info, power_limit_watts=status.power_limit_watts)

    def _found(self, pipeline: Pipeline, info: GpuInfo) -> None:
        """A GPU is there, is another than before, or, told of once more, was not measured for a while."""
        if self._infos.get(info.gpu) == info:
            pipeline.begin_anew(info.gpu)
        self._infos[info.gpu] = info
        pipeline.gpus_found((info,))


def _time_of(record: wire.AnyRecord) -> int:
    if isinstance(record, (wire.Gap, wire.Overhead)):
        return record.end_ns
    return 0 if isinstance(record, (wire.Step, wire.Gpu, wire.HostDomain)) else record.time_ns


def _anchor(first: wire.AnyRecord | None) -> WallAnchor:
    if isinstance(first, wire.TraceHeader):
        return WallAnchor(monotonic_ns=first.time_ns, wall_ns=first.wall_ns)
    return WallAnchor(0, 0)

"""One session per connection: keeps who said hello, and passes on what makes sense.

The same code serves live connections and traces, where ``session`` numbers tell connections apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from joulescope.hook import wire
from joulescope.ingest.convert import engine_info, request_ended, request_started, step_done
from joulescope.ingest.events import EngineEvents
from joulescope.model import EngineInfo

FROM_SAMPLERS = (wire.Gpu, wire.Sample, wire.GpuStatus)
"""What samplers send, beside hello and bye; it is for :mod:`joulescope.pipeline.gpu_sources` to judge."""


@dataclass
class _Session:
    """State of one connection."""

    info: EngineInfo | None = None
    own_gpus: tuple[str, ...] = ()
    """Those that the engine itself named; its workers name theirs."""
    worker: wire.WorkerFacts | None = None
    can_start_sampler: bool = False
    """Of a worker."""
    sampler: wire.SamplerFacts | None = None
    origin: str = ""
    """The node whose relay sent it; empty for this one."""
    refused: bool = False
    latest_ns: int = 0
    last_output_ns: int = 0
    last_step: int | None = None

    @property
    def empty(self) -> bool:
        """Whether nobody has said hello yet."""
        return self.info is None and self.worker is None and self.sampler is None


class Sessions:
    """All sessions of this sidecar or of one trace.

    Records that make no sense (before a hello, columns of unequal length, time running backwards) are
    counted in ``rejected`` by reason and otherwise ignored; ``records`` counts all, by type.
    """

    def __init__(self, events: EngineEvents) -> None:
        self.rejected: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self._events = events
        self._sessions: dict[int, _Session] = {}

    @property
    def open_count(self) -> int:
        return len(self._sessions)

    def engine_gpus(self) -> frozenset[str]:
        """The GPUs that connected engines and workers have named."""
        named: set[str] = set()
        for session in self._sessions.values():
            if session.info is not None:
                named.update(session.info.gpus)
            if session.worker is not None and session.worker.gpu:
                named.add(session.worker.gpu)
        return frozenset(named)

    def remote_gpus(self) -> frozenset[str]:
        """The GPUs that workers on other nodes name, and nobody here."""
        return self._named_at(remote=True) - self._named_at(remote=False)

    def _named_at(self, *, remote: bool) -> frozenset[str]:
        workers = (each.worker for each in self._sessions.values() if bool(each.origin) == remote)
        return frozenset(worker.gpu for worker in workers if worker is not None and worker.gpu)

    def origin(self, number: int) -> str:
        """The node whose relay sent this session; empty for this one."""
        session = self._sessions.get(number)
        return "" if session is None else session.origin

    def gpus_afar(self, number: int) -> frozenset[str]:
        """What a sampler of another node may speak of: GPUs that workers of the same node and of an engine
        connected here name, and nobody elsewhere."""
        session = self._sessions[number]
        facts = session.sampler
        if facts is None or not any(
            each.info is not None and _joined(facts, each.info) for each in self._sessions.values()
        ):
            return frozenset()
        own: set[str] = set()
        others: set[str] = set()
        for each in self._sessions.values():
            if each.worker is not None:
                (own if each.origin == session.origin and _joined(facts, each.worker) else others).add(
                    each.worker.gpu
                )
            others.update(each.own_gpus)
        return frozenset(own - others - {""})

    def gpus_beside(self, sampler: wire.SamplerFacts) -> frozenset[str]:
        """What the engines and workers of a sampler's instance name: all that it may speak of."""
        named: set[str] = set()
        for session in self._sessions.values():
            if session.info is not None and session.info.instance_id == sampler.instance_id:
                named.update(session.info.gpus)
            if session.worker is not None and session.worker.instance_id == sampler.instance_id:
                named.add(session.worker.gpu)
        return frozenset(named - {""})

    def sampler(self, number: int) -> wire.SamplerFacts | None:
        """Whose GPUs the sampler at this session reads; ``None`` if it is none."""
        session = self._sessions.get(number)
        return None if session is None else session.sampler

    def samplers(self) -> dict[int, wire.SamplerFacts]:
        """The samplers connected to this node's socket, by session, those first that came first."""
        return {
            number: session.sampler
            for number, session in self._sessions.items()
            if session.sampler is not None and not session.origin
        }

    def workers(self) -> dict[int, wire.WorkerFacts]:
        """The connected workers, by session."""
        return {
            number: session.worker for number, session in self._sessions.items() if session.worker is not None
        }

    def can_start_samplers(self) -> dict[int, EngineInfo]:
        """The connected engines that would start a sampler if they were asked to, by session."""
        return {
            number: session.info
            for number, session in self._sessions.items()
            if session.info is not None and wire.SAMPLER in session.info.capabilities
        }

    def workers_that_start_samplers(self) -> dict[int, wire.WorkerFacts]:
        """The workers that would start a sampler if they were asked to, the first of each node first."""
        found = {
            number: session.worker
            for number, session in self._sessions.items()
            if session.worker is not None and session.can_start_sampler and not session.origin
        }
        return dict(sorted(found.items(), key=lambda each: each[1].local_rank))

    def engine_sessions(self) -> dict[str, list[int]]:
        """The sessions of each connected engine, its own first and then its workers'."""
        found: dict[str, list[int]] = {}
        labels: dict[tuple[str, int], str] = {}
        for number, session in self._sessions.items():
            if session.info is not None:
                found[session.info.engine] = [number]
                labels[session.info.instance_id, session.info.data_parallel_index] = session.info.engine
        for number, session in self._sessions.items():
            worker = session.worker
            if worker is not None and not session.origin:  # of another node no CPU time is known here
                engine = labels.get((worker.instance_id, worker.data_parallel_index))
                if engine is not None and number not in found[engine]:
                    found[engine].append(number)
        return found

    def take(self, number: int, records: Iterable[wire.AnyRecord], origin: str = "") -> None:
        """Handles the records of one session, in their order; ``origin`` is the other node that it is of."""
        session = self._sessions.get(number)
        if session is None:
            session = self._sessions[number] = _Session(origin=origin)
        for record in records:
            self.records[_type_name(record)] += 1
            if isinstance(record, wire.Step):
                self._step(session, record)
            elif isinstance(record, wire.Hello):
                self._hello(session, record)
            elif isinstance(record, wire.Bye):
                self.close(number, record.time_ns, record.reason)
            else:
                self._other(session, record)

    def close(self, number: int, time_ns: int, reason: str) -> None:
        """The connection ended; what it left open is closed."""
        session = self._sessions.pop(number, None)
        if session is None:
            return
        time_ns = max(time_ns, session.latest_ns)
        if session.info is not None:
            self._events.engine_down(session.info.engine, time_ns, reason)
        if session.worker is not None and session.worker.gpu:
            self._events.worker_down(session.worker.gpu, time_ns)

    def close_all(self, time_ns: int, reason: str) -> None:
        for number in list(self._sessions):
            self.close(number, time_ns, reason)

    # ------------------------------------------------------------------------------- one record each

    def _hello(self, session: _Session, hello: wire.Hello) -> None:
        if hello.protocol > wire.PROTOCOL:
            session.refused = True
            self.rejected["newer_protocol"] += 1
        elif session.sampler is not None:
            self.rejected["repeated_hello"] += 1
        elif session.origin and hello.engine is not None:
            session.refused = True
            self.rejected["remote_engine"] += 1
        elif hello.engine is not None and session.info is None:
            self._engine_hello(session, hello, hello.engine)
        elif hello.worker is not None and session.worker is None:
            session.worker = hello.worker
            session.can_start_sampler = wire.SAMPLER in hello.capabilities
            if hello.worker.gpu:
                self._events.worker_up(hello.worker.gpu, hello.time_ns)
            self._join_worker(hello.worker)
        elif hello.sampler is not None and session.empty:
            session.sampler = hello.sampler
        else:
            told = hello.engine or hello.worker or hello.sampler
            self.rejected["repeated_hello" if told else "empty_hello"] += 1
        session.latest_ns = max(session.latest_ns, hello.time_ns)

    def _engine_hello(self, session: _Session, hello: wire.Hello, facts: wire.EngineFacts) -> None:
        info = engine_info(self._label(facts), hello, facts)
        session.own_gpus = info.gpus
        session.info = replace(info, gpus=self._gpus_of(session, info))
        self._events.engine_up(session.info, hello.time_ns)

    def _label(self, facts: wire.EngineFacts) -> str:
        """Stable over restarts, unique among the engines that are connected."""
        name = (facts.name or facts.served_model or facts.model or "engine").rstrip("/").rsplit("/", 1)[-1]
        base = f"{name[:64]}-{facts.data_parallel_index}"
        taken = {session.info.engine for session in self._sessions.values() if session.info is not None}
        label, number = base, 1
        while label in taken:
            number += 1
            label = f"{base}#{number}"
        return label

    def _gpus_of(self, session: _Session, info: EngineInfo) -> tuple[str, ...]:
        workers = [
            other.worker
            for other in self._sessions.values()
            if other.worker is not None and other.worker.gpu and _belongs(other.worker, info)
        ]
        ranked = [worker.gpu for worker in sorted(workers, key=lambda worker: worker.rank)]
        return tuple(dict.fromkeys((*session.own_gpus, *ranked)))

    def _join_worker(self, worker: wire.WorkerFacts) -> None:
        for session in self._sessions.values():
            info = session.info
            if info is not None and worker.gpu and _belongs(worker, info):
                session.info = replace(info, gpus=self._gpus_of(session, info))
                self._events.engine_gpus(info.engine, session.info.gpus)

    def _step(self, session: _Session, record: wire.Step) -> None:
        if session.info is None:
            self.rejected["refused_session" if session.refused else "before_hello"] += 1
            return
        if session.last_step is not None and record.step <= session.last_step:
            self.rejected["repeated_step"] += 1
            return
        engine = session.info.engine
        step = step_done(engine, record)
        if step is None or record.output_start_ns < session.last_output_ns:
            self.rejected["malformed_step"] += 1
            if step is None and 0 < record.schedule_end_ns <= record.output_start_ns:
                self._events.gap(engine, record.schedule_end_ns, record.output_start_ns, "records_lost")
            return
        session.last_step = record.step
        session.last_output_ns = record.output_start_ns
        session.latest_ns = max(session.latest_ns, record.output_end_ns)
        self._events.step_done(step)

    def _other(self, session: _Session, record: wire.AnyRecord) -> None:
        if session.sampler is not None:
            if not isinstance(record, FROM_SAMPLERS):
                self.rejected["unexpected_type"] += 1
            return
        if session.info is None:
            if session.worker is None:
                self.rejected["refused_session" if session.refused else "before_hello"] += 1
            elif not isinstance(record, wire.Progress):
                self.rejected["unexpected_type"] += 1
            return
        engine = session.info.engine
        if isinstance(record, wire.RequestStart):
            self._events.request_started(request_started(engine, record))
        elif isinstance(record, wire.RequestEnd):
            self._events.request_ended(request_ended(engine, record))
        elif isinstance(record, wire.Progress):
            session.latest_ns = max(session.latest_ns, record.time_ns)
            self._events.progress(engine, record.time_ns, record.pending_since_ns, record.dropped)
        elif isinstance(record, (wire.Gap, wire.Overhead)):
            self._stretch(engine, record)
        else:
            self.rejected["unexpected_type"] += 1

    def _stretch(self, engine: str, record: wire.Gap | wire.Overhead) -> None:
        if record.end_ns < record.start_ns:
            self.rejected["backward_time"] += 1
        elif isinstance(record, wire.Gap):
            self._events.gap(engine, record.start_ns, record.end_ns, "records_lost")
        else:
            self._events.overhead(engine, record.start_ns, record.end_ns, record.reason)


def _joined(facts: wire.SamplerFacts, other: wire.WorkerFacts | EngineInfo) -> bool:
    return (facts.instance_id, facts.data_parallel_index) == (other.instance_id, other.data_parallel_index)


def _type_name(record: wire.AnyRecord) -> str:
    return str(type(record).__struct_config__.tag)


def _belongs(worker: wire.WorkerFacts, info: EngineInfo) -> bool:
    return (worker.instance_id, worker.data_parallel_index) == (info.instance_id, info.data_parallel_index)

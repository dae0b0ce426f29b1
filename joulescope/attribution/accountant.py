"""Takes in what engines did and what GPUs drew, and settles the accounts between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from joulescope.attribution.charge import charge, hand_over
from joulescope.attribution.cost import CostModel, ModelMaker
from joulescope.attribution.division import divide
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.attribution.engine import FOREVER_NS, Engine
from joulescope.attribution.gpu import GpuState
from joulescope.attribution.minutes_book import MinuteBook
from joulescope.attribution.open_requests import OpenRequests
from joulescope.attribution.policy import Policy
from joulescope.attribution.prior import expectation_of
from joulescope.attribution.tally import EngineTally, Gauges
from joulescope.attribution.tasks import Undecided
from joulescope.minute_model import EngineMinute
from joulescope.model import (
    MIG_GPM,
    MIG_REST,
    EnergyInterval,
    EngineInfo,
    EngineTotals,
    FinishedRequest,
    GpuInfo,
    GpuStatus,
    RequestEnded,
    RequestStarted,
    StepDone,
)
from joulescope.units import NANOSECONDS_PER_SECOND

_NO_ENGINE_GRACE_NS = NANOSECONDS_PER_SECOND
"""An interval without an engine waits this long for a hello that is under way."""

_IDLE_AFTER_NS = 2 * NANOSECONDS_PER_SECOND
"""An engine that has finished all steps and started none for this long runs nothing."""


class Accountant:
    """State of the attribution. Not thread-safe: one thread feeds it and reads it.

    Feed order: records of one engine in their order; intervals of one GPU in time order. Nothing is
    decided before :meth:`settle` says what time it is. Another ``make_model`` serves to find out what a
    part of the cost model is worth (``benchmarks/ablations.py``). ``minutes``: whether they are kept.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        make_model: ModelMaker = CostModel,
        efficiencies: Efficiencies | None = None,
        *,
        minutes: bool = False,
    ) -> None:
        self.minutes = MinuteBook(self._gpus_of) if minutes else None
        self.policy = policy or Policy()
        self.efficiencies = efficiencies
        self._make_model = make_model
        self.late_intervals = 0
        self.wall_offset_ns = 0
        self._models: dict[str, CostModel] = {}
        self._gpus: dict[str, GpuState] = {}
        self._engines: list[Engine] = []
        self._tallies: dict[str, EngineTally] = {}
        self._finished: list[FinishedRequest] = []
        self._now_ns = 0

    def set_wall_offset(self, wall_offset_ns: int) -> None:
        """Wall time less monotonic time; to be told before anything comes in."""
        self.wall_offset_ns = wall_offset_ns
        if self.minutes is not None:
            self.minutes.set_wall_offset(wall_offset_ns)

    # --------------------------------------------------------------------------- what the GPUs drew

    def gpu_found(self, info: GpuInfo) -> None:
        """Makes a GPU known; later calls bring its description up to date."""
        state = self._gpus.get(info.gpu)
        if state is None:
            self._gpus[info.gpu] = GpuState(info)
        else:
            state.info = info
        self._expect()

    def interval(self, interval: EnergyInterval) -> None:
        """Measured joules of a known GPU; intervals that begin before the last one ended are refused."""
        gpu = self._gpus[interval.gpu]
        latest_ns = gpu.pending[-1].end_ns if gpu.pending else gpu.settled_ns
        if interval.start_ns < latest_ns or interval.end_ns <= interval.start_ns or interval.energy_uj < 0:
            self.late_intervals += 1
            return
        gpu.pending.append(interval)

    def status(self, status: GpuStatus) -> None:
        """What was read of a GPU beside its joules; it divides nothing."""
        if self.minutes is not None:
            self.minutes.status(status)

    def worker_up(self, gpu: str, time_ns: int) -> None:
        self.gpu_state(gpu).worker_up(time_ns)

    def worker_down(self, gpu: str, time_ns: int) -> None:
        self.gpu_state(gpu).worker_down(time_ns)

    def gpu_state(self, gpu: str) -> GpuState:
        if gpu not in self._gpus:
            self._gpus[gpu] = GpuState(GpuInfo(gpu))
        return self._gpus[gpu]

    # ------------------------------------------------------------------------- what the engines did

    def engine_up(self, info: EngineInfo, time_ns: int) -> None:
        former = self._former(info)
        if former is not None:
            former.revive(info, time_ns)
            former.tally.info = former.info
            return
        tally = self._tallies.get(info.engine)
        if tally is None:
            tally = EngineTally(info, wall_offset_ns=self.wall_offset_ns, rules=self.policy.labels)
            self._tallies[info.engine] = tally
        tally.info = info
        model = self._models[info.engine] = self._model_of(info)
        self._engines.append(Engine(info, time_ns, tally, model, self.policy.max_open_requests, self.minutes))
        self._expect()

    def _model_of(self, info: EngineInfo) -> CostModel:
        """What an engine of this label has taught already, if its model costs the same."""
        gpu_count = info.gpu_count
        known = self._models.get(info.engine)
        if known is not None and known.describes(info.cost, gpu_count):
            return known
        return self._make_model(info.cost, gpu_count, expectation_of("", None))

    def _expect(self) -> None:
        """Tells the models that have learned nothing yet what GPUs they are about, and who else has them."""
        if self.minutes is not None:
            self.minutes.renew()
        first_of: dict[tuple[str, ...], CostModel] = {}
        for engine in self._engines:
            gpus = self._gpus_of(engine)
            if not gpus:
                continue
            model, info, place = engine.model, gpus[0].info, tuple(gpu.info.gpu for gpu in gpus)
            if any(model.energy is other.energy for at, other in first_of.items() if at != place):
                model.part_energy()
            limit_watts = info.power_limit_watts and info.power_limit_watts * info.calibration_factor
            if not model.has_learned:
                model.expect(expectation_of(info.name, limit_watts, info.size_ratio))
            elif limit_watts:
                model.set_limit(limit_watts)
            model.share_energy(first_of.setdefault(place, model))

    def _former(self, info: EngineInfo) -> Engine | None:
        """The engine that this one is, back from a broken connection."""
        for engine in self._engines:
            same = (engine.info.instance_id, engine.info.data_parallel_index) == (
                info.instance_id,
                info.data_parallel_index,
            )
            if same and info.instance_id and engine.down_ns is not None:
                return engine
        return None

    def engine_gpus(self, engine: str, gpus: Sequence[str]) -> None:
        for found in self._live(engine):
            found.set_gpus(tuple(gpus))
        self._expect()

    def engine_down(self, engine: str, time_ns: int, reason: str) -> None:
        for found in self._live(engine):
            found.down(time_ns, reason)

    def request_started(self, request: RequestStarted) -> None:
        for found in self._live(request.engine):
            found.request_started(request)

    def step_done(self, step: StepDone) -> None:
        for found in self._live(step.engine):
            found.step_done(step)

    def request_ended(self, end: RequestEnded) -> None:
        for found in self._live(end.engine):
            found.request_ended(end)

    def overhead(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None:
        for found in self._live(engine):
            found.overheads.append((start_ns, end_ns, reason))

    def gap(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None:
        for found in self._live(engine):
            found.gap(start_ns, end_ns)

    def progress(self, engine: str, time_ns: int, pending_since_ns: int | None, dropped: int) -> None:
        for found in self._live(engine):
            found.progress(time_ns, pending_since_ns, dropped)

    def _live(self, label: str) -> Iterable[Engine]:
        return [engine for engine in self._engines if engine.info.engine == label and engine.down_ns is None]

    # --------------------------------------------------------------------------------------- settling

    def settle(self, now_ns: int) -> None:
        """Divides every interval about which all is known, or for which the wait is over."""
        self._now_ns = max(self._now_ns, now_ns)
        while (ripe := self._next_ripe()) is not None:
            self._settle_interval(ripe, ripe.pending.popleft())
        self._finish_requests()
        if self.minutes is not None:
            self.minutes.close(self._all_settled_ns(), self._engines)

    def close(self, now_ns: int, reason: str = "closed") -> None:
        """Settles all that is pending, without waiting for anybody. Open requests stay unfinished."""
        self._now_ns = max(self._now_ns, now_ns)
        for engine in self._engines:
            if engine.down_ns is None:
                engine.down(now_ns, reason)
                engine.give_up_awaited_steps()
            else:
                engine.abandon("engine_lost", engine.down_ns)
        while pending := self._by_end():
            self._settle_interval(pending[0], pending[0].pending.popleft())
        for engine in self._engines:
            self._finish_engine(engine, FOREVER_NS)
        if self.minutes is not None:
            self.minutes.close_all(self._now_ns, self._engines)

    def _by_end(self) -> list[GpuState]:
        """GPUs with intervals to divide, the one whose ends first at the head.

        What a step costs follows from the intervals before it, whichever GPU's they are.
        """
        pending = [gpu for gpu in self._gpus.values() if gpu.pending]
        return sorted(pending, key=lambda gpu: gpu.pending[0].end_ns)

    def _next_ripe(self) -> GpuState | None:
        return next((gpu for gpu in self._by_end() if self._is_ripe(gpu, gpu.pending[0])), None)

    def _drivers(self, gpu: GpuState, interval: EnergyInterval) -> list[Engine]:
        """The engines that may have used the GPU in the interval."""
        return [
            engine
            for engine in self._engines
            if self._drives(engine, gpu.info.gpu) and _alive_within(engine, interval)
        ]

    def _drives(self, engine: Engine, gpu: str) -> bool:
        """A GPU that is split among instances runs nothing itself: only who names it outright has it."""
        if engine.info.gpus or self._gpus[gpu].info.energy_split:
            return gpu in engine.info.gpus
        return self.policy.assume_all_gpus

    def _gpus_of(self, engine: Engine) -> list[GpuState]:
        return [state for gpu, state in self._gpus.items() if self._drives(engine, gpu)]

    def _is_ripe(self, gpu: GpuState, interval: EnergyInterval) -> bool:
        waited_ns = self._now_ns - interval.end_ns
        if waited_ns > self.policy.max_lag_ns:
            return True
        drivers = self._drivers(gpu, interval)
        if not drivers:
            return waited_ns > _NO_ENGINE_GRACE_NS
        return all(engine.known_until_ns >= interval.end_ns for engine in drivers)

    def _settle_interval(self, gpu: GpuState, interval: EnergyInterval) -> None:
        drivers = self._drivers(gpu, interval)
        silent = [e for e in drivers if e.sends_progress and e.known_until_ns < interval.end_ns]
        avoided_uj = [engine.tally.avoided_uj.total() for engine in drivers]
        posting, shares = divide(interval, gpu, drivers, silent, self._otherwise(gpu, interval, drivers))
        if self.efficiencies is not None:
            alone = len(shares) == 1 and interval.source != MIG_GPM
            for share in shares:
                self.efficiencies.take(share, gpu, interval.end_ns, alone=alone)
        hand_over(posting, shares, self.policy)
        charged = [(share, charge(share, posting, gpu.info.gpu, self.policy)) for share in shares]
        gpu.account.post(posting)
        for engine in drivers:
            engine.learn_times(interval.end_ns)
        gpu.settled_ns = interval.end_ns
        gpu.forget(interval.start_ns)
        if self.minutes is not None:
            for at, engine in enumerate(drivers):
                avoided_uj[at] = engine.tally.avoided_uj.total() - avoided_uj[at]
            self.minutes.take(gpu, posting, charged, drivers, avoided_uj)

    def _otherwise(self, gpu: GpuState, interval: EnergyInterval, drivers: Sequence[Engine]) -> str:
        """Why the time in which no engine is known to hold the GPU is nobody's."""
        if interval.source == MIG_REST:
            return "mig_rest"
        alive = [engine for engine in self._engines if _alive_within(engine, interval)]
        if drivers or not alive:
            return "no_engine"
        on_instances = any(not set(engine.info.gpus).isdisjoint(gpu.info.instances) for engine in alive)
        return "mig_instance" if on_instances else "unmapped"

    def _settled_ns(self, engine: Engine) -> int:
        """Up to here the energy of all the engine's GPUs is accounted, or never will be."""
        settled = [gpu.settled_ns for gpu in self._gpus_of(engine)]
        settled += [0 for gpu in engine.info.gpus if gpu not in self._gpus]
        if not settled:
            return FOREVER_NS
        return max(min(settled), self._now_ns - 2 * self.policy.max_lag_ns)

    def _all_settled_ns(self) -> int:
        """Up to here everything is accounted, of all GPUs and engines, or never will be."""
        known = [gpu.settled_ns for gpu in self._gpus.values()]
        known += [engine.known_until_ns for engine in self._engines]
        return min(max(min(known, default=0), self._now_ns - 2 * self.policy.max_lag_ns), self._now_ns)

    def _finish_requests(self) -> None:
        for engine in list(self._engines):
            settled_ns = self._settled_ns(engine)
            down_ns = engine.down_ns
            if down_ns is not None and self._now_ns - down_ns > self.policy.max_lag_ns:
                engine.abandon("engine_lost", down_ns)
            self._finish_engine(engine, settled_ns)
            if down_ns is not None and not engine.requests and down_ns < min(settled_ns, self._now_ns):
                self._engines.remove(engine)

    def _finish_engine(self, engine: Engine, settled_ns: int) -> None:
        engine.forget(settled_ns, len(self._gpus_of(engine)))
        finished = list(engine.finished(settled_ns))
        if self.efficiencies is not None:
            self.efficiencies.finished(finished)
        self._finished.extend(finished)
        if self.minutes is not None:
            self.minutes.finished(engine, finished)

    # --------------------------------------------------------------------------------------- results

    def drain_minutes(self) -> list[EngineMinute]:
        """The minutes that were closed since the last call."""
        return [] if self.minutes is None else self.minutes.drain()

    def drain_finished(self) -> list[FinishedRequest]:
        """The requests whose accounts became final since the last call."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def gpus(self) -> dict[str, GpuState]:
        return self._gpus

    @property
    def tallies(self) -> dict[str, EngineTally]:
        return self._tallies

    def open_requests(self) -> OpenRequests:
        """Requests whose accounts are open, as of now; later changes do not reach what is returned."""
        for engine in self._engines:
            engine.steps.flush()
        return OpenRequests(self._engines)

    def open_uj(self, label: str) -> int:
        """Microjoules attributed to requests of this engine label that are not finished yet."""
        return sum(
            int(engine.requests.attributed_uj[list(engine.requests.slot_of.values())].sum())
            for engine in self._engines
            if engine.info.engine == label
        )

    def engine_totals(self) -> tuple[EngineTotals, ...]:
        """Counters and gauges of every engine label seen so far."""
        for engine in self._engines:
            engine.steps.flush()
        return tuple(self._totals(label, tally) for label, tally in self._tallies.items())

    def _totals(self, label: str, tally: EngineTally) -> EngineTotals:
        engines = [engine for engine in self._engines if engine.info.engine == label]
        alive = next((engine for engine in engines if engine.down_ns is None), None)
        gauges = Gauges() if alive is None else alive.gauges(self._now_ns, _IDLE_AFTER_NS)
        count, undecided = sum(len(engine.requests) for engine in engines), Undecided()
        for engine in engines:
            undecided.add(engine.requests)
        totals = tally.totals(alive is not None, count, gauges, undecided)
        if self.efficiencies is None:
            return totals
        return replace(totals, baseline=self.efficiencies.totals(label))


def _alive_within(engine: Engine, interval: EnergyInterval) -> bool:
    up_ns, down_ns = engine.alive_span()
    return up_ns < interval.end_ns and down_ns > interval.start_ns

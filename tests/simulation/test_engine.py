"""The simulated engine: what it tells must be what a vLLM could have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice

import pytest

from joulescope.hook.wire import AnyRecord, Progress, RequestEnd, RequestStart, Step
from joulescope.simulation import engine as engine_module
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.scheduler import EngineLimits
from joulescope.simulation.truth import TrueLedger
from joulescope.simulation.workload import MIXED, PlannedRequest, Workload
from joulescope.simulation.worlds import H100, H100_LLAMA_8B

SECOND = 1_000_000_000
ROOMY = EngineLimits()
TIGHT = EngineLimits(kv_cache_tokens=20_000, max_num_seqs=64)
SYNCHRONOUS = EngineLimits(async_scheduling=False)


@dataclass
class Run:
    """An engine that served everybody who came within ``seconds``."""

    limits: EngineLimits
    seconds: float = 12.0
    seed: int = 3
    records: list[AnyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = TrueLedger()
        self.gpu = SimulatedGpu(H100, 0)
        workload = Workload(10.0, 0, seed=self.seed)
        self.plans: dict[str, PlannedRequest] = {}
        for plan in workload:
            if plan.arrival_ns > self.seconds * SECOND:
                break
            self.plans[plan.request_id] = plan
        engine = SimulatedEngine(
            H100_LLAMA_8B,
            self.gpu,
            list(self.plans.values()),
            start_ns=0,
            limits=self.limits,
            ledger=self.ledger,
        )
        self.book = engine.books[0]
        while not engine.idle:
            self.end_ns = getattr(self, "end_ns", 0) + SECOND
            self.records += engine.advance(self.end_ns)
        self.starts = {r.request: r for r in self.records if isinstance(r, RequestStart)}
        self.ends = {r.request: r for r in self.records if isinstance(r, RequestEnd)}
        self.steps = [r for r in self.records if isinstance(r, Step)]


@dataclass
class Usage:
    """What the steps say of one request."""

    scheduled: int = 0
    recomputed: int = 0
    generated: int = 0
    discarded: int = 0
    high_water: int = 0
    expected_context: int | None = None


def columns(step: Step) -> list[tuple[int, int, int, int]]:
    """(request, context, scheduled, sampled), with the wire's shorthands undone."""
    ones = [1] * len(step.request)
    return list(zip(step.request, step.context, step.scheduled or ones, step.sampled or ones, strict=True))


def usages(run: Run) -> dict[int, Usage]:
    """Follows every request through the steps, checking that its context goes on where it was."""
    found: dict[int, Usage] = {}
    for step in run.steps:
        for handle in step.preempted:
            found[handle].expected_context = None
        for handle, context, scheduled, sampled in columns(step):
            usage = found.setdefault(handle, Usage())
            assert usage.expected_context in (None, context)
            usage.expected_context = context + scheduled
            usage.scheduled += scheduled
            usage.recomputed += max(0, min(usage.high_water, context + scheduled) - context)
            usage.high_water = max(usage.high_water, context + scheduled)
            ended = run.ends[handle]
            past_the_end = step.output_start_ns > ended.time_ns and not sampled
            usage.generated += sampled
            usage.discarded += scheduled if past_the_end else 0
    return found


run_with = cache(Run)
"""Each run is made once for all tests that look at it; they only look."""


@pytest.fixture(params=[ROOMY, TIGHT, SYNCHRONOUS], ids=["roomy", "tight", "synchronous"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_with(request.param)


def test_everyone_who_came_is_told_of_once(run: Run) -> None:
    """Each planned request starts once and ends once, under its own id and with its own prompt."""
    starts = list(run.starts.values())
    assert sorted(each.request_id for each in starts) == sorted(run.plans)
    assert all(each.prompt_tokens == run.plans[each.request_id].prompt_tokens for each in starts)
    assert run.ends.keys() == run.starts.keys()
    assert sum(isinstance(record, RequestEnd) for record in run.records) == len(run.ends)


def test_scheduled_tokens_close_with_generated_ones(run: Run) -> None:
    """sum(scheduled) = prompt − cached + generated − 1 + recomputed + discarded, for every answer."""
    cached = {handle: local for step in run.steps for handle, local, _ in step.cached}
    found = usages(run)
    answered = [end for end in run.ends.values() if end.reason in ("stop", "length")]
    assert len(answered) > 80
    for end in answered:
        usage, prompt = found[end.request], run.starts[end.request].prompt_tokens
        expected = prompt - cached.get(end.request, 0) + usage.generated - 1
        assert usage.scheduled == expected + usage.recomputed + usage.discarded
        assert usage.generated == end.output_tokens


def test_answers_end_as_the_model_or_the_client_decides(run: Run) -> None:
    """An answer stops at the model's own length, or at the client's limit with reason length."""
    for end in run.ends.values():
        plan = run.plans[run.starts[end.request].request_id]
        if end.reason == "stop":
            assert end.output_tokens == plan.output_tokens <= plan.max_tokens
        elif end.reason == "length":
            assert end.output_tokens == plan.max_tokens < plan.output_tokens
        else:
            assert end.reason == "abort"
            assert plan.abort_after_tokens is not None
            assert end.output_tokens is not None
            assert plan.abort_after_tokens <= end.output_tokens < plan.output_tokens


def test_no_step_breaks_the_engines_limits(run: Run) -> None:
    """Sequences, tokens and memory stay within what the engine's arguments allow."""
    for step in run.steps:
        assert 0 < len(step.request) <= run.limits.max_num_seqs
        assert sum(scheduled for _, _, scheduled, _ in columns(step)) <= run.limits.max_num_batched_tokens
        assert len(set(step.request)) == len(step.request)
        assert step.kv_usage_ratio is not None
        assert 0.0 <= step.kv_usage_ratio <= 1.0


def test_instants_are_in_order(run: Run) -> None:
    """Steps return in order, none is scheduled after its output, and the numbers count up."""
    last_ns, last = 0, 0
    for step in run.steps:
        times = [step.schedule_start_ns, step.schedule_end_ns, step.output_start_ns, step.output_end_ns]
        assert times == sorted(times)
        assert step.output_start_ns > last_ns
        assert step.step == last + 1
        last_ns, last = step.output_start_ns, step.step


def test_no_step_computes_a_request_after_its_final_step(run: Run) -> None:
    """``final_step`` keeps its promise: it is the last that may still have computed the request."""
    for step in run.steps:
        for handle in step.request:
            final_step = run.ends[handle].final_step
            assert final_step is not None
            assert step.step <= final_step


def test_truth_and_idle_make_up_the_gpus_energy(run: Run) -> None:
    """The true joules of all requests and the idle time in between are all that the GPU drew."""
    total = run.gpu.energy_joules_at(run.gpu.uuid, run.end_ns)
    charged = sum(run.ledger.true_joules().values())
    assert charged + run.book.idle_joules(run.end_ns) == pytest.approx(total, rel=1e-9)


def test_records_follow_from_the_seed_alone() -> None:
    """The same seed gives the same records, however time is cut into portions; another seed does not."""

    def story(seed: int, cuts: Sequence[int]) -> list[AnyRecord]:
        engine = SimulatedEngine(
            H100_LLAMA_8B, SimulatedGpu(H100, 0), Workload(10.0, 0, seed=seed), start_ns=0
        )
        told = [record for cut in cuts for record in engine.advance(cut)]
        return [record for record in told if not isinstance(record, Progress)]

    whole = story(5, [6 * SECOND])
    assert len(whole) > 200
    assert story(5, [part * SECOND // 1000 for part in range(0, 6001, 7)] + [6 * SECOND]) == whole
    assert story(6, [6 * SECOND]) != whole


def test_what_is_told_by_an_instant_ended_by_then() -> None:
    """``advance`` never tells of the future, and its progress names the oldest step in flight."""
    engine = SimulatedEngine(H100_LLAMA_8B, SimulatedGpu(H100, 0), Workload(10.0, 0, seed=5), start_ns=0)
    pending: set[int | None] = set()
    for until_ns in range(0, 3 * SECOND, 10_000_000):
        *records, progress = engine.advance(until_ns)
        assert isinstance(progress, Progress)
        assert progress.time_ns == until_ns
        ends = [r.output_end_ns for r in records if isinstance(r, Step)]
        ends += [r.time_ns for r in records if isinstance(r, (RequestStart, RequestEnd))]
        assert all(end <= until_ns for end in ends)
        for step in (r for r in records if isinstance(r, Step)):
            pending.discard(step.schedule_end_ns)
        pending.add(progress.pending_since_ns)
    assert len(pending - {None}) <= 1


def test_prefixes_are_found_and_clients_hang_up() -> None:
    """A mixed service shows prefix hits of every class that has a prefix, and aborts in mid-decode."""
    run = run_with(ROOMY)
    hits = {handle: local for step in run.steps for handle, local, external in step.cached if external == 0}
    kinds = {run.plans[run.starts[handle].request_id].kind for handle in hits}
    assert kinds == {kind.name for kind in MIXED if kind.prefix_tokens}
    assert all(0 < local < run.starts[handle].prompt_tokens for handle, local in hits.items())
    aborted = [end for end in run.ends.values() if end.reason == "abort"]
    assert any((end.output_tokens or 0) > 0 for end in aborted)


def test_a_full_cache_preempts_and_recomputes() -> None:
    """With too little KV memory requests lose their place, compute again, and still answer in full."""
    run = run_with(TIGHT)
    preempted = [handle for step in run.steps for handle in step.preempted]
    assert preempted
    assert sum(end.preemptions or 0 for end in run.ends.values()) == len(preempted)
    recomputed = {handle: usage.recomputed for handle, usage in usages(run).items()}
    assert any(recomputed[handle] > 0 for handle in preempted)
    truth = [run.ledger.get(run.starts[handle].request_id) for handle in preempted]
    assert any(account is not None and 0 < account.recompute_joules < account.joules for account in truth)


def test_an_asynchronous_stop_costs_one_discarded_step() -> None:
    """With asynchronous scheduling an answer that stops by itself is computed once more, for nothing."""
    for limits, discarded in ((ROOMY, 1), (SYNCHRONOUS, 0)):
        run = run_with(limits)
        found = usages(run)
        stopped = [found[end.request].discarded for end in run.ends.values() if end.reason == "stop"]
        assert set(stopped) == {discarded}


def test_a_request_that_can_never_fit_is_refused() -> None:
    """A prompt larger than the whole cache ends with an error at once and blocks nobody."""
    gpu = SimulatedGpu(H100, 0)
    plans = list(islice(Workload(50.0, 0, seed=1), 60))
    limits = EngineLimits(kv_cache_tokens=4000)
    engine = SimulatedEngine(H100_LLAMA_8B, gpu, plans, start_ns=0, limits=limits)
    ends = [record for record in engine.advance(120 * SECOND) if isinstance(record, RequestEnd)]
    assert engine.idle
    assert len(ends) == len(plans)
    assert {end.reason for end in ends} >= {"error", "stop"}
    assert all(end.output_tokens == 0 for end in ends if end.reason == "error")


def test_an_overrun_engine_turns_clients_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """More clients than can ever be served do not fill the memory: the queue is bounded, the rest counted."""
    monkeypatch.setattr(engine_module, "MAX_WAITING", 20)
    engine = SimulatedEngine(
        H100_LLAMA_8B,
        SimulatedGpu(H100, 0),
        islice(Workload(500.0, 0, seed=1), 400),
        start_ns=0,
        limits=EngineLimits(max_num_seqs=4),
    )
    records = engine.advance(2 * SECOND)
    assert max(step.waiting or 0 for step in records if isinstance(step, Step)) <= 20
    starts = sum(isinstance(record, RequestStart) for record in records)
    assert engine.turned_away == 400 - starts > 0


def test_submitted_requests_run_as_planned_ones() -> None:
    """Handed over one by one, in any order, beside a planned stream or alone: the engine does the same."""
    plans = list(islice(Workload(20.0, 0, seed=2), 60))

    def story(planned: list[PlannedRequest], submitted: list[PlannedRequest]) -> list[AnyRecord]:
        engine = SimulatedEngine(H100_LLAMA_8B, SimulatedGpu(H100, 0), planned, start_ns=0)
        for plan in submitted:
            engine.submit(plan)
        return engine.advance(20 * SECOND)

    whole = story(plans, [])
    assert story([], plans[::-1]) == whole
    assert story(plans[::2], plans[1::2]) == whole


def test_a_late_submission_comes_at_once() -> None:
    """A client that answers to an end it saw starts after that end, whatever arrival it names."""
    engine = SimulatedEngine(H100_LLAMA_8B, SimulatedGpu(H100, 0), (), start_ns=0)
    first, second = islice(Workload(1000.0, 0, seed=2), 2)
    engine.submit(first)
    (end,) = (record for record in engine.advance(60 * SECOND) if isinstance(record, RequestEnd))
    assert engine.idle
    engine.submit(second)
    assert not engine.idle
    (start,) = (record for record in engine.advance(120 * SECOND) if isinstance(record, RequestStart))
    assert start.time_ns >= end.time_ns
    assert engine.idle

"""Properties that hold whatever arrives: every joule once, counters that only rise, accounts that stay."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.attribution.policy import Policy
from joulescope.hook import wire
from joulescope.model import EngineTotals, FinishedRequest, GpuReading, GpuTotals, Snapshot
from joulescope.pipeline import Pipeline, Scope
from tests.examples import examples
from tests.worlds import COST, MS, SECOND, end, instant, start, step

GPUS = ("GPU-a", "GPU-b")
instants = st.integers(0, 20 * SECOND)
handles = st.integers(0, 6)
sessions = st.integers(0, 2)
tokens = st.integers(0, 4000)


@st.composite
def steps(draw: st.DrawFn) -> wire.Step:
    """Mostly sensible steps; some overlap, repeat, run backwards or contradict themselves."""
    begin = draw(instants)
    length = draw(st.integers(-10 * MS, 3 * SECOND))
    requests = draw(st.lists(handles, max_size=5))
    width = len(requests) + draw(st.sampled_from([0, 0, 0, 0, 1]))
    return wire.Step(
        session=draw(sessions),
        step=draw(st.integers(0, 40)),
        schedule_start_ns=begin,
        schedule_end_ns=begin + draw(st.integers(0, MS)),
        output_start_ns=begin + length,
        output_end_ns=begin + length + draw(st.integers(0, MS)),
        request=requests,
        context=draw(st.lists(tokens, min_size=width, max_size=width)),
        scheduled=draw(st.just([]) | st.lists(tokens, min_size=width, max_size=width)),
        sampled=draw(st.just([]) | st.lists(st.integers(0, 5), min_size=width, max_size=width)),
        drafted=draw(st.lists(st.tuples(handles, st.integers(0, 5)), max_size=2)),
        cached=draw(st.lists(st.tuples(handles, tokens, tokens), max_size=2)),
        preempted=draw(st.lists(handles, max_size=2)),
    )


@st.composite
def hellos(draw: st.DrawFn) -> wire.Hello:
    facts = wire.EngineFacts(
        model="m",
        instance_id=draw(st.sampled_from(["", "a", "b"])),
        gpus=draw(st.lists(st.sampled_from(GPUS), max_size=2, unique=True)),
        cost=draw(st.sampled_from([COST, wire.CostFacts()])),
    )
    return wire.Hello(
        session=draw(sessions),
        time_ns=draw(instants),
        engine=facts,
        capabilities=draw(st.sampled_from([[], ["progress"]])),
    )


engine_records = st.one_of(
    steps(),
    steps(),
    steps(),
    hellos(),
    st.builds(
        wire.RequestStart,
        session=sessions,
        request=handles,
        request_id=st.text(max_size=3),
        time_ns=instants,
        prompt_tokens=tokens,
        resumed=st.booleans(),
    ),
    st.builds(
        wire.RequestEnd,
        session=sessions,
        request=handles,
        time_ns=instants,
        reason=st.sampled_from(["stop", "abort", ""]),
        final_step=st.none() | st.integers(0, 40),
    ),
    st.builds(wire.Gap, session=sessions, start_ns=instants, end_ns=instants),
    st.builds(
        wire.Overhead, session=sessions, start_ns=instants, end_ns=instants, reason=st.just("dummy_batch")
    ),
    st.builds(
        wire.Progress,
        session=sessions,
        time_ns=instants,
        pending_since_ns=st.none() | instants,
        dropped=st.integers(0, 9),
    ),
    st.builds(wire.Bye, session=sessions, time_ns=instants),
)
odd = st.sampled_from([float("nan"), float("inf"), -1.0])
readings = st.builds(
    GpuReading,
    gpu=st.sampled_from(GPUS),
    time_ns=instants,
    energy_joules=st.none() | st.floats(0, 10_000) | odd,
    power_watts=st.none() | st.floats(0, 2000) | odd,
)


@st.composite
def engine_lives(draw: st.DrawFn, session: int) -> list[wire.AnyRecord]:
    """An engine that works as engines do: steps one after the other, requests that come and go."""
    at = draw(st.sampled_from([0, SECOND]))
    told: list[wire.AnyRecord] = [
        wire.Hello(
            session=session,
            time_ns=at,
            engine=wire.EngineFacts(model="m", instance_id=str(session), gpus=[GPUS[0]], cost=COST),
            capabilities=draw(st.sampled_from([[], ["progress"]])),
        )
    ]
    for handle in range(draw(st.integers(0, 4))):
        prompt = draw(st.integers(0, 300))
        told.append(start(handle, at, prompt=prompt, session=session))
    for number in range(draw(st.integers(1, 12))):
        begin = at + draw(st.sampled_from([0, 0, 40 * MS, 700 * MS]))
        at = begin + draw(st.integers(1, 900)) * MS
        requests = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True))
        width = len(requests)
        told.append(
            step(
                number,
                begin,
                at,
                requests,
                session=session,
                context=draw(st.lists(st.integers(0, 400), min_size=width, max_size=width)),
                scheduled=draw(st.lists(st.integers(1, 50), min_size=width, max_size=width)),
                sampled=draw(st.lists(st.integers(0, 5), min_size=width, max_size=width)),
                drafted=draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=2)),
                preempted=draw(st.sampled_from([[], [], [0], [1, 2]])),
            )
        )
        if draw(st.booleans()):
            told.append(end(draw(st.integers(0, 4)), at, number + draw(st.integers(0, 1)), session=session))
        if draw(st.booleans()):
            told.append(wire.Progress(session=session, time_ns=at))
    return told


@st.composite
def worlds(draw: st.DrawFn) -> list[object]:
    """Engines at work under a counter that now and then resets; anything may be late, twice or missing."""
    world: list[object] = []
    for session in range(draw(st.integers(0, 2))):
        world += draw(engine_lives(session))
    joules = 0.0
    for at in range(0, draw(st.integers(1, 12)) * SECOND, 250 * MS):
        joules = draw(st.sampled_from([joules + 60, joules + 60, joules + 60, joules, 0.0]))
        if draw(st.integers(0, 9)):
            world.append(GpuReading(gpu=GPUS[0], time_ns=at, energy_joules=joules, power_watts=240.0))
    world += draw(st.lists(st.one_of(instants, instants, readings, engine_records), max_size=8))
    world.sort(key=moment)
    for _ in range(draw(st.integers(0, 6 if world else 0))):  # late by some places, or told twice
        item = world[draw(st.integers(0, len(world) - 1))]
        world.insert(draw(st.integers(0, len(world))), item)
    return world


def moment(item: object) -> int:
    if isinstance(item, int):
        return item
    return item.time_ns if isinstance(item, GpuReading) else instant(item)  # type: ignore[arg-type]


def run(world: list[object], policy: Policy) -> Iterator[tuple[Pipeline, Snapshot, list[FinishedRequest]]]:
    """Feeds a world and looks at the accounts at every settling and at the end."""
    pipeline = Pipeline(policy, Scope(all_gpus=True), window_ns=200 * MS)
    finished: list[FinishedRequest] = []
    now_ns = 0
    for item in world:
        if isinstance(item, GpuReading):
            pipeline.read([item])
        elif isinstance(item, int):
            now_ns = max(now_ns, item)
            pipeline.settle(now_ns)
            finished += pipeline.drain_finished()
            yield pipeline, pipeline.snapshot(now_ns), finished
        elif isinstance(item, wire.Record):
            pipeline.take(item.session, [item])  # type: ignore[list-item]
    pipeline.finish(now_ns)
    finished += pipeline.drain_finished()
    yield pipeline, pipeline.snapshot(now_ns), finished


def policies() -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        recompute_to=st.sampled_from(["overhead", "request"]),
        rejected_to=st.sampled_from(["request", "overhead"]),
        dummy_to=st.sampled_from(["overhead", "request"]),
        idle_to=st.sampled_from(["idle", "request"]),
        lost_to=st.sampled_from(["unattributed", "request"]),
        max_open_requests=st.just(5),
    )


def balance_uj(gpu: GpuTotals) -> tuple[int, int]:
    parts = [gpu.attributed_joules, gpu.idle_joules]
    parts += [*gpu.overhead_joules.values(), *gpu.unattributed_joules.values()]
    return round(gpu.measured_joules * 1e6), sum(round(part * 1e6) for part in parts)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), policy=policies())
def test_whatever_arrives_the_accounts_hold(world: list[object], policy: Policy) -> None:
    """Every joule is counted once, no counter falls, and finished accounts are sane, whoever pays."""
    before: dict[object, float] = {}
    for pipeline, snapshot, finished in run(world, policy):
        check_every_joule_is_counted_once(pipeline, snapshot, finished)
        after = dict(counters(snapshot))
        check_counters_never_decrease(before, after)
        before = after
        for request in finished:
            check_finished_account_is_sane(request)


def check_every_joule_is_counted_once(
    pipeline: Pipeline, snapshot: Snapshot, finished: list[FinishedRequest]
) -> None:
    """On every GPU the parts sum to what was measured, and requests to what is attributed."""
    for gpu in snapshot.gpus:
        measured_uj, divided_uj = balance_uj(gpu)
        assert measured_uj == divided_uj
        assert gpu.residual_joules == 0
    attributed_uj = sum(round(gpu.attributed_joules * 1e6) for gpu in snapshot.gpus)
    finished_uj = sum(round((request.attributed_joules or 0) * 1e6) for request in finished)
    open_uj = sum(round(pipeline.open_joules(engine) * 1e6) for engine in snapshot.engines)
    assert finished_uj + open_uj == attributed_uj


def check_counters_never_decrease(before: dict[object, float], after: dict[object, float]) -> None:
    """Prometheus takes a decrease for a restart: no counter may ever fall."""
    assert all(after[name] >= value for name, value in before.items())


def counters(snapshot: Snapshot) -> Iterator[tuple[object, float]]:
    for gpu in snapshot.gpus:
        yield (gpu.info.gpu, "measured"), gpu.measured_joules
        yield (gpu.info.gpu, "attributed"), gpu.attributed_joules
        yield (gpu.info.gpu, "idle"), gpu.idle_joules
        for book in (gpu.overhead_joules, gpu.unattributed_joules):
            yield from (((gpu.info.gpu, id(type(book)), reason), joules) for reason, joules in book.items())
    for engine in snapshot.engines:
        yield from engine_counters(engine)


def engine_counters(engine: EngineTotals) -> Iterator[tuple[object, float]]:
    label = engine.info.engine
    yield (label, "steps"), engine.steps
    yield (label, "started"), engine.requests_started
    yield (label, "marginal"), engine.marginal_joules
    yield (label, "histogram"), sum(engine.joules_per_request.counts)
    for name, book in (("finished", engine.requests_finished), ("wasted", engine.wasted_joules)):
        yield from (((label, name, reason), value) for reason, value in book.items())
    for kind, count in engine.tokens.items():
        yield (label, "tokens", kind), count
    yield from (((label, key), joules) for key, joules in engine.attributed_joules.items())


def check_finished_account_is_sane(request: FinishedRequest) -> None:
    """No finished request has negative joules, phases that do not sum, or figures outside their intervals.

    Its marginal joules may exceed its share: where the cost of a step is convex, the last one costs most.
    """
    if request.attributed_joules is None:
        assert not request.complete
        return
    assert request.attributed_joules >= 0
    phases = (request.prefill_joules or 0) + (request.decode_joules or 0)
    assert round(phases * 1e6) == round(request.attributed_joules * 1e6)
    low, high = request.attributed_low_joules, request.attributed_high_joules
    if low is None:  # of an engine that says nothing of its cost
        assert high is None
        return
    assert high is not None
    assert 0 <= low <= request.attributed_joules <= high < float("inf")
    assert request.marginal_joules is not None
    assert 0 <= request.marginal_joules < float("inf")

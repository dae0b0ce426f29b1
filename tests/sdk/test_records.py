"""What the SDK sends is what the wire defines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from joulescope import __version__
from joulescope.hook import wire
from joulescope.ingest.convert import MAX_COUNT as SIDECARS_MAX_COUNT
from joulescope.sdk import Cost, Engine
from joulescope.sdk.facts import FLOPS_PER_WORK, gpus_of
from joulescope.sdk.msgpack import encode
from joulescope.sdk.records import LENGTH_BYTES, MAX_COUNT, bye, gap, overhead, progress, request_end
from tests.sdk.bench import GPU, MS, SECOND, Bench, kinds, of


def test_a_whole_life(bench: Bench) -> None:
    """Hello, start, steps and end decode as the wire's types, each field with what was told."""
    engine, clock = bench.engine, bench.clock
    first = engine.request_started("r1", external_id="client-1", trace_parent="00-a-b-01", prompt_work=3)
    second = engine.request_started("r2", kind="pooling", lora="adapter")
    clock.advance(0.5)
    with engine.step({first: 8, second: 2}) as step:
        clock.advance(0.25)
        step.produced({second: 4})
    with engine.step([first]) as step:
        clock.advance(0.25)
        step.produced([first])
    engine.request_ended(first, "Stop")
    engine.request_ended(second, "abort")
    records = bench.turn()
    assert kinds(records) == [
        "hello",
        "request_start",
        "request_start",
        "step",
        "step",
        "request_end",
        "request_end",
    ]
    assert of(records, wire.RequestStart) == [
        wire.RequestStart(
            request=1,
            request_id="r1",
            time_ns=5 * SECOND,
            external_id="client-1",
            prompt_tokens=3,
            trace_parent="00-a-b-01",
        ),
        wire.RequestStart(request=2, request_id="r2", time_ns=5 * SECOND, kind="pooling", lora="adapter"),
    ]
    begun, middle, ended = 5500 * MS, 5750 * MS, 6 * SECOND
    assert of(records, wire.Step) == [
        wire.Step(
            step=1,
            schedule_start_ns=begun,
            schedule_end_ns=begun,
            output_start_ns=middle,
            output_end_ns=middle,
            request=[1, 2],
            context=[0, 0],
            scheduled=[8, 2],
            sampled=[0, 4],
            running=2,
            waiting=0,
        ),
        wire.Step(
            step=2,
            schedule_start_ns=middle,
            schedule_end_ns=middle,
            output_start_ns=ended,
            output_end_ns=ended,
            request=[1],
            context=[8],
            running=1,
            waiting=1,
        ),
    ]
    assert of(records, wire.RequestEnd) == [
        wire.RequestEnd(request=1, time_ns=ended, reason="stop", final_step=2),
        wire.RequestEnd(request=2, time_ns=ended, reason="abort", final_step=1),
    ]
    assert (first.work, first.outputs, second.outputs) == (9, 1, 4)


def test_the_hello_says_who_the_engine_is(bench: Bench) -> None:
    """Name, units, GPUs and version come as told; without a cost, joules will follow the work."""
    (hello,) = of(bench.turn(), wire.Hello)
    assert hello.engine == wire.EngineFacts(
        instance_id=hello.engine.instance_id,
        name="painter",
        model="painter",
        software="",
        unit="image",
        work_unit="patch",
        gpus=[GPU],
        cost=wire.CostFacts(source="work", flops_per_token=FLOPS_PER_WORK),
    )
    assert hello.hook_version == __version__
    assert hello.capabilities == ["progress"]
    assert hello.protocol == wire.PROTOCOL
    assert len(hello.engine.instance_id) == 32


def test_a_declared_cost_travels_under_the_wires_names(tmp_path: Path) -> None:
    """Each figure of Cost arrives in the field that the cost model reads."""
    cost = Cost(
        weight_bytes=5e9,
        flops_per_work=1e12,
        bytes_per_context=3.0,
        flops_per_work_context=4.0,
        flops_per_output=5.0,
    )
    bench = Bench(tmp_path / "js.sock", {"cost": cost})
    bench.listen()
    (hello,) = of(bench.turn(), wire.Hello)
    assert hello.engine.cost == wire.CostFacts(
        source="declared",
        weight_bytes=5e9,
        kv_bytes_per_token=3.0,
        flops_per_token=1e12,
        flops_per_token_context=4.0,
        flops_per_sample=5.0,
    )


def test_overhead_is_told(bench: Bench) -> None:
    """Warming up is nobody's request; its stretch and its reason arrive, and it is pending while it lasts."""
    with bench.engine.overhead("Compile"):
        (progress_meanwhile,) = of(bench.turn(), wire.Progress)
        bench.clock.advance(1.0)
    (told,) = of(bench.turn(), wire.Overhead)
    assert told == wire.Overhead(start_ns=5 * SECOND, end_ns=8 * SECOND, reason="compile")
    assert progress_meanwhile.pending_since_ns == 5 * SECOND


def test_explicit_instants(bench: Bench) -> None:
    """Who knows better than the host's clock when the GPU worked says so."""
    request = bench.engine.request_started("r1")
    bench.clock.advance(1.0)
    bench.engine.report_step({request: 4}, start_ns=5100 * MS, end_ns=5300 * MS, produced={request: 2})
    step = bench.engine.step([request])
    step.end(start_ns=5400 * MS, end_ns=5600 * MS, produced=[request])
    told = [
        (each.schedule_end_ns, each.output_start_ns, each.sampled or [1])
        for each in of(bench.turn(), wire.Step)
    ]
    assert told == [(5100 * MS, 5300 * MS, [2]), (5400 * MS, 5600 * MS, [1])]


def test_steps_that_overlap_are_numbered_as_they_end(bench: Bench) -> None:
    """Kernels launched ahead: the second begins before the first ends, with the context that it will meet."""
    request = bench.engine.request_started("r1")
    first = bench.engine.step({request: 5})
    bench.clock.advance(0.1)
    second = bench.engine.step({request: 7})
    (progress_meanwhile,) = of(bench.turn(0.1), wire.Progress)
    first.end()
    bench.clock.advance(0.1)
    second.end()
    steps = of(bench.turn(), wire.Step)
    assert [(each.step, each.context, each.scheduled) for each in steps] == [(1, [0], [5]), (2, [5], [7])]
    assert progress_meanwhile.pending_since_ns == 5 * SECOND


def test_a_request_that_is_cancelled_in_a_step_ends_with_it(bench: Bench) -> None:
    """Another thread may end a request while the GPU works on it: the step is still its own."""
    request = bench.engine.request_started("r1")
    with bench.engine.step([request]):
        bench.engine.request_ended(request, "abort")
        bench.clock.advance(0.1)
    records = bench.turn()
    assert kinds(records)[-2:] == ["step", "request_end"]
    assert of(records, wire.RequestEnd)[0].final_step == 1


def test_a_step_that_fails_was_drawn_all_the_same(bench: Bench) -> None:
    """An exception goes on to the caller, and the step's joules go to who was in it."""
    request = bench.engine.request_started("r1")

    def fail() -> None:
        with bench.engine.step({request: 3}):
            bench.clock.advance(0.1)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    (step,) = of(bench.turn(), wire.Step)
    assert (step.scheduled, step.sampled) == ([3], [0])


def test_late_reports_hold_the_promise_back(tmp_path: Path) -> None:
    """An engine that reports steps late says so: progress claims so much less."""
    bench = Bench(tmp_path / "js.sock", {"late_seconds": 1.5})
    bench.listen()
    (told,) = of(bench.turn(2.0), wire.Progress)
    assert told.time_ns == bench.clock.now_ns() - 1500 * MS - MS


def test_every_kind_decodes_strictly() -> None:
    """No record has a field that the wire does not know: a misspelt one would be skipped in silence."""
    told = [
        overhead(1, 2, "warmup"),
        gap(1, 2, 3, "overload"),
        progress(5, 4, 3),
        progress(5, None, 0),
        bye(6, "closed"),
        request_end(1, 2, "stop", None),
    ]
    decoded = msgspec.msgpack.decode(encode(told), type=list[wire.AnyRecord])
    for record, back in zip(told, decoded, strict=True):
        assert {
            key: value for key, value in record.items() if key != "type"
        }.items() <= msgspec.structs.asdict(back).items()
    assert LENGTH_BYTES == wire.LENGTH_BYTES
    assert MAX_COUNT == SIDECARS_MAX_COUNT - 1


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (GPU, (GPU,)),
        (f"{GPU}, MIG-{GPU[4:]}", (GPU, f"MIG-{GPU[4:]}")),
        ("0,1", ()),
        ("GPU-5b1d3c5e", ()),
        (f"{GPU},1", ()),
        ("", ()),
    ],
)
def test_gpus_are_those_of_cuda_if_it_names_them(visible: str, found: tuple[str, ...]) -> None:
    """Whole UUIDs are believed; indices and shortened UUIDs are not guessed at."""
    assert gpus_of(None, {"CUDA_VISIBLE_DEVICES": visible}) == found


def test_an_engine_without_gpus_says_how_to_mend_it(caplog: pytest.LogCaptureFixture) -> None:
    """The commonest reason for no joules is told in one line when the engine is made."""
    Engine("painter", thread=False, environ={}).close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "gpus=" in line
    assert "--gpus" in line

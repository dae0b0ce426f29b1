"""References to requests become starts and ends, in every case that vLLM is known to produce."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from joulescope.hook.translate import (
    ADDED,
    FREED,
    external_id,
)
from joulescope.hook.wire import AnyRecord, RequestEnd, RequestStart, Step
from tests.hook.fakes import (
    Engine,
    FinishReason,
    Request,
    output_of,
    step_of,
)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def of(kind: type, records: list[AnyRecord]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def test_life_of_a_request(engine: Engine) -> None:
    """Prefill, decode, end: the columns, the instants and the order of the records are the scheduler's."""
    request = engine.add(Request("cmpl-a-0-0123abcd", num_prompt_tokens=10, max_tokens=2))
    first = step_of(new={request.request_id: (0, 10)})
    engine.schedule(first)
    engine.update(first, output_of({request.request_id: 1}))
    second = engine.schedule(step_of(old={request.request_id: (10, 1)}))
    request.num_output_tokens = 2
    engine.free(request, FinishReason.LENGTH)
    engine.update(second, output_of({request.request_id: 1}))
    assert engine.records() == [
        RequestStart(
            request=1,
            request_id="cmpl-a-0-0123abcd",
            time_ns=1,
            external_id="cmpl-a-0",
            prompt_tokens=10,
            max_tokens=2,
        ),
        Step(
            step=1,
            schedule_start_ns=2,
            schedule_end_ns=3,
            output_start_ns=4,
            output_end_ns=5,
            request=[1],
            context=[0],
            scheduled=[10],
        ),
        RequestEnd(request=1, time_ns=8, reason="length", output_tokens=2, preemptions=0, final_step=2),
        Step(
            step=2,
            schedule_start_ns=6,
            schedule_end_ns=7,
            output_start_ns=9,
            output_end_ns=10,
            request=[1],
            context=[10],
            waiting=3,
            running=2,
            kv_usage_ratio=0.5,
        ),
    ]


def test_stop_is_reason_zero(engine: Engine) -> None:
    """STOP is 0 in vLLM's enumeration and still a reason."""
    request = engine.add(Request("a"))
    engine.free(request, FinishReason.STOP)
    assert of(RequestEnd, engine.records())[0].reason == "stop"


def test_reason_from_status(engine: Engine) -> None:
    """A status that vLLM maps to no reason gives its own name."""
    request = engine.add(Request("a", status=SimpleNamespace(name="FINISHED_REPETITION")))
    engine.items.append((FREED, 5, request))
    assert of(RequestEnd, engine.records())[0].reason == "repetition"


def test_start_tells_what_the_request_carries(engine: Engine) -> None:
    """LoRA, trace headers and the pooling kind are told; a pooling request has no token limit."""
    engine.add(
        Request(
            "e",
            pooling_params=object(),
            lora_request=SimpleNamespace(lora_name="blue"),
            trace_headers={"traceparent": "00-1-2-01", "tracestate": "k=v"},
        )
    )
    (start,) = engine.records()
    assert isinstance(start, RequestStart)
    assert (start.kind, start.max_tokens, start.lora) == ("pooling", None, "blue")
    assert (start.trace_parent, start.trace_state) == ("00-1-2-01", "k=v")


def test_ids_are_bounded(engine: Engine) -> None:
    """A client may choose a request id of any length; what leaves the engine is short."""
    engine.add(Request("x" * 100_000, trace_headers={"tracestate": "y" * 100_000}))
    (start,) = engine.records()
    assert isinstance(start, RequestStart)
    assert len(start.request_id) == len(start.external_id) == 256
    assert len(start.trace_state) == 512


def test_missing_attributes(engine: Engine) -> None:
    """A request of another version, with nothing but an id and a reason, is still reported."""
    bare = SimpleNamespace(request_id="a", get_finished_reason=lambda: FinishReason.ABORT)
    engine.items += [(ADDED, 1, bare, None), (FREED, 2, bare)]
    start, end = engine.records()
    assert isinstance(start, RequestStart)
    assert (start.request_id, start.prompt_tokens, start.kind) == ("a", 0, "generate")
    assert end == RequestEnd(request=1, time_ns=2, reason="abort")
    assert engine.errors == []


def test_abort_before_scheduling(engine: Engine) -> None:
    """A request that ends in the queue has no final step."""
    engine.free(engine.add(Request("a")), FinishReason.ABORT)
    assert of(RequestEnd, engine.records())[0].final_step is None


def test_duplicate_finish(engine: Engine) -> None:
    """vLLM aborts some requests twice; the second end is not told."""
    request = engine.add(Request("a"))
    engine.free(request)
    engine.free(request)
    assert len(of(RequestEnd, engine.records())) == 1


def test_streaming_session_continues(engine: Engine) -> None:
    """A further chunk of input under an open id starts no second request."""
    engine.add(Request("a"))
    engine.add(Request("a"))
    assert len(of(RequestStart, engine.records())) == 1


def test_id_used_again(engine: Engine) -> None:
    """An id that comes back after its request has ended is a request of its own."""
    request = engine.add(Request("a"))
    engine.run(step_of(new={"a": (0, 10)}), a=1)
    engine.free(request)
    engine.add(Request("a"))
    engine.run(step_of(new={"a": (0, 10)}), a=1)
    records = engine.records()
    assert [each.request for each in of(RequestStart, records)] == [1, 2]
    assert [each.request for each in of(Step, records)] == [[1], [2]]


def test_unheard_request(engine: Engine) -> None:
    """A scheduled request whose start was lost is introduced, with what the scheduler still knows."""
    engine.known["a"] = Request("a", num_prompt_tokens=77)
    engine.run(step_of(old={"a": (80, 1), "b": (9, 1)}), a=1, b=1)
    records = engine.records()
    starts = of(RequestStart, records)
    assert [(each.request_id, each.prompt_tokens, each.resumed) for each in starts] == [
        ("a", 77, True),
        ("b", 0, True),
    ]
    assert of(Step, records)[0].request == [1, 2]


def test_end_lost_in_an_overflow(engine: Engine) -> None:
    """After an overflow, a request that the scheduler no longer has is ended two turns later, once;
    one that it still has stays open."""
    gone, kept = engine.add(Request("gone")), engine.add(Request("kept"))
    del engine.known["gone"]
    assert of(RequestEnd, engine.records(overflowed=5)) == []
    assert of(RequestEnd, engine.records()) == []
    (end,) = of(RequestEnd, engine.records())
    assert (end.request, end.reason) == (1, "unknown")
    engine.free(gone)
    engine.free(kept)
    assert [each.request for each in of(RequestEnd, engine.records())] == [2]


def test_end_that_arrives_after_an_overflow(engine: Engine) -> None:
    """An end that was only late keeps its reason."""
    request = engine.add(Request("a"))
    engine.records(overflowed=1)
    engine.records()
    engine.free(request, FinishReason.LENGTH)
    assert [each.reason for each in of(RequestEnd, engine.records())] == ["length"]
    assert of(RequestEnd, engine.records()) == []


def test_ends_without_free_request() -> None:
    """Where the scheduler cannot tell ends, the next step's list of finished ids does, reason unknown."""
    engine = Engine(ends_reported=False)
    engine.add(Request("a"))
    engine.run(step_of(new={"a": (0, 10)}), a=1)
    engine.run(step_of(finished_req_ids={"a", "stranger"}))
    (end,) = of(RequestEnd, engine.records())
    assert (end.request, end.reason, end.output_tokens, end.final_step) == (1, "unknown", None, 1)


@pytest.mark.parametrize(
    ("internal", "external"),
    [
        ("cmpl-A1-0-0123abcd", "cmpl-A1-0"),
        ("1_cmpl-A1-0-0123abcd", "cmpl-A1-0"),
        ("chatcmpl-x-y-0123abcd", "chatcmpl-x-y"),
        ("line\nbreak-0123abcd", "line\nbreak"),
        ("no-suffix", "no-suffix"),
        ("UPPER-0123ABCD", "UPPER-0123ABCD"),
        ("", ""),
    ],
)
def test_external_id(internal: str, external: str) -> None:
    """The id that the API answered with is the internal one without vLLM's additions."""
    assert external_id(internal) == external


def test_ids_without_random_digits() -> None:
    """Where vLLM adds nothing to ids, nothing is taken away."""
    engine = Engine(ids_randomized=False)
    engine.add(Request("mine-0123abcd"))
    (start,) = engine.records()
    assert isinstance(start, RequestStart)
    assert start.external_id == "mine-0123abcd"

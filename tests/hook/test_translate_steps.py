"""References to a step and its output become one record, in every case that vLLM is known to produce."""

from __future__ import annotations

from typing import Any

import pytest

from joulescope.hook.translate import (
    MAX_PENDING_STEPS,
    SCHEDULED,
)
from joulescope.hook.wire import AnyRecord, Gap, Overhead, RequestEnd, RequestStart, Step
from tests.hook.fakes import (
    Engine,
    FinishReason,
    NewRequestData,
    PrefillStats,
    Request,
    SchedulerOutput,
    output_of,
    step_of,
)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def of(kind: type, records: list[AnyRecord]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def test_chunked_prefill(engine: Engine) -> None:
    """A chunk that does not reach the end of the prompt brings no token."""
    engine.add(Request("a", num_prompt_tokens=100))
    engine.run(step_of(new={"a": (0, 64)}))
    engine.run(step_of(old={"a": (64, 36)}), a=1)
    first, second = engine.steps()
    assert (first.context, first.scheduled, first.sampled) == ([0], [64], [0])
    assert (second.context, second.scheduled, second.sampled) == ([64], [36], [])


def test_mixed_batch_keeps_columns_parallel(engine: Engine) -> None:
    """New requests and running ones of one step stand in the same order in all columns."""
    for each in ("a", "b", "c"):
        engine.add(Request(each))
    engine.run(step_of(new={"c": (0, 7)}, old={"b": (20, 1), "a": (10, 1)}), a=1, b=1)
    (step,) = engine.steps()
    assert (step.request, step.context) == ([3, 2, 1], [0, 20, 10])
    assert (step.scheduled, step.sampled) == ([7, 1, 1], [0, 1, 1])


def test_running_request_that_is_not_scheduled(engine: Engine) -> None:
    """A scheduler may list a running request without giving it tokens; it is not part of the step."""
    for each in ("a", "b"):
        engine.add(Request(each))
    output = step_of(old={"a": (10, 1), "b": (20, 1)})
    del output.num_scheduled_tokens["a"]
    engine.run(output, b=1)
    (step,) = engine.steps()
    assert (step.request, step.context) == ([2], [20])


def test_empty_steps_leave_no_trace(engine: Engine) -> None:
    """Steps without tokens are neither reported nor numbered."""
    engine.add(Request("a"))
    engine.run(step_of())
    engine.run(step_of(new={"a": (0, 10)}), a=1)
    engine.run(step_of())
    assert [step.step for step in engine.steps()] == [1]
    assert engine.translator.unknown_outputs == 0


def test_async_scheduling(engine: Engine) -> None:
    """Two steps are out at once; the extra step of a request that has ended is reported with no token
    for it, after its end, and the end names that step."""
    request = engine.add(Request("a"))
    engine.add(Request("b"))
    first = engine.schedule(step_of(new={"a": (0, 10), "b": (0, 10)}))
    second = engine.schedule(step_of(old={"a": (10, 1), "b": (10, 1)}))
    engine.free(request)
    engine.update(first, output_of(a=1, b=1))
    engine.update(second, output_of(b=1))
    records = engine.records()
    (end,) = of(RequestEnd, records)
    steps = of(Step, records)
    assert end.final_step == 2
    assert [(step.request, step.sampled) for step in steps] == [([1, 2], []), ([1, 2], [0, 1])]


def test_pending_step(engine: Engine) -> None:
    """The oldest step without output holds back what progress may vouch for."""
    engine.add(Request("a"))
    engine.schedule(step_of(new={"a": (0, 10)}))
    waiting = engine.now_ns
    engine.schedule(step_of(old={"a": (10, 1)}))
    assert engine.steps() == []
    assert engine.translator.pending_since_ns() == waiting


def test_abort_in_mid_step(engine: Engine) -> None:
    """A request aborted while its step runs is charged for the step and gets no token from it."""
    request = engine.add(Request("a"))
    step = engine.schedule(step_of(new={"a": (0, 10)}))
    engine.free(request, FinishReason.ABORT)
    engine.update(step, {})
    records = engine.records()
    assert of(RequestEnd, records)[0].reason == "abort"
    assert (of(Step, records)[0].request, of(Step, records)[0].sampled) == ([1], [0])


@pytest.mark.parametrize("resumed_as", ["old", "new"])
def test_preemption(engine: Engine, resumed_as: str) -> None:
    """A victim is named once; whether it resumes as a running or as a new request, it keeps its handle,
    and its second admission reports no cache hits."""
    stats = PrefillStats(num_local_cached_tokens=4)
    engine.add(Request("a", prefill_stats=stats))
    engine.add(Request("b"))
    engine.run(step_of(new={"a": (4, 6), "b": (0, 10)}), a=1, b=1)
    engine.run(step_of(old={"b": (10, 1)}, preempted_req_ids={"a"}), b=1)
    engine.run(step_of(**{resumed_as: {"a": (8, 3)}}), a=1)
    first, second, third = engine.steps()
    assert (first.cached, first.preempted) == ([(1, 4, 0)], [])
    assert (second.cached, second.preempted) == ([], [1])
    assert (third.request, third.context, third.scheduled, third.cached) == ([1], [8], [3], [])


def test_preemption_in_an_empty_step(engine: Engine) -> None:
    """A preemption told by a step without tokens travels with the next step that has some."""
    engine.add(Request("a"))
    engine.add(Request("b"))
    engine.run(step_of(preempted_req_ids={"a"}))
    engine.run(step_of(new={"b": (0, 10)}), b=1)
    assert engine.steps()[0].preempted == [1]


def test_cache_hits(engine: Engine) -> None:
    """Local and external hits are split by vLLM's own statistics, and misses are left out."""
    engine.add(Request("a", prefill_stats=PrefillStats(100, 28)))
    engine.add(Request("b"))
    engine.run(step_of(new={"a": (128, 2), "b": (0, 10)}), a=1, b=1)
    assert engine.steps()[0].cached == [(1, 100, 28)]


def test_cache_hits_before_0_20(engine: Engine) -> None:
    """Older versions tell the external part on the request; the rest of the head start is local."""
    engine.add(Request("a", prefill_stats=None, num_external_computed_tokens=28))
    engine.run(step_of(new={"a": (128, 2)}), a=1)
    assert engine.steps()[0].cached == [(1, 100, 28)]


def test_speculative_decoding(engine: Engine) -> None:
    """Drafts are counted without those that a grammar ruled out; a step may bring several tokens."""
    for each in ("a", "b", "c"):
        engine.add(Request(each))
    engine.run(
        step_of(
            old={"a": (10, 5), "b": (20, 3), "c": (30, 1)},
            scheduled_spec_decode_tokens={"a": [-1] * 4, "b": [-1] * 2},
            num_invalid_spec_tokens={"b": 2},
        ),
        a=3,
        b=1,
        c=1,
    )
    (step,) = engine.steps()
    assert (step.scheduled, step.sampled, step.drafted) == ([5, 3, 1], [3, 1, 1], [(1, 4)])


def test_counts_trimmed_after_scheduling(engine: Engine) -> None:
    """Counts and drafts are read when the output is back: vLLM trims both in place until then."""
    engine.add(Request("a"))
    output = engine.schedule(step_of(old={"a": (10, 5)}, scheduled_spec_decode_tokens={"a": [-1] * 4}))
    assert engine.steps() == []
    output.num_scheduled_tokens["a"] = 3
    output.scheduled_spec_decode_tokens["a"] = [-1] * 2
    engine.update(output, output_of(a=1))
    (step,) = engine.steps()
    assert (step.scheduled, step.drafted) == ([3], [(1, 2)])


def test_encoder_inputs(engine: Engine) -> None:
    """The encoder's tokens are the sizes of the inputs that the step encodes."""
    engine.add(Request("a", mm_features=[576, 144]))
    engine.run(step_of(new={"a": (0, 10)}, scheduled_encoder_inputs={"a": [0, 1], "unknown": [0]}), a=1)
    assert engine.steps()[0].encoder == [(1, 720)]


def test_pooling(engine: Engine) -> None:
    """A pooling request is computed and yields no tokens."""
    engine.add(Request("e", pooling_params=object()))
    engine.run(step_of(new={"e": (0, 10)}), e=0)
    assert engine.steps()[0].sampled == [0]


def test_outputs_of_several_clients(engine: Engine) -> None:
    """Tokens are found whichever API server they are for, and no output at all is fine."""
    for each in ("a", "b"):
        engine.add(Request(each))
    output = engine.schedule(step_of(old={"a": (1, 1), "b": (1, 1)}))
    engine.update(output, {0: output_of(a=1)[0], 1: output_of(b=1)[0]})
    engine.update(engine.schedule(step_of(old={"a": (2, 1)})), None)
    assert [step.sampled for step in engine.steps()] == [[], [0]]


def test_output_of_an_unknown_step(engine: Engine) -> None:
    """The output of a step that was never seen is counted, not reported."""
    engine.update(step_of(old={"a": (1, 1)}), output_of(a=1))
    assert engine.steps() == []
    assert engine.translator.unknown_outputs == 1


def test_lost_output(engine: Engine) -> None:
    """Outputs return in order, so a step that is overtaken is admitted as lost."""
    engine.add(Request("a"))
    engine.schedule(step_of(new={"a": (0, 10)}))
    lost_since = engine.now_ns
    engine.run(step_of(old={"a": (10, 1)}), a=1)
    records = engine.records()
    assert [(gap.start_ns, gap.reason) for gap in of(Gap, records)] == [(lost_since, "lost_output")]
    assert [step.step for step in of(Step, records)] == [2]
    assert engine.translator.pending_since_ns() is None


def test_pending_steps_are_bounded(engine: Engine) -> None:
    """If outputs never return, the oldest steps are given up."""
    engine.add(Request("a"))
    for number in range(MAX_PENDING_STEPS + 3):
        engine.schedule(step_of(old={"a": (number, 1)}))
    assert len(of(Gap, engine.records())) == 3


def test_broken_item_hurts_nobody_else(engine: Engine) -> None:
    """An item that cannot be translated is counted and admitted; the others arrive."""
    engine.items.append((SCHEDULED, 5, 6, object()))
    engine.add(Request("a"))
    records = engine.records()
    assert [type(error) for error in engine.errors] == [AttributeError]
    assert [gap.reason for gap in of(Gap, records)] == ["internal_error"]
    assert len(of(RequestStart, records)) == 1


def test_scheduler_without_context(engine: Engine) -> None:
    """Tokens for a request of which nobody says how many it has computed are an error, not a guess."""
    engine.add(Request("a"))
    output = step_of(old={"a": (10, 1)})
    output.num_scheduled_tokens["b"] = 1
    engine.schedule(output)
    engine.records()
    assert [type(error) for error in engine.errors] == [KeyError]


def test_ready_made_records_pass(engine: Engine) -> None:
    """Records among the items go out as they are, in their place."""
    overhead = Overhead(start_ns=1, end_ns=2, reason="dummy_batch")
    engine.add(Request("a"))
    engine.items.append(overhead)
    assert engine.records()[1] is overhead


def test_new_data_of_an_unknown_request(engine: Engine) -> None:
    """A new request whose start was lost reports no cache hits, for their split is not known."""
    output = SchedulerOutput({"a": 3}, [NewRequestData("a", 5)])
    engine.run(output, a=1)
    assert engine.steps()[0].cached == []

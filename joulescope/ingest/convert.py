"""From wire records to the model's values: the checks that keep nonsense out of the ledger."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from joulescope.hook import wire
from joulescope.model import TOKEN, CostFacts, EngineInfo, RequestEnded, RequestStarted, StepDone

MAX_TEXT = 256
"""Longest request id, LoRA name and the like that is kept: ids are chosen by clients."""

MAX_COUNT = 2**31
"""Above this a token count is a mistake."""

MAX_TIME_NS = 2**62


def step_done(engine: str, record: wire.Step) -> StepDone | None:
    """The step with its columns as arrays, or ``None`` if the record contradicts itself."""
    count = len(record.request)
    context = _column(record.context, count)
    scheduled = _column(record.scheduled, count, default=1)
    sampled = _column(record.sampled, count, default=1)
    if context is None or scheduled is None or sampled is None or not count:
        return None
    if not 0 <= record.schedule_start_ns <= record.schedule_end_ns <= record.output_start_ns:
        return None
    if not record.output_start_ns <= record.output_end_ns <= MAX_TIME_NS:
        return None
    if len(set(record.request)) != count:
        return None
    return StepDone(
        engine=engine,
        step=record.step,
        schedule_start_ns=record.schedule_start_ns,
        schedule_end_ns=record.schedule_end_ns,
        output_start_ns=record.output_start_ns,
        output_end_ns=record.output_end_ns,
        request=record.request,
        context=context,
        scheduled=scheduled,
        sampled=sampled,
        drafted=_tokens_by_request(record.drafted),
        cached=tuple(record.cached),
        preempted=tuple(record.preempted),
        encoder=_tokens_by_request(record.encoder),
        waiting=record.waiting,
        running=record.running,
        kv_usage_ratio=record.kv_usage_ratio,
    )


def _tokens_by_request(pairs: list[tuple[int, int]]) -> dict[int, int]:
    return {request: tokens for request, tokens in pairs if 0 <= tokens < MAX_COUNT}


def _column(values: list[int], count: int, default: int | None = None) -> NDArray[np.int64] | None:
    """``array.array`` takes a list of ints three times faster than numpy does, and refuses what is below 0;
    the largest of a few dozen ints is found sooner in the list than in the array (measured)."""
    if not values and default is not None:
        return np.full(count, default, dtype=np.int64)
    if len(values) != count:
        return None
    try:
        column = np.frombuffer(array("Q", values), dtype=np.int64)
    except OverflowError:
        return None
    if count and max(values) >= MAX_COUNT:
        return None
    return column


def request_started(engine: str, record: wire.RequestStart) -> RequestStarted:
    return RequestStarted(
        engine=engine,
        request=record.request,
        request_id=record.request_id[:MAX_TEXT],
        time_ns=record.time_ns,
        external_id=(record.external_id or record.request_id)[:MAX_TEXT],
        prompt_tokens=min(max(record.prompt_tokens, 0), MAX_COUNT),
        max_tokens=record.max_tokens,
        lora=record.lora[:MAX_TEXT],
        kind=record.kind[:MAX_TEXT],
        trace_parent=record.trace_parent[:MAX_TEXT],
        trace_state=record.trace_state[: 2 * MAX_TEXT],
        resumed=record.resumed,
    )


def request_ended(engine: str, record: wire.RequestEnd) -> RequestEnded:
    return RequestEnded(
        engine=engine,
        request=record.request,
        time_ns=record.time_ns,
        reason=record.reason[:MAX_TEXT] or "unknown",
        output_tokens=record.output_tokens,
        preemptions=record.preemptions,
        final_step=record.final_step,
    )


def engine_info(engine: str, hello: wire.Hello, facts: wire.EngineFacts) -> EngineInfo:
    cost = facts.cost
    return EngineInfo(
        engine=engine,
        instance_id=facts.instance_id[:MAX_TEXT],
        data_parallel_index=facts.data_parallel_index,
        model=facts.model[:MAX_TEXT],
        served_model=facts.served_model[:MAX_TEXT] or facts.model[:MAX_TEXT],
        dtype=facts.dtype,
        quantization=facts.quantization,
        vllm_version=facts.vllm_version,
        hook_version=hello.hook_version,
        tensor_parallel=facts.tensor_parallel,
        pipeline_parallel=facts.pipeline_parallel,
        data_parallel=facts.data_parallel,
        max_num_seqs=facts.max_num_seqs,
        max_num_batched_tokens=facts.max_num_batched_tokens,
        max_model_len=facts.max_model_len,
        kv_cache_tokens=facts.kv_cache_tokens,
        executor=facts.executor,
        async_scheduling=facts.async_scheduling,
        scheduler_class=facts.scheduler_class,
        capabilities=frozenset(hello.capabilities),
        software=facts.software[:MAX_TEXT],
        unit=facts.unit[:MAX_TEXT] or TOKEN,
        work_unit=facts.work_unit[:MAX_TEXT] or TOKEN,
        gpus=tuple(facts.gpus),
        cost=CostFacts(
            source=cost.source,
            weight_bytes=max(cost.weight_bytes, 0.0),
            kv_bytes_per_token=max(cost.kv_bytes_per_token, 0.0),
            flops_per_token=max(cost.flops_per_token, 0.0),
            flops_per_token_context=max(cost.flops_per_token_context, 0.0),
            flops_per_sample=max(cost.flops_per_sample, 0.0),
            expert_weight_bytes=min(max(cost.expert_weight_bytes, 0.0), max(cost.weight_bytes, 0.0)),
            expert_choice_ratio=min(max(cost.expert_choice_ratio, 0.0), 1.0),
        ),
    )

"""Objects shaped like vLLM's: a scheduler that one drives by hand, and everything that it hands out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from joulescope.hook.translate import ADDED, FREED, SCHEDULED, UPDATED, SchedulerTranslator
from joulescope.hook.wire import AnyRecord, Step


class FinishReason(enum.IntEnum):
    STOP = 0
    LENGTH = 1
    ABORT = 2


@dataclass
class PrefillStats:
    num_local_cached_tokens: int = 0
    num_external_cached_tokens: int = 0


@dataclass
class Request:
    request_id: str
    num_prompt_tokens: int = 10
    max_tokens: int = 16
    pooling_params: Any = None
    lora_request: Any = None
    trace_headers: dict[str, str] | None = None
    prefill_stats: PrefillStats | None = field(default_factory=PrefillStats)
    mm_features: list[int] = field(default_factory=list)
    num_output_tokens: int = 0
    num_preemptions: int = 0
    num_external_computed_tokens: int = 0
    reason: FinishReason | None = None
    status: Any = None

    def get_finished_reason(self) -> FinishReason | None:
        return self.reason

    def get_num_encoder_embeds(self, input_id: int) -> int:
        return self.mm_features[input_id]


@dataclass
class NewRequestData:
    req_id: str
    num_computed_tokens: int = 0


@dataclass
class CachedRequestData:
    req_ids: list[str] = field(default_factory=list)
    num_computed_tokens: list[int] = field(default_factory=list)


@dataclass
class SchedulerOutput:
    num_scheduled_tokens: dict[str, int] = field(default_factory=dict)
    scheduled_new_reqs: list[NewRequestData] = field(default_factory=list)
    scheduled_cached_reqs: CachedRequestData = field(default_factory=CachedRequestData)
    scheduled_spec_decode_tokens: dict[str, list[int]] = field(default_factory=dict)
    scheduled_encoder_inputs: dict[str, list[int]] = field(default_factory=dict)
    finished_req_ids: set[str] = field(default_factory=set)
    preempted_req_ids: set[str] | None = None
    num_invalid_spec_tokens: dict[str, int] | None = None

    @property
    def total_num_scheduled_tokens(self) -> int:
        return sum(self.num_scheduled_tokens.values())


@dataclass
class EngineCoreOutput:
    request_id: str
    new_token_ids: list[int] = field(default_factory=list)


@dataclass
class EngineCoreOutputs:
    outputs: list[EngineCoreOutput] = field(default_factory=list)


def step_of(
    new: dict[str, tuple[int, int]] | None = None, old: dict[str, tuple[int, int]] | None = None, **more: Any
) -> SchedulerOutput:
    """A step from ``{id: (computed before, scheduled now)}`` of new and of running requests."""
    new, old = new or {}, old or {}
    return SchedulerOutput(
        num_scheduled_tokens={each: count for each, (_, count) in [*new.items(), *old.items()]},
        scheduled_new_reqs=[NewRequestData(each, before) for each, (before, _) in new.items()],
        scheduled_cached_reqs=CachedRequestData(list(old), [before for before, _ in old.values()]),
        **more,
    )


def output_of(named: dict[str, int] | None = None, /, **more: int) -> dict[int, EngineCoreOutputs]:
    """What ``update_from_output`` returns for ``{id: tokens that came out}``."""
    tokens = {**(named or {}), **more}
    return {0: EngineCoreOutputs([EngineCoreOutput(each, [7] * count) for each, count in tokens.items()])}


class Scheduler:
    """Returns from ``schedule`` and ``update_from_output`` what the test has laid ready."""

    def __init__(self, vllm_config: Any = None, **_: Any) -> None:
        self.vllm_config = vllm_config
        self.requests: dict[str, Request] = {}
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.kv_cache_manager = SimpleNamespace(usage=0.25)
        self.next_step = SchedulerOutput()
        self.next_results: Any = {}
        self.is_down = False

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        return self.next_step

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: Any) -> Any:
        return self.next_results

    def add_request(self, request: Request) -> None:
        self.requests[request.request_id] = request

    def finish(self, request: Request, reason: FinishReason) -> None:
        request.reason = reason
        self._free_request(request)

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> str:
        del self.requests[request.request_id]
        return "kv parameters"

    def shutdown(self) -> None:
        self.is_down = True


class OverridingScheduler(Scheduler):
    """An out-of-tree scheduler: its own ``schedule``, which also calls the base's."""

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        return super().schedule(throttle_prefills)


class Engine:
    """Speaks to a translator as the wrappers do, with a clock that ticks one nanosecond a call."""

    def __init__(self, **options: Any) -> None:
        self.known: dict[str, Request] = {}
        self.errors: list[Exception] = []
        self.now_ns = 0
        self.translator = SchedulerTranslator(
            find_request=self.known.get,
            gauges=lambda: (3, 2, 0.5),
            complain=self.errors.append,
            now_ns=self.tick,
            **options,
        )
        self.items: list[object] = []

    def tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def add(self, request: Request) -> Request:
        self.known[request.request_id] = request
        self.items.append((ADDED, self.tick(), request, request.prefill_stats))
        return request

    def free(self, request: Request, reason: FinishReason = FinishReason.STOP) -> None:
        self.known.pop(request.request_id, None)
        request.reason = reason
        self.items.append((FREED, self.tick(), request))

    def schedule(self, output: SchedulerOutput) -> SchedulerOutput:
        self.items.append((SCHEDULED, self.tick(), self.tick(), output))
        return output

    def update(self, output: SchedulerOutput, results: Any = None) -> None:
        self.items.append((UPDATED, self.tick(), self.tick(), output, results))

    def run(self, output: SchedulerOutput, **tokens: int) -> None:
        self.update(self.schedule(output), output_of(**tokens))

    def records(self, overflowed: int = 0) -> list[AnyRecord]:
        items, self.items = self.items, []
        return self.translator.translate(items, overflowed)

    def steps(self) -> list[Step]:
        records = self.records()
        assert self.errors == []
        return [record for record in records if isinstance(record, Step)]

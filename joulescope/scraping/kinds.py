"""The servers whose pages are understood, as data: what each calls what we ask for.

Read in the sources of vLLM 0.14.1 and 0.33.0 (``vllm/v1/metrics/loggers.py``), SGLang 0.5.23
(``sglang/srt/observability/metrics_collector.py``) and TGI 3.1 (``router/src/server.rs``,
``router/src/validation.rs``, ``backends/v3/src``); the page of a running vLLM 0.32.0 is among the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

RANK_LABELS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
"""SGLang's ranks that work on the same requests: in pipeline stages, and with
``--enable-metrics-for-all-schedulers``, each tells of all. Data-parallel ranks have requests of their own."""

BREAKDOWN_LABEL = "priority"
"""With priority scheduling SGLang tells a gauge in all, with an empty priority, and again by priority."""

START_TIME = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class ServerKind:
    """Names of the samples of one kind of server; an empty name means that it does not tell."""

    name: str
    prefix: str
    """With which all its own samples begin."""
    generated_tokens: str
    prompt_tokens: str
    running: str
    waiting: str
    kv_usage: str
    counters_come_late: bool
    """A counter is not on the page before it is first needed: until then it is 0 and not unknown."""

    @property
    def samples(self) -> frozenset[str]:
        """All names that are read."""
        names = (self.generated_tokens, self.prompt_tokens, self.running, self.waiting, self.kv_usage)
        return frozenset(name for name in names if name)


KINDS = (
    ServerKind(
        name="vllm",
        prefix="vllm:",
        generated_tokens="vllm:generation_tokens_total",
        prompt_tokens="vllm:prompt_tokens_total",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv_usage="vllm:kv_cache_usage_perc",  # 0..1, whatever its name says
        counters_come_late=False,
    ),
    ServerKind(
        name="sglang",
        prefix="sglang:",
        generated_tokens="sglang:generation_tokens_total",
        prompt_tokens="sglang:prompt_tokens_total",
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_usage="sglang:token_usage",
        counters_come_late=True,
    ),
    ServerKind(
        name="tgi",
        prefix="tgi_",
        generated_tokens="tgi_request_generated_tokens_sum",
        prompt_tokens="tgi_request_input_length_sum",
        running="tgi_batch_current_size",
        waiting="tgi_queue_size",
        kv_usage="",
        counters_come_late=True,
    ),
)

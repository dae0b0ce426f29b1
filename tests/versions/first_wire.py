"""The wire as it was when protocol 1 was fixed, kept as it was: what the oldest hook writes and the oldest
sidecar knows. Never changed; ``test_versions`` holds today's wire to it."""

from __future__ import annotations

import msgspec

PROTOCOL = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024
LENGTH_BYTES = 4


class Record(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """Common to all records. ``session`` numbers the connection in a trace; a socket leaves it out."""

    session: int = 0


class CostFacts(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Bytes and FLOPs of a step, summed over the GPUs of one replica; see ``joulescope.model.CostFacts``."""

    source: str = "unknown"
    weight_bytes: float = 0.0
    kv_bytes_per_token: float = 0.0
    flops_per_token: float = 0.0
    flops_per_token_context: float = 0.0
    flops_per_sample: float = 0.0


class EngineFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who the engine is: identity, shape, limits, and what its model costs."""

    instance_id: str = ""
    data_parallel_index: int = 0
    model: str = ""
    served_model: str = ""
    dtype: str = ""
    quantization: str = ""
    vllm_version: str = ""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    kv_cache_tokens: int | None = None
    block_size: int | None = None
    executor: str = ""
    async_scheduling: bool = False
    scheduler_class: str = ""
    speculative: str = ""
    prefix_caching: bool = False
    device: str = ""
    gpus: list[str] = []
    cost: CostFacts = CostFacts()


class WorkerFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which device a worker process drives. Joined to its engine by instance and data-parallel index."""

    instance_id: str = ""
    data_parallel_index: int = 0
    rank: int = 0
    local_rank: int = 0
    tensor_parallel_rank: int = 0
    pipeline_parallel_rank: int = 0
    data_parallel_rank: int = 0
    device: str = ""
    gpu: str = ""
    gpu_name: str = ""


class Hello(Record, tag="hello"):
    """First record of a session, and again after each reconnect."""

    time_ns: int
    protocol: int = PROTOCOL
    role: str = "engine"
    pid: int = 0
    ppid: int = 0
    hook_version: str = ""
    wall_ns: int = 0
    capabilities: list[str] = []
    engine: EngineFacts | None = None
    worker: WorkerFacts | None = None


class RequestStart(Record, tag="request_start"):
    """A request entered the scheduler. ``request`` is a number never reused within the session."""

    request: int
    request_id: str
    time_ns: int
    external_id: str = ""
    prompt_tokens: int = 0
    max_tokens: int | None = None
    lora: str = ""
    kind: str = "generate"
    trace_parent: str = ""
    trace_state: str = ""
    resumed: bool = False


class Step(Record, tag="step"):
    """One scheduler iteration whose output is back; empty ``scheduled`` or ``sampled`` mean all ones."""

    step: int
    schedule_start_ns: int
    schedule_end_ns: int
    output_start_ns: int
    output_end_ns: int
    request: list[int]
    context: list[int]
    scheduled: list[int] = []
    sampled: list[int] = []
    drafted: list[tuple[int, int]] = []
    cached: list[tuple[int, int, int]] = []
    preempted: list[int] = []
    encoder: list[tuple[int, int]] = []
    waiting: int | None = None
    running: int | None = None
    kv_usage_ratio: float | None = None


class RequestEnd(Record, tag="request_end"):
    """A request left the scheduler. ``final_step`` is the last step that may still have computed it."""

    request: int
    time_ns: int
    reason: str
    output_tokens: int | None = None
    preemptions: int | None = None
    final_step: int | None = None


class Overhead(Record, tag="overhead"):
    """Work of the engine that no request asked for, such as a dummy data-parallel batch."""

    start_ns: int
    end_ns: int
    reason: str


class Gap(Record, tag="gap"):
    """Records were lost: what ran between the two instants is not known."""

    start_ns: int
    end_ns: int
    dropped: int = 0
    reason: str = "overload"


class Progress(Record, tag="progress"):
    """All that ended before ``time_ns`` has been sent; sent with every batch and as a heartbeat."""

    time_ns: int
    pending_since_ns: int | None = None
    """When the oldest step that is still running was scheduled."""
    dropped: int = 0
    """Records dropped by the hook since it started."""


class Bye(Record, tag="bye"):
    """The session ends on purpose. In a trace it also stands for a connection that broke."""

    time_ns: int
    reason: str = "closed"


class Gpu(Record, tag="gpu"):
    """A GPU that a sensor reads: sent before its first sample."""

    gpu: str
    name: str = ""
    index: int | None = None
    power_limit_watts: float | None = None
    memory_total_bytes: int | None = None
    driver_version: str = ""
    energy_source: str = "counter"


class Sample(Record, tag="sample"):
    """One poll of one GPU; an absent field could not be read."""

    gpu: str
    time_ns: int
    energy_joules: float | None = None
    power_watts: float | None = None
    memory_used_bytes: int | None = None
    sm_utilization_ratio: float | None = None


class TraceHeader(Record, tag="trace"):
    """First line of a trace file."""

    format: int = PROTOCOL
    wall_ns: int = 0
    time_ns: int = 0
    joulescope_version: str = ""
    note: str = ""


AnyRecord = (
    Hello | RequestStart | Step | RequestEnd | Overhead | Gap | Progress | Bye | Gpu | Sample | TraceHeader
)


def encode_frame(records: list[AnyRecord], encoder: msgspec.msgpack.Encoder) -> bytes:
    """One frame, ready to send."""
    payload = encoder.encode(records)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload

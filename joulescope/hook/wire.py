"""Records that the hook sends, and the frames that carry them.

The same records, written as JSON objects one a line, are the trace file. ``docs/protocol.md`` and
``docs/trace-format.md`` describe every field. Rules that keep old and new versions on speaking terms:

* a field may be added with a default, never removed, renamed or given another meaning;
* a decoder skips fields it does not know and counts records whose ``type`` it does not know;
* :data:`PROTOCOL` changes only when an old decoder would misread a new stream.

A frame is a 4-byte big-endian length followed by that many bytes: a msgpack array of records.
Instants are CLOCK_MONOTONIC nanoseconds, the rest is SI. Beyond the standard library this module needs
msgspec and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from joulescope.hook.link import LENGTH_BYTES as LENGTH_BYTES

PROTOCOL = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024

SAMPLER = "sampler"
"""Capability of an engine that can start a process which reads its GPUs; also the role of that process."""


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
    expert_weight_bytes: float = 0.0
    expert_choice_ratio: float = 0.0


class EngineFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who the engine is: identity, shape, limits, and what its model costs."""

    instance_id: str = ""
    data_parallel_index: int = 0
    name: str = ""
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
    software: str = "vllm"
    unit: str = "token"
    work_unit: str = "token"
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


class SamplerFacts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Whose GPUs a sampler inside an engine's container reads; joined to its engine as workers are."""

    instance_id: str = ""
    data_parallel_index: int = 0


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
    sampler: SamplerFacts | None = None


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
    """A GPU that a sensor reads: sent before its first sample. Only samplers send it, and the next two."""

    gpu: str
    name: str = ""
    index: int | None = None
    power_limit_watts: float | None = None
    memory_total_bytes: int | None = None
    driver_version: str = ""
    energy_source: str = "counter"
    calibration_factor: float = 1.0
    instances: list[str] = []
    energy_split: str = ""
    parent: str = ""
    slices: int | None = None
    slices_total: int | None = None
    capabilities: dict[str, bool | str] = {}
    """By the names of ``joulescope.model.GpuCapabilities``; what is not known is left out."""


class Sample(Record, tag="sample"):
    """One poll of one GPU; an absent field could not be read."""

    gpu: str
    time_ns: int
    energy_joules: float | None = None
    power_watts: float | None = None
    memory_used_bytes: int | None = None
    sm_utilization_ratio: float | None = None
    clock_error_seconds: float = 0.0
    """How far ``time_ns`` may be from the clock of the other records: 0 but for a GPU in another node."""


class GpuStatus(Record, tag="gpu_status"):
    """What about a GPU is read about once a second; an absent field could not be read."""

    gpu: str
    time_ns: int
    power_limit_watts: float | None = None
    power_instant_watts: float | None = None
    module_power_watts: float | None = None
    memory_power_watts: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    temperature_celsius: float | None = None
    throttle_reasons: list[str] | None = None
    graphics_active_ratio: float | None = None
    sm_active_ratio: float | None = None
    sm_occupancy_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    pcie_sent_bytes_per_second: float | None = None
    pcie_received_bytes_per_second: float | None = None
    nvlink_sent_bytes_per_second: float | None = None
    nvlink_received_bytes_per_second: float | None = None


class HostDomain(Record, tag="host_domain"):
    """A part of the host with an energy counter: written before its first sample. No hook sends it."""

    domain: str
    zone: str = ""
    energy_range_joules: float | None = None


class HostSample(Record, tag="host_sample"):
    """One poll of the host's counters and of CPU times. No hook sends it."""

    time_ns: int
    energy_joules: dict[str, float] = {}
    busy_cpu_seconds: float | None = None
    total_cpu_seconds: float | None = None
    engine_cpu_seconds: dict[str, float] = {}
    unseen_engines: list[str] = []


class TraceHeader(Record, tag="trace"):
    """First line of a trace file."""

    format: int = PROTOCOL
    wall_ns: int = 0
    time_ns: int = 0
    joulescope_version: str = ""
    note: str = ""


class Wanted(Record, tag="wanted"):
    """All that a sidecar ever says: read these GPUs for me, with so many polls a second.

    To an engine whose hello has the capability :data:`SAMPLER`: start a sampler. To a sampler: what to read
    from now on. No trace has it, so it is no part of :data:`AnyRecord`.
    """

    gpus: list[str] = []
    sample_hz: float = 20.0
    power_sample_hz: float = 100.0
    """In its place where a GPU is measured by power readings of windows so short that it takes as many."""


AnyRecord = (
    Hello
    | RequestStart
    | Step
    | RequestEnd
    | Overhead
    | Gap
    | Progress
    | Bye
    | Gpu
    | Sample
    | GpuStatus
    | HostDomain
    | HostSample
    | TraceHeader
)


def encode_frame(records: Sequence[Record], encoder: msgspec.msgpack.Encoder) -> bytes:
    """One frame, ready to send."""
    payload = encoder.encode(records)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def wanted_in(payloads: Iterable[bytes]) -> Wanted | None:
    """The last wish in these frames; what cannot be read, or is something else, is passed over."""
    found = None
    for payload in payloads:
        try:
            parts = _RAW_FRAME.decode(payload)
        except msgspec.DecodeError:
            continue
        for part in parts:
            try:
                found = _WANTED.decode(part)
            except msgspec.DecodeError:
                continue
    return found


_RAW_FRAME = msgspec.msgpack.Decoder(list[msgspec.Raw])
_WANTED = msgspec.msgpack.Decoder(Wanted)

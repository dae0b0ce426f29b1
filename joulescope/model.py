"""Frozen value types that travel between rooms.

Units are SI and stand in the names; instants are CLOCK_MONOTONIC nanoseconds (``_ns``). ``None``
means "not known", never zero. The types that speak of GPUs stand in :mod:`joulescope.gpu_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from joulescope.diagnosis_model import DiagnosisTotals, LatentTotals
from joulescope.engine_model import OPEN_PHASES as OPEN_PHASES
from joulescope.engine_model import TOKEN as TOKEN
from joulescope.engine_model import BaselineTotals as BaselineTotals
from joulescope.engine_model import CostFacts as CostFacts
from joulescope.engine_model import EngineInfo as EngineInfo
from joulescope.engine_model import OpenRequest as OpenRequest
from joulescope.gpu_model import MIG_GPM as MIG_GPM
from joulescope.gpu_model import MIG_REST as MIG_REST
from joulescope.gpu_model import THROTTLE_REASONS as THROTTLE_REASONS
from joulescope.gpu_model import CallTime as CallTime
from joulescope.gpu_model import EnergyInterval as EnergyInterval
from joulescope.gpu_model import GpuCapabilities as GpuCapabilities
from joulescope.gpu_model import GpuInfo as GpuInfo
from joulescope.gpu_model import GpuReading as GpuReading
from joulescope.gpu_model import GpuStatus as GpuStatus
from joulescope.gpu_model import MeterComparison as MeterComparison
from joulescope.gpu_model import SamplerStatistics as SamplerStatistics
from joulescope.host_model import HostTotals
from joulescope.label_model import LabelTotals
from joulescope.ledger_model import LedgerTotals, MinuteTotals
from joulescope.link_model import LinkTotals
from joulescope.serving_model import ServingTotals
from joulescope.surroundings_model import Multipliers, ServerTotals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHOD = "fitted-shapley"
"""Name of the rule by which joules are divided; it stands in every export."""

METHOD_VERSION = "3"

INTERVAL_LEVEL = 0.9
"""Part of requests whose true figure the stated interval is meant to hold."""


# --------------------------------------------------------------------------------------- vocabulary
# The label values that exporters show from the first scrape on, at 0: a rate() over a series that
# appears with its first increment misses that increment.

PHASES = ("prefill", "decode")

UNATTRIBUTED_REASONS = ("no_engine", "records_lost", "engine_silent", "unmapped", "mig_instance", "mig_rest")
"""Why measured joules are nobody's: no engine was connected; records were dropped or a connection
broke; an engine stopped reporting; no engine says that it uses this GPU; an engine uses a MIG instance of it,
of which there is no meter and whose share is not known; the split among MIG instances gave them to none."""

OVERHEAD_REASONS = ("startup", "dummy_batch", "preemption", "rejected_draft")
"""Work no request asked for: load, warm-up and graph capture; empty data-parallel steps; recompute; and, if
requests need not pay for them, drafts that were not accepted."""

WASTED_REASONS = ("abort", "rejected_draft", "preemption")
"""Joules contained in the figures above whose work came to nothing."""

COMPUTED_TOKEN_KINDS = ("prefill", "decode", "recomputed", "rejected")
"""Every token computed in a step is of exactly one of these kinds."""

CACHED_TOKEN_KINDS = ("cached_local", "cached_external")
"""Prompt tokens found in a cache, and so not computed."""

AVOIDED_REASONS = ("local_cache", "external_cache")
"""Why joules were not drawn: tokens of a prompt were in the engine's own prefix cache, or came from afar."""

GENERATED_TOKENS = "generated"
"""Tokens that came out."""

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
"""As vLLM names them, lower case; ``repetition`` since 0.17."""

# ----------------------------------------------------- what an engine tells, as attribution takes it


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """A request entered an engine's scheduler. ``request`` is the sender's handle, never reused."""

    engine: str
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
    """Announced again after a reconnect: what it used before is not in this ledger."""
    tenant: str = ""
    """Whose request it is, by the operator's rule; empty where there is none."""
    task: str = ""
    """Its task class, likewise; that of a rule on lengths may come later."""


@dataclass(frozen=True, slots=True, eq=False)
class StepDone:
    """One executed scheduler iteration. The columns are parallel, one entry per scheduled request."""

    engine: str
    step: int
    schedule_start_ns: int
    schedule_end_ns: int
    output_start_ns: int
    output_end_ns: int
    request: list[int]
    context: NDArray[np.int64]
    """Tokens already computed before this step."""
    scheduled: NDArray[np.int64]
    """Tokens computed in this step."""
    sampled: NDArray[np.int64]
    """Tokens that came out of this step."""
    drafted: Mapping[int, int] = field(default_factory=dict)
    """Speculative tokens among the scheduled ones, by request; accepted = sampled − 1."""
    cached: tuple[tuple[int, int, int], ...] = ()
    """(request, tokens found in the local prefix cache, tokens loaded from elsewhere)."""
    preempted: tuple[int, ...] = ()
    encoder: Mapping[int, int] = field(default_factory=dict)
    """Multimodal encoder tokens computed in this step, by request."""
    waiting: int | None = None
    running: int | None = None
    kv_usage_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request left the scheduler. Its energy is final once step ``final_step`` is accounted."""

    engine: str
    request: int
    time_ns: int
    reason: str
    """``stop``, ``length``, ``abort``, ``error``, … as vLLM names it, lower case."""
    output_tokens: int | None = None
    preemptions: int | None = None
    final_step: int | None = None


# -------------------------------------------------------------------------------------- the results


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """The account of one request, final: once handed out it never changes."""

    request_id: str
    external_id: str
    engine: str
    model: str
    lora: str
    kind: str
    start_ns: int
    end_ns: int
    first_token_ns: int | None
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    scheduled_tokens: int
    """Tokens computed for it in all, recomputed and rejected ones included."""
    recomputed_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    preemptions: int
    steps: int
    attributed_joules: float | None
    """``None`` where no sensor measured the engine's GPUs during its life."""
    marginal_joules: float | None
    prefill_joules: float | None
    decode_joules: float | None
    wasted_joules: float | None
    complete: bool
    """False if part of its life was not measured or its records were lost."""
    trace_parent: str = ""
    trace_state: str = ""
    attributed_low_joules: float | None = None
    """Lower end of the interval that holds the true figure in :data:`INTERVAL_LEVEL` of cases, by the
    division alone: the gain error of the card's meter is not in it. ``None`` where it is not known."""
    attributed_high_joules: float | None = None
    marginal_low_joules: float | None = None
    marginal_high_joules: float | None = None
    avoided_joules: float | None = None
    """What its prefix-cache hits would have cost to compute; information only, part of no sum."""
    energy_source: str = "counter"
    """``counter``, ``power`` (integrated from power), ``mig_gpm`` (a MIG instance's share of its GPU's, an
    estimate), ``mixed``, or empty where nothing was measured."""
    unit: str = TOKEN
    work_unit: str = TOKEN
    software: str = "vllm"
    first_step_ns: int | None = None
    """When the scheduler began the first step that computed it: until then it waited."""
    pauses_ns: tuple[tuple[int, int], ...] = ()
    """The stretches, begin and end, in which it was pushed out of the KV cache; at most sixteen are kept."""
    method: str = METHOD
    method_version: str = METHOD_VERSION
    tenant: str = ""
    """Whose request it was, ``none`` if that is not known; empty where tenants are not told apart."""
    task: str = ""
    """Its task class, of which an engine has few: ``none`` if no source names one, ``other`` if its own got
    no room; empty where tasks are not told apart."""


@dataclass(frozen=True, slots=True)
class HistogramState:
    """Cumulative histogram with the last exemplar of each bucket.

    ``counts[i]`` observations fell in ``(bounds[i-1], bounds[i]]``; the last one is above all bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: tuple[tuple[Mapping[str, str], float, float] | None, ...] = ()
    """Per bucket ``(labels, value, wall time in seconds)``."""


@dataclass(frozen=True, slots=True)
class TaskTotals(LabelTotals):
    """What the requests of one task class used: the engine's own figures, told once more."""

    joules_per_request: HistogramState = HistogramState((), (0,), 0.0)


@dataclass(frozen=True, slots=True)
class GpuTotals:
    """The ledger of one GPU: measured = attributed + idle + overhead + unattributed, exactly."""

    info: GpuInfo
    measured_joules: float
    attributed_joules: float
    idle_joules: float
    overhead_joules: Mapping[str, float]
    """By reason."""
    unattributed_joules: Mapping[str, float]
    """By reason."""
    residual_joules: float
    """measured − (attributed + idle + overhead + unattributed); always 0."""
    intervals: int = 0
    counter_resets: int = 0
    rejected_intervals: int = 0
    read_failures: int = 0
    up: bool = True
    reading: GpuReading | None = None
    """The latest reading, ``None`` when the sensor stopped answering (stale is not fresh)."""
    accounted_until_ns: int | None = None
    comparison: MeterComparison | None = None
    """``None`` unless the GPU shows a counter and power."""
    counter_tick_seconds: float | None = None
    """How often its counter shows another figure, as measured; ``None`` while that is not known."""
    whole_joules: float | None = None
    """Of a GPU whose joules are, or were, split among MIG instances: its own and theirs together, what the
    card drew. Contained in the measured figures of these GPUs."""


@dataclass(frozen=True, slots=True)
class EngineTotals:
    """Counters and gauges of one engine since the sidecar first met it."""

    info: EngineInfo
    up: bool
    attributed_joules: Mapping[tuple[str, str], float]
    """By (gpu, phase); phase is ``prefill`` or ``decode``."""
    marginal_joules: float
    wasted_joules: Mapping[str, float]
    """Already contained in other figures; by reason (``abort``, ``rejected_draft``, ``preemption``)."""
    tokens: Mapping[str, int]
    """By kind: ``prefill``, ``decode``, ``recomputed``, ``rejected`` (computed in steps);
    ``cached_local``, ``cached_external`` (not computed); ``generated`` (came out)."""
    requests_started: int
    requests_finished: Mapping[str, int]
    """By finish reason."""
    requests_open: int
    steps: int
    preemptions: int
    running: int | None
    waiting: int | None
    kv_usage_ratio: float | None
    records_dropped: int
    gaps: int
    joules_per_request: HistogramState
    joules_per_output_token: HistogramState
    baseline: BaselineTotals | None = None
    """``None`` where its work is compared with nothing."""
    avoided_joules: Mapping[str, float] = field(default_factory=dict)
    """What cache hits would have cost to compute, by :data:`AVOIDED_REASONS`; part of no sum."""
    adapters: Mapping[str, LabelTotals] = field(default_factory=dict)
    """By LoRA adapter; together they are what is attributed."""
    tenants: Mapping[str, LabelTotals] = field(default_factory=dict)
    """By tenant, together what is attributed; empty where tenants are not told apart."""
    tasks: Mapping[str, TaskTotals] = field(default_factory=dict)
    """By task class; with ``undecided_joules`` they are what is attributed. Empty where tasks are not told
    apart."""
    undecided_joules: Mapping[str, float] = field(default_factory=dict)
    """By phase: attributed to open requests whose task class their output has yet to decide."""
    refused_labels: Mapping[str, int] = field(default_factory=dict)
    """Different values without a series of their own, by label (``lora``, ``tenant``, ``task``)."""
    batch_tokens: int | None = None
    """Computed in the last step; 0 when nothing runs."""
    next_token_joules: float | None = None
    """What one more decode token costs in the batch as it runs; ``None`` when nothing runs."""


@dataclass(frozen=True, slots=True)
class PageTotals:
    """What it took to make pages of metrics."""

    made: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SidecarTotals:
    """How the sidecar itself fares."""

    start_wall_seconds: float
    sessions: int = 0
    records: Mapping[str, int] = field(default_factory=dict)
    """Records taken in, by type."""
    rejected_records: Mapping[str, int] = field(default_factory=dict)
    """Frames and records that were refused, by reason."""
    attribution_lag_seconds: float | None = None
    """Age of the newest fully accounted instant."""
    sampler: SamplerStatistics | None = None
    """``None`` where no sensor is read."""
    exported: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Requests handed to an exporter, by (exporter, outcome)."""
    pages: PageTotals | None = None
    """Of the metrics, made so far; ``None`` where none are served."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that exporters may read, taken at one instant."""

    time_ns: int
    wall_seconds: float
    gpus: tuple[GpuTotals, ...] = ()
    engines: tuple[EngineTotals, ...] = ()
    sidecar: SidecarTotals = SidecarTotals(start_wall_seconds=0.0)
    host: HostTotals = field(default_factory=HostTotals)
    """CPU packages and DRAM; its joules are in no other figure."""
    multipliers: Multipliers = field(default_factory=Multipliers)
    servers: tuple[ServerTotals, ...] = ()
    """Those without a hook, whose own pages are read."""
    serving: ServingTotals = field(default_factory=ServingTotals)
    links: LinkTotals = field(default_factory=LinkTotals)
    """To relays on other nodes."""
    ledger: LedgerTotals = field(default_factory=LedgerTotals)
    latents: tuple[LatentTotals, ...] = ()
    diagnosis: DiagnosisTotals = field(default_factory=DiagnosisTotals)
    minutes: MinuteTotals = field(default_factory=MinuteTotals)

"""How many series a node may have, and how many it has: the table read from a node that tells all it can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from joulescope.diagnosis_model import (
    CAUSES,
    NO_CAUSE,
    WINDOWS,
    DiagnosisTotals,
    EngineDiagnosis,
    LatentTotals,
)
from joulescope.export.http_counts import HttpCounts
from joulescope.export.metric import Metric
from joulescope.host_model import HostDomain, HostDomainTotals, HostTotals
from joulescope.label_model import BASE_ADAPTER, NO_TASK, NO_TENANT, OTHER, LabelTotals
from joulescope.ledger_model import LedgerTotals
from joulescope.link_model import LinkState, LinkTotals
from joulescope.model import (
    PHASES,
    BaselineTotals,
    CallTime,
    CostFacts,
    EngineInfo,
    EngineTotals,
    GpuInfo,
    GpuReading,
    GpuStatus,
    GpuTotals,
    HistogramState,
    MeterComparison,
    PageTotals,
    SamplerStatistics,
    SidecarTotals,
    Snapshot,
    TaskTotals,
)
from joulescope.serving_model import ServingTotals
from joulescope.surroundings_model import Multipliers

BUDGET = 7_500
"""Series of one sidecar on the largest node that is planned for: :data:`LARGEST`."""

HISTOGRAM_BOUNDS = 15

_DRIVER_CALLS = (
    "energy", "power", "memory", "utilization", "power_limit", "sm_clock", "memory_clock", "temperature",
    "throttle_reasons", "fields", "gpm", "changes",
)  # fmt: skip
"""About as many as the driver of a Hopper GPU is asked."""

EXPORTED = {
    "jsonl": ("written", "dropped"),
    "otlp": ("exported", "rejected", "failed", "dropped", "unsampled"),
    "requests_api": ("kept",),
    "ledger": ("written", "dropped"),
    "answer": ("estimated", "unknown", "late", "unreachable", "skipped"),
}
"""Outcomes of a request by exporter, with all of them on; a test holds them to what the exporters count."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a sidecar looks after. Each engine serves all the adapters, tenants and task classes."""

    gpus: int
    engines: int
    adapters: int = 0
    tenants: int | None = None
    """``None``: they are not told apart; so with the next."""
    tasks: int | None = None
    links: int = 0
    """Other nodes of its engines."""


LARGEST = Node(gpus=16, engines=8, adapters=50, tenants=50, tasks=8, links=16)


def series_of(metric: Metric, snapshot: Snapshot) -> int:
    """How many series a metric has. A histogram has one for each bucket, its sum and its count."""
    return sum(
        len(point.value.counts) + 2 if isinstance(point.value, HistogramState) else 1
        for point in metric.read(snapshot)
    )


def total_series(metrics: Iterable[Metric], node: Node) -> int:
    """Series of a node that tells all it can."""
    snapshot = snapshot_of(node)
    return sum(series_of(metric, snapshot) for metric in metrics)


def snapshot_of(node: Node) -> Snapshot:
    """A snapshot in which nothing is absent that such a node can tell; its figures mean nothing."""
    gpus = [f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(node.gpus)]
    each = max(node.gpus // max(node.engines, 1), 1)
    engines = [
        _engine(f"model-{number}", tuple(gpus[number * each : (number + 1) * each]), node)
        for number in range(node.engines)
    ]
    return Snapshot(
        time_ns=1,
        wall_seconds=1.0,
        gpus=tuple(map(_gpu, gpus)),
        engines=tuple(engines),
        sidecar=_sidecar(),
        host=_host([engine.info.engine for engine in engines]),
        multipliers=Multipliers(1.2, 1e-4, 1.0, {}, 1e-7, "EUR"),
        serving=ServingTotals(HttpCounts().responses, config_usable=True, certificate_not_after_seconds=1.0),
        links=LinkTotals(
            listening=node.links > 0,
            links=tuple(LinkState(f"node-{at}", True, 0.0, 0.0, 0.0, 0.0) for at in range(node.links)),
        ),
        latents=tuple(LatentTotals(each.info.engine, {}, {}, 0.0, {}, 0.0, 0.0, 0.0) for each in engines),
        diagnosis=DiagnosisTotals(True, tuple(_diagnosis(each.info.engine) for each in engines)),
        ledger=LedgerTotals(True, open_bytes=0, parquet_bytes=0, uploaded_bytes=0, flushed_wall_seconds=1.0),
    )


def _gpu(gpu: str) -> GpuTotals:
    status = GpuStatus(gpu, 1, *(1.0,) * 7, frozenset(), *(1.0,) * 9)
    return GpuTotals(
        info=GpuInfo(gpu, power_limit_watts=700.0, memory_total_bytes=1),
        measured_joules=1.0,
        attributed_joules=1.0,
        idle_joules=0.0,
        overhead_joules={},
        unattributed_joules={},
        residual_joules=0.0,
        reading=GpuReading(gpu, 1, 1.0, 1.0, 1, 1.0, status=status),
        accounted_until_ns=1,
        comparison=MeterComparison(1.0, 1.0, 1.0),
        counter_tick_seconds=0.1,
    )


def _engine(name: str, gpus: tuple[str, ...], node: Node) -> EngineTotals:
    histogram = HistogramState(tuple(map(float, range(HISTOGRAM_BOUNDS))), (0,) * (HISTOGRAM_BOUNDS + 1), 0.0)
    return EngineTotals(
        info=EngineInfo(name, gpus=gpus, cost=CostFacts("vllm")),
        up=True,
        attributed_joules={},
        marginal_joules=0.0,
        wasted_joules={},
        tokens={},
        requests_started=0,
        requests_finished={},
        requests_open=0,
        steps=0,
        preemptions=0,
        running=0,
        waiting=0,
        kv_usage_ratio=0.0,
        records_dropped=0,
        gaps=0,
        joules_per_request=histogram,
        joules_per_output_token=histogram,
        adapters=_by_label(BASE_ADAPTER, "adapter", node.adapters),
        tenants={} if node.tenants is None else _by_label(NO_TENANT, "tenant", node.tenants),
        tasks={} if node.tasks is None else _tasks(node.tasks, histogram),
        undecided_joules={} if node.tasks is None else dict.fromkeys(PHASES, 0.0),
        refused_labels=dict.fromkeys(_open_labels(node), 0),
        batch_tokens=0,
        next_token_joules=0.0,
        baseline=BaselineTotals(1.0, "", "learned", "", *(1.0,) * 4),
    )


def _diagnosis(engine: str) -> EngineDiagnosis:
    windows, parts = dict.fromkeys(WINDOWS, 1.0), dict.fromkeys(CAUSES, 0.0)
    return EngineDiagnosis(engine, windows, windows, windows, parts, parts, NO_CAUSE)


def _by_label(base: str, name: str, count: int) -> dict[str, LabelTotals]:
    """With ``other``, where there is any name at all: some will have got no series."""
    names = [base, OTHER, *(f"{name}-{number}" for number in range(count))] if count else [base]
    return {each: LabelTotals({}) for each in names}


def _tasks(count: int, histogram: HistogramState) -> dict[str, TaskTotals]:
    told = _by_label(NO_TASK, "task", count)
    return {name: TaskTotals({}, joules_per_request=histogram) for name in told}


def _open_labels(node: Node) -> list[str]:
    told = {"lora": node.adapters, "tenant": node.tenants, "task": node.tasks}
    return [label for label, count in told.items() if count is not None]


def _host(engines: list[str]) -> HostTotals:
    domains = tuple(
        HostDomainTotals(HostDomain(name, name), 1.0, dict.fromkeys(engines, 0.0), 0.0, 1.0, {}, 0.0, 1.0)
        for name in ("package-0", "dram-0", "package-1", "dram-1")
    )
    return HostTotals(domains, 1.0, dict.fromkeys(engines, 0.0), dict.fromkeys(engines, True))


def _sidecar() -> SidecarTotals:
    calls = {name: CallTime(1, 1.0) for name in _DRIVER_CALLS}
    outcomes = [(exporter, outcome) for exporter, told in EXPORTED.items() for outcome in told]
    return SidecarTotals(
        start_wall_seconds=1.0,
        attribution_lag_seconds=0.5,
        sampler=SamplerStatistics(1, 0, 0.0, 0.0, 1, 0, calls),
        exported=dict.fromkeys(outcomes, 0),
        pages=PageTotals(),
    )


def growth(metrics: Sequence[Metric]) -> list[tuple[str, int]]:
    """What there is, and what one more of each thing adds: name, series."""

    def count(**parts: int | None) -> int:
        return total_series(metrics, Node(**{"gpus": 0, "engines": 0, **parts}))  # type: ignore[arg-type]

    one = {"gpus": 1, "engines": 1}
    plain = {"gpus": LARGEST.gpus, "engines": LARGEST.engines}
    with_adapters = {**plain, "adapters": LARGEST.adapters}
    return [
        ("a sidecar and its host alone", count()),
        ("each GPU", count(gpus=2) - count(gpus=1)),
        ("each engine, on one GPU", count(**one) - count(gpus=1)),
        (
            "each further GPU of an engine",
            count(gpus=2, engines=1) - count(gpus=2) - count(**one) + count(gpus=1),
        ),
        ("each adapter of an engine", count(**one, adapters=2) - count(**one, adapters=1)),
        ("each tenant of an engine", count(**one, tenants=2) - count(**one, tenants=1)),
        ("each task class of an engine", count(**one, tasks=2) - count(**one, tasks=1)),
        (f"{LARGEST.gpus} GPUs and {LARGEST.engines} engines", count(**plain)),
        (f"the same, each engine with {LARGEST.adapters} adapters", count(**with_adapters)),
        (
            f"the same, {LARGEST.tenants} tenants, {LARGEST.tasks} task classes, and {LARGEST.links} further "
            "nodes of its engines",
            total_series(metrics, LARGEST),
        ),
    ]

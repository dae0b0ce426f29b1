"""Small functions that turn a part of the snapshot into points; the table composes them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

from joulescope.export.metric import Point, Read, per_label
from joulescope.host_model import HostDomainTotals, HostTotals
from joulescope.label_model import clean
from joulescope.model import (
    CACHED_TOKEN_KINDS,
    PHASES,
    THROTTLE_REASONS,
    CallTime,
    EngineTotals,
    GpuReading,
    GpuStatus,
    GpuTotals,
    HistogramState,
    MeterComparison,
    PageTotals,
    SamplerStatistics,
    SidecarTotals,
    Snapshot,
)
from joulescope.surroundings_model import Multipliers
from joulescope.units import seconds_from_ns

Number = float | int | None

COLLECTION_FAILURES = ("internal_error", "sampler_stopped", "record_stopped")
"""A turn of the accounting loop, the thread that reads GPUs, and the recording of a trace, as
:mod:`joulescope.daemon` counts them."""


def of_gpu(value: Callable[[GpuTotals], Number]) -> Read:
    """One point a GPU, none where the value is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.gpus:
            if (number := value(totals)) is not None:
                yield Point((clean(totals.info.gpu),), number)

    return read


def of_reading(value: Callable[[GpuReading], Number]) -> Read:
    """One point a GPU whose sensor answers now: absent is not zero, stale is not fresh."""

    def of_totals(totals: GpuTotals) -> Number:
        return value(totals.reading) if totals.up and totals.reading is not None else None

    return of_gpu(of_totals)


def power_limit(totals: GpuTotals) -> Number:
    """Of a GPU that answers: as it was last read, or when the sensor was opened if it is not read again."""
    if not totals.up or totals.reading is None:
        return None
    status = totals.reading.status
    return totals.info.power_limit_watts if status is None else status.power_limit_watts


def of_status(value: Callable[[GpuStatus], Number]) -> Read:
    """One point a GPU of which it was read not long ago."""
    return of_reading(lambda reading: None if reading.status is None else value(reading.status))


def traffic(link: str) -> Read:
    """Bytes a second over a link (``pcie``, ``nvlink``), by GPU and direction as the GPU sees it."""
    directions = {
        direction: of_status(operator.attrgetter(f"{link}_{direction}_bytes_per_second"))
        for direction in ("received", "sent")
    }

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for direction, of_direction in directions.items():
            for point in of_direction(snapshot):
                yield Point((*point.labels, direction), point.value)

    return read


def throttled(snapshot: Snapshot) -> Iterator[Point]:
    """1 or 0 by GPU and reason; nothing where reasons cannot be read."""
    for totals in snapshot.gpus:
        status = totals.reading.status if totals.up and totals.reading is not None else None
        if status is not None and status.throttle_reasons is not None:
            for reason in THROTTLE_REASONS:
                yield Point((clean(totals.info.gpu), reason), int(reason in status.throttle_reasons))


def gpu_capabilities(snapshot: Snapshot) -> Iterator[Point]:
    """What each GPU and its driver can tell, in the order of :data:`CAPABILITY_LABELS`."""
    for totals in snapshot.gpus:
        told = totals.info.capabilities
        values = (_word(getattr(told, label)) for label in CAPABILITY_LABELS)
        yield Point((clean(totals.info.gpu), *values), 1)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return clean(str(value)) if value else "unknown"


CAPABILITY_LABELS = (
    "architecture",
    "energy_counter",
    "power",
    "power_instant",
    "module_power",
    "gpm",
    "mig",
    "virtualization",
    "confidential",
    "persistence",
)


def of_sampler(value: Callable[[SamplerStatistics], Number]) -> Read:
    """One point without labels, or none where no sensor is read."""
    return of_sidecar(lambda sidecar: None if sidecar.sampler is None else value(sidecar.sampler))


def of_calls(value: Callable[[CallTime], Number]) -> Read:
    """One point for each of the driver's calls."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        sampler = snapshot.sidecar.sampler
        for name, told in sorted(sampler.call_times.items()) if sampler is not None else ():
            if (number := value(told)) is not None:
                yield Point((name,), number)

    return read


def of_comparison(value: Callable[[MeterComparison], Number], *, live: bool = False) -> Read:
    """One point a GPU that has two meters; with ``live`` only while its sensor answers."""

    def of_totals(totals: GpuTotals) -> Number:
        stale = live and (not totals.up or totals.reading is None)
        return None if stale or totals.comparison is None else value(totals.comparison)

    return of_gpu(of_totals)


def of_gpu_by(values: Callable[[GpuTotals], Mapping[str, float]], known: Sequence[str]) -> Read:
    """Points by GPU and an open label."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.gpus:
            yield from per_label((clean(totals.info.gpu),), values(totals), known)

    return read


def of_engine(value: Callable[[EngineTotals], float | HistogramState | None]) -> Read:
    """One point an engine, none where the value is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.engines:
            if (number := value(totals)) is not None:
                yield Point((clean(totals.info.engine),), number)

    return read


def of_live_engine(value: Callable[[EngineTotals], Number]) -> Read:
    """One point an engine that is connected now: its last word before it left is stale."""
    return of_engine(lambda totals: value(totals) if totals.up else None)


def of_engine_by(values: Callable[[EngineTotals], Mapping[str, float]], known: Sequence[str]) -> Read:
    """Points by engine and an open label."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.engines:
            yield from per_label((clean(totals.info.engine),), values(totals), known)

    return read


def of_domain(value: Callable[[HostDomainTotals], Number]) -> Read:
    """One point a domain of the host, none where the value is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.host.domains:
            if (number := value(totals)) is not None:
                yield Point((clean(totals.info.domain),), number)

    return read


def of_domain_by(values: Callable[[HostDomainTotals], Mapping[str, float]], known: Sequence[str]) -> Read:
    """Points by domain of the host and an open label."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.host.domains:
            yield from per_label((clean(totals.info.domain),), values(totals), known)

    return read


def of_host(value: Callable[[HostTotals], Number]) -> Read:
    """One point without labels, or none."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        if (number := value(snapshot.host)) is not None:
            yield Point((), number)

    return read


def of_host_by_engine(values: Callable[[HostTotals], Mapping[str, float]]) -> Read:
    """One point an engine of which the host knows something."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for engine, number in values(snapshot.host).items():
            yield Point((clean(engine),), number)

    return read


def of_sidecar(value: Callable[[SidecarTotals], Number]) -> Read:
    """One point without labels, or none."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        if (number := value(snapshot.sidecar)) is not None:
            yield Point((), number)

    return read


def of_multipliers(value: Callable[[Multipliers], Number]) -> Read:
    """One point without labels, none where it is not configured or not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        if (number := value(snapshot.multipliers)) is not None:
            yield Point((), number)

    return read


def of_sidecar_by(values: Callable[[SidecarTotals], Mapping[str, float]], known: Sequence[str]) -> Read:
    """Points by an open label."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        yield from per_label((), values(snapshot.sidecar), known)

    return read


def attributed(snapshot: Snapshot) -> Iterator[Point]:
    """By engine, GPU and phase; from 0 on for each GPU that the engine says it uses."""
    for totals in snapshot.engines:
        keys = {(gpu, phase): 0.0 for gpu in totals.info.gpus for phase in PHASES}
        for (gpu, phase), joules in {**keys, **totals.attributed_joules}.items():
            yield Point((clean(totals.info.engine), clean(gpu), phase), joules)


def host_attributed(snapshot: Snapshot) -> Iterator[Point]:
    """By engine and domain of the host; from 0 on for each engine whose processes are visible."""
    for totals in snapshot.host.domains:
        for engine, joules in totals.attributed_joules.items():
            yield Point((clean(engine), clean(totals.info.domain)), joules)


def host_identity(snapshot: Snapshot) -> Iterator[Point]:
    """What each domain of the host is."""
    for totals in snapshot.host.domains:
        info = totals.info
        yield Point(tuple(map(clean, (info.domain, info.zone, info.sensor))), 1)


def cached_tokens(snapshot: Snapshot) -> Iterator[Point]:
    """By engine and cache (``local``, ``external``)."""
    for totals in snapshot.engines:
        for kind in CACHED_TOKEN_KINDS:
            label = kind.removeprefix("cached_")
            yield Point((clean(totals.info.engine), label), totals.tokens.get(kind, 0))


def exported_requests(snapshot: Snapshot) -> Iterator[Point]:
    """By exporter and outcome, both from sets that this program fixes."""
    for labels, count in snapshot.sidecar.exported.items():
        yield Point(labels, count)


def accounted_until(snapshot: Snapshot) -> Iterator[Point]:
    """Wall time by GPU: the snapshot's own pair of clocks turns the monotonic instant into it."""
    for totals in snapshot.gpus:
        if totals.accounted_until_ns is not None:
            age_seconds = seconds_from_ns(snapshot.time_ns - totals.accounted_until_ns)
            yield Point((clean(totals.info.gpu),), snapshot.wall_seconds - age_seconds)


def collection_failures(snapshot: Snapshot) -> Iterator[Point]:
    """By part that failed, from 0 on."""
    for reason in COLLECTION_FAILURES:
        yield Point((reason,), snapshot.sidecar.rejected_records.get(reason, 0))


def rejected_records(sidecar: SidecarTotals) -> dict[str, float]:
    """Those that were refused, without the failures that are told beside them."""
    return {
        reason: count
        for reason, count in sidecar.rejected_records.items()
        if reason not in COLLECTION_FAILURES
    }


def of_pages(value: Callable[[PageTotals], float]) -> Read:
    """One point without labels, or none where no pages are served."""
    return of_sidecar(lambda sidecar: None if sidecar.pages is None else value(sidecar.pages))


def snapshot_time(snapshot: Snapshot) -> Iterator[Point]:
    """Wall time at which the snapshot was taken."""
    yield Point((), snapshot.wall_seconds)


def gpu_identity(snapshot: Snapshot) -> Iterator[Point]:
    """Who each GPU is."""
    for totals in snapshot.gpus:
        info = totals.info
        index = "" if info.index is None else str(info.index)
        labels = (info.gpu, info.name, index, info.driver_version, info.energy_source, info.sensor)
        yield Point(tuple(map(clean, labels)), 1)


def mig_identity(snapshot: Snapshot) -> Iterator[Point]:
    """Where each MIG instance belongs."""
    for totals in snapshot.gpus:
        info = totals.info
        if info.parent:
            labels = (clean(info.gpu), clean(info.parent), str(info.slices), str(info.slices_total))
            yield Point(labels, 1)


def engine_identity(snapshot: Snapshot) -> Iterator[Point]:
    """Who each engine is."""
    for totals in snapshot.engines:
        info = totals.info
        labels = (
            info.engine,
            info.model,
            info.served_model,
            info.dtype,
            info.quantization,
            info.vllm_version,
            info.hook_version,
            str(info.tensor_parallel),
            str(info.pipeline_parallel),
            str(info.data_parallel),
            str(info.data_parallel_index),
            info.cost.source,
            info.software,
            info.unit,
            info.work_unit,
        )
        yield Point(tuple(map(clean, labels)), 1)


def engine_gpus(snapshot: Snapshot) -> Iterator[Point]:
    """Which engine runs on which GPU."""
    for totals in snapshot.engines:
        for gpu in dict.fromkeys(totals.info.gpus):
            yield Point((clean(totals.info.engine), clean(gpu)), 1)

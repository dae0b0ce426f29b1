"""The one table of metrics: the collector, OTLP and ``docs/metrics.md`` are made from it.

Rules of the table: base units in the names; energy is only ever a counter (watts are its rate, joules
per token the ratio of two rates); what is disjoint shares a name, what overlaps does not, so that
``sum()`` never counts a joule or a token twice; identity stands in ``_info`` metrics, every other
series is labelled by ``gpu`` (the UUID), ``domain`` (a part of the host) or ``engine``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from joulescope import __version__
from joulescope.export import readers
from joulescope.export.metric import Kind, Metric, Point
from joulescope.export.table_baseline import BASELINE
from joulescope.export.table_diagnosis import DIAGNOSIS
from joulescope.export.table_engine import ENGINE
from joulescope.export.table_factors import MULTIPLIERS
from joulescope.export.table_gpu import ENERGY, GPU
from joulescope.export.table_host import HOST
from joulescope.export.table_labels import LABELS
from joulescope.export.table_latents import LATENTS
from joulescope.export.table_ledger import LEDGER, MINUTES
from joulescope.export.table_links import LINKS
from joulescope.export.table_servers import SERVERS
from joulescope.export.table_serving import SERVING
from joulescope.export.table_status import SAMPLER, STATUS
from joulescope.model import METHOD, METHOD_VERSION, Snapshot

RECORD_TYPES = ("hello", "request_start", "step", "request_end", "overhead", "gap", "progress", "bye")
"""Types of records that every hook sends; those of an engine's own sampler appear when there are any."""


def _build(snapshot: Snapshot) -> Iterator[Point]:
    yield Point((__version__, platform.python_version(), METHOD, METHOD_VERSION), 1)


SIDECAR = (
    Metric(
        "joulescope_build_info",
        Kind.INFO,
        "",
        ("version", "python_version", "method", "method_version"),
        "Version of joulescope, and name and version of the rule by which it divides energy.",
        _build,
    ),
    Metric(
        "joulescope_start_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Wall time at which the sidecar started.",
        readers.of_sidecar(lambda sidecar: sidecar.start_wall_seconds),
    ),
    Metric(
        "joulescope_snapshot_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Wall time at which these figures were taken: if it stands still, so do they.",
        readers.snapshot_time,
    ),
    Metric(
        "joulescope_sessions_open",
        Kind.GAUGE,
        "sessions",
        (),
        "Hooks connected to the socket.",
        readers.of_sidecar(lambda sidecar: sidecar.sessions),
    ),
    Metric(
        "joulescope_records_total",
        Kind.COUNTER,
        "records",
        ("type",),
        "Records taken in from hooks.",
        readers.of_sidecar_by(lambda sidecar: sidecar.records, RECORD_TYPES),
    ),
    Metric(
        "joulescope_records_rejected_total",
        Kind.COUNTER,
        "records",
        ("reason",),
        "Frames and records that were refused.",
        readers.of_sidecar_by(readers.rejected_records, ()),
    ),
    Metric(
        "joulescope_collection_failures_total",
        Kind.COUNTER,
        "failures",
        ("reason",),
        "Failures of the sidecar's own parts: internal_error (a turn of the accounting loop; a bug), "
        "sampler_stopped (GPUs are not read any more), record_stopped (the trace is not written any more).",
        readers.collection_failures,
    ),
    Metric(
        "joulescope_metrics_pages_total",
        Kind.COUNTER,
        "pages",
        (),
        "Pages of metrics made: one of each snapshot and format that was asked for, however often it was.",
        readers.of_pages(lambda pages: pages.made),
    ),
    Metric(
        "joulescope_metrics_page_seconds_total",
        Kind.COUNTER,
        "seconds",
        (),
        "Time that making these pages took.",
        readers.of_pages(lambda pages: pages.seconds),
    ),
    Metric(
        "joulescope_attribution_lag_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Age of the newest instant up to which all energy is divided. Absent before the first.",
        readers.of_sidecar(lambda sidecar: sidecar.attribution_lag_seconds),
    ),
    Metric(
        "joulescope_exported_requests_total",
        Kind.COUNTER,
        "requests",
        ("exporter", "outcome"),
        "Finished requests handed to an exporter, by what became of them.",
        readers.exported_requests,
    ),
)

METRICS: tuple[Metric, ...] = (
    *ENERGY,
    *GPU,
    *STATUS,
    *HOST,
    *ENGINE,
    *BASELINE,
    *LATENTS,
    *DIAGNOSIS,
    *LABELS,
    *SERVERS,
    *MULTIPLIERS,
    *SIDECAR,
    *SAMPLER,
    *SERVING,
    *LINKS,
    *MINUTES,
    *LEDGER,
)

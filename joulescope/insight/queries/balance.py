"""Where the measured joules of engines went, and how much of them is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joulescope.insight.queries.kinds import Table
from joulescope.insight.queries.tables import JOULE_COLUMNS, PERIOD, Tables, period_of_minutes, wide_sum

OVERHEADS = tuple(name for name in JOULE_COLUMNS if name.startswith("overhead_"))
WASTES = tuple(name for name in JOULE_COLUMNS if name.startswith("wasted_"))


def balance(tables: Tables, by: Sequence[str] = ("engine", "model"), period: str | None = None) -> Table:
    """One row an engine: the sum of each of :data:`JOULE_COLUMNS` in microjoules, tokens and seconds.

    ``by`` may leave out ``model`` or both. Joules while no engine had a GPU are those of the engine ``""``.
    ``residual_uj`` is what measured joules exceed their parts by: 0, unless a file was tampered with.
    """
    minutes = tables.minutes
    keys = list(by)
    if period is not None:
        minutes = minutes.mutate(**{PERIOD: period_of_minutes(minutes, period)})
        keys = [PERIOD, *keys]
    sums = {f"{name}_uj": minutes[f"{name}_uj"].sum().cast("int64").fill_null(0) for name in JOULE_COLUMNS}
    made = minutes.group_by(keys).agg(
        **sums,
        generated_tokens=minutes.generated_tokens.sum().cast("int64").fill_null(0),
        gpu_seconds=minutes.gpu_seconds.sum().fill_null(0.0),
        load_seconds=minutes.load_seconds.sum().fill_null(0.0),
        load_busy_seconds=minutes.load_busy_seconds.sum().fill_null(0.0),
    )
    made = made.mutate(
        attributed_uj=made.prefill_uj + made.decode_uj,
        overhead_uj=sum((made[f"{name}_uj"] for name in OVERHEADS[1:]), made[f"{OVERHEADS[0]}_uj"]),
    )
    made = made.mutate(
        residual_uj=made.measured_uj
        - (made.attributed_uj + made.idle_uj + made.overhead_uj + made.unattributed_uj)
    )
    return made.order_by(keys) if keys else made


def coverage(tables: Tables) -> dict[str, Any]:
    """How much is known: requests, those without joules and those of which a part is missing, microjoules
    measured and unattributed, those of finished requests, and the first and last instants, nanoseconds
    since the epoch; ``None`` where there is nothing."""
    requests, minutes = tables.requests, tables.minutes
    of_requests = requests.agg(
        requests=requests.count(),
        measured_requests=requests.measured.cast("int64").sum().cast("int64"),
        incomplete_requests=requests.incomplete.cast("int64").sum().cast("int64"),
        requests_uj=wide_sum(requests.joules_uj),
        first_request_ns=requests.end_unix_ns.min(),
        last_request_ns=requests.end_unix_ns.max(),
    )
    of_minutes = minutes.agg(
        minutes=minutes.count(),
        measured_uj=wide_sum(minutes.measured_uj),
        attributed_uj=wide_sum(minutes.prefill_uj + minutes.decode_uj),
        unattributed_uj=wide_sum(minutes.unattributed_uj),
        first_minute_ns=minutes.start_ns.min(),
        last_minute_ns=minutes.start_ns.max(),
    )
    return {**tables.rows(of_requests)[0], **tables.rows(of_minutes)[0]}

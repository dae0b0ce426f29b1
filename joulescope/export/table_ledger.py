"""Rows of the metric table that tell how the minutes of engines, and the ledger, fare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from joulescope.export.metric import Kind, Metric, Point, Read, per_label
from joulescope.ledger_model import EVICTED, LEDGER_OPERATIONS, LEDGER_TABLES, LOST_ROWS, LedgerTotals
from joulescope.model import Snapshot


def _of_ledger(value: Callable[[LedgerTotals], float | None]) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        if snapshot.ledger.is_kept and (found := value(snapshot.ledger)) is not None:
            yield Point((), found)

    return read


def _by(values: Callable[[LedgerTotals], Mapping[str, int]], known: tuple[str, ...]) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        if snapshot.ledger.is_kept:
            yield from per_label((), values(snapshot.ledger), known)

    return read


def _lost(snapshot: Snapshot) -> Iterator[Point]:
    if snapshot.ledger.is_kept:
        for table in LEDGER_TABLES:
            for reason in LOST_ROWS:
                yield Point((table, reason), snapshot.ledger.lost_rows.get(table, {}).get(reason, 0))


def _bytes(snapshot: Snapshot) -> Iterator[Point]:
    ledger = snapshot.ledger
    for state, size in (("open", ledger.open_bytes), ("parquet", ledger.parquet_bytes)):
        if ledger.is_kept and size is not None:
            yield Point((state,), size)


MINUTES = (
    Metric(
        "joulescope_minute_lines_late_total",
        Kind.COUNTER,
        "lines",
        (),
        "Lines of minutes that were made because readings or records came after their minute was closed. "
        "They add up with the line before; a few are no fault.",
        lambda snapshot: iter((Point((), snapshot.minutes.late),)),
    ),
    Metric(
        "joulescope_minute_lines_crowded_out_total",
        Kind.COUNTER,
        "lines",
        (),
        "Lines of minutes that the sidecar forgot before a day was over, because the lines of a day need "
        "more memory than they may have. A ledger has them.",
        lambda snapshot: iter((Point((), snapshot.minutes.crowded_out),)),
    ),
)

LEDGER = (
    Metric(
        "joulescope_ledger_rows_total",
        Kind.COUNTER,
        "rows",
        ("table",),
        "Rows of this process that are on the ledger's disk: requests, and minutes of engines. Absent "
        "without a ledger, as all that follow.",
        _by(lambda ledger: ledger.rows, LEDGER_TABLES),
    ),
    Metric(
        "joulescope_ledger_recovered_rows_total",
        Kind.COUNTER,
        "rows",
        ("table",),
        "Rows that were taken over from processes which had ended before their rows became Parquet files.",
        _by(lambda ledger: ledger.recovered_rows, LEDGER_TABLES),
    ),
    Metric(
        "joulescope_ledger_lost_rows_total",
        Kind.COUNTER,
        "rows",
        ("table", "reason"),
        "Rows that are not in the ledger: no_room (the disk took nothing for so long that no more could wait "
        "in memory), too_large, invalid (none of the table).",
        _lost,
    ),
    Metric(
        "joulescope_ledger_damaged_bytes_total",
        Kind.COUNTER,
        "bytes",
        (),
        "Bytes of segments that could not be read when they were to become Parquet. Their files are kept, "
        "and end in .damaged.",
        _of_ledger(lambda ledger: ledger.damaged_bytes),
    ),
    Metric(
        "joulescope_ledger_failures_total",
        Kind.COUNTER,
        "failures",
        ("operation",),
        "What did not work and is tried again: flush (rows to the disk), rotate (segments to Parquet), "
        "recover (segments of dead processes), bound (removing the oldest files), upload (to the object "
        "store).",
        _by(lambda ledger: ledger.failures, LEDGER_OPERATIONS),
    ),
    Metric(
        "joulescope_ledger_evicted_bytes_total",
        Kind.COUNTER,
        "bytes",
        ("reason",),
        "Bytes of files that were removed: age and size (of a folder, beyond ledger_max_days and "
        "ledger_max_mebibytes), not_uploaded (either, before the object store had them: lost).",
        _by(lambda ledger: ledger.evicted_bytes, EVICTED),
    ),
    Metric(
        "joulescope_ledger_bytes",
        Kind.GAUGE,
        "bytes",
        ("state",),
        "Bytes in the ledger's folder or spool at the last look: open (segments), parquet. Others that share "
        "the folder are in it.",
        _bytes,
    ),
    Metric(
        "joulescope_ledger_uploaded_bytes_total",
        Kind.COUNTER,
        "bytes",
        (),
        "Bytes of Parquet files that the object store has taken whole. Absent where there is none.",
        _of_ledger(lambda ledger: ledger.uploaded_bytes),
    ),
    Metric(
        "joulescope_ledger_flush_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        (),
        "Wall time at which all that had finished was on the disk last. Absent before the first time.",
        _of_ledger(lambda ledger: ledger.flushed_wall_seconds),
    ),
)
"""Figures of the folder are those of its last look, a few minutes old at most."""

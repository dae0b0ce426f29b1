"""Rows of the metric table that compare what work costs with what the same work used to cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from joulescope.export.metric import Kind, Metric, Point, Read
from joulescope.label_model import clean
from joulescope.model import BaselineTotals, Snapshot


def _of_baseline(value: Callable[[BaselineTotals], float | None]) -> Read:
    """One point an engine that is compared, none where the value is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for totals in snapshot.engines:
            if totals.baseline is not None and (number := value(totals.baseline)) is not None:
                yield Point((clean(totals.info.engine),), number)

    return read


def _identity(snapshot: Snapshot) -> Iterator[Point]:
    for totals in snapshot.engines:
        baseline = totals.baseline
        if baseline is not None and baseline.source:
            labels = (totals.info.engine, baseline.name, baseline.source, baseline.version)
            yield Point(tuple(map(clean, labels)), 1)


BASELINE = (
    Metric(
        "joulescope_baseline_actual_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine",),
        "Measured energy of the steps that were compared with the baseline: its rate by that of the expected "
        "energy is the efficiency index, 1 as usual, 1.2 for 20 % more than the same work used to cost. A "
        "second view of attributed and overhead energy: do not add it to them. Absent before there is a "
        "baseline.",
        _of_baseline(lambda baseline: baseline.actual_joules),
    ),
    Metric(
        "joulescope_baseline_expected_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine",),
        "Energy that the same steps, with as many of their prompt tokens found in a cache as usual, should "
        "have cost by the baseline. Modelled, never measured.",
        _of_baseline(lambda baseline: baseline.expected_joules),
    ),
    Metric(
        "joulescope_baseline_error_ratio",
        Kind.GAUGE,
        "ratio",
        ("engine",),
        "Relative standard error of the expected energy, for the work of late: larger where the load is of a "
        "kind that the baseline did not see.",
        _of_baseline(lambda baseline: baseline.error_ratio),
    ),
    Metric(
        "joulescope_baseline_learned_ratio",
        Kind.GAUGE,
        "ratio",
        ("engine",),
        "How much of the work that a baseline is learned from was seen, 0 to 1; at 1 there is a baseline. "
        "Absent where none is learned.",
        _of_baseline(lambda baseline: baseline.learned_ratio),
    ),
    Metric(
        "joulescope_baseline_created_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        ("engine",),
        "Wall time at which the baseline was made.",
        _of_baseline(lambda baseline: baseline.created_wall_seconds),
    ),
    Metric(
        "joulescope_baseline_info",
        Kind.INFO,
        "",
        ("engine", "baseline", "source", "created_version"),
        "What an engine is compared with: the baseline's name, whether it was pinned or learned, and the "
        "version of vLLM that it was made with.",
        _identity,
    ),
)

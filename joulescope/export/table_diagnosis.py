"""Rows of the metric table that tell why joules per token changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from joulescope.diagnosis_model import CAUSES, OUTCOMES, WINDOWS, EngineDiagnosis
from joulescope.export.metric import Kind, Metric, Point, Read
from joulescope.label_model import clean
from joulescope.model import Snapshot


def _by(values: Callable[[EngineDiagnosis], Mapping[str, float]], known: tuple[str, ...]) -> Read:
    """Of the latest diagnosis of each engine; nothing where there is none."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for each in snapshot.diagnosis.engines:
            for name in known:
                yield Point((clean(each.engine), name), values(each)[name])

    return read


def _first_cause(snapshot: Snapshot) -> Iterator[Point]:
    for each in snapshot.diagnosis.engines:
        yield Point((clean(each.engine), clean(each.first_cause)), 1)


def _runs(snapshot: Snapshot) -> Iterator[Point]:
    for outcome in OUTCOMES:
        yield Point((outcome,), snapshot.diagnosis.outcomes.get(outcome, 0))


def _seconds(snapshot: Snapshot) -> Iterator[Point]:
    yield Point((), snapshot.diagnosis.seconds)


DIAGNOSIS = (
    Metric(
        "joulescope_diagnosis_joules_per_token",
        Kind.GAUGE,
        "joules_per_token",
        ("engine", "window"),
        "Measured joules for each token that came out (or other unit of the engine), idle and overhead "
        "included, in the two windows of the latest diagnosis: now, and before. Absent where none could be "
        "made, as all of an engine that follow.",
        _by(lambda each: each.joules_per_token, WINDOWS),
    ),
    Metric(
        "joulescope_diagnosis_change_joules_per_token",
        Kind.GAUGE,
        "joules_per_token",
        ("engine", "cause"),
        "What each cause did to the joules per token; more than 0 made tokens dearer. The causes sum to the "
        "difference of the windows. Modelled: docs/diagnose.md says what each cause means.",
        _by(lambda each: each.parts, CAUSES),
    ),
    Metric(
        "joulescope_diagnosis_error_joules_per_token",
        Kind.GAUGE,
        "joules_per_token",
        ("engine", "cause"),
        "Standard error of what that cause did. A part below three times its error may be chance.",
        _by(lambda each: each.errors, CAUSES),
    ),
    Metric(
        "joulescope_diagnosis_first_cause_info",
        Kind.INFO,
        "",
        ("engine", "cause"),
        "The largest cause that is beyond chance and explains something; none: there is no such cause.",
        _first_cause,
    ),
    Metric(
        "joulescope_diagnosis_window_start_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        ("engine", "window"),
        "Wall time at which the windows of the latest diagnosis begin.",
        _by(lambda each: each.start_wall_seconds, WINDOWS),
    ),
    Metric(
        "joulescope_diagnosis_window_end_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        ("engine", "window"),
        "Wall time at which they end: now is as old as this says.",
        _by(lambda each: each.end_wall_seconds, WINDOWS),
    ),
    Metric(
        "joulescope_diagnosis_runs_total",
        Kind.COUNTER,
        "diagnoses",
        ("outcome",),
        "Diagnoses of an engine, made now and then and when asked for, by what became of them: made, "
        "too_little (minutes, tokens or past), too_much (minutes for one process), timeout, failed (its "
        "process).",
        _runs,
    ),
    Metric(
        "joulescope_diagnosis_run_seconds_total",
        Kind.COUNTER,
        "seconds",
        (),
        "Time that the processes took which make them.",
        _seconds,
    ),
)

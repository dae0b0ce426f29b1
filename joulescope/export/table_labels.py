"""Rows of the metric table that tell an engine's figures once more: by LoRA adapter, tenant, task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from joulescope.export.metric import Kind, Metric, Point, Read
from joulescope.label_model import LabelTotals, clean
from joulescope.model import PHASES, EngineTotals, Snapshot

_AGAIN = "The engine's own figure told once more, so do not add the two."


def _by(label: str, engine: EngineTotals) -> Mapping[str, LabelTotals]:
    if label == "task":
        return engine.tasks
    return engine.adapters if label == "lora" else engine.tenants


def _energy(label: str) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        for engine in snapshot.engines:
            name = clean(engine.info.engine)
            for value, told in _by(label, engine).items():
                for phase in PHASES:
                    yield Point((name, clean(value), phase), told.joules.get(phase, 0.0))

    return read


def _count(label: str, field: str) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        for engine in snapshot.engines:
            name = clean(engine.info.engine)
            for value, told in _by(label, engine).items():
                yield Point((name, clean(value)), getattr(told, field))

    return read


def _per_request(snapshot: Snapshot) -> Iterator[Point]:
    for engine in snapshot.engines:
        for value, told in engine.tasks.items():
            yield Point((clean(engine.info.engine), clean(value)), told.joules_per_request)


def _undecided(snapshot: Snapshot) -> Iterator[Point]:
    for engine in snapshot.engines:
        for phase, joules in engine.undecided_joules.items():
            yield Point((clean(engine.info.engine), phase), joules)


def _refused(snapshot: Snapshot) -> Iterator[Point]:
    for engine in snapshot.engines:
        for label, count in engine.refused_labels.items():
            yield Point((clean(engine.info.engine), label), count)


def _rows(name: str, label: str, whose: str) -> tuple[Metric, ...]:
    return (
        Metric(
            f"joulescope_{name}_energy_joules_total",
            Kind.COUNTER,
            "joules",
            ("engine", label, "phase"),
            f"Attributed energy by {whose}. {_AGAIN}",
            _energy(label),
        ),
        Metric(
            f"joulescope_{name}_generated_tokens_total",
            Kind.COUNTER,
            "tokens",
            ("engine", label),
            f"Tokens that came out, by {whose}. {_AGAIN}",
            _count(label, "generated_tokens"),
        ),
        Metric(
            f"joulescope_{name}_requests_finished_total",
            Kind.COUNTER,
            "requests",
            ("engine", label),
            f"Requests whose account is closed, by {whose}. {_AGAIN}",
            _count(label, "requests_finished"),
        ),
    )


LABELS = (
    *_rows("adapter", "lora", "LoRA adapter: base for none, other for those that got no series"),
    *_rows(
        "tenant",
        "tenant",
        "tenant, where they are told apart: none if it is not known, other for those that got no series",
    ),
    *_rows(
        "task",
        "task",
        "task class, where they are told apart: none if no source names one, other for those beyond the "
        "limit. What a request used before its class was known comes at once",
    ),
    Metric(
        "joulescope_task_request_energy_joules",
        Kind.HISTOGRAM,
        "joules",
        ("engine", "task"),
        "Attributed energy of finished requests by task class, where they are told apart.",
        _per_request,
    ),
    Metric(
        "joulescope_task_undecided_energy_joules",
        Kind.GAUGE,
        "joules",
        ("engine", "phase"),
        "Attributed energy of open requests whose task class the length of their output has yet to decide. "
        "With it, the energy of all task classes is the attributed energy.",
        _undecided,
    ),
    Metric(
        "joulescope_label_values_refused_total",
        Kind.COUNTER,
        "values",
        ("engine", "label"),
        "Different adapters (lora), tenants (tenant) and task classes (task) that got no series of their own "
        "and are counted as other. Stands still at 10,000.",
        _refused,
    ),
)

"""What a metric is: the row type of the table in :mod:`joulescope.export.metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from joulescope.label_model import OTHER, clean
from joulescope.model import HistogramState, Snapshot

MAX_OPEN_LABEL_VALUES = 16
"""How many values beyond the known ones a label fed by a peer may take; the rest is ``other``."""


class Kind(str, Enum):
    """The type of a metric, as OpenMetrics names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Point(NamedTuple):
    """One value of a metric, with the values of its labels in the order of the table."""

    labels: tuple[str, ...]
    value: float | HistogramState


Read = Callable[[Snapshot], Iterable[Point]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: a metric family, complete with the function that reads it from a snapshot."""

    name: str
    """As Prometheus stores it, with its suffixes: ``…_joules_total``, ``…_info``."""
    kind: Kind
    unit: str
    """``joules``, ``watts``, ``bytes``, ``seconds``, ``ratio``, or what is counted."""
    labels: tuple[str, ...]
    help: str
    read: Read
    otel_name: str = ""
    """Name of the OpenTelemetry convention where one exists; else it is derived from ``name``."""

    @property
    def family(self) -> str:
        """Name of the OpenMetrics family: without ``_total`` and ``_info``."""
        return self.name.removesuffix("_total").removesuffix("_info")


def per_label(
    before: Sequence[str], values: Mapping[str, float], known: Sequence[str], after: Sequence[str] = ()
) -> Iterator[Point]:
    """Points of one open label: the known values from 0 on, then the first others, then ``other``.

    The order in which a mapping grew decides which are the first, so that a series once shown stays.
    """
    strange = [key for key in values if key not in known and key != OTHER]
    shown = [*known, *strange[:MAX_OPEN_LABEL_VALUES]]
    for key in shown:
        yield Point((*before, clean(key), *after), values.get(key, 0))
    rest = [values[key] for key in (*strange[MAX_OPEN_LABEL_VALUES:], OTHER) if key in values]
    if rest:
        yield Point((*before, OTHER, *after), sum(rest))

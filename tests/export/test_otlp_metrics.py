"""The metric table over OTLP, taken in by a real receiver."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from joulescope import __version__
from joulescope.export.metrics import METRICS
from joulescope.export.otlp_metrics import TEMPORALITY
from joulescope.export.otlp_points import otel_kind, otel_name, otel_unit
from joulescope.model import GpuInfo, GpuTotals, HistogramState, Snapshot
from tests.export.otlp_world import metrics_to
from tests.export.samples import GPU_A, PARENT_SPAN_ID, TRACE_ID, engine_a, rich_snapshot
from tests.otlp_receiver import PATIENCE_SECONDS, Receiver


def test_metrics_arrive_under_conventions_and_own_names(receiver: Receiver) -> None:
    """GPU figures come as ``hw.*``, the rest as ``joulescope.*``, with units and attributes."""
    metrics_to(receiver).close(PATIENCE_SECONDS)
    points = {
        (p.name, p.attributes.get("hw.id"), p.attributes.get("joulescope.phase")): p for p in receiver.points
    }
    energy = points["hw.energy", GPU_A, None]
    assert (energy.kind, energy.unit, energy.value) == ("counter", "J", 1000.5)
    assert energy.attributes == {"hw.id": GPU_A, "hw.type": "gpu"}
    assert points["hw.gpu.utilization", GPU_A, None].kind == "gauge"
    memory = points["hw.gpu.memory.usage", GPU_A, None]
    assert (memory.kind, memory.unit, memory.value) == ("updowncounter", "By", 70_000_000_000)
    decode = points["joulescope.attributed_energy", GPU_A, "decode"]
    assert (decode.kind, decode.value) == ("counter", 500.25)
    assert decode.attributes["joulescope.engine"] == "llama-0"
    assert energy.resource["service.name"] == "joulescope"
    assert energy.resource["service.version"] == __version__


def test_the_whole_table_is_sent(receiver: Receiver) -> None:
    """Each metric arrives under one name of its own, as the kind of instrument it is, all points of it."""
    metrics_to(receiver).close(PATIENCE_SECONDS)
    snapshot = rich_snapshot()
    expected = {otel_name(metric): otel_kind(metric) for metric in METRICS}
    assert len(expected) == len(METRICS)
    assert {point.name: point.kind for point in receiver.points} == expected
    assert len(receiver.points) == sum(len(list(metric.read(snapshot))) for metric in METRICS)


def test_totals_are_since_the_start_of_the_sidecar(receiver: Receiver) -> None:
    """Cumulative, from one start to the instant of the snapshot: a restart is seen as one."""
    metrics_to(receiver).close(PATIENCE_SECONDS)
    for point in receiver.points:
        assert point.time_ns == 1_700_000_100 * 10**9
        assert not point.is_delta
        assert point.start_ns == (0 if point.kind == "gauge" else 1_700_000_000 * 10**9)


def test_histograms_arrive_with_their_exemplars(receiver: Receiver) -> None:
    """Buckets, sum and count as kept; least and largest, which are not, are left out; an exemplar leads to
    the trace of its request."""
    engine = replace(engine_a(), joules_per_request=of(1_700_000_000.25, (3, 30, 7), 800.25))
    metrics_to(receiver, lambda: replace(rich_snapshot(), engines=(engine,))).close(PATIENCE_SECONDS)
    (point,) = [p for p in receiver.points if p.name == "joulescope.request_energy"]
    assert (point.kind, point.unit, point.value) == ("histogram", "J", 800.25)
    assert (point.bounds, point.counts) == ((1.0, 10.0), (3, 30, 7))
    assert point.attributes == {"joulescope.engine": "llama-0"}
    assert not point.has_extremes
    (exemplar,) = point.exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (4.5, TRACE_ID, PARENT_SPAN_ID)
    assert abs(exemplar.time_ns - 1_700_000_000_250_000_000) < 1000  # a float of seconds


def of(exemplar_seconds: float, counts: tuple[int, ...], total: float) -> HistogramState:
    exemplar = ({"trace_id": TRACE_ID, "span_id": PARENT_SPAN_ID}, 4.5, exemplar_seconds)
    return HistogramState((1.0, 10.0), counts, total, (None, exemplar, None))


def test_deltas_say_what_came_since_the_last_delivery(receiver: Receiver) -> None:
    """With the standard preference for deltas: nothing twice, and what an export that failed would have said
    is in the next. Gauges and up-down counters stay what they are."""
    states = [of(1.0, (1, 2, 0), 8.0), of(2.0, (1, 5, 0), 20.0), of(2.0, (4, 5, 1), 40.5)]
    current = [states[0]]

    def get_snapshot() -> Snapshot:
        number = states.index(current[0])
        engine = replace(engine_a(), joules_per_request=current[0], steps=100 * (number + 1))
        return replace(rich_snapshot(), engines=(engine,), wall_seconds=1_700_000_001.0 + number)

    metrics = metrics_to(receiver, get_snapshot, **{TEMPORALITY: "Delta"})
    metrics.export_now()
    current[0], receiver.status = states[1], 503
    metrics.export_now()
    current[0], receiver.status = states[2], 200
    metrics.export_now()
    metrics.close(PATIENCE_SECONDS)
    steps = [p for p in receiver.points if p.name == "joulescope.steps"]
    assert [(p.is_delta, p.value) for p in steps] == [(True, 100), (True, 200), (True, 0)]
    seconds = [(p.start_ns - 1_700_000_000 * 10**9, p.time_ns - 1_700_000_000 * 10**9) for p in steps]
    assert seconds == [(0, 10**9), (10**9, 3 * 10**9), (3 * 10**9, 3 * 10**9)]
    energy = [p for p in receiver.points if p.name == "joulescope.request_energy"]
    assert [(p.is_delta, p.counts, p.value) for p in energy[:2]] == [
        (True, (1, 2, 0), 8.0),
        (True, (3, 3, 1), 32.5),
    ]
    assert [len(p.exemplars) for p in energy] == [1, 1, 0]
    assert energy[0].exemplars[0].span_id == PARENT_SPAN_ID
    memory = [p for p in receiver.points if p.name == "hw.gpu.memory.usage"]
    assert {(p.is_delta, p.value, p.start_ns) for p in memory} == {
        (False, 70_000_000_000, 1_700_000_000 * 10**9)
    }


def test_a_preference_that_makes_no_sense_is_named(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Totals are sent then; ``lowmemory`` is a preference, and for us totals too."""
    with caplog.at_level(logging.WARNING):
        metrics_to(receiver, **{TEMPORALITY: "lowmemory"}).close(PATIENCE_SECONDS)
        assert caplog.text == ""
        metrics_to(receiver, **{TEMPORALITY: "sometimes"}).close(PATIENCE_SECONDS)
    assert f"{TEMPORALITY} is 'sometimes'" in caplog.text
    assert not any(point.is_delta for point in receiver.points)


def test_more_series_than_the_sdk_would_keep(receiver: Receiver) -> None:
    """The SDK's instruments fold all beyond 2,000 series of a metric into one; nothing is folded here."""
    gpus = tuple(GpuTotals(GpuInfo(f"GPU-{n}"), 0.0, 0.0, 0.0, {}, {}, 0.0) for n in range(2500))
    metrics_to(receiver, lambda: replace(rich_snapshot(), gpus=gpus)).close(PATIENCE_SECONDS)
    energy = {p.attributes["hw.id"] for p in receiver.points if p.name == "hw.energy"}
    assert energy == {f"GPU-{n}" for n in range(2500)}


def test_a_collector_that_takes_no_metrics_is_said_once(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reason once, and not again before another."""
    receiver.status = 401
    metrics = metrics_to(receiver)
    with caplog.at_level(logging.WARNING):
        metrics.export_now()
        metrics.export_now()
        receiver.status, receiver.rejects = 200, (5, "too many series")
        metrics.close(PATIENCE_SECONDS)
    assert [record.message for record in caplog.records] == [
        "the OTLP collector does not take metrics: HTTP status 401; are the credentials in "
        "OTEL_EXPORTER_OTLP_HEADERS right?",
        "the OTLP collector does not take metrics: it refused 5 points: too many series",
    ]


def test_one_export_reads_one_snapshot(receiver: Receiver) -> None:
    """All points of a collection come from a single snapshot, and the next collection takes a new one."""
    taken: list[float] = []

    def get_snapshot() -> Snapshot:
        taken.append(len(taken) + 1)
        return replace(rich_snapshot(), wall_seconds=taken[-1])

    metrics = metrics_to(receiver, get_snapshot)
    metrics.export_now()
    metrics.close(PATIENCE_SECONDS)
    seen = [p.value for p in receiver.points if p.name == "joulescope.snapshot_timestamp"]
    assert seen == taken == [1, 2]


def test_the_standard_interval_is_respected(receiver: Receiver) -> None:
    """``OTEL_METRIC_EXPORT_INTERVAL`` sends without anybody asking."""
    metrics = metrics_to(receiver, OTEL_METRIC_EXPORT_INTERVAL="10")
    assert receiver.wait_for_points("hw.energy")
    metrics.close(PATIENCE_SECONDS)
    metrics.close(PATIENCE_SECONDS)


def test_closing_metrics_does_not_wait_for_a_stuck_collector(receiver: Receiver) -> None:
    """Ending gives up on a collector that does not answer."""
    receiver.hold = threading.Event()
    metrics_to(receiver).close(0.05)
    assert not receiver.hold.is_set()


def test_units_are_ucum() -> None:
    """Base units have their codes; what is counted is an annotation."""
    units = {metric.unit: otel_unit(metric) for metric in METRICS}
    assert (units["joules"], units["bytes"], units["requests"]) == ("J", "By", "{request}")
    assert (units["grams_per_joule"], units["per_joule"]) == ("g/J", "/J")
    assert (units["celsius"], units["hertz"], units["bytes_per_second"]) == ("Cel", "Hz", "By/s")
    assert (units["refreshes"], units["looks"]) == ("{refresh}", "{look}")


def test_names_hold_no_unit() -> None:
    """OpenTelemetry keeps units out of names; conventions are named by the table alone."""
    words = {word for metric in METRICS for word in otel_name(metric).replace(".", "_").split("_")}
    assert words.isdisjoint({"joules", "watts", "bytes", "hertz", "celsius", "ratio", "total"})
    conventions = {otel_name(metric) for metric in METRICS if metric.otel_name}
    assert conventions == {
        "hw.energy",
        "hw.gpu.memory.limit",
        "hw.gpu.memory.usage",
        "hw.gpu.utilization",
        "hw.temperature",
    }

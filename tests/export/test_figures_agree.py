"""One snapshot and its requests, told in every way there is: each way tells the same figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from joulescope.clock import ManualClock
from joulescope.export.estimate import Estimator
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.landing import _joules
from joulescope.export.metric import Metric, Point
from joulescope.export.metrics import METRICS
from joulescope.export.otlp_points import HARDWARE, otel_attributes, otel_name
from joulescope.export.page.history import History
from joulescope.export.records import RequestLog
from joulescope.export.request_lookup import Lookup
from joulescope.export.request_store import RequestStore
from joulescope.export.requests_http import RequestsApi
from joulescope.export.requests_json import decode_requests
from joulescope.export.snapshot_json import decode_snapshot
from joulescope.export.span_attributes import SPAN_NAME
from joulescope.model import FinishedRequest, GpuTotals, HistogramState, Snapshot
from joulescope.terminal.balance import Balance
from joulescope.terminal.history import engine_now
from joulescope.terminal.plain import joules_per_output_token
from tests.export.otlp_world import ANCHOR, TRACE_PARENT, metrics_to, spans_to
from tests.export.samples import PARENT_SPAN_ID, TRACE_ID, engine_a, finished, rich_snapshot
from tests.export.test_http import get
from tests.otlp_receiver import PATIENCE_SECONDS, ReceivedPoint, ReceivedSpan, Receiver

OPENMETRICS = "application/openmetrics-text;version=1.0.0"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""By name and labels, as Prometheus stores them."""


def traced() -> Snapshot:
    """The rich snapshot, with an exemplar that leads to a span; pages are counted where they are made."""
    exemplar = ({"trace_id": TRACE_ID, "span_id": PARENT_SPAN_ID}, 4.5, 1_700_000_000.25)
    engine = engine_a()
    joules = replace(engine.joules_per_request, exemplars=(None, exemplar, None))
    snapshot = rich_snapshot()
    return replace(
        snapshot,
        engines=(replace(engine, joules_per_request=joules), *snapshot.engines[1:]),
        sidecar=replace(snapshot.sidecar, pages=None),
    )


SNAPSHOT = traced()

REQUESTS = (
    finished(1, trace_parent=TRACE_PARENT, tenant="acme", wasted_joules=0.25),
    finished(2, attributed_joules=None, marginal_joules=None, prefill_joules=None, decode_joules=None),
    finished(3, cached_tokens=0, lora="tone", finish_reason="abort", complete=False, preemptions=2),
)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    store = RequestStore(ManualClock(), ANCHOR)
    store.export(REQUESTS)
    api = RequestsApi(Lookup(store, lambda name: ()), Estimator(), ANCHOR, trusted=True)
    app = create_app(
        lambda: SNAPSHOT,
        lambda: (True, "ready"),
        get_requests=lambda: ((), REQUESTS),
        process_metrics=False,
        routes=(api.route,),
    )
    server = HttpServer("127.0.0.1", 0, app)
    try:
        yield server.start()
    finally:
        server.stop()


# ----------------------------------------------------------------------------------------------- totals


def series_of_table(snapshot: Snapshot) -> Series:
    """What the table reads, each histogram by its buckets, sum and count."""
    return dict(
        entry for metric in METRICS for point in metric.read(snapshot) for entry in _series(metric, point)
    )


def _series(metric: Metric, point: Point) -> Iterator[tuple[tuple[str, frozenset[tuple[str, str]]], float]]:
    labels = dict(zip(metric.labels, point.labels, strict=True))
    if not isinstance(point.value, HistogramState):
        yield (metric.name, frozenset(labels.items())), point.value
        return
    state = point.value
    for number, bound in enumerate((*state.bounds, float("inf"))):
        le = {**labels, "le": repr(bound).replace("inf", "+Inf")}
        yield (f"{metric.name}_bucket", frozenset(le.items())), sum(state.counts[: number + 1])
    yield (f"{metric.name}_count", frozenset(labels.items())), sum(state.counts)
    yield (f"{metric.name}_sum", frozenset(labels.items())), state.total


def series_of_page(address: tuple[str, int], accept: str) -> Series:
    text = get(address, "/metrics", Accept=accept)[2].decode()
    families = parse_openmetrics(text) if accept else parse_text(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.startswith("joulescope_metrics_page")  # of the pages before this one
    }


def series_of_otlp(points: list[ReceivedPoint]) -> Series:
    """Points under the names that Prometheus has for them."""
    by_name = {otel_name(metric): metric for metric in METRICS}
    found: Series = {}
    for point in points:
        metric = by_name[point.name]
        told = otel_attributes(metric, metric.labels)
        names = {label: name for name, label in told.items() if name not in HARDWARE}
        labels = tuple(str(point.attributes[names[label]]) for label in metric.labels)
        value = HistogramState(point.bounds, point.counts, point.value) if point.counts else point.value
        found.update(_series(metric, Point(labels, value)))
    return found


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_pages_and_snapshot_tell_what_the_table_reads(address: tuple[str, int], accept: str) -> None:
    """Every series of ``/metrics``, in both formats, and of the snapshot as JSON read back."""
    expected = series_of_table(SNAPSHOT)
    assert len(expected) > 300
    assert series_of_page(address, accept) == expected
    assert series_of_table(decode_snapshot(get(address, "/api/snapshot")[2])) == expected


def test_otlp_tells_what_the_table_reads(receiver: Receiver) -> None:
    """Every point, under the names and labels that it has on the page; exemplars too."""
    metrics_to(receiver, lambda: SNAPSHOT).close(PATIENCE_SECONDS)
    assert series_of_otlp(receiver.points) == series_of_table(SNAPSHOT)
    (exemplar,) = [each for point in receiver.points for each in point.exemplars]
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (4.5, TRACE_ID, PARENT_SPAN_ID)


def test_the_page_for_people_has_the_same_joules(address: tuple[str, int]) -> None:
    """What the server draws, and the snapshot that its scripts begin with."""
    page = get(address, "/")[2].decode()
    series = series_of_table(SNAPSHOT)
    for name in ("measured", "attributed", "idle", "overhead", "unattributed"):
        joules = sum(
            value
            for (metric, _), value in series.items()
            if metric == f"joulescope_{name}_energy_joules_total"
        )
        assert f"{_joules(joules)} " in page, name
    first = page.partition('id="first">')[2].partition("</script>")[0]
    assert series_of_table(decode_snapshot(first.encode())) == series


def test_the_terminal_has_the_same_joules() -> None:
    """Its balance and its joules per output are sums of what the table reads."""
    balance, series = Balance.of(SNAPSHOT), series_of_table(SNAPSHOT)

    def total(name: str, **labels: str) -> float:
        return sum(
            value
            for (metric, told), value in series.items()
            if metric == f"joulescope_{name}_total" and labels.items() <= dict(told).items()
        )

    for part in ("measured", "idle", "overhead", "unattributed"):
        assert getattr(balance, f"{part}_joules") == total(f"{part}_energy_joules")
    for phase in ("prefill", "decode"):
        assert getattr(balance, f"{phase}_joules") == total("attributed_energy_joules", phase=phase)
    attributed, generated = total("attributed_energy_joules"), total("generated_tokens")
    assert joules_per_output_token(SNAPSHOT, None) == attributed / generated
    engine = SNAPSHOT.engines[0]
    of_engine = {"engine": engine.info.engine}
    assert engine_now(engine, SNAPSHOT, None).joules_per_output_ever == total(
        "attributed_energy_joules", **of_engine
    ) / total("generated_tokens", **of_engine)


def test_the_history_of_the_page_has_the_same_joules() -> None:
    """Watts of each part times the seconds that were accounted are the joules between two snapshots."""
    history = History(step_seconds=1.0)
    later = _later(SNAPSHOT, 4)
    history.note(SNAPSHOT)
    history.note(later)
    told = json.loads(history.encode())
    (point,) = told["points"]
    parts = dict(zip(told["parts"], point["w"], strict=True))
    before, after = Balance.of(SNAPSHOT), Balance.of(later)
    for part, watts in parts.items():
        name = f"{part}_joules"
        joules = getattr(after, name) - getattr(before, name)
        assert watts * point["s"] == pytest.approx(joules, abs=0.001 * point["s"]), part
    joules = sum(sum(engine.attributed_joules.values()) for engine in SNAPSHOT.engines)
    assert sum(figures[0] for figures in point["e"].values()) == pytest.approx(joules)


def _later(snapshot: Snapshot, seconds: int) -> Snapshot:
    """Some seconds on, with all joules of GPUs and engines doubled."""

    def gpu(totals: GpuTotals) -> GpuTotals:
        until_ns = totals.accounted_until_ns
        return replace(
            totals,
            measured_joules=2 * totals.measured_joules,
            attributed_joules=2 * totals.attributed_joules,
            idle_joules=2 * totals.idle_joules,
            overhead_joules={name: 2 * each for name, each in totals.overhead_joules.items()},
            unattributed_joules={name: 2 * each for name, each in totals.unattributed_joules.items()},
            accounted_until_ns=None if until_ns is None else until_ns + seconds * 10**9,
        )

    engines = [
        replace(each, attributed_joules={key: 2 * joules for key, joules in each.attributed_joules.items()})
        for each in snapshot.engines
    ]
    return replace(
        snapshot,
        time_ns=snapshot.time_ns + seconds * 10**9,
        wall_seconds=snapshot.wall_seconds + seconds,
        gpus=tuple(map(gpu, snapshot.gpus)),
        engines=tuple(engines),
    )


# --------------------------------------------------------------------------------------------- requests

SPAN_OF_LINE = {
    "attributed_joules": "joulescope.request.energy",
    "attributed_low_joules": "joulescope.request.energy_low",
    "attributed_high_joules": "joulescope.request.energy_high",
    "marginal_joules": "joulescope.request.marginal_energy",
    "marginal_low_joules": "joulescope.request.marginal_energy_low",
    "marginal_high_joules": "joulescope.request.marginal_energy_high",
    "prefill_joules": "joulescope.request.prefill_energy",
    "decode_joules": "joulescope.request.decode_energy",
    "wasted_joules": "joulescope.request.wasted_energy",
    "avoided_joules": "joulescope.request.avoided_energy",
    "energy_source": "joulescope.request.energy_source",
    "complete": "joulescope.request.complete",
    "steps": "joulescope.request.steps",
    "preemptions": "joulescope.request.preemptions",
    "request_id": "joulescope.request.id",
    "external_id": "gen_ai.request.id",
    "tenant": "joulescope.request.tenant",
    "lora": "joulescope.request.lora",
    "engine": "joulescope.engine",
    "method": "joulescope.method",
    "method_version": "joulescope.method_version",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
}


def lines_of_log(folder: Path) -> list[dict[str, Any]]:
    path = folder / "requests.jsonl"
    RequestLog(str(path), ANCHOR).export(REQUESTS)
    return [json.loads(line) for line in path.read_text().splitlines()]


def spans_of(receiver: Receiver) -> list[ReceivedSpan]:
    spans = spans_to(receiver)
    spans.export(REQUESTS)
    spans.close(PATIENCE_SECONDS)
    return sorted(
        (span for span in receiver.spans if span.name == SPAN_NAME),
        key=lambda span: str(span.attributes["joulescope.request.id"]),
    )


def test_log_spans_and_pages_tell_the_same_of_a_request(
    address: tuple[str, int], receiver: Receiver, tmp_path: Path
) -> None:
    """What is ``null`` in the log is absent in the span; the page by id repeats the line."""
    lines, spans = lines_of_log(tmp_path), spans_of(receiver)
    view = decode_requests(get(address, "/api/requests")[2])
    listed = sorted(view.finished, key=lambda request: request.request_id)
    assert len(lines) == len(spans) == len(listed) == len(REQUESTS)
    for line, span, of_page, request in zip(lines, spans, listed, REQUESTS, strict=True):
        assert of_page == request
        _check_span(line, span)
        told = json.loads(get(address, f"/v1/requests/{request.request_id}")[2])
        assert told["requests"] == [{"final": True, **line}]
        assert told["attributed_joules"] == told["estimated_joules"] == line["attributed_joules"]
        _check_line(line, request)
    assert (spans[0].trace_id, spans[0].parent_span_id) == (TRACE_ID, PARENT_SPAN_ID)


def _check_span(line: dict[str, Any], span: ReceivedSpan) -> None:
    for field, attribute in SPAN_OF_LINE.items():
        known = None if line[field] == "" else line[field]
        assert span.attributes.get(attribute) == known, attribute
    assert (span.start_ns, span.end_ns) == (line["start_unix_ns"], line["end_unix_ns"])
    assert span.attributes["gen_ai.response.finish_reasons"] == (line["finish_reason"],)
    joules = [each for name in ("prefill_joules", "decode_joules") if (each := line[name]) is not None]
    assert sum(joules) == (line["attributed_joules"] or 0.0)


def _check_line(line: dict[str, Any], request: FinishedRequest) -> None:
    same = [field.name for field in fields(request) if field.name in line and field.name != "energy_source"]
    assert len(same) > 20
    assert {name: line[name] for name in same} == {name: getattr(request, name) for name in same}

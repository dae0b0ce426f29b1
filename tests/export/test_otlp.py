"""Spans and metrics over OTLP, taken in by a real receiver."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from joulescope import __version__
from joulescope.clock import WallAnchor
from joulescope.export import RequestSink
from joulescope.export.metric import Kind
from joulescope.export.metrics import METRICS
from joulescope.export.otlp import create_resource, metrics_enabled, traces_enabled
from joulescope.export.otlp_metrics import OtlpMetrics, otel_name, otel_unit
from joulescope.export.otlp_spans import OtlpSpans, SpanMaker
from joulescope.export.span_attributes import SPAN_ATTRIBUTES, attributes_of
from joulescope.model import METHOD, METHOD_VERSION, Snapshot
from tests.export.samples import GPU_A, PARENT_SPAN_ID, TRACE_ID, finished, rich_snapshot
from tests.otlp_receiver import PATIENCE_SECONDS, Receiver, otlp_receiver

ANCHOR = WallAnchor(monotonic_ns=90_000_000_000, wall_ns=1_700_000_000_000_000_001)
TRACE_PARENT = f"00-{TRACE_ID}-{PARENT_SPAN_ID}-01"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads ``OTEL_*`` by itself: what the machine has set must not reach a test."""
    for name in ("ENDPOINT", "HEADERS", "COMPRESSION"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as running:
        yield running


def spans_to(receiver: Receiver, **environ: str) -> OtlpSpans:
    exporter = OTLPSpanExporter(endpoint=receiver.endpoint + "/v1/traces")
    return OtlpSpans(ANCHOR, create_resource(), exporter=exporter, environ=environ)


@pytest.mark.parametrize(
    ("environ", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "console, otlp"}, True),
    ],
)
def test_the_standard_variables_switch_traces(environ: dict[str, str], enabled: bool) -> None:
    """Spans are sent exactly when an endpoint is named and nothing switches them off."""
    assert traces_enabled(environ) is enabled


def test_the_standard_variables_switch_metrics() -> None:
    """Metrics have switches of their own: traces may be off while metrics are sent."""
    environ = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}
    assert metrics_enabled(environ)
    assert not metrics_enabled({**environ, "OTEL_METRICS_EXPORTER": "none"})
    assert metrics_enabled({**environ, "OTEL_TRACES_EXPORTER": "none"})


def test_grpc_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """An environment made for gRPC still enables spans, with a warning that names the right port."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with caplog.at_level(logging.WARNING):
        assert traces_enabled(environ)
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in caplog.text
    assert "4318" in caplog.text


def test_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is joulescope unless the standard variables name it otherwise; an instance has an id."""
    ours = create_resource().attributes
    assert ours["service.name"] == "joulescope"
    assert ours["host.name"] == socket.gethostname()
    assert ours["service.instance.id"] != create_resource().attributes["service.instance.id"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=i-1,deployment.environment=test")
    theirs = create_resource().attributes
    assert (theirs["service.name"], theirs["service.instance.id"]) == ("mine", "i-1")
    assert theirs["deployment.environment"] == "test"


def test_a_span_carries_energy_tokens_model_and_ids(receiver: Receiver) -> None:
    """A request without a trace becomes a root span with wall times and all that is known of it."""
    sink: RequestSink = spans_to(receiver)
    sink.export([finished(7)])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.name, span.parent_span_id, span.is_error) == ("joulescope.request", "", False)
    assert (span.start_ns, span.end_ns) == (1_700_000_000_000_000_001, 1_700_000_002_000_000_006)
    assert span.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama",
        "gen_ai.response.model": "llama",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.response.finish_reasons": ("stop",),
        "joulescope.request.energy": 4.5,
        "joulescope.request.energy_low": 4.25,
        "joulescope.request.energy_high": 4.75,
        "joulescope.request.marginal_energy": 3.25,
        "joulescope.request.marginal_energy_low": 3.0,
        "joulescope.request.marginal_energy_high": 3.5,
        "joulescope.request.prefill_energy": 1.5,
        "joulescope.request.decode_energy": 3.0,
        "joulescope.request.wasted_energy": 0.0,
        "joulescope.request.avoided_energy": 0.5,
        "joulescope.request.energy_source": "counter",
        "joulescope.request.complete": True,
        "joulescope.request.time_to_first_token": 0.25,
        "joulescope.request.steps": 21,
        "joulescope.request.preemptions": 0,
        "joulescope.request.id": "cmpl-7-0-1a2b3c4d",
        "joulescope.request.external_id": "cmpl-7-0",
        "joulescope.engine": "llama-0",
        "joulescope.method": METHOD,
        "joulescope.method_version": METHOD_VERSION,
    }
    assert span.resource["service.name"] == "joulescope"
    assert span.scope == "joulescope"
    assert sink.counts() == {"exported": 1, "failed": 0, "dropped": 0, "unsampled": 0}


def test_a_span_is_a_child_of_the_incoming_trace(receiver: Receiver) -> None:
    """With a traceparent the span joins that trace under that span, its state kept."""
    sink = spans_to(receiver)
    sink.export([finished(trace_parent=TRACE_PARENT, trace_state="vendor=1")])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, PARENT_SPAN_ID)
    assert (span.parent_is_remote, span.trace_state) == (True, "vendor=1")
    assert span.span_id not in (PARENT_SPAN_ID, "0" * 16)


def test_the_sampled_flag_is_kept() -> None:
    """The child's own context says sampled as its parent's did, so that whoever reads it decides alike."""
    (span,) = SpanMaker(ANCHOR, create_resource()).spans_of([finished(trace_parent=TRACE_PARENT)])
    assert span.get_span_context().trace_flags.sampled


def test_an_unsampled_trace_stays_unsampled(receiver: Receiver) -> None:
    """A client that decided against sampling gets no span; the request is counted as unsampled."""
    sink = spans_to(receiver)
    sink.export([finished(1, trace_parent=TRACE_PARENT[:-1] + "0"), finished(2)])
    sink.close(PATIENCE_SECONDS)
    assert [span.attributes["joulescope.request.external_id"] for span in receiver.spans] == ["cmpl-2-0"]
    assert sink.counts() == {"exported": 1, "failed": 0, "dropped": 0, "unsampled": 1}


@pytest.mark.parametrize("trace_parent", ["garbage", f"00-{'0' * 32}-{PARENT_SPAN_ID}-01", "\ud800"])
def test_a_broken_traceparent_makes_a_root(receiver: Receiver, trace_parent: str) -> None:
    """What is not a valid traceparent is ignored, and costs no span."""
    sink = spans_to(receiver)
    sink.export([finished(trace_parent=trace_parent, request_id="odd\ud800id", finish_reason="error")])
    sink.close(PATIENCE_SECONDS)
    (span,) = receiver.spans
    assert (span.parent_span_id, span.is_error) == ("", True)
    assert span.attributes["joulescope.request.id"] == "odd?id"


def test_what_is_not_known_is_absent() -> None:
    """Joules that nobody measured have no attribute: a zero would be a claim."""
    names = ("attributed", "attributed_low", "attributed_high", "marginal", "marginal_low", "marginal_high")
    none = {f"{name}_joules": None for name in (*names, "prefill", "decode", "wasted", "avoided")}
    attributes = attributes_of(finished(**none, first_token_ns=None, complete=False))
    assert [name for name in attributes if "energy" in name] == []
    assert "joulescope.request.time_to_first_token" not in attributes
    assert attributes["joulescope.request.complete"] is False


def test_attribute_names_squat_no_namespace() -> None:
    """Names are unique, and either GenAI's or our own."""
    names = [attribute.name for attribute in SPAN_ATTRIBUTES]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("gen_ai.", "joulescope.")) for name in names)


def test_a_full_batch_is_sent_without_waiting_for_the_delay(receiver: Receiver) -> None:
    """With an hour between sends, a batch that is full still goes out."""
    sink = spans_to(receiver, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="3")
    sink.export([finished(number) for number in range(3)])
    assert len(receiver.wait_for_spans(3)) == 3
    sink.close(PATIENCE_SECONDS)


def test_a_part_of_a_batch_is_sent_after_the_delay(receiver: Receiver) -> None:
    """A single request does not wait for others to fill its batch."""
    sink = spans_to(receiver, OTEL_BSP_SCHEDULE_DELAY="1")
    sink.export([finished()])
    assert len(receiver.wait_for_spans(1)) == 1
    sink.close(PATIENCE_SECONDS)


def test_a_full_queue_drops_and_counts(receiver: Receiver) -> None:
    """While the collector is stuck the caller is not: the queue fills, the rest is dropped and counted."""
    receiver.hold = threading.Event()
    sink = spans_to(receiver, OTEL_BSP_MAX_QUEUE_SIZE="2", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1")
    sink.export([finished(0)])
    receiver.wait_for_requests(1)
    sink.export([finished(number) for number in range(1, 6)])
    assert sink.counts() == {"exported": 0, "failed": 0, "dropped": 3, "unsampled": 0}
    receiver.hold.set()
    sink.close(PATIENCE_SECONDS)
    assert sink.counts() == {"exported": 3, "failed": 0, "dropped": 3, "unsampled": 0}
    sink.export([finished(9)])
    assert sink.counts()["dropped"] == 4


def test_a_refusing_collector_is_counted(receiver: Receiver) -> None:
    """Spans that the collector refuses count as failed."""
    receiver.status = 400
    sink = spans_to(receiver)
    sink.export([finished(1), finished(2)])
    sink.close(PATIENCE_SECONDS)
    assert sink.counts() == {"exported": 0, "failed": 2, "dropped": 0, "unsampled": 0}


def test_closing_does_not_wait_for_a_stuck_collector(receiver: Receiver) -> None:
    """Ending gives up on a silent collector; what was under way or queued is counted, once."""
    receiver.hold = threading.Event()
    sink = spans_to(receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1")
    sink.export([finished(1), finished(2)])
    receiver.wait_for_requests(1)
    sink.close(0.05)
    sink.close(0.05)
    assert not receiver.hold.is_set()
    assert sink.counts() == {"exported": 0, "failed": 1, "dropped": 1, "unsampled": 0}


def test_an_unreachable_collector_neither_raises_nor_hangs() -> None:
    """With nothing listening, closing returns and the spans are accounted for."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces")
        sink = OtlpSpans(ANCHOR, create_resource(), exporter=exporter, environ={})
        sink.export([finished(1)])
        sink.close(0.05)
        assert sink.counts()["failed"] + sink.counts()["dropped"] == 1


def test_settings_that_make_no_sense_fall_back(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """A queue size that is no number is named in a warning, and the standard default is used."""
    with caplog.at_level(logging.WARNING):
        sink = spans_to(receiver, OTEL_BSP_MAX_QUEUE_SIZE="many")
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in caplog.text
    sink.export([finished(1)])
    sink.close(PATIENCE_SECONDS)
    assert len(receiver.spans) == 1


def metrics_to(receiver: Receiver, get_snapshot=rich_snapshot) -> OtlpMetrics:  # type: ignore[no-untyped-def]
    exporter = OTLPMetricExporter(endpoint=receiver.endpoint + "/v1/metrics")
    return OtlpMetrics(get_snapshot, create_resource(), exporter=exporter)


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


def test_all_but_histograms_are_sent(receiver: Receiver) -> None:
    """Each metric of the table arrives under one name of its own."""
    metrics_to(receiver).close(PATIENCE_SECONDS)
    expected = [otel_name(metric) for metric in METRICS if metric.kind is not Kind.HISTOGRAM]
    assert len(set(expected)) == len(expected)
    assert {point.name for point in receiver.points} == set(expected)


def test_one_export_reads_one_snapshot(receiver: Receiver) -> None:
    """All points of a collection come from a single snapshot, and the next collection takes a new one."""
    taken: list[float] = []

    def get_snapshot() -> Snapshot:
        taken.append(len(taken) + 1)
        return replace(rich_snapshot(), wall_seconds=taken[-1])

    metrics = metrics_to(receiver, get_snapshot)
    metrics._provider.force_flush()
    metrics.close(PATIENCE_SECONDS)
    seen = [p.value for p in receiver.points if p.name == "joulescope.snapshot_timestamp"]
    assert seen == taken == [1, 2]


def test_the_standard_interval_is_respected(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_METRIC_EXPORT_INTERVAL`` sends without anybody asking."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    metrics = metrics_to(receiver)
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

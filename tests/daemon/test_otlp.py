"""OTLP as the daemon wires it: switched on by the standard variables, and never waited for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulescope.clock import ManualClock
from joulescope.daemon.daemon import Daemon
from joulescope.hook.wire import AnyRecord
from joulescope.model import GpuInfo
from joulescope.sampling.sampler import SensorOpened
from tests import worlds
from tests.daemon.test_daemon import Bench, Sink, reading, settings_in
from tests.otlp_receiver import Receiver, otlp_receiver
from tests.worlds import GPU, MS, SECOND

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A daemon as `serve` builds it, with an endpoint in its environment."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "POD_NAME": "llama-x2x"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path, host="off", otlp_phases="events")
    daemon = Daemon.build(settings, clock=clock, environ=environ, extra_sinks=[sink])
    made = Bench(settings, daemon, clock, sink)
    yield made
    made.peer.close()
    made.daemon.close(0.1)


def serve_one(bench: Bench) -> None:
    """One request of a caller with a trace, from the queue to its last joule."""
    started = worlds.start(1, SECOND, trace_parent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    told: list[AnyRecord] = [worlds.hello(), started, worlds.step(0, 2 * SECOND, 3 * SECOND, [1])]
    bench.daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell([*told, worlds.end(1, 3 * SECOND, 0)])
    bench.read([reading(at * 100 * MS) for at in range(45)])
    bench.at(4500 * MS)
    assert len(bench.sink.requests) == 1


def test_a_request_and_the_metrics_reach_a_collector(bench: Bench, receiver: Receiver) -> None:
    """In the caller's trace, with joules and phases as the setting wants them; both signals are from one
    instance, in the pod that the environment names."""
    serve_one(bench)
    bench.daemon.close(10.0)
    (span,) = receiver.wait_for_spans(1)
    assert (span.trace_id, span.parent_span_id) == (TRACE_ID, PARENT_ID)
    assert span.attributes["joulescope.request.energy"] == pytest.approx(300.0)
    queue, prefill, _ = span.events
    assert (queue.name, queue.attributes["joulescope.phase_duration"]) == ("joulescope.request.queue", 1.0)
    assert prefill.time_ns - queue.time_ns == SECOND
    energy = receiver.wait_for_points("hw.energy")[-1]
    assert energy.value == pytest.approx(300.0 * 4.4)
    for name in ("service.instance.id", "k8s.pod.name", "host.name"):
        assert span.resource[name] == energy.resource[name]
    assert span.resource["k8s.pod.name"] == "llama-x2x"


def test_a_collector_that_hangs_holds_nothing_up(bench: Bench, receiver: Receiver) -> None:
    """Turns and the end go on while it says nothing; the request is counted as not delivered."""
    receiver.hold = threading.Event()
    serve_one(bench)
    bench.daemon.close(0.2)
    assert not receiver.hold.is_set()
    bench.daemon.publish()
    counts = bench.daemon.snapshot().sidecar.exported
    assert counts["otlp", "failed"] + counts["otlp", "dropped"] == 1
    assert counts["otlp", "exported"] == 0


class LastSink(Sink):
    """One whose end takes until the collector has the metrics."""

    name = "last"

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver
        self.saw_metrics = False

    def close(self, timeout_seconds: float) -> None:
        super().close(timeout_seconds)
        self.saw_metrics = bool(self._receiver.wait_for_points("hw.energy", timeout_seconds))


def test_exporters_end_side_by_side(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes all its time to end takes none from the others."""
    environ = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": receiver.endpoint + "/v1/metrics"}
    monkeypatch.setenv(*environ.popitem())
    clock, sink = ManualClock(), LastSink(receiver)
    settings = settings_in(tmp_path, host="off")
    daemon = Daemon.build(settings, clock=clock, environ=dict(os.environ), extra_sinks=[sink])
    bench = Bench(settings, daemon, clock, sink)
    serve_one(bench)
    bench.peer.close()
    daemon.close(20.0)
    assert sink.saw_metrics

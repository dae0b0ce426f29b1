"""The daemon's life: whole path over a real socket, half starts undone, errors survived."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from joulescope.clock import ManualClock, SystemClock
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.errors import ConfigError, SensorLost
from joulescope.hook.wire import AnyRecord, encode_frame
from joulescope.ingest.trace import read_trace
from joulescope.model import CallTime, FinishedRequest, GpuInfo, GpuReading, Snapshot
from joulescope.sampling.sampler import Sampled, SensorDown, SensorOpened
from tests import worlds
from tests.http_peer import Answer, http_peer
from tests.worlds import GPU, MS, SECOND

ENCODER = msgspec.msgpack.Encoder()


class Sink:
    """A request sink that keeps what it gets."""

    name = "kept"

    def __init__(self) -> None:
        self.requests: list[FinishedRequest] = []
        self.closed = False

    def export(self, requests: Sequence[FinishedRequest]) -> None:
        self.requests += requests

    def counts(self) -> dict[str, int]:
        return {"written": len(self.requests)}

    def close(self, timeout_seconds: float) -> None:
        self.closed = True


def settings_in(folder: Path, **more: object) -> Settings:
    base: dict[str, object] = {"socket": str(folder / "js.sock"), "listen": "127.0.0.1:0", "sensor": "none"}
    return Settings(**{**base, **more})  # type: ignore[arg-type]


class Bench:
    """A daemon on the bench: its turns are taken by hand, its clock is moved by hand, no thread runs."""

    def __init__(self, settings: Settings, daemon: Daemon, clock: ManualClock, sink: Sink) -> None:
        self.settings, self.daemon, self.clock, self.sink = settings, daemon, clock, sink
        daemon.open()
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.peer.connect(settings.socket)

    def tell(self, records: Sequence[AnyRecord]) -> None:
        self.peer.sendall(encode_frame(list(records), ENCODER))
        for _ in range(3):
            self.daemon.turn(0.05)

    def read(self, readings: Sequence[GpuReading]) -> None:
        self.daemon.deliver(Sampled(readings, 0, 0))

    def at(self, time_ns: int) -> Snapshot:
        self.clock.time_ns = time_ns
        self.daemon.turn(0.0)
        self.daemon.publish()
        return self.daemon.snapshot()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path)
    made = Bench(settings, Daemon(settings, open_sensor=None, clock=clock, sinks=[sink]), clock, sink)
    yield made
    made.peer.close()
    made.daemon.close(0.1)


def reading(time_ns: int, watts: float = 300.0) -> GpuReading:
    return GpuReading(GPU, time_ns, energy_joules=watts * time_ns / SECOND, power_watts=watts)


def life() -> list[AnyRecord]:
    return [worlds.hello(), worlds.start(1), worlds.step(0, 0, SECOND, [1]), worlds.end(1, SECOND, 0)]


def test_a_request_goes_from_the_socket_to_metrics_and_sinks(bench: Bench) -> None:
    """Records over a real socket and readings from a sensor become a finished request with its joules."""
    bench.daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell(life())
    bench.read([reading(at * 100 * MS) for at in range(25)])
    snapshot = bench.at(2500 * MS)
    (request,) = bench.sink.requests
    assert request.attributed_joules == pytest.approx(300.0)
    assert snapshot.gpus[0].residual_joules == 0
    assert snapshot.gpus[0].up
    assert snapshot.sidecar.exported == {("kept", "written"): 1}
    assert bench.daemon.recent_requests() == (request,)


def test_an_exporter_that_fails_costs_the_others_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in one is logged and counted; the next still gets the account, at the end too."""

    class Broken(Sink):
        name = "broken"

        def export(self, requests: Sequence[FinishedRequest]) -> None:
            raise OverflowError("a bug")

    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path)
    daemon = Daemon(settings, open_sensor=None, clock=clock, sinks=[Broken(), sink])
    bench = Bench(settings, daemon, clock, sink)
    bench.tell(life())
    bench.peer.close()
    snapshot = daemon.close(0.1)
    assert len(sink.requests) == 1
    assert snapshot.sidecar.rejected_records["internal_error"] == 1
    assert "please report it" in caplog.text


def test_the_settings_calibrate_the_gpus_they_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A factor of the settings is in the joules, and one for a GPU that is not there is warned of."""
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path, calibration=((GPU, 1.055), ("GPU-mistyped", 0.9), ("", 0.5)))
    bench = Bench(settings, Daemon(settings, open_sensor=None, clock=clock, sinks=[sink]), clock, sink)
    bench.daemon.deliver(SensorOpened(0, [GpuInfo(GPU, power_limit_watts=700.0)]))
    bench.tell(life())
    bench.read([reading(at * 100 * MS) for at in range(25)])
    assert bench.at(2500 * MS).gpus[0].info.calibration_factor == 1.055
    assert sink.requests[0].attributed_joules == pytest.approx(1.055 * 300)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "GPU-mistyped;" in warning
    bench.peer.close()
    bench.daemon.close(0.1)


def test_gpus_that_no_engine_names_are_not_measured(bench: Bench) -> None:
    """On a shared node the neighbours' GPUs are none of our business."""
    bench.tell(life())
    bench.read([GpuReading("GPU-stranger", at * 100 * MS, energy_joules=at * 9.0) for at in range(25)])
    assert bench.at(3 * SECOND).gpus == ()


def test_stale_readings_are_not_shown(bench: Bench) -> None:
    """When readings stop, gauges vanish; counters stay."""
    bench.tell(life())
    bench.read([reading(at * 100 * MS) for at in range(25)])
    (fresh,) = bench.at(2500 * MS).gpus
    (stale,) = bench.at(10 * SECOND).gpus
    assert fresh.reading is not None
    assert stale.reading is None
    assert not stale.up
    assert stale.measured_joules == fresh.measured_joules


def test_readiness_follows_the_sensor(tmp_path: Path) -> None:
    """Not ready before a sensor has told a reading and after it was lost, and the page says why."""
    daemon = Daemon(settings_in(tmp_path), open_sensor=lambda: pytest.fail("not opened"), clock=ManualClock())
    assert not daemon.ready()[0]
    daemon.open()
    daemon.deliver(SensorOpened(0, [GpuInfo(GPU)]))
    daemon.turn(0.0)
    assert daemon.sensor_error == "no sensor has answered yet"
    daemon.deliver(Sampled([reading(0)], 0, 0))
    daemon.turn(0.0)
    assert daemon.sensor_error == ""
    daemon.deliver(SensorDown(0, SensorLost("GPU is lost"), 1.0))
    daemon.turn(0.0)
    assert daemon.sensor_error == "GPU is lost"
    daemon.close(0.1)


def test_a_taken_port_undoes_the_start(tmp_path: Path) -> None:
    """If the address cannot be had, the socket file that was made before is gone again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_in(tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        daemon = Daemon(settings, open_sensor=None, clock=ManualClock())
        with pytest.raises(ConfigError, match=str(taken.getsockname()[1])):
            daemon.start()
    assert not Path(settings.socket).exists()


def test_the_threads_serve_pages_and_stop(tmp_path: Path) -> None:
    """Started for real: the pages answer, and closing removes the socket and closes the sinks."""
    sink = Sink()
    settings = settings_in(tmp_path, record=str(tmp_path / "t.jsonl"))
    daemon = Daemon.build(settings, environ={})
    daemon.start()
    host, port = daemon.address
    with urllib.request.urlopen(f"http://{host}:{port}/-/ready") as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"http://{host}:{port}/api/snapshot") as answer:
        assert json.load(answer)
    daemon.close()
    assert not Path(settings.socket).exists()
    assert not sink.closed
    assert len(list(read_trace(tmp_path / "t.jsonl"))) == 1


def test_a_recording_that_fails_does_not_end_the_accounting(tmp_path: Path) -> None:
    """A full disk stops the trace, says so in a counter, and the requests go on."""
    clock, sink = ManualClock(), Sink()
    settings = settings_in(tmp_path, record="/dev/full")
    daemon = Daemon.build(settings, clock=clock, environ={}, extra_sinks=[sink])
    bench = Bench(settings, daemon, clock, sink)
    bench.tell(life())
    bench.read([reading(at * 100 * MS) for at in range(25)])
    bench.at(2500 * MS)
    snapshot = bench.at(2600 * MS)
    assert snapshot.sidecar.rejected_records["record_stopped"] == 1
    assert len(sink.requests) == 1
    daemon.close(0.1)


class FaultySink(Sink):
    """Cannot say what it has done, the first time that it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.again = 0, threading.Event()

    def counts(self) -> dict[str, int]:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("a bug")
        self.again.set()
        return super().counts()


def test_figures_that_cannot_be_published_once_do_not_end_the_accounting(tmp_path: Path) -> None:
    """A bug in what makes the snapshot costs that snapshot; the next says that there was one."""
    sink = FaultySink()
    daemon = Daemon(settings_in(tmp_path), open_sensor=None, clock=SystemClock(), sinks=[sink])
    daemon.start()
    try:
        assert sink.again.wait(10.0)
    finally:
        snapshot = daemon.close(10.0)
    assert snapshot.sidecar.rejected_records["internal_error"] == 1


def test_what_is_open_at_the_end_is_settled(bench: Bench) -> None:
    """Closing divides all that was measured; nothing waits for records that will not come."""
    bench.tell([worlds.hello(capabilities=["progress"]), worlds.start(1), worlds.step(0, 0, SECOND, [1])])
    bench.read([reading(at * 100 * MS) for at in range(25)])
    bench.at(2500 * MS)
    final = bench.daemon.close(0.1)
    assert final.gpus[0].measured_joules == pytest.approx(720.0)
    assert final.gpus[0].attributed_joules == pytest.approx(300.0)


def test_a_sampler_that_dies_is_noticed(tmp_path: Path) -> None:
    """A bug in a sensor ends its thread, not the sidecar: readiness and a counter say so."""

    class Broken:
        def gpus(self) -> Sequence[GpuInfo]:
            return [GpuInfo(GPU)]

        def read(self) -> Sequence[GpuReading]:
            raise ZeroDivisionError

        def read_failures(self) -> dict[str, int]:
            return {}

        def call_times(self) -> dict[str, CallTime]:
            return {}

        def close(self) -> None:
            pass

    daemon = Daemon(settings_in(tmp_path, sample_hz=1000.0), open_sensor=Broken, clock=SystemClock())
    daemon.start()
    deadline_ns = time.monotonic_ns() + 20 * SECOND
    while "sampler stopped" not in daemon.ready()[1] and time.monotonic_ns() < deadline_ns:
        time.sleep(0.01)
    assert "ZeroDivisionError" in daemon.ready()[1]
    assert daemon.close().sidecar.rejected_records["sampler_stopped"] == 1


def test_multipliers_reach_the_page_and_fetching_stops_with_the_daemon(tmp_path: Path) -> None:
    """Started for real, /metrics tells what the grid's server says, and the token went nowhere else."""
    with http_peer() as peer:
        peer.answer = Answer(b'{"now": [360]}')
        settings = settings_in(
            tmp_path,
            pue=1.25,
            carbon_intensity=peer.url,
            carbon_field="/now/0",
            carbon_token="env:GRID_TOKEN",
            electricity_price=0.36,
            currency="EUR",
        )
        daemon = Daemon.build(settings, environ={"GRID_TOKEN": "sesame"})
        daemon.start()
        deadline_ns = time.monotonic_ns() + 20 * SECOND
        while not daemon.snapshot().multipliers.carbon_grams_per_joule and time.monotonic_ns() < deadline_ns:
            time.sleep(0.01)
        with urllib.request.urlopen("http://{}:{}/metrics".format(*daemon.address)) as answer:
            page = answer.read().decode()
        daemon.close()
    assert "joulescope_facility_pue_ratio 1.25\n" in page
    assert "joulescope_grid_carbon_intensity_grams_per_joule 0.0001\n" in page
    assert 'joulescope_electricity_price_per_joule{currency="EUR"} 1e-07\n' in page
    assert "sesame" not in page
    assert [headers["authorization"] for _, headers in peer.asked] == ["sesame"]


def test_a_server_without_a_hook_stands_beside_its_gpus(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Started for real, its tokens are on the page under names of their own, and it enters no account."""
    with http_peer() as peer:
        peer.answer = Answer(b"sglang:generation_tokens_total 7\nsglang:num_running_reqs 3\n")
        daemon = Daemon.build(settings_in(tmp_path, scrape=(peer.url,), scrape_seconds=1.0), environ={})
        daemon.start()
        deadline_ns = time.monotonic_ns() + 20 * SECOND
        while not daemon.snapshot().servers[:1] or not daemon.snapshot().servers[0].up:
            assert time.monotonic_ns() < deadline_ns
            time.sleep(0.01)
        with urllib.request.urlopen("http://{}:{}/metrics".format(*daemon.address)) as answer:
            page = answer.read().decode()
        final = daemon.close()
    assert f'joulescope_scraped_generated_tokens_total{{server="{peer.url}"}} 0.0\n' in page
    assert f'joulescope_scraped_requests_running{{server="{peer.url}"}} 3.0\n' in page
    assert final.engines == ()
    assert "set gpus to all" in caplog.text  # nobody reads its GPUs as it stands


def test_a_token_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    """A variable can not be set later: the daemon says which one is missing before anything runs."""
    settings = settings_in(tmp_path, carbon_intensity="http://127.0.0.1:9/", carbon_token="env:GRID_TOKEN")
    with pytest.raises(ConfigError, match="variable GRID_TOKEN: the token is empty; set it, or unset both"):
        Daemon.build(settings, environ={})

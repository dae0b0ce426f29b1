"""The host's own energy through the daemon: from a powercap tree and a real socket to figures and a trace."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from joulescope.clock import ManualClock
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.export.snapshot_json import decode_snapshot, encode_snapshot
from joulescope.hook.wire import AnyRecord, HostDomain, HostSample, encode_frame
from joulescope.host_model import HostTotals
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.replay import Replay
from joulescope.sampling.host_poller import HostPoller
from joulescope.sensors.powercap import PowercapSensor
from joulescope.sensors.processes import EngineProcesses
from tests import worlds
from tests.sensors.powercap_tree import PowercapTree

CPUS = 10


class Machine:
    """A host of one package with DRAM, on which this very process is the engine."""

    def __init__(self, sysfs: Path) -> None:
        self.tree = PowercapTree(sysfs)
        self.tree.server(sockets=1)
        self.package_uj, self.dram_uj = 1_000_000, 2_500_000
        self.busy_seconds = self.total_seconds = self.engine_seconds = 0.0

    def pass_second(self, package_watts: int, busy: float, engine: float) -> None:
        self.package_uj = (self.package_uj + package_watts * 1_000_000) % 262_143_328_850
        self.dram_uj += 20_000_000
        self.tree.set("intel-rapl:0", self.package_uj)
        self.tree.set("intel-rapl:0:1", self.dram_uj)
        self.total_seconds += CPUS
        self.busy_seconds += busy
        self.engine_seconds += engine

    def read(self, pid: int) -> tuple[object, float] | None:
        return ("this process", self.engine_seconds) if pid == os.getpid() else None

    def parents(self) -> dict[int, int]:
        return {os.getpid(): 1}

    def host_seconds(self) -> tuple[float, float] | None:
        return self.busy_seconds, self.total_seconds


@dataclass
class Bench:
    """A daemon whose turns are taken by hand, beside such a machine."""

    machine: Machine
    daemon: Daemon
    clock: ManualClock
    peer: socket.socket

    def say_hello(self) -> None:
        self.peer.sendall(encode_frame([worlds.hello(self.clock.time_ns)], msgspec.msgpack.Encoder()))
        for _ in range(3):
            self.daemon.turn(0.05)

    def seconds(self, count: int, package_watts: int, *, busy: float, engine: float = 0.0) -> HostTotals:
        for _ in range(count):
            self.machine.pass_second(package_watts, busy, engine)
            self.clock.advance(1.0)
            self.daemon.turn(0.0)
        self.daemon.publish()
        return self.daemon.snapshot().host


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    machine, clock = Machine(tmp_path / "sys"), ManualClock(worlds.SECOND)
    settings = Settings(socket=str(tmp_path / "js.sock"), listen="127.0.0.1:0", sensor="none")
    host = HostPoller(lambda: PowercapSensor.open(machine.tree.sysfs), EngineProcesses(clock, machine), clock)
    daemon = Daemon(
        settings,
        open_sensor=None,
        clock=clock,
        host=host,
        recorder=TraceWriter(tmp_path / "trace.jsonl"),
    )
    daemon.open()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(settings.socket)
        yield Bench(machine, daemon, clock, peer)
    daemon.close(0.1)


def test_an_engine_pays_for_its_cpu_time_and_nothing_is_lost(bench: Bench) -> None:
    """After a quiet while, an engine with half of the busy time pays half of what is drawn above idle."""
    bench.say_hello()
    bench.seconds(11, 100, busy=0.5)
    host = bench.seconds(10, 300, busy=5.0, engine=2.5)
    package, dram = host.domains
    assert (package.info.domain, dram.info.domain) == ("package-0", "dram-0")
    assert package.measured_joules == pytest.approx(11 * 100 + 10 * 300)
    assert package.attributed_joules["tiny-0"] == pytest.approx(1000.0, rel=0.01)
    assert package.idle_power_watts == pytest.approx(100.0)
    assert dram.attributed_joules["tiny-0"] == pytest.approx(0.0, abs=1e-5)
    assert [domain.residual_joules for domain in host.domains] == [0.0, 0.0]
    assert host.engines_visible == {"tiny-0": True}
    assert host.engine_cpu_seconds == {"tiny-0": pytest.approx(25.0)}
    assert bench.daemon.snapshot().gpus == ()


def test_a_trace_gives_the_same_figures_again(bench: Bench, tmp_path: Path) -> None:
    """The host's readings are in the recording, and a replay of it comes to the same microjoule."""
    bench.say_hello()
    bench.seconds(12, 90, busy=0.5)
    bench.machine.package_uj = 262_143_000_000
    bench.seconds(15, 250, busy=4.0, engine=3.0)
    live = bench.daemon.close(0.1).host
    with TraceReader(tmp_path / "trace.jsonl") as reader:
        replay = Replay(reader)
        assert list(replay) == []
        assert not reader.rejected
    assert replay.snapshot is not None
    again = replay.snapshot.host
    assert live.domains[0].attributed_joules["tiny-0"] > 0
    assert [replace(domain, info=domain.info, up=True) for domain in again.domains] == [
        replace(domain, info=replace(domain.info, sensor="replayed"), up=True) for domain in live.domains
    ]
    assert again.engine_cpu_seconds == live.engine_cpu_seconds


def test_what_a_peer_says_of_the_host_is_refused_and_not_recorded(bench: Bench, tmp_path: Path) -> None:
    """A connection cannot bring host joules into the account, and not into a replay either."""
    bench.say_hello()
    lies: list[AnyRecord] = [HostDomain(domain="package-9", energy_range_joules=-1.0)]
    lies += [HostSample(time_ns=at, energy_joules={"package-9": 1e3 * at}) for at in (1, 2)]
    bench.peer.sendall(encode_frame(lies, msgspec.msgpack.Encoder()))
    bench.seconds(2, 100, busy=0.5)
    final = bench.daemon.close(0.1)
    assert final.sidecar.rejected_records["unexpected_type"] == 3
    assert {domain.info.domain for domain in final.host.domains} == {"package-0", "dram-0"}
    assert "package-9" not in (tmp_path / "trace.jsonl").read_text()


def test_a_snapshot_keeps_the_host_on_its_way_through_json(bench: Bench) -> None:
    """What ``/api/snapshot`` shows of the host reads back as it was."""
    bench.say_hello()
    bench.seconds(12, 90, busy=0.5)
    snapshot = bench.daemon.snapshot()
    assert decode_snapshot(encode_snapshot(snapshot)).host == snapshot.host


def test_a_counter_that_stops_is_down_and_comes_back(bench: Bench) -> None:
    """A host that cannot be read any more shows it, keeps its sums, and is read again when it can be."""
    bench.say_hello()
    before = bench.seconds(3, 100, busy=1.0)
    hidden = bench.machine.tree.sysfs.rename(bench.machine.tree.sysfs.with_name("hidden"))
    bench.clock.advance(1.0)
    bench.daemon.turn(0.0)
    bench.daemon.publish()
    down = bench.daemon.snapshot().host
    assert "No such file" in bench.daemon.host_error
    assert [domain.up for domain in down.domains] == [False, False]
    assert [domain.read_failures for domain in down.domains] == [1, 1]
    assert down.domains[0].measured_joules == before.domains[0].measured_joules
    hidden.rename(bench.machine.tree.sysfs)
    bench.clock.advance(60.0)
    back = bench.seconds(2, 100, busy=1.0)
    assert bench.daemon.host_error == ""
    assert [domain.up for domain in back.domains] == [True, True]


def test_a_host_without_counters_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no RAPL the log says so once, readiness stands, and no figure of the host appears."""
    settings = Settings(
        socket=str(tmp_path / "js.sock"), listen="127.0.0.1:0", sensor="none", host_sysfs=str(tmp_path)
    )
    clock = ManualClock()
    daemon = Daemon.build(settings, clock=clock, environ={})
    with caplog.at_level("INFO"):
        for _ in range(3):
            daemon.turn(0.0)
            clock.advance(60.0)
    assert "there is no RAPL zone" in daemon.host_error
    assert len([record for record in caplog.records if "RAPL" in record.getMessage()]) == 1
    daemon.publish()
    assert daemon.snapshot().host == HostTotals()
    assert daemon.sensor_error == ""
    daemon.close(0.1)


def test_the_settings_name_the_tree_and_switch_it_off(tmp_path: Path) -> None:
    """``host_sysfs`` is where the counters are looked for, and with ``host`` off nobody looks."""
    PowercapTree(tmp_path).server(sockets=1)
    for host, domains in (("auto", 2), ("off", 0)):
        settings = Settings(
            socket=str(tmp_path / "js.sock"),
            listen="127.0.0.1:0",
            sensor="none",
            host=host,
            host_sysfs=str(tmp_path),
        )
        daemon = Daemon.build(settings, clock=ManualClock(), environ={})
        daemon.turn(0.0)
        daemon.publish()
        assert len(daemon.snapshot().host.domains) == domains
        daemon.close(0.1)

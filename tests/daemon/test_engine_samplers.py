"""Whom the sidecar asks to read GPUs, and whom it sends away: a daemon on a real socket, with a clock that is
moved by hand."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from joulescope.clock import ManualClock
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.daemon.engine_samplers import MISSING_NS
from joulescope.daemon.sensor_choice import readiness
from joulescope.daemon.wishes import ASK_AGAIN_NS
from joulescope.errors import SensorChanged, SensorError
from joulescope.hook.link import Link
from joulescope.hook.wire import (
    SAMPLER,
    AnyRecord,
    Bye,
    Gpu,
    Hello,
    Sample,
    SamplerFacts,
    Wanted,
    WorkerFacts,
    encode_frame,
    wanted_in,
)
from joulescope.model import GpuInfo, GpuReading
from joulescope.sampling.sampler import Sampled, SensorDown, SensorOpened
from tests import worlds
from tests.worlds import GPU, MS, SECOND

OTHER = "GPU-1"


class Peer:
    """The far end of one connection, on the hook's own link."""

    def __init__(self, bench: Bench, *records: AnyRecord) -> None:
        self._bench = bench
        self.link = Link(bench.settings.socket)
        assert self.link.connect(0)
        bench.peers.append(self)
        self.say(*records)

    def say(self, *records: AnyRecord) -> None:
        frame = encode_frame(list(records), msgspec.msgpack.Encoder())
        assert self.link.send(frame, len(records), 0)
        self._bench.turn()

    def heard(self) -> Wanted | None:
        """What the sidecar said since the last call."""
        return wanted_in(self.link.receive())

    @property
    def sent_away(self) -> bool:
        while self.link.receive():
            pass  # what was said before
        return self.link.hung_up


class Bench:
    """A daemon whose turns are taken by hand."""

    def __init__(self, folder: Path, clock: ManualClock, **more: object) -> None:
        base: dict[str, object] = {"socket": str(folder / "js.sock"), "listen": "127.0.0.1:0"}
        self.settings = Settings(**{**base, **more})  # type: ignore[arg-type]
        self.clock = clock
        self.peers: list[Peer] = []
        opener = (lambda: pytest.fail("not opened")) if self.settings.sensor == "nvml" else None
        self.daemon = Daemon(self.settings, open_sensor=opener, clock=clock)
        self.daemon.open()

    def turn(self, later_ns: int = 0) -> None:
        self.clock.time_ns += later_ns
        for _ in range(3):
            self.daemon.turn(0.02)

    def engine(self, *gpus: str, instance: str = "i", able: bool = True) -> Peer:
        capabilities = ["progress", *([SAMPLER] if able else [])]
        return Peer(self, worlds.hello(gpus=gpus, instance=instance, capabilities=capabilities))

    def sampler(self, instance: str = "i") -> Peer:
        facts = SamplerFacts(instance_id=instance)
        return Peer(self, Hello(time_ns=0, role=SAMPLER, sampler=facts))

    def own(self, event: SensorOpened | SensorDown | Sampled) -> None:
        self.daemon.deliver(event)
        self.turn()


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    with contextlib.ExitStack() as stack:

        def make(**more: object) -> Bench:
            bench = Bench(tmp_path, ManualClock(SECOND), **more)
            stack.callback(bench.daemon.close, 0.1)
            return bench

        yield make


def opened(*gpus: str) -> SensorOpened:
    return SensorOpened(0, [GpuInfo(gpu, sensor="nvml") for gpu in gpus])


def read(time_ns: int, *gpus: str) -> Sampled:
    return Sampled([GpuReading(gpu, time_ns, energy_joules=time_ns / SECOND) for gpu in gpus], 0, 0)


def samples(gpu: str, times_ns: Sequence[int]) -> list[AnyRecord]:
    return [Sample(gpu=gpu, time_ns=at, energy_joules=at / SECOND) for at in times_ns]


def test_an_engine_is_asked_for_the_gpus_it_names(make_bench: MakeBench) -> None:
    """With the sidecar's rate, and again when a worker brings another GPU; a sampler hears the same."""
    bench = make_bench(sensor="engine", sample_hz=10.0)
    engine = bench.engine(GPU)
    assert engine.heard() == Wanted(gpus=[GPU], sample_hz=10.0)
    Peer(bench, Hello(time_ns=0, role="worker", worker=WorkerFacts(instance_id="i", gpu=OTHER)))
    assert engine.heard() == Wanted(gpus=[GPU, OTHER], sample_hz=10.0)
    sampler = bench.sampler()
    assert sampler.heard() == Wanted(gpus=[GPU, OTHER], sample_hz=10.0)
    bench.turn(2 * ASK_AGAIN_NS)
    assert (engine.heard(), sampler.heard()) == (None, None)


def test_an_engine_that_sends_nobody_is_asked_again(make_bench: MakeBench) -> None:
    """Not at each turn, but after ten seconds."""
    bench = make_bench(sensor="engine")
    engine = bench.engine(GPU)
    assert engine.heard() is not None
    bench.turn(ASK_AGAIN_NS - 1)
    assert engine.heard() is None
    bench.turn(1)
    assert engine.heard() == Wanted(gpus=[GPU])


def test_nobody_is_asked_who_cannot_or_need_not(make_bench: MakeBench) -> None:
    """A hook of an earlier version hears nothing, nor does an engine on a MIG instance, of which there is no
    meter; a GPU that two engines share is asked of one."""
    bench = make_bench(sensor="engine")
    assert bench.engine(GPU, able=False).heard() is None
    assert bench.engine("MIG-7", instance="m").heard() is None
    assert bench.engine(OTHER, instance="a").heard() == Wanted(gpus=[OTHER])
    assert bench.engine(OTHER, instance="b").heard() is None


@pytest.mark.parametrize("sensor", ["none", "amd"])
def test_other_sensors_ask_nobody(make_bench: MakeBench, sensor: str) -> None:
    """Who wants no joules, or measures AMD GPUs, gets no sampler, and believes none that comes unasked."""
    bench = make_bench(sensor=sensor)
    assert bench.engine(GPU).heard() is None
    bench.sampler().say(Gpu(gpu=GPU), *samples(GPU, [bench.clock.time_ns]))
    bench.daemon.publish()
    snapshot = bench.daemon.snapshot()
    assert snapshot.gpus == ()
    assert snapshot.sidecar.rejected_records == {"unasked_sample": 2}


def test_the_own_sensor_is_waited_for(make_bench: MakeBench) -> None:
    """As long as the sidecar's own sensor has not answered, nobody is asked; then only for what it lacks."""
    bench = make_bench(sensor="nvml")
    engine = bench.engine(GPU, OTHER)
    assert engine.heard() is None
    bench.own(opened(GPU))
    assert engine.heard() == Wanted(gpus=[OTHER])


def test_a_sensor_that_is_lost_is_replaced_and_its_return_ends_that(make_bench: MakeBench) -> None:
    """Without a driver the engine is asked; when the sidecar's sensor reads, the sampler is sent away, and
    the engine is told that none is wanted any more."""
    bench = make_bench(sensor="nvml")
    engine = bench.engine(GPU)
    bench.own(SensorDown(0, SensorError("no driver"), 1.0))
    assert engine.heard() == Wanted(gpus=[GPU])
    sampler = bench.sampler()
    bench.own(opened(GPU))
    assert sampler.sent_away
    assert engine.heard() == Wanted()
    bench.own(SensorDown(0, SensorError("no driver"), 1.0))
    assert engine.heard() == Wanted(gpus=[GPU])


def test_a_gpu_that_falls_silent_is_asked_for(make_bench: MakeBench) -> None:
    """One that the sidecar's sensor knows and cannot read for two seconds, while it reads the others."""
    bench = make_bench(sensor="nvml")
    bench.own(opened(GPU, OTHER))
    engine = bench.engine(GPU, OTHER)
    bench.own(read(bench.clock.time_ns, GPU, OTHER))
    bench.clock.time_ns += 2100 * MS
    bench.own(read(bench.clock.time_ns, OTHER))
    assert engine.heard() == Wanted(gpus=[GPU])


def test_samplers_that_nobody_asked_for_are_sent_away(make_bench: MakeBench) -> None:
    """A second one of the same engine, and one whose engine is not here."""
    bench = make_bench(sensor="engine")
    bench.engine(GPU)
    first, second, stray = bench.sampler(), bench.sampler(), bench.sampler("elsewhere")
    assert not first.sent_away
    assert second.sent_away
    assert stray.sent_away
    assert bench.daemon._pipeline.sessions.open_count == 2


def test_a_sampler_that_lies_is_not_believed(make_bench: MakeBench) -> None:
    """What it says of a stranger's GPU is counted and nowhere shown; what it says of its own GPU counts."""
    bench = make_bench(sensor="engine")
    bench.engine(GPU)
    bench.engine(OTHER, instance="neighbour", able=False)
    sampler = bench.sampler()
    now_ns = bench.clock.time_ns
    for gpu in (GPU, OTHER):
        sampler.say(Gpu(gpu=gpu), *samples(gpu, [now_ns]))
    bench.daemon.publish()
    snapshot = bench.daemon.snapshot()
    assert [gpu.info.gpu for gpu in snapshot.gpus] == [GPU]
    assert snapshot.sidecar.rejected_records["stranger_gpu"] == 2
    assert bench.daemon.ready()[1] == "the accounting loop is not running"


def test_why_a_sampler_gave_up_is_told_once(make_bench: MakeBench, caplog: pytest.LogCaptureFixture) -> None:
    """The log of the sidecar has the engine and the reason, which the operator would else find in vLLM's."""
    bench = make_bench(sensor="engine")
    bench.engine(GPU)
    for _ in range(2):
        bench.sampler().say(Bye(time_ns=0, reason="no driver there"))
    told = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told == ["in the container of tiny-0 no GPU is read: no driver there"]


def test_a_gpu_that_its_sampler_does_not_find_is_named(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two GPUs is read; the log says once which is not, instead of nothing."""
    bench = make_bench(sensor="engine")
    bench.engine(GPU, OTHER)
    bench.sampler().say(Gpu(gpu=GPU))
    bench.turn(MISSING_NS)
    assert caplog.messages == []
    bench.turn(1)
    bench.turn(SECOND)
    assert caplog.messages == [f"in the container of tiny-0 a sampler runs and does not find {OTHER}"]


def test_a_listed_gpu_is_asked_of_an_engine_that_names_none(make_bench: MakeBench) -> None:
    """An engine that cannot tell its GPUs is asked for those that the operator lists."""
    bench = make_bench(sensor="engine", gpus=OTHER)
    assert bench.engine(instance="a").heard() == Wanted(gpus=[OTHER])
    assert bench.engine(GPU, instance="b").heard() is None


def test_a_peer_that_does_not_listen_costs_nothing(make_bench: MakeBench) -> None:
    """An engine that hangs up while it is asked is forgotten like any other."""
    bench = make_bench(sensor="engine")
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(bench.settings.socket)
    hello = worlds.hello(capabilities=[SAMPLER])
    peer.sendall(encode_frame([hello], msgspec.msgpack.Encoder()))
    peer.close()
    bench.turn()
    assert bench.daemon._pipeline.sessions.open_count == 0


def test_a_gpu_that_an_engine_names_is_asked_of_that_one(make_bench: MakeBench) -> None:
    """An engine that cannot tell its GPUs came first and may be asked for any that is listed. It is not for
    one that another engine is known to have, since it may not see it."""
    bench = make_bench(sensor="engine", gpus=f"{GPU},{OTHER}")
    unsure = bench.engine(instance="a")
    assert unsure.heard() == Wanted(gpus=[GPU, OTHER])
    assert bench.engine(GPU, instance="b").heard() == Wanted(gpus=[GPU])
    assert unsure.heard() == Wanted(gpus=[OTHER])


def test_a_sensor_that_is_opened_anew_asks_nobody_meanwhile(make_bench: MakeBench) -> None:
    """MIG instances changed: the sensor will be back before an engine could start a process. Should it not
    be, a sampler is asked for."""
    bench = make_bench(sensor="nvml")
    engine = bench.engine(GPU)
    bench.own(opened(GPU))
    bench.own(read(bench.clock.time_ns, GPU))
    bench.own(SensorDown(0, SensorChanged("instances have changed"), 0.0))
    assert engine.heard() is None
    bench.own(opened(GPU))
    assert engine.heard() is None
    bench.own(SensorDown(0, SensorChanged("instances have changed"), 0.0))
    bench.turn(2100 * MS)
    assert engine.heard() == Wanted(gpus=[GPU])


def test_a_gpu_that_is_gone_when_the_sensor_is_opened_anew_is_asked_for(make_bench: MakeBench) -> None:
    """What was known before does not stay known."""
    bench = make_bench(sensor="nvml")
    engine = bench.engine(GPU, OTHER)
    bench.own(opened(GPU, OTHER))
    bench.own(SensorDown(0, SensorChanged("shows 1 GPU(s)"), 0.0))
    bench.own(opened(GPU))
    assert engine.heard() == Wanted(gpus=[OTHER])


def test_what_is_wrong_with_a_meter_is_said_whoever_reads_it(
    make_bench: MakeBench, caplog: pytest.LogCaptureFixture
) -> None:
    """The sampler itself has no log: a counter that stands still, and one that falls, are the sidecar's to
    tell."""
    bench = make_bench(sensor="engine")
    bench.engine(GPU)
    sampler = bench.sampler()
    sampler.say(Gpu(gpu=GPU))
    for joules in (*[50.0] * 12, 0.0):
        bench.clock.time_ns += SECOND
        sampler.say(Sample(gpu=GPU, time_ns=bench.clock.time_ns, energy_joules=joules, power_watts=300.0))
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert ["has stood still for 10 s" in warnings[0], "fell, as after" in warnings[1]] == [True, True]
    assert len(warnings) == 2


def test_samplers_poll_power_as_often_as_the_own_sensor_would(make_bench: MakeBench) -> None:
    """Both rates are said; which one a GPU needs only its reader knows."""
    bench = make_bench(sensor="engine", sample_hz=10.0, power_sample_hz=50.0)
    assert bench.engine(GPU).heard() == Wanted(gpus=[GPU], sample_hz=10.0, power_sample_hz=50.0)


def test_the_ready_page_names_a_gpu_that_nobody_reads(make_bench: MakeBench) -> None:
    """The sidecar's own sensor reads one of an engine's two GPUs, and no sampler can read the other: that
    joules are measured is true, and not the whole truth."""
    bench = make_bench(sensor="nvml")
    bench.engine(GPU, OTHER, "MIG-7")
    bench.own(opened(GPU))
    bench.own(read(bench.clock.time_ns, GPU))
    bench.sampler().say(Bye(time_ns=0, reason="no driver there"))
    bench.daemon.publish()
    ready, said = readiness(bench.settings, bench.daemon.snapshot(), "", "no GPU is read: no driver there")
    assert ready
    assert said == (
        f"engines can report and GPUs are read: {GPU} by nvml; engines use and nobody reads {OTHER}; "
        "no GPU is read: no driver there"
    )


def test_who_wants_no_joules_is_not_told_of_any(make_bench: MakeBench) -> None:
    """With sensor none the sidecar is ready, and reads no GPU."""
    bench = make_bench(sensor="none")
    bench.engine(GPU)
    ready, said = readiness(bench.settings, bench.daemon.snapshot(), bench.daemon.sensor_error, "")
    assert ready
    assert "no energy is measured" in said

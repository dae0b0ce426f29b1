"""The relay's own work, on a real Unix socket with a link that is a list; and what the head believes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from joulescope.clock import ManualClock, WallAnchor
from joulescope.config import Settings
from joulescope.daemon.links import MAX_SESSIONS, Links
from joulescope.daemon.relay import MAX_KEPT, Relay
from joulescope.daemon.relay_process import RelayProcess
from joulescope.errors import ConfigError
from joulescope.hook import wire
from joulescope.hook.link import Link
from joulescope.link.server import LinkArrival
from joulescope.link_model import LinkTotals
from joulescope.model import GpuInfo, GpuReading
from joulescope.pipeline import Pipeline
from joulescope.sampling.sampler import Sampled, SensorOpened
from tests import worlds
from tests.worlds import GPU, SECOND

FAR, NODE = "GPU-far", "worker-1"


class ListedLink:
    """A link that keeps what it is given, and is there or not as the test says."""

    def __init__(self) -> None:
        self.epoch = 0
        self.error = "switched off by the test"
        self.sent: list[wire.Record] = []

    def send(self, epoch: int, records: Sequence[wire.Record]) -> bool:
        if epoch != self.epoch or not epoch:
            return False
        self.sent.extend(records)
        return True

    def up(self, epoch: int) -> None:
        self.epoch, self.error = epoch, ""
        self.sent.clear()


class Bench:
    """A relay on a socket."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.link = ListedLink()
        self.peers: list[Link] = []
        self.clock = ManualClock(SECOND)
        settings = Settings(socket=str(folder / "js.sock"), sensor="nvml" if own else "engine")
        self.relay = Relay(settings, self.link, self.clock, open_sensor=None)  # type: ignore[arg-type]
        self.relay.start()
        self.path = settings.socket

    def connect(self, *records: wire.Record) -> Link:
        made = Link(self.path)
        assert made.connect(0)
        self.peers.append(made)
        self.say(made, *records)
        return made

    def say(self, peer: Link, *records: wire.Record) -> None:
        frame = wire.encode_frame(list(records), msgspec.msgpack.Encoder())
        assert peer.send(frame, len(records), 0)
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.relay.turn(0.01)

    def read(self, *gpus: str) -> None:
        """The own sensor tells of these."""
        self.relay.deliver(SensorOpened(self.clock.now_ns(), [GpuInfo(gpu) for gpu in gpus]))
        self.clock.advance(0.1)
        now_ns = self.clock.now_ns()
        self.relay.deliver(Sampled([GpuReading(gpu, now_ns, energy_joules=1.0) for gpu in gpus], 0, 0))
        self.turn()

    def kinds(self) -> list[str]:
        return [str(type(each).__struct_config__.tag) for each in self.link.sent]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, own=True)
    yield made
    made.relay.close(0.1)


def worker(gpu: str, local_rank: int = 0, *, can: bool = False) -> wire.Hello:
    facts = wire.WorkerFacts(instance_id="i", gpu=gpu, local_rank=local_rank)
    return wire.Hello(time_ns=1, role="worker", worker=facts, capabilities=[wire.SAMPLER] if can else [])


def test_the_head_hears_of_workers_and_their_gpus(bench: Bench) -> None:
    """Hellos first, then each GPU before its readings; GPUs that no worker uses stay unsaid, and after
    a break all is told again."""
    bench.connect(worker(FAR))
    bench.link.up(1)
    bench.read(FAR, "GPU-neighbour")
    assert bench.kinds() == ["hello", "hello", "gpu", "sample"]
    own, sampler, described, sample = bench.link.sent
    assert isinstance(own, wire.Hello)
    assert isinstance(sampler, wire.Hello)
    assert own.worker is not None
    assert sampler.sampler == wire.SamplerFacts(instance_id="i")
    assert len({own.session, sampler.session}) == 2
    assert described.session == sample.session == sampler.session
    bench.link.up(2)
    bench.read(FAR)
    assert bench.kinds() == ["hello", "hello", "gpu", "sample"]


def test_readings_wait_for_the_head_and_only_so_many(bench: Bench) -> None:
    """While the head is away they are kept in order; the oldest go when they are too many, counted."""
    bench.connect(worker(FAR))
    for _ in range(3):
        bench.read(FAR)
    assert bench.relay.ready() == (False, "no link to the head: switched off by the test; 3 readings wait")
    now_ns = bench.clock.now_ns()
    bench.relay.deliver(Sampled([GpuReading(FAR, now_ns + at) for at in range(MAX_KEPT)], 0, 0))
    bench.turn()
    assert bench.relay.dropped == 3
    bench.link.up(1)
    bench.turn()
    times = [each.time_ns for each in bench.link.sent if isinstance(each, wire.Sample)]
    assert times == [now_ns + at for at in range(MAX_KEPT)]


def test_sessions_of_engines_that_are_gone_are_ended(bench: Bench) -> None:
    """Each start of an engine is another instance; the head has places for a few dozen at a time."""
    bench.link.up(1)
    for instance in ("first", "second"):
        facts = wire.WorkerFacts(instance_id=instance, gpu=FAR)
        peer = bench.connect(wire.Hello(time_ns=1, role="worker", worker=facts))
        bench.read(FAR)
        peer.abandon()
        bench.turn()
    begun = [each.session for each in bench.link.sent if isinstance(each, wire.Hello)]
    ended = [each.session for each in bench.link.sent if isinstance(each, wire.Bye)]
    assert len(set(begun)) == 4
    assert sorted(begun) == sorted(ended)


def test_an_engine_is_sent_away(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A relay accounts for nothing: an engine that reports here is named once, with what to do."""
    for _ in range(2):
        bench.connect(worlds.hello(gpus=[FAR]))
    bench.link.up(1)
    bench.turn()
    assert bench.link.sent == []
    said = [each.getMessage() for each in caplog.records if "joulescope serve" in each.getMessage()]
    assert len(said) == 1


def test_the_first_worker_is_asked_to_read(bench: Bench) -> None:
    """Where the relay sees no GPU the worker of lowest local rank hears which, once; what its sampler reads
    goes to the head, and a worker that ends is told of."""
    second = bench.connect(worker("GPU-2", 1, can=True))
    first = bench.connect(worker("GPU-1", 0, can=True))
    bare = bench.connect(worker("GPU-3", 2))
    wanted = wire.wanted_in(first.receive())
    assert wanted is not None
    assert wanted.gpus == ["GPU-1", "GPU-2", "GPU-3"]
    assert wire.wanted_in(bare.receive()) is None
    facts = wire.SamplerFacts(instance_id="i")
    sampler = bench.connect(wire.Hello(time_ns=1, role=wire.SAMPLER, sampler=facts))
    told = wire.wanted_in(sampler.receive())
    assert told is not None
    assert told.gpus == wanted.gpus
    bench.link.up(1)
    sample = wire.Sample(gpu="GPU-2", time_ns=bench.clock.now_ns(), energy_joules=1.0)
    bench.say(sampler, wire.Gpu(gpu="GPU-2"), sample)
    assert bench.kinds()[-2:] == ["gpu", "sample"]
    second.abandon()
    bench.turn()
    assert bench.kinds()[-1] == "bye"


def test_a_relay_without_a_head_says_what_it_needs(tmp_path: Path) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match="link_connect"):
        RelayProcess.build(Settings(socket=str(tmp_path / "js.sock")))


# ------------------------------------------------------------------------------- what the head believes


def head(*, gpus: Sequence[str] = (GPU,), worker_gpu: str = FAR, instance: str = "i") -> Pipeline:
    """An engine here that names ``gpus``, and a relay's worker and sampler."""
    made = Pipeline(wall=WallAnchor(0, 0))
    made.take(1, [worlds.hello(gpus=gpus)])
    facts = wire.WorkerFacts(instance_id=instance, gpu=worker_gpu, rank=1)
    made.take(2, [wire.Hello(time_ns=0, role="worker", worker=facts)], 0, NODE)
    sampler = wire.SamplerFacts(instance_id=instance)
    made.take(3, [wire.Hello(time_ns=0, role=wire.SAMPLER, sampler=sampler)], 0, NODE)
    return made


def tell(made: Pipeline, gpu: str, session: int = 3) -> int:
    """Two seconds of readings; gives how many were believed."""
    records: list[wire.AnyRecord] = [wire.Gpu(gpu=gpu)]
    records += [
        wire.Sample(gpu=gpu, time_ns=at * SECOND // 10, energy_joules=30.0 * at, clock_error_seconds=0.001)
        for at in range(21)
    ]
    return len(made.take(session, records, 2 * SECOND, NODE))


def test_the_gpu_of_a_relay_s_worker_is_measured() -> None:
    """It is one of the engine's, read by the relay, with the error of its clock."""
    made = head()
    assert tell(made, FAR) == 21
    made.finish(2 * SECOND)
    (gpu,) = made.snapshot(2 * SECOND).gpus
    assert (gpu.info.gpu, gpu.info.sensor) == (FAR, "relay")
    assert gpu.measured_joules == pytest.approx(600.0)
    assert gpu.reading is not None
    assert gpu.reading.clock_error_seconds == 0.001


@pytest.mark.parametrize(
    ("made", "gpu"),
    [
        (head(worker_gpu=GPU), GPU),  # the engine here named it itself
        (head(), "GPU-nobody-s"),
        (head(instance="another engine"), FAR),  # which is not connected here
    ],
    ids=["the head's own", "nobody's", "of no engine here"],
)
def test_a_relay_may_speak_of_its_own_only(made: Pipeline, gpu: str) -> None:
    """A certificate makes a node known, not truthful: nothing of it is believed or shown, all is counted."""
    assert tell(made, gpu) == 0
    assert made.snapshot(SECOND).gpus == ()
    assert made.snapshot(SECOND).sidecar.rejected_records["stranger_gpu"] == 22


class ListedServer:
    """The head's end of one link that brings what the test says."""

    def __init__(self) -> None:
        self.waiting: list[LinkArrival] = []

    def drain(self) -> list[LinkArrival]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def totals(self) -> LinkTotals:
        return LinkTotals(listening=True)


def test_workers_may_come_and_go_on_one_link_without_end() -> None:
    """A session that has ended leaves its place to the next; only those at once are counted."""
    server, made = ListedServer(), Pipeline(wall=WallAnchor(0, 0))
    links = Links(server, made)  # type: ignore[arg-type]
    for session in range(3 * MAX_SESSIONS):
        facts = wire.WorkerFacts(instance_id="i", gpu=FAR)
        hello = wire.Hello(session=session, time_ns=session, role="worker", worker=facts)
        farewell = wire.Bye(session=session, time_ns=session, reason="closed")
        server.waiting.append(LinkArrival(1, NODE, [hello, farewell]))
        links.turn(session)
    assert not links.rejected()
    assert made.sessions.open_count == 0
    crowd = [wire.Hello(session=at, time_ns=0, role="worker") for at in range(MAX_SESSIONS + 1)]
    server.waiting.append(LinkArrival(1, NODE, list(crowd)))
    links.turn(0)
    assert links.rejected()["too_many_sessions"] == 1


def test_a_relay_brings_no_engine() -> None:
    """Requests are the head's: an engine's hello from another node is refused."""
    made = head()
    made.take(4, [worlds.hello(gpus=[FAR], instance="x")], 0, NODE)
    assert made.snapshot(SECOND).sidecar.rejected_records["remote_engine"] == 1
    assert len(made.snapshot(SECOND).engines) == 1


def test_the_head_s_engine_is_not_asked_for_gpus_of_other_nodes() -> None:
    """It could not see them; and samplers of other nodes are not the head's to send away."""
    made = head()
    assert made.sessions.remote_gpus() == {FAR}
    assert made.sessions.samplers() == {}
    assert made.sessions.engine_sessions() == {"tiny-0": [1]}

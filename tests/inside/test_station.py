"""The sampler's own loop: what it reads, when it ends, what it says of it. Turns by hand, a real socket."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from joulescope.clock import ManualClock, SystemClock
from joulescope.errors import SensorError, SensorLost
from joulescope.hook.wire import SAMPLER, AnyRecord, Bye, Gpu, GpuStatus, Hello, Sample, Wanted, encode_frame
from joulescope.inside.process import orphaned
from joulescope.inside.station import SILENCE_NS, GivenUpError, Station, link_to
from joulescope.model import CallTime, GpuCapabilities, GpuInfo, GpuReading
from joulescope.model import GpuStatus as Status
from joulescope.sensors import Sensor
from tests.hook.listener import PatientListener
from tests.inside.world import until

GPU, OTHER = "GPU-0", "GPU-1"


class Card:
    """A sensor that reads what it was opened for, with a status that changes at every tenth read."""

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = gpus
        self._reads = 0

    def gpus(self) -> Sequence[GpuInfo]:
        return [GpuInfo(gpu, name="card") for gpu in self._gpus]

    def read(self) -> Sequence[GpuReading]:
        self._reads += 1
        status = Status(GPU, self._reads // 10 * 10)
        if self._reads % 10:
            status = self._status if self._reads > 1 else status
        self._status = status
        return [
            GpuReading(gpu, self._reads, energy_joules=1.0 * self._reads, status=status) for gpu in self._gpus
        ]

    def read_failures(self) -> dict[str, int]:
        return {}

    def call_times(self) -> Mapping[str, CallTime]:
        return {}

    def close(self) -> None:
        pass


class Bench:
    """A station and the far end that it speaks to."""

    def __init__(self, path: Path, open_sensor: Callable[[Sequence[str]], Sensor] = Card) -> None:
        self.far = PatientListener(path)
        self.engine_gone = False
        self.link = link_to(str(path))
        self.clock = SystemClock()
        self.station = Station(self.link, self.hello, open_sensor, self.clock, lambda: self.engine_gone)
        self.records: list[AnyRecord] = []
        assert self.link.connect(0)
        self.peer = self.far.accept()

    def hello(self) -> Hello:
        return Hello(time_ns=0, role=SAMPLER)

    def want(self, *gpus: str, hertz: float = 1000.0) -> None:
        self.peer.sendall(encode_frame([Wanted(gpus=list(gpus), sample_hz=hertz)], msgspec.msgpack.Encoder()))

    def turns_until(self, true: Callable[[], object]) -> None:
        def turned() -> bool:
            assert self.station.turn(0.01)
            self.records += self.far.read()
            return bool(true())

        until(turned, "the sampler to send it")

    def of(self, kind: type) -> list[AnyRecord]:
        return [record for record in self.records if isinstance(record, kind)]

    def close(self) -> None:
        self.far.hang_up()
        assert not self.station.turn(1.0)
        self.station._stop()
        self.far.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "s")
    yield made
    made.close()


def test_it_reads_what_is_wanted_and_nothing_before(bench: Bench) -> None:
    """No driver is touched until a wish comes; then a description first, and each status once."""
    assert bench.station.turn(0.01)
    with pytest.raises(BlockingIOError):
        bench.peer.recv(1)
    bench.want(GPU)
    bench.turns_until(lambda: len(bench.of(Sample)) >= 30)
    assert isinstance(bench.records[0], Gpu)
    assert [each.gpu for each in bench.of(Gpu)] == [GPU]  # type: ignore[attr-defined]
    times = [each.time_ns for each in bench.of(GpuStatus)]  # type: ignore[attr-defined]
    assert times == sorted(set(times))
    assert len(times) < len(bench.of(Sample)) / 5


def test_a_new_wish_replaces_the_old_one(bench: Bench) -> None:
    """A worker came: from then on both GPUs are read."""
    bench.want(GPU)
    bench.turns_until(lambda: bench.of(Sample))
    bench.want(GPU, OTHER)
    bench.turns_until(lambda: any(each.gpu == OTHER for each in bench.of(Sample)))  # type: ignore[attr-defined]


def test_short_power_readings_are_polled_as_often_as_they_need(tmp_path: Path) -> None:
    """A GPU without a counter whose power is the mean of 10 ms: at one poll in ten seconds, which is wanted
    of other GPUs, thirty samples would take minutes."""

    class Old(Card):
        def gpus(self) -> Sequence[GpuInfo]:
            told = GpuCapabilities(power=True, architecture="pascal")
            return [
                GpuInfo(gpu, energy_source="power", sensor="nvml", capabilities=told) for gpu in self._gpus
            ]

    bench = Bench(tmp_path / "s", Old)
    try:
        bench.want(GPU, hertz=0.1)
        bench.turns_until(lambda: len(bench.of(Sample)) >= 30)
    finally:
        bench.close()


@pytest.mark.parametrize("hertz", [math.nan, math.inf, -1.0, 0.0, 1e12])
def test_a_rate_that_is_none_does_no_harm(bench: Bench, hertz: float) -> None:
    """It reads as often as it may, or usually does."""
    bench.want(GPU, hertz=hertz)
    bench.turns_until(lambda: bench.of(Sample))


def test_it_ends_when_nothing_is_wanted(bench: Bench) -> None:
    """An empty wish is the friendly way to send it away; the other is to hang up, as every test does."""
    bench.want()
    assert not bench.station.turn(1.0)


def test_it_ends_without_its_engine(bench: Bench) -> None:
    """Should the kernel not have killed it, it sees that its parent is another."""
    bench.engine_gone = True
    assert not bench.station.turn(0.0)
    assert orphaned(1)


def test_a_sensor_that_cannot_be_is_given_up_and_the_sidecar_hears_why(tmp_path: Path) -> None:
    """An error that no waiting mends ends it at once, with the reason in its farewell."""

    def refuse(_: Sequence[str]) -> Sensor:
        raise SensorError("no permission for /dev/nvidiactl")

    far = PatientListener(tmp_path / "s")
    link = link_to(str(tmp_path / "s"))
    station = Station(link, lambda: Hello(time_ns=0, role=SAMPLER), refuse, SystemClock(), lambda: False)
    assert link.connect(0)
    wish = encode_frame([Wanted(gpus=[GPU])], msgspec.msgpack.Encoder())
    far.accept().sendall(wish)
    with pytest.raises(GivenUpError, match="no permission"):
        station.run()
    hello, bye = far.read()
    assert isinstance(hello, Hello)
    assert isinstance(bye, Bye)
    assert bye.reason == "no permission for /dev/nvidiactl"
    far.close()


def test_a_sensor_that_may_come_back_is_waited_for(tmp_path: Path) -> None:
    """A driver that fails for a moment does not end it."""
    failures = iter([SensorLost("not now")])

    def fickle(gpus: Sequence[str]) -> Sensor:
        for error in failures:
            raise error
        return Card(gpus)

    bench = Bench(tmp_path / "s", fickle)
    bench.want(GPU)
    bench.turns_until(lambda: bench.of(Sample))
    bench.close()


def test_a_driver_that_hangs_is_noticed(tmp_path: Path) -> None:
    """A call that does not return would leave the GPU unread for ever; another process may fare better."""
    clock = ManualClock()
    path = tmp_path / "s"
    far = PatientListener(path)
    link = link_to(str(path))
    station = Station(link, lambda: Hello(time_ns=0), Card, clock, lambda: False)
    assert link.connect(0)
    station._sampler = _Hanging()  # type: ignore[assignment]
    assert station.turn(0.0)
    clock.time_ns += SILENCE_NS + 11 * 10**9
    with pytest.raises(GivenUpError, match="half a minute"):
        station.turn(0.0)
    far.close()


class _Hanging:
    """A sampler in a call that does not return."""

    failure = None

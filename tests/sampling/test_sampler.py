"""The sampler, turn by turn on a manual clock, and once as a real thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

import pytest

from joulescope.clock import Clock, ManualClock, SystemClock
from joulescope.errors import SensorChanged, SensorError, SensorLost
from joulescope.model import CallTime, GpuInfo, GpuReading
from joulescope.sampling.sampler import Sampled, Sampler, SamplerEvent, SensorDown, SensorOpened
from joulescope.sampling.timer import DeadlineTimer
from joulescope.sensors import Sensor
from joulescope.sensors.replayed import ReplayedSensor

GPU = GpuInfo(gpu="GPU-a")


def reading(time_ns: int) -> GpuReading:
    return GpuReading("GPU-a", time_ns, energy_joules=time_ns / 1e9)


def recordings(*counts: int) -> Callable[[], Sensor]:
    """Opens sensors one after the other; the n-th answers ``counts[n]`` reads and is lost then."""
    remaining = iter(counts)

    def open_sensor() -> Sensor:
        try:
            return ReplayedSensor([GPU], [[reading(k)] for k in range(next(remaining))])
        except StopIteration:
            raise SensorError("no driver here") from None

    return open_sensor


class Run:
    """A sampler on a manual clock, with what it delivered."""

    def __init__(self, open_sensor: Callable[[], Sensor]) -> None:
        self.clock = ManualClock()
        self.events: list[SamplerEvent] = []
        timer = DeadlineTimer(self.clock, 0.05, Random(1))
        self.sampler = Sampler(open_sensor, timer, self.clock, self.events.append)

    def steps(self, count: int) -> list[SamplerEvent]:
        for _ in range(count):
            self.sampler.step()
        return self.events

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def test_opens_then_reads_at_each_deadline() -> None:
    """The first event names the GPUs, each later one carries a batch, one period apart."""
    run = Run(recordings(10))
    opened, *batches = run.steps(5)
    assert isinstance(opened, SensorOpened)
    assert [info.gpu for info in opened.gpus] == ["GPU-a"]
    assert [batch.readings for batch in batches if isinstance(batch, Sampled)] == [
        [reading(k)] for k in range(4)
    ]
    assert 0.15 <= run.clock.now_ns() / 1e9 <= 0.16
    assert run.sampler.statistics().reads == 4


def test_polls_are_as_frequent_as_the_opened_gpus_need() -> None:
    """A sensor that opens with other GPUs than before is polled at the pace of those."""
    paces = {"GPU-a": 0.01, "GPU-b": 0.2}
    opened = iter([GPU, GpuInfo(gpu="GPU-b")])
    clock, events = ManualClock(), list[SamplerEvent]()
    sampler = Sampler(
        lambda: ReplayedSensor([next(opened)], [[reading(k)] for k in range(5)]),
        DeadlineTimer(clock, 0.05, Random(1), jitter_ratio=0.0),
        clock,
        events.append,
        period_of=lambda gpus: paces[gpus[0].gpu],
    )
    for pace_ns in (10_000_000, 200_000_000):
        sampler.step()
        begin_ns = clock.now_ns()
        for _ in range(5):
            sampler.step()
        assert clock.now_ns() - begin_ns == 4 * pace_ns
        sampler.step()


def test_lost_sensor_is_closed_reported_and_opened_again() -> None:
    """After a loss the receiver hears SensorDown, then SensorOpened, then readings again."""
    run = Run(recordings(2, 2))
    run.steps(6)
    assert run.kinds() == ["SensorOpened", "Sampled", "Sampled", "SensorDown", "SensorOpened", "Sampled"]
    down = run.events[3]
    assert isinstance(down, SensorDown)
    assert isinstance(down.error, SensorLost)
    assert down.retry_seconds == 1.0
    statistics = run.sampler.statistics()
    assert (statistics.opened, statistics.down, statistics.missed_deadlines) == (2, 1, 0)


def test_back_off_doubles_up_to_thirty_seconds() -> None:
    """A sensor that never opens is tried after 1, 2, 4, … and then every 30 s."""
    run = Run(recordings())
    pauses = [event.retry_seconds for event in run.steps(8) if isinstance(event, SensorDown)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert run.clock.now_ns() / 1e9 == pytest.approx(sum(pauses))


def test_back_off_starts_again_only_after_a_successful_read() -> None:
    """A sensor that opens but is lost at its first read backs off further, one that was read does not."""
    run = Run(recordings(0, 0, 1))
    run.steps(7)
    pauses = [event.retry_seconds for event in run.events if isinstance(event, SensorDown)]
    assert pauses == [1, 2, 1]


def test_empty_batches_do_not_end_the_back_off() -> None:
    """A sensor that opens and is polled in vain before it is lost has not recovered."""
    run = Run(lambda: ReplayedSensor([GPU], [[], []]))
    run.steps(12)
    pauses = [event.retry_seconds for event in run.events if isinstance(event, SensorDown)]
    assert pauses == [1, 2, 4]


def test_other_gpus_are_no_failure() -> None:
    """A sensor that asks to be opened again because GPUs were plugged in is opened at once."""

    class Grows(ReplayedSensor):
        def read(self) -> Sequence[GpuReading]:
            raise SensorChanged("the driver shows 2 GPUs and showed 1 before")

    sensors = iter([Grows([GPU], []), ReplayedSensor([GPU], [[reading(1)]])])
    run = Run(lambda: next(sensors))
    run.steps(4)
    assert run.kinds() == ["SensorOpened", "SensorDown", "SensorOpened", "Sampled"]
    assert isinstance(run.events[1], SensorDown)
    assert run.events[1].retry_seconds == 0.0


def test_call_times_add_up_over_openings() -> None:
    """How long the driver took is told of all sensors that were opened, not only of the latest."""

    class Timed(ReplayedSensor):
        def call_times(self) -> Mapping[str, CallTime]:
            return {"energy": CallTime(3, 0.5)}

    run = Run(lambda: Timed([GPU], []))
    run.steps(2)
    assert run.sampler.statistics().call_times == {"energy": CallTime(3, 0.5)}
    run.steps(1)
    assert run.sampler.statistics().call_times == {"energy": CallTime(6, 1.0)}


def test_read_failures_add_up_over_openings() -> None:
    """Failures of a closed sensor stay in the sum, and a GPU without any shows 0."""
    openings: Iterator[list[list[GpuReading]]] = iter([[[], []], [[reading(1)], []]])
    run = Run(lambda: ReplayedSensor([GPU], next(openings)))
    run.steps(7)
    counts = [event.read_failures for event in run.events if isinstance(event, Sampled)]
    assert counts == [{"GPU-a": 1}, {"GPU-a": 2}, {"GPU-a": 2}, {"GPU-a": 3}]


def test_slow_reads_show_in_the_statistics() -> None:
    """A read that takes 120 ms makes the next deadlines late or missed, and says so."""
    run = Run(recordings(0))

    class Slow(ReplayedSensor):
        def read(self) -> Sequence[GpuReading]:
            run.clock.advance(0.12)
            return super().read()

    slow = Slow([GPU], [[reading(k)] for k in range(3)])
    run.sampler = Sampler(
        lambda: slow, DeadlineTimer(run.clock, 0.05, Random(1), jitter_ratio=0), run.clock, run.events.append
    )
    run.steps(4)
    statistics = run.sampler.statistics()
    assert statistics.read_seconds == pytest.approx(0.36)
    assert statistics.missed_deadlines == 2
    assert statistics.late_seconds == pytest.approx(0.06)
    batches = [event for event in run.events if isinstance(event, Sampled)]
    assert [batch.late_ns for batch in batches] == [0, 20_000_000, 40_000_000]
    assert [batch.read_ns for batch in batches] == [120_000_000] * 3


def test_stop_before_start_closes_what_was_opened_by_hand() -> None:
    """A sampler driven by step() gives its sensor back on stop()."""
    sensor = ReplayedSensor([GPU], [[reading(1)], [reading(2)]])
    run = Run(lambda: sensor)
    run.steps(2)
    assert run.sampler.stop(1.0)
    with pytest.raises(SensorLost):
        sensor.read()


class Threaded:
    """A sampler in its own thread on the real clock, with a fast timer."""

    def __init__(self, open_sensor: Callable[[], Sensor], deliver: Callable[[SamplerEvent], None]) -> None:
        clock: Clock = SystemClock()
        self.sampler = Sampler(open_sensor, DeadlineTimer(clock, 0.001, Random(1)), clock, deliver)


def endless() -> Iterator[list[GpuReading]]:
    while True:
        yield [reading(1)]


def test_thread_delivers_until_it_is_stopped() -> None:
    """start() brings events from another thread, stop() ends it and nothing comes afterwards."""
    events: list[SamplerEvent] = []
    enough = threading.Event()

    def deliver(event: SamplerEvent) -> None:
        events.append(event)
        if len(events) >= 5:
            enough.set()

    sampler = Threaded(lambda: ReplayedSensor([GPU], endless()), deliver).sampler
    sampler.start()
    assert enough.wait(10)
    assert sampler.running
    assert sampler.stop(10)
    count = len(events)
    assert not sampler.running
    assert sampler.failure is None
    assert len(events) == count
    with pytest.raises(RuntimeError, match="started before"):
        sampler.start()


def test_stop_does_not_wait_for_the_back_off() -> None:
    """A sampler that rests between two tries ends at once when told to."""
    down = threading.Event()
    sampler = Threaded(recordings(), lambda event: down.set()).sampler
    sampler.start()
    assert down.wait(10)
    assert sampler.stop(10)
    assert sampler.statistics().down == 1


def test_error_of_the_receiver_ends_the_thread_and_is_kept() -> None:
    """A receiver that raises is a bug: the thread ends, the sensor is closed and the error can be seen."""
    sensor = ReplayedSensor([GPU], endless())
    called = threading.Event()

    def deliver(event: SamplerEvent) -> None:
        called.set()
        raise ZeroDivisionError("bug")

    sampler = Threaded(lambda: sensor, deliver).sampler
    sampler.start()
    assert called.wait(10)
    assert sampler.stop(10)
    assert isinstance(sampler.failure, ZeroDivisionError)
    with pytest.raises(SensorLost):
        sensor.read()


def test_hanging_driver_is_reported_by_stop() -> None:
    """If a read never returns, stop() gives up after its timeout and says so."""
    release, inside = threading.Event(), threading.Event()

    def hanging() -> Iterator[list[GpuReading]]:
        inside.set()
        release.wait(30)
        yield []

    sampler = Threaded(lambda: ReplayedSensor([GPU], hanging()), lambda event: None).sampler
    sampler.start()
    assert inside.wait(10)
    assert not sampler.stop(0.01)
    release.set()
    assert sampler.stop(10)

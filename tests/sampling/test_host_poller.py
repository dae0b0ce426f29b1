"""The host's polls: when it is read, what failures become, and that it is looked for again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from joulescope.clock import ManualClock
from joulescope.errors import SensorError
from joulescope.host_model import CpuTimes, HostDomain
from joulescope.sampling.host_poller import (
    Engines,
    HostDown,
    HostEvent,
    HostFound,
    HostPoller,
    HostRead,
)

PACKAGE, DRAM = HostDomain("package-0"), HostDomain("dram-0")


class FakeZones:
    """Counters that a test sets; a domain without a value fails."""

    skipped: dict[str, str]

    def __init__(self, joules: dict[str, float | None]) -> None:
        self.joules = joules
        self.skipped = {"intel-rapl:1": "psys"}

    def domains(self) -> Sequence[HostDomain]:
        return [HostDomain(name) for name in self.joules]

    def read(self) -> tuple[Mapping[str, float], Mapping[str, str]]:
        good = {name: value for name, value in self.joules.items() if value is not None}
        return good, dict.fromkeys(self.joules.keys() - good.keys(), "broken")


class FakeProcesses:
    """Tells how many engines it was asked about as their CPU seconds."""

    def read(self, engines: Engines) -> CpuTimes | None:
        return CpuTimes(1.0, 4.0, dict.fromkeys(engines, 0.5))


class Bench:
    """A poller, its clock, and what it opens next: zones or an error."""

    def __init__(self, first: FakeZones | SensorError) -> None:
        self.clock = ManualClock()
        self.next: FakeZones | SensorError = first
        self.asked = 0
        self.poller = HostPoller(self._open, FakeProcesses(), self.clock)

    def _open(self) -> FakeZones:
        if isinstance(self.next, SensorError):
            raise self.next
        return self.next

    def _engines(self) -> Engines:
        self.asked += 1
        return {"llama": []}

    def poll(self, later_seconds: float = 0.0) -> list[HostEvent]:
        self.clock.advance(later_seconds)
        return self.poller.poll(self._engines)


def kinds(events: Sequence[HostEvent]) -> list[Callable[..., HostEvent]]:
    return [type(event) for event in events]


def test_it_opens_reads_and_then_rests_for_a_second() -> None:
    """The first poll finds and reads the zones; polls within the second do nothing and ask nobody."""
    bench = Bench(FakeZones({"package-0": 5.0}))
    found, read = bench.poll()
    assert found == HostFound([PACKAGE], {"intel-rapl:1": "psys"})
    assert isinstance(read, HostRead)
    assert read.reading.energy_joules == {"package-0": 5.0}
    assert read.reading.cpu == CpuTimes(1.0, 4.0, {"llama": 0.5})
    assert bench.poll(0.25) == bench.poll(0.25) == []
    assert bench.asked == 1
    assert kinds(bench.poll(0.5)) == [HostRead]


def test_a_host_without_counters_is_asked_again_each_minute() -> None:
    """The reason is told each time, and a module that is loaded later is found without a restart."""
    bench = Bench(SensorError("no RAPL zone"))
    (down,) = bench.poll()
    assert isinstance(down, HostDown)
    assert str(down.error) == "no RAPL zone"
    assert bench.poll(30.0) == []
    bench.next = FakeZones({"package-0": 5.0})
    assert kinds(bench.poll(30.0)) == [HostFound, HostRead]


def test_zones_that_appear_are_found() -> None:
    """A domain that was not there before is told of at the next look; the same ones are not told twice."""
    bench = Bench(FakeZones({"package-0": 5.0}))
    bench.poll()
    assert kinds(bench.poll(60.0)) == [HostRead]
    bench.next = FakeZones({"package-0": 5.0, "dram-0": 1.0})
    found, _ = bench.poll(60.0)
    assert isinstance(found, HostFound)
    assert found.domains == [PACKAGE, DRAM]


def test_failed_reads_are_counted_by_domain() -> None:
    """A domain that fails is missing from the reading, and its failures add up."""
    zones = FakeZones({"package-0": 5.0, "dram-0": None})
    bench = Bench(zones)
    bench.poll()
    (read,) = bench.poll(1.0)
    assert isinstance(read, HostRead)
    assert read.reading.energy_joules == {"package-0": 5.0}
    assert read.read_failures == {"dram-0": 2}


def test_when_nothing_can_be_read_the_host_is_down() -> None:
    """If every domain fails that is told with a reason, and the zones are opened again in a while."""
    zones = FakeZones({"package-0": 5.0})
    bench = Bench(zones)
    bench.poll()
    zones.joules["package-0"] = None
    (down,) = bench.poll(1.0)
    assert isinstance(down, HostDown)
    assert str(down.error) == "host energy cannot be read any more: broken"
    assert down.read_failures == {"package-0": 1}
    assert bench.poll(1.0) == []
    zones.joules["package-0"] = 9.0
    assert kinds(bench.poll(60.0)) == [HostFound, HostRead]

"""Whoever reads a GPU, however it is cut, whatever fails: joules once, and a replay comes to the same."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.clock import WallAnchor
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.model import GpuInfo, GpuReading, GpuStatus, Snapshot
from joulescope.pipeline import Pipeline, Scope
from joulescope.replay import Replay
from tests import worlds
from tests.examples import examples
from tests.worlds import GPU, MS, SECOND

SCOPES = (Scope(), Scope(all_gpus=True), Scope(uuids={GPU}))
FACTS = wire.SamplerFacts(instance_id="i")
OUTAGES_SECONDS = (3, 8, 70, 130)


class Machine:
    """One GPU, an own sensor, a sampler and an engine that come and go, and the pipeline that records all."""

    def __init__(self, random: Random, path: Path) -> None:
        self.random = random
        self.pipeline = Pipeline(
            scope=random.choice(SCOPES), wall=WallAnchor(0, 0), recorder=TraceWriter(path), minutes=True
        )
        self.now_ns = 0
        self.drawn_joules = self.counter_joules = 0.0
        self.limit_watts = 500.0
        self.energy_source = "counter"
        self.instances: list[str] = []
        self.is_split = self.is_open = False
        self.cuts = self.sessions = 0
        self.status: GpuStatus | None = None
        self.engine: int | None = None
        self.sampler: int | None = None
        self.unsent: list[wire.AnyRecord] = []

    def tick(self) -> None:
        """A tenth of a second, or now and then an outage; what happens in it, and what is read after it."""
        random = self.random
        step_ns = 100 * MS if random.random() < 0.99 else random.choice(OUTAGES_SECONDS) * SECOND
        joules = random.choice((80.0, 300.0, 450.0)) * step_ns / SECOND
        self.now_ns += step_ns
        self.drawn_joules += joules
        self.counter_joules += joules
        happening = random.choice((self.own, self.cut, self.limit, self.connect, self.sample, self.reset))
        if random.random() < 0.1:
            happening()
        if self.is_open and random.random() < 0.9:
            self.read()
        if self.sampler is not None:
            self.send(self.sampler)
        if random.random() < 0.3:
            self.pipeline.settle(self.now_ns)

    def own(self) -> None:
        """The own sensor is lost, or is opened, perhaps with another way to measure."""
        self.is_open = not self.is_open
        if self.is_open:
            self.energy_source = self.random.choice(("counter", "counter", "power"))
            self.open()
        else:
            self.pipeline.sensor_down()

    def open(self) -> None:
        split = self.instances if self.is_split else []
        whole = GpuInfo(
            GPU,
            power_limit_watts=self.limit_watts,
            energy_source=self.energy_source,
            instances=tuple(self.instances),
            energy_split="gpm" if split else "",
        )
        parts = [
            GpuInfo(each, energy_source="mig_gpm", parent=GPU, slices=3, slices_total=7) for each in split
        ]
        self.pipeline.gpus_found([whole, *parts])
        self.status = None

    def cut(self) -> None:
        """MIG instances are made anew, or MIG is switched off."""
        self.cuts += 1
        self.instances = self.random.choice(([], [f"MIG-{self.cuts}a", f"MIG-{self.cuts}b"]))
        self.is_split = self.random.random() < 0.7
        if self.is_open:
            self.pipeline.sensor_down()
            self.open()

    def limit(self) -> None:
        self.limit_watts = self.random.choice((300.0, 500.0, 700.0))

    def reset(self) -> None:
        self.counter_joules = 0.0

    def connect(self) -> None:
        """An engine comes, on the GPU, on an instance, or without a word of it; or it goes."""
        if self.engine is not None:
            self.pipeline.close_session(self.engine, self.now_ns, "closed")
            self.engine = None
            return
        self.engine = self.next_session()
        gpus = self.random.choice(([GPU], self.instances[:1], []))
        self.pipeline.take(self.engine, [worlds.hello(gpus=gpus)], self.now_ns)

    def sample(self) -> None:
        """A sampler comes or goes."""
        self.unsent = []
        if self.sampler is not None:
            self.pipeline.close_session(self.sampler, self.now_ns, "closed")
            self.sampler = None
            return
        self.sampler = self.next_session()
        hello = wire.Hello(time_ns=self.now_ns, role="sampler", sampler=FACTS)
        self.pipeline.take(self.sampler, [hello], self.now_ns)
        self.unsent = [
            wire.Gpu(gpu=GPU, power_limit_watts=self.limit_watts, energy_source=self.energy_source)
        ]

    def next_session(self) -> int:
        self.sessions += 1
        return self.sessions

    def meters(self) -> tuple[float | None, float | None]:
        """Counter and power, as far as they are shown."""
        counted = self.energy_source == "counter"
        shows_power = not counted or self.random.random() < 0.5
        return self.counter_joules if counted else None, 300.0 if shows_power else None

    def read(self) -> None:
        """By the own sensor, once a second with a status of the GPU and of its instances."""
        parts: list[GpuReading] = []
        if self.status is None or self.now_ns - self.status.time_ns >= SECOND:
            self.status = GpuStatus(GPU, self.now_ns, power_limit_watts=self.limit_watts)
            for each in self.instances if self.is_split else ():
                active = self.random.choice((None, 0.0, 0.2, 0.9, 1.0))
                status = GpuStatus(each, self.now_ns, sm_active_ratio=active)
                parts.append(GpuReading(each, self.now_ns, status=status))
        reading = GpuReading(GPU, self.now_ns, *self.meters(), status=self.status)
        self.pipeline.read([reading, *parts])

    def send(self, session: int) -> None:
        """What a sampler read, several readings at a time."""
        if self.random.random() < 0.1:
            self.unsent.append(
                wire.GpuStatus(gpu=GPU, time_ns=self.now_ns, power_limit_watts=self.limit_watts)
            )
        joules, watts = self.meters()
        self.unsent.append(wire.Sample(gpu=GPU, time_ns=self.now_ns, energy_joules=joules, power_watts=watts))
        if self.random.random() < 0.3:
            self.pipeline.take(session, self.unsent, self.now_ns)
            self.unsent = []


def joules(snapshot: Snapshot) -> dict[str, tuple[float, int, int, int]]:
    return {
        gpu.info.gpu: (gpu.measured_joules, gpu.intervals, gpu.counter_resets, gpu.rejected_intervals)
        for gpu in snapshot.gpus
    }


@settings(max_examples=examples(60), deadline=None)
@given(random=st.randoms(use_true_random=True))
def test_joules_are_measured_once_and_a_replay_comes_to_the_same(random: Random) -> None:
    """Each account is balanced, no interval overlaps another, all of them together hold no more than the card
    drew (by power, which is 300 W here, a little more), and the trace holds what it takes to repeat that."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        machine = Machine(random, path)
        for _ in range(300):
            machine.tick()
        machine.pipeline.finish(machine.now_ns)
        live = machine.pipeline.snapshot(machine.now_ns)
        replay = Replay(TraceReader(path))
        list(replay)
    assert replay.snapshot is not None
    assert joules(replay.snapshot) == joules(live)
    assert {gpu.residual_joules for gpu in live.gpus} <= {0.0}
    minutes = machine.pipeline.drain_minutes()
    in_minutes_uj = sum(round(1e6 * minute.joules.measured) for minute in minutes)
    assert in_minutes_uj == sum(round(1e6 * gpu.measured_joules) for gpu in live.gpus)
    assert "late_interval" not in live.sidecar.rejected_records
    measured = sum(gpu.measured_joules for gpu in live.gpus)
    assert measured <= 1.001 * machine.drawn_joules + 300.0 * 300 * 0.1

"""The simulated engine in real time: what goes out when."""

from __future__ import annotations

from pathlib import Path

from joulescope.clock import ManualClock, SystemClock
from joulescope.hook.emitter import Emitter
from joulescope.hook.wire import AnyRecord, Bye, Hello, Progress, RequestEnd, RequestStart, Step
from joulescope.ingest.listener import Listener
from joulescope.simulation.engine import SimulatedEngine
from joulescope.simulation.gpu import SimulatedGpu
from joulescope.simulation.live import EARLY_SECONDS, LiveEngine, LiveSimulation, LiveTranslator, Pending
from joulescope.simulation.workload import Workload
from joulescope.simulation.worlds import H100, H100_LLAMA_8B

SECOND = 1_000_000_000


class Queue:
    """Keeps what was put, with the time at which it was put."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.items: list[tuple[int, object]] = []

    def put(self, item: object) -> None:
        self.items.append((self.clock.now_ns(), item))

    def steps(self) -> list[tuple[int, Step]]:
        return [(put_ns, item) for put_ns, item in self.items if isinstance(item, Step)]


def live_engine() -> tuple[LiveEngine, SimulatedGpu, Queue, ManualClock]:
    clock = ManualClock(SECOND)
    gpu = SimulatedGpu(H100, SECOND)
    engine = SimulatedEngine(H100_LLAMA_8B, gpu, Workload(20.0, SECOND, seed=1), start_ns=SECOND)
    queue = Queue(clock)
    return LiveEngine(engine, queue, clock), gpu, queue, clock


def run(live: LiveEngine, clock: ManualClock, turns: int) -> None:
    for _ in range(turns):
        live.turn()
        clock.advance(0.005)


def test_records_go_out_when_their_time_has_come() -> None:
    """No step is told more than a moment before it ends, and none later than one turn after."""
    live, _, queue, clock = live_engine()
    run(live, clock, 400)
    assert len(queue.steps()) > 50
    for put_ns, step in queue.steps():
        assert step.output_end_ns - EARLY_SECONDS * 1e9 <= put_ns <= step.output_end_ns


def test_the_gpu_knows_its_power_up_to_now() -> None:
    """Whenever the sensor asks, the history already reaches past the clock: no answer is revised later."""
    live, gpu, _, clock = live_engine()
    told: dict[int, float] = {}
    for _ in range(200):
        live.turn()
        told[clock.now_ns()] = gpu.energy_joules_at(gpu.uuid, clock.now_ns())
        clock.advance(0.005)
    assert all(gpu.energy_joules_at(gpu.uuid, at_ns) == joules for at_ns, joules in told.items())


def test_what_runs_is_told_behind_what_ended() -> None:
    """At every moment the translator names the oldest step that is scheduled and not yet told."""
    live, _, queue, clock = live_engine()
    run(live, clock, 300)
    steps = [step for _, step in queue.steps()]
    translator = LiveTranslator()
    told = 0
    for _, item in queue.items:
        records = translator.translate([item], 0)
        told += sum(isinstance(record, Step) for record in records)
        if isinstance(item, Pending) and item.since_ns is not None and told < len(steps):
            assert translator.pending_since_ns() == steps[told].schedule_end_ns
    assert told == len(steps)


def test_stopping_ends_at_the_end_of_a_step() -> None:
    """Steps that have begun are told and nothing runs after them: no joule is left to a silent engine."""
    live, gpu, queue, clock = live_engine()
    run(live, clock, 150)
    live.stop()
    last = queue.steps()[-1][1]
    assert last.output_end_ns > clock.now_ns()
    assert gpu.busy_until_ns <= last.output_end_ns
    assert gpu.power_watts_at(gpu.uuid, last.output_end_ns) == H100.idle_watts
    assert isinstance(queue.items[-1][1], Pending)
    assert queue.items[-1][1].since_ns is None


def test_it_speaks_the_hooks_language_over_a_real_socket(tmp_path: Path) -> None:
    """A sidecar's listener gets the hello, records and a goodbye through the hook's own emitter."""
    path = tmp_path / "s"
    listener = Listener(path)
    clock = ManualClock(SECOND)
    gpu = SimulatedGpu(H100, SECOND)
    engine = SimulatedEngine(H100_LLAMA_8B, gpu, Workload(20.0, SECOND, seed=1), start_ns=SECOND)
    emitter = Emitter(
        str(path), lambda: Hello(time_ns=SECOND), translator=LiveTranslator(), now_ns=clock.now_ns
    )
    live = LiveEngine(engine, emitter, clock)
    received: list[AnyRecord] = []
    for _ in range(100):
        run(live, clock, 4)
        emitter.poll()
        received += [record for arrival in listener.poll(0.0) for record in arrival.records]
    emitter.close()
    received += [record for arrival in listener.poll(0.5) for record in arrival.records]
    listener.close()
    assert isinstance(received[0], Hello)
    assert isinstance(received[-1], Bye)
    kinds = {type(record) for record in received}
    assert {RequestStart, Step, RequestEnd, Progress} <= kinds
    assert emitter.dropped == 0
    told_ns = 0
    for record in received:
        if isinstance(record, Progress):
            told_ns = min(record.time_ns, record.pending_since_ns or record.time_ns)
        elif isinstance(record, Step):
            assert record.output_end_ns > told_ns


def test_a_simulation_that_never_started_can_be_stopped(tmp_path: Path) -> None:
    """A demo whose daemon failed to start closes without a complaint of its own."""
    simulation = LiveSimulation(str(tmp_path / "nobody"), SystemClock())
    simulation.quiesce()
    simulation.stop()

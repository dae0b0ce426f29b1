"""One node of a simulated engine over two: its GPUs, its worker, and on the head the engine itself.

Started by :mod:`tests.real.two_nodes`, on the head beside ``joulescope serve``, on the far node beside
``joulescope relay``; it speaks to their socket through the hook's own emitter and the sampler's own station.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from joulescope.clock import Clock, SystemClock
from joulescope.hook.emitter import Emitter
from joulescope.hook.wire import SAMPLER, Hello, SamplerFacts, WorkerFacts
from joulescope.inside.station import Station, link_to
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.facts import hello
from joulescope.simulation.live import LiveTranslator
from joulescope.simulation.nodes import FarClock, NodeGpus, NodesEngine, NodesPlan
from joulescope.simulation.worlds import WORLDS
from joulescope.units import NANOSECONDS_PER_SECOND

INSTANCE = "two-nodes"


class Shifted:
    """The head's clock, from a node whose own is ahead of it by a known time."""

    def __init__(self, own: Clock, ahead_ns: int) -> None:
        self._own, self._ahead_ns = own, ahead_ns

    def now_ns(self) -> int:
        return self._own.now_ns() - self._ahead_ns

    def sleep(self, duration_seconds: float) -> None:
        self._own.sleep(duration_seconds)


class Nowhere:
    """Takes what the engine tells on a node where nobody listens to it."""

    def put(self, item: object) -> None:
        """Forgets it."""


def sample(socket: str, gpus: NodeGpus, clock: Clock) -> None:
    """Reads the node's GPUs for whoever listens on the socket, again after each break."""
    while True:
        station = Station(
            link_to(socket),
            lambda: Hello(
                time_ns=clock.now_ns(),
                role=SAMPLER,
                pid=os.getpid(),
                sampler=SamplerFacts(instance_id=INSTANCE),
            ),
            lambda _: SimulatedSensor(gpus, clock),
            clock,
            lambda: False,
        )
        station.run()
        time.sleep(0.2)


def worker(socket: str, rank: int, gpu: str, clock: Clock) -> Emitter:
    """The session of a worker of vLLM on this node."""
    return Emitter(
        socket,
        lambda: Hello(
            time_ns=clock.now_ns(),
            role="worker",
            pid=os.getpid(),
            worker=WorkerFacts(instance_id=INSTANCE, rank=rank, gpu=gpu),
            capabilities=[SAMPLER],
        ),
    ).start()


def run(options: argparse.Namespace) -> None:
    """Until the engine is done, on the head; elsewhere until it is killed."""
    ahead_ns = options.ahead * NANOSECONDS_PER_SECOND
    head_clock = Shifted(SystemClock(), ahead_ns)
    clock = FarClock(SystemClock(), options.start_ns + ahead_ns, options.drift)
    plan = NodesPlan(
        WORLDS[options.world],
        options.start_ns,
        options.arrive_ns,
        options.seconds,
        options.rate,
        options.seed,
    )
    emitter: Emitter | None = None
    ranks: Sequence[int] = options.ranks
    if options.truth is not None:

        def greeting() -> Hello:
            own = [engine.fleet.gpus_by_rank[rank].uuid for rank in ranks]
            told = hello(plan.world, plan.world.limits, own, time_ns=clock.now_ns(), instance_id=INSTANCE)
            told.capabilities = [*told.capabilities, "progress", SAMPLER]
            return told

        emitter = Emitter(options.socket, greeting, translator=LiveTranslator())
    engine = NodesEngine(plan, emitter or Nowhere(), head_clock, truth=options.truth is not None)
    engine.start()
    if emitter is not None:
        emitter.start()
    workers = [
        worker(options.socket, rank, engine.fleet.gpus_by_rank[rank].uuid, clock)
        for rank in ranks
        if emitter is None or rank != ranks[0]
    ]
    gpus = NodeGpus(engine.fleet, ranks, lambda time_ns: clock.own_ns(time_ns) - ahead_ns)
    threading.Thread(target=sample, args=(options.socket, gpus, clock), daemon=True).start()
    print("ready", flush=True)
    while emitter is None or not (engine.idle and head_clock.now_ns() > plan.requests_end_ns()):
        time.sleep(0.2)
    time.sleep(4.0)  # what the engine is ahead, and another second for the counter's last tick
    told = {
        name: [account.joules, account.recompute_joules]
        for name in engine.truth.true_joules()
        if (account := engine.truth.get(name)) is not None
    }
    Path(options.truth).write_text(json.dumps(told))
    print("done", flush=True)
    sys.stdin.read()
    for each in (emitter, *workers):
        each.close(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--world", required=True)
    parser.add_argument("--ranks", type=int, nargs="+", required=True)
    parser.add_argument("--start-ns", type=int, required=True)
    parser.add_argument("--arrive-ns", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ahead", type=int, default=0, help="seconds by which this node's clock is ahead")
    parser.add_argument("--drift", type=float, default=0.0, help="by which it is faster, seconds per second")
    parser.add_argument("--truth", help="where the head writes who caused the joules; elsewhere absent")
    run(parser.parse_args())


if __name__ == "__main__":
    main()

"""An engine as a process: the real hook around a scheduler that steps by itself, and workers that name GPUs.

Run as ``python -m tests.inside.engine SOCKET INSTANCE GPU…``; it serves one request after the other until its
standard input is closed. What the hook logs goes to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

from joulescope.hook.emitter import Emitter
from joulescope.hook.tap import TAP_ATTRIBUTE, patch_scheduler
from joulescope.hook.wire import Hello, WorkerFacts
from tests.hook import fakes
from tests.hook.fakes import FinishReason, Request, output_of, step_of

STEP_SECONDS = 0.02
STEPS = 10


def worker(socket_path: str, instance: str, gpu: str) -> Emitter:
    """What the hook in a worker of vLLM does."""
    facts = WorkerFacts(instance_id=instance, gpu=gpu)
    hello = lambda: Hello(time_ns=time.monotonic_ns(), role="worker", worker=facts)  # noqa: E731
    return Emitter(socket_path, hello, poll_seconds=0.1).start()


def scheduler(socket_path: str, instance: str) -> fakes.Scheduler:
    """What the hook in the engine's process does."""
    module = ModuleType("patched")
    module.Scheduler = type("Scheduler", (fakes.Scheduler,), {"__init__": fakes.Scheduler.__init__})  # type: ignore[attr-defined]
    patch_scheduler(module, socket_path)
    config = SimpleNamespace(
        instance_id=instance,
        model_config=SimpleNamespace(model="tiny", served_model_name="tiny"),
        parallel_config=SimpleNamespace(data_parallel_index=0),
        device_config=SimpleNamespace(device_type="cuda"),
    )
    made: fakes.Scheduler = module.Scheduler(vllm_config=config)  # type: ignore[attr-defined]
    return made


def serve_one(engine: fakes.Scheduler, number: int) -> None:
    """A request of a few steps, in real time."""
    request = Request(f"r{number}-0123abcd")
    engine.add_request(request)
    for place in range(STEPS):
        begun = {request.request_id: (place + 9, 1)}
        engine.next_step = step_of(old=begun) if place else step_of(new={request.request_id: (0, 10)})
        engine.next_results = output_of({request.request_id: 1})
        step = engine.schedule(False)
        time.sleep(STEP_SECONDS)
        request.num_output_tokens = place + 1
        if place == STEPS - 1:
            engine.finish(request, FinishReason.STOP)
        engine.update_from_output(step, None)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    socket_path, instance, *gpus = sys.argv[1:]
    workers = [worker(socket_path, instance, gpu) for gpu in gpus]
    engine = scheduler(socket_path, instance)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    keeper = getattr(engine, TAP_ATTRIBUTE).emitter._companion
    number, pid = 0, None
    while not ended.is_set():
        serve_one(engine, number)
        number += 1
        now = None if keeper is None else keeper.pid
        if now != pid:
            pid = now
            print(pid or "", flush=True)
    engine.shutdown()
    for each in workers:
        each.close()
    print("served", number, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

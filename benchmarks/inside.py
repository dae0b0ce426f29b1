"""What a sampler inside the engine's container costs: its CPU and memory, and what waiting for a word of the
sidecar adds to the hook's own thread.

    python benchmarks/inside.py [--seconds 30]

The sampler is started by the hook's keeper, for a real sidecar in this process, and reads real pynvml on the
stand-in driver library: what a driver's own calls cost comes on top.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.hook import wire
from joulescope.hook.emitter import PROGRESS, Emitter
from joulescope.hook.sampler import SamplerKeeper
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment

GPUS = (1, 8)
SETTLE_SECONDS = 3.0
PATIENCE_SECONDS = 20.0


def measured(folder: Path, gpus: int, seconds: float) -> dict[str, Any]:
    """One sampler at the usual rate on so many GPUs."""
    uuids = [f"GPU-{number}" for number in range(gpus)]
    driver = FakeDriver(folder / f"nvml{gpus}", [FakeGpu(uuid=each, live=True) for each in uuids])
    socket = str(folder / f"s{gpus}")
    daemon = Daemon.build(
        Settings(socket=socket, listen="127.0.0.1:0", sensor="engine", host="off"), environ={}
    )
    daemon.start()
    keeper = SamplerKeeper(socket, ("bench", 0), environ=environment(build(folder), driver))
    facts = wire.EngineFacts(model="bench", instance_id="bench", gpus=uuids)
    capabilities = [PROGRESS, wire.SAMPLER]
    emitter = Emitter(
        socket,
        lambda: wire.Hello(time_ns=time.monotonic_ns(), engine=facts, capabilities=capabilities),
        companion=keeper,
    ).start()
    begin = time.monotonic()
    try:
        wait_for(lambda: sum(gpu.up for gpu in daemon.snapshot().gpus) == gpus, "samples of all GPUs")
        until_first_seconds = time.monotonic() - begin
        time.sleep(SETTLE_SECONDS)
        assert keeper.pid is not None
        process = psutil.Process(keeper.pid)
        before, begin = process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, wall_seconds = process.cpu_times(), time.monotonic() - begin
        report = {
            "gpus": gpus,
            "seconds": wall_seconds,
            "cpu_cores": (after.user + after.system - before.user - before.system) / wall_seconds,
            "rss_mib": process.memory_info().rss / 2**20,
            "threads": process.num_threads(),
            "until_first_sample_seconds": until_first_seconds,
        }
    finally:
        emitter.close(1.0)
        final = daemon.close()
    report["residual_joules"] = [gpu.residual_joules for gpu in final.gpus]
    return report


def wait_for(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_SECONDS} s in vain for {what}")
        time.sleep(0.02)


def hook_thread(folder: Path, heeds: bool, seconds: float) -> float:
    """Cores that an idle emitter's thread takes, with a keeper that heeds the sidecar or without."""
    socket = str(folder / f"hook{heeds}")
    daemon = Daemon.build(
        Settings(socket=socket, listen="127.0.0.1:0", sensor="none", host="off"), environ={}
    )
    daemon.start()
    facts = wire.EngineFacts(model="bench", instance_id="bench")
    emitter = Emitter(
        socket,
        lambda: wire.Hello(time_ns=time.monotonic_ns(), engine=facts, capabilities=[PROGRESS]),
        companion=SamplerKeeper(socket, ("bench", 0)) if heeds else None,
    ).start()
    try:
        wait_for(lambda: emitter.connected, "the connection")
        time.sleep(0.5)
        before_ns, begin = emitter.thread_cpu_ns, time.monotonic()
        time.sleep(seconds)
        return (emitter.thread_cpu_ns - before_ns) / 1e9 / (time.monotonic() - begin)
    finally:
        emitter.close(1.0)
        daemon.close()


def text_of(report: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {row['gpus']} | {100 * row['cpu_cores']:.2f} | {row['rss_mib']:.0f} "
        f"| {row['until_first_sample_seconds']:.1f} |"
        for row in report["sampler"]
    )
    hook = report["hook_thread_cores"]
    return (
        "# The cost of a sampler inside the engine's container\n\n"
        f"`python benchmarks/inside.py`, {report['machine']}\n\n"
        "20 polls a second, real pynvml on the stand-in driver library: a driver's own time comes on top.\n\n"
        "| GPUs | CPU, % of a core | RSS, MiB | from hello to the first sample, s |\n"
        f"|---|---|---|---|\n{rows}\n\n"
        f"The hook's thread in an idle engine: {100 * hook['deaf']:.3f} % of a core when it does not listen "
        f"to the sidecar, {100 * hook['heeding']:.3f} % when it does.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report = {
            "machine": machine("joulescope-inference", "msgspec", "nvidia-ml-py"),
            "sampler": [measured(folder, gpus, options.seconds) for gpus in GPUS],
            "hook_thread_cores": {
                "deaf": hook_thread(folder, False, options.seconds),
                "heeding": hook_thread(folder, True, options.seconds),
            },
        }
    save("inside", report, text_of(report))


if __name__ == "__main__":
    main()

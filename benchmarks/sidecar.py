"""What the sidecar costs and how fast it accounts.

``replay``: request-steps a second through the whole of replay on one core, from a trace file, by batch.
``memory``: resident memory of a replay of 10⁶ requests, at every tenth of it.
``live``:   CPU of a real sidecar process at 50 steps/s × 256 requests with 8 GPUs at 20 Hz (real pynvml on
            the stand-in driver library), and the latency of its scrapes meanwhile.

    python benchmarks/sidecar.py [--part replay|memory|live] [--seconds 30]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.hook import wire
from joulescope.hook.emitter import Emitter
from joulescope.ingest.trace import TraceReader, TraceWriter
from joulescope.replay import Replay
from joulescope.simulation.steady import SteadyLoad, steady_trace
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar

BATCHES = (8, 32, 128, 256, 1024)
REQUEST_STEPS = 1_000_000
GOAL_PER_SECOND = 1_000_000
MEMORY_REQUESTS = 1_000_000
GOAL_MIB = 100
STEPS_PER_SECOND, BATCH, GPUS = 50, 256, 8
GOAL_CPU = 0.02
SCRAPES = 50


def load_of(batch: int) -> SteadyLoad:
    """About ``REQUEST_STEPS`` request-steps in steps of ``batch`` requests that live 128 steps."""
    admitted = max(batch // 128, 1)
    output_tokens = batch // admitted
    requests = max(REQUEST_STEPS // output_tokens, 2 * batch)
    return SteadyLoad(requests=requests, admitted_per_step=admitted, output_tokens=output_tokens)


def replay_part(folder: Path) -> dict[str, Any]:
    """Each batch three times, the median taken; reading and decoding the file are part of it."""
    rows = []
    for batch in BATCHES:
        path = folder / f"{batch}.jsonl"
        write_trace(path, load_of(batch))
        speeds = [replay_speed(path) for _ in range(3)]
        rows.append({"batch": batch, "request_steps_per_second": statistics.median(speeds), "runs": speeds})
    return {"replay": rows}


def write_trace(path: Path, load: SteadyLoad) -> None:
    writer = TraceWriter(path)
    for record in steady_trace(load):
        writer.write([record])
    writer.close()


def replay_speed(path: Path) -> float:
    with TraceReader(path) as reader:
        replay = Replay(reader)
        begin = time.process_time()
        for _ in replay:
            pass
        return replay.request_steps / (time.process_time() - begin)


def memory_part(folder: Path) -> dict[str, Any]:
    """In a process of its own that holds nothing but the replay."""
    command = [sys.executable, __file__, "--part", "memory-child"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    tenths = [float(word) for word in done.stdout.split()]
    return {"memory": {"requests": MEMORY_REQUESTS, "rss_mib_by_tenth": tenths, "goal_mib": GOAL_MIB}}


def memory_child() -> None:
    process = psutil.Process()
    load = SteadyLoad(requests=MEMORY_REQUESTS, admitted_per_step=16, output_tokens=16)
    for finished, _ in enumerate(Replay(steady_trace(load)), 1):
        if finished % (MEMORY_REQUESTS // 10) == 0:
            print(round(process.memory_info().rss / 2**20, 1), flush=True)


def live_part(folder: Path, seconds: float) -> dict[str, Any]:
    """One engine on eight GPUs speaks through the hook's emitter from a process of its own."""
    uuids = [f"GPU-{number}" for number in range(GPUS)]
    gpus = [FakeGpu(uuid=uuid, live=True, power_watts=500.0) for uuid in uuids]
    driver = FakeDriver(folder / "nvml", gpus)
    sidecar = Sidecar(folder / "js.sock", folder, environment(build(folder), driver), own_files=False)
    sidecar.start()
    engine = subprocess.Popen([sys.executable, __file__, "--part", "engine", "--socket", str(sidecar.socket)])
    try:
        time.sleep(5.0)
        assert sidecar.process is not None
        process = psutil.Process(sidecar.process.pid)
        before, begin = process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, wall = process.cpu_times(), time.monotonic() - begin
        cpu = (after.user + after.system - before.user - before.system) / wall
        scrapes = sorted(scrape_ms(sidecar.port) for _ in range(SCRAPES))
        totals = sidecar.snapshot()
        steps = sum(tally.steps for tally in totals.engines)
        rss_mib = process.memory_info().rss / 2**20
        residuals = [gpu.residual_joules for gpu in totals.gpus]
    finally:
        engine.terminate()
        engine.wait()
        sidecar.kill()
    return {
        "live": {
            "cpu_cores": cpu,
            "goal_cores": GOAL_CPU,
            "rss_mib": rss_mib,
            "scrape_ms_p50": statistics.median(scrapes),
            "scrape_ms_p99": scrapes[int(0.99 * len(scrapes))],
            "steps_seen": steps,
            "residual_joules": residuals,
        }
    }


def scrape_ms(port: int) -> float:
    begin = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        answer.read()
    return (time.perf_counter() - begin) * 1e3


def engine_child(socket: str) -> None:
    """Steady decode of 256 requests at 50 steps a second, until it is ended."""
    uuids = [f"GPU-{number}" for number in range(GPUS)]
    cost = wire.CostFacts(source="config", weight_bytes=16e9, kv_bytes_per_token=131072, flops_per_token=16e9)
    facts = wire.EngineFacts(model="bench", instance_id="bench", gpus=uuids, tensor_parallel=GPUS, cost=cost)
    emitter = Emitter(
        socket,
        lambda: wire.Hello(time_ns=time.monotonic_ns(), engine=facts, capabilities=["progress"]),
    ).start()
    period_ns = 1_000_000_000 // STEPS_PER_SECOND
    for record in paced(period_ns):
        emitter.put(record)


def paced(period_ns: int) -> Iterator[wire.AnyRecord]:
    """Requests live 256 steps; each step one ends and one begins. Hands records out when they are due."""
    open_requests = list(range(BATCH))
    for request in open_requests:
        yield wire.RequestStart(
            request=request, request_id=str(request), time_ns=time.monotonic_ns(), prompt_tokens=500
        )
    at_ns = time.monotonic_ns()
    for number in range(10**9):
        time.sleep(max(at_ns + period_ns - time.monotonic_ns(), 0) / 1e9)
        yield wire.Step(
            step=number,
            schedule_start_ns=at_ns,
            schedule_end_ns=at_ns + 100_000,
            output_start_ns=at_ns + period_ns,
            output_end_ns=at_ns + period_ns,
            request=list(open_requests),
            context=[500 + number % 256] * BATCH,
            waiting=0,
            running=BATCH,
        )
        at_ns += period_ns
        ended = open_requests.pop(0)
        yield wire.RequestEnd(
            request=ended, time_ns=at_ns, reason="length", output_tokens=256, final_step=number
        )
        open_requests.append(BATCH + number)
        yield wire.RequestStart(
            request=BATCH + number, request_id=str(BATCH + number), time_ns=at_ns, prompt_tokens=500
        )


def text_of(report: dict[str, Any]) -> str:
    lines = [f"# The sidecar's cost\n\n`python benchmarks/sidecar.py`, {report['machine']}\n"]
    if "replay" in report:
        lines.append("| batch | replay, million request-steps/s on one core (goal ≥ 1) |\n|---|---|")
        lines += [f"| {r['batch']} | {r['request_steps_per_second'] / 1e6:.2f} |" for r in report["replay"]]
    if "memory" in report:
        tenths = ", ".join(f"{mib:.0f}" for mib in report["memory"]["rss_mib_by_tenth"])
        lines.append(f"\nReplay of 10⁶ requests, RSS in MiB at each tenth (goal ≤ 100, flat): {tenths}")
    if "live" in report:
        live = report["live"]
        lines.append(
            f"\nLive, {STEPS_PER_SECOND} steps/s × {BATCH} requests, {GPUS} GPUs at 20 Hz: "
            f"{live['cpu_cores'] * 100:.2f} % of a core (goal ≤ 2 %), RSS {live['rss_mib']:.0f} MiB, "
            f"scrape p50 {live['scrape_ms_p50']:.1f} ms, p99 {live['scrape_ms_p99']:.1f} ms, "
            f"residual {max(map(abs, live['residual_joules']))} J"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--part", choices=("all", "replay", "memory", "live", "memory-child", "engine"), default="all"
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--socket", default="")
    arguments = parser.parse_args()
    if arguments.part == "memory-child":
        return memory_child()
    if arguments.part == "engine":
        return engine_child(arguments.socket)
    report: dict[str, Any] = {"machine": machine("joulescope-inference", "numpy", "msgspec", "nvidia-ml-py")}
    with tempfile.TemporaryDirectory(prefix="joulescope-") as name:
        folder = Path(name)
        if arguments.part in ("all", "replay"):
            report |= replay_part(folder)
        if arguments.part in ("all", "memory"):
            report |= memory_part(folder)
        if arguments.part in ("all", "live"):
            report |= live_part(folder, arguments.seconds)
    name = "sidecar" if arguments.part == "all" else f"sidecar_{arguments.part}"
    save(name, report, text_of(report))
    return None


if __name__ == "__main__":
    main()

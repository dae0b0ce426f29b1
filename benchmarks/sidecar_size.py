"""What the sidecar needs of a pod: memory, processor time, and what a CPU limit does to it.

A real ``joulescope serve`` reads GPUs (real pynvml on the stand-in driver library, 20 Hz), scraped once a
second, under five loads:

``idle``    no engine yet, one GPU
``small``   one engine on one GPU, 8 requests at once, 50 steps a second
``tp8``     one engine on eight GPUs, 256 requests at once, 50 steps a second
``full``    ``tp8`` with short requests (32 tokens, 400 end each second), and everything on that keeps or
            writes: request log, trace, and the figures of single requests until their store is full
``flood``   ``full``, and 70,000 requests that wait and never run: more than ``max_open_requests``

Then ``small`` and ``tp8`` under CPU limits, in a cgroup of their own where the machine has cgroups of version
1 and lets us: how long the start takes, in how many periods the kernel held the process back, and how long
it takes from SIGTERM to the end.

With ``--ledger`` other two instead, written beside: ``plain``, which is ``tp8`` with short requests (400 end
each second), and ``ledger``, the same with a ledger, of which segments of 8 MiB become Parquet meanwhile.

    python benchmarks/sidecar_size.py [--seconds 20] [--ledger]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.hook import wire
from joulescope.hook.emitter import Emitter
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import wait_until
from tests.real.vllm_env import free_port

STEPS_PER_SECOND = 50
WARM_UP_SECONDS = 5.0
FILL_SECONDS = 60.0
"""How long ``full`` runs before it is looked at: 400 requests a second fill the store of 20,000."""

LIMITS = (1.0, 0.5, 0.1)
"""CPU limits that are tried, cores."""

PERIOD_US = 100_000
"""Of the kernel's bandwidth control, and Kubernetes' default."""

WAITING_FROM, AT_ONCE = 10**9, 2000
"""Numbers of requests that wait, and how many begin in a fifth of a second: the hook's queue takes them."""

CPU_CGROUPS = Path("/sys/fs/cgroup/cpu")


@dataclass(frozen=True)
class Load:
    """What one engine does; a request lives ``life_steps`` steps. Without ``batch`` there is no engine."""

    gpus: int
    batch: int
    life_steps: int = 256
    waiting: int = 0
    everything: bool = False
    ledger: bool = False
    fill_seconds: float = WARM_UP_SECONDS


LOADS = {
    "idle": Load(1, 0),
    "small": Load(1, 8),
    "tp8": Load(8, 256),
    "full": Load(8, 256, life_steps=32, everything=True, fill_seconds=FILL_SECONDS),
    "flood": Load(8, 256, life_steps=32, waiting=70_000, everything=True, fill_seconds=FILL_SECONDS),
}


LEDGER_LOADS = {
    "plain": Load(8, 256, life_steps=32, fill_seconds=FILL_SECONDS),
    "ledger": Load(8, 256, life_steps=32, fill_seconds=FILL_SECONDS, ledger=True),
}


@dataclass
class Running:
    """A sidecar that is ready, and what its start cost."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float
    start_cpu_seconds: float

    def page(self, path: str) -> bytes | None:
        return fetch(self.port, path)


def fetch(port: int, path: str) -> bytes | None:
    """A page, or ``None`` if it cannot be had now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


@contextmanager
def cpu_cgroup(cores: float | None) -> Iterator[Path | None]:
    """A cgroup with this limit; ``None`` without one."""
    if cores is None:
        yield None
        return
    folder = CPU_CGROUPS / f"joulescope-size-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(round(cores * PERIOD_US)))
        yield folder
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the cgroup to be empty", 30.0)
        folder.rmdir()


def can_limit() -> bool:
    """Whether cgroups of version 1 can be made here."""
    return (CPU_CGROUPS / "cpu.cfs_quota_us").exists() and os.access(CPU_CGROUPS, os.W_OK)


@contextmanager
def sidecar(folder: Path, load: Load, cgroup: Path | None) -> Iterator[Running]:
    gpus = [FakeGpu(uuid=f"GPU-{number}", live=True, power_watts=500.0) for number in range(load.gpus)]
    driver = FakeDriver(folder / "nvml", gpus)
    port = free_port()
    command = [sys.executable, "-m", "joulescope.cli.main", "serve", "--gpus", "all"]
    command += ["--socket", str(folder / "js.sock"), "--listen", f"127.0.0.1:{port}"]
    if load.everything:
        command += [
            "--request-log",
            str(folder / "requests.jsonl"),
            "--record",
            str(folder / "trace.jsonl.gz"),
        ]
        command += ["--answer-socket", str(folder / "answers.sock")]
    if load.ledger:
        command += ["--ledger", str(folder / "ledger")]
    enter = "" if cgroup is None else f"echo $$ > {cgroup}/cgroup.procs; "
    surroundings = {name: text for name, text in os.environ.items() if not name.startswith("JOULESCOPE_")}
    begin = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", f'{enter}exec "$@"', "sh", *command],
            stdout=log,
            stderr=log,
            env={**surroundings, **environment(build(folder), driver)},
            start_new_session=True,
        )
    try:
        wait_until(lambda: fetch(port, "/-/ready") is not None, "the sidecar to be ready", 120.0)
        cpu = psutil.Process(process.pid).cpu_times()
        yield Running(process, port, time.monotonic() - begin, cpu.user + cpu.system)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@contextmanager
def engine(folder: Path, load: Load) -> Iterator[None]:
    if not load.batch:
        yield
        return
    told = [str(folder / "js.sock"), str(load.gpus), str(load.batch), str(load.life_steps), str(load.waiting)]
    process = subprocess.Popen([sys.executable, __file__, "--engine", *told])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory now, and the most that it ever was, MiB (proc(5), status)."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
    return {"rss_mib": int(found["VmRSS"]) / 1024, "peak_rss_mib": int(found["VmHWM"]) / 1024}


def watch(running: Running, seconds: float) -> dict[str, float]:
    """Processor time over so long, the busiest second of it, and memory; scraped once a second."""
    process = psutil.Process(running.process.pid)

    def spent() -> float:
        times = process.cpu_times()
        return times.user + times.system

    each, begin, before = [], time.monotonic(), spent()
    for number in range(1, round(seconds) + 1):
        at = spent()
        running.page("/metrics")
        time.sleep(max(begin + number - time.monotonic(), 0.0))
        each.append(spent() - at)
    wall = time.monotonic() - begin
    return {
        "cpu_cores": (spent() - before) / wall,
        "cpu_busiest_second": max(each),
        **memory_mib(process.pid),
    }


def end(running: Running) -> float:
    """Seconds from SIGTERM to the end."""
    begin = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(30.0)
    return time.monotonic() - begin


def measure(load: Load, seconds: float, limit: float | None = None) -> dict[str, Any]:
    """One load, with or without a CPU limit in cores."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joulescope-")))
        cgroup = stack.enter_context(cpu_cgroup(limit))
        running = stack.enter_context(sidecar(folder, load, cgroup))
        stack.enter_context(engine(folder, load))
        time.sleep(load.fill_seconds)
        before = None if cgroup is None else throttled(cgroup)
        told: dict[str, Any] = watch(running, seconds)
        told |= {"start_seconds": running.start_seconds, "start_cpu_seconds": running.start_cpu_seconds}
        if cgroup is not None and before is not None:
            after = throttled(cgroup)
            told["periods"] = after["nr_periods"] - before["nr_periods"]
            told["periods_held_back"] = after["nr_throttled"] - before["nr_throttled"]
            told["start_periods_held_back"] = before["nr_throttled"]
        page = (running.page("/metrics") or b"").decode()
        for name, metric in (("finished", "requests_finished_total"), ("open", "requests_open")):
            values = re.findall(rf"^joulescope_{metric}\{{[^}}]*\}} (\S+)", page, re.MULTILINE)
            told[name] = sum(map(float, values))
        told["end_seconds"] = end(running)
    return told


def throttled(cgroup: Path) -> dict[str, int]:
    lines = (cgroup / "cpu.stat").read_text().splitlines()
    return {name: int(number) for name, number in map(str.split, lines)}


# ------------------------------------------------------------------------------------------ the engine


def engine_child(socket: str, gpus: int, batch: int, life_steps: int, waiting: int = 0) -> None:
    """Steady decode until it is ended; requests are of all ages from the start: as many end as begin."""
    cost = wire.CostFacts(source="config", weight_bytes=16e9, kv_bytes_per_token=131072, flops_per_token=16e9)
    facts = wire.EngineFacts(
        model="bench",
        instance_id="bench",
        gpus=[f"GPU-{number}" for number in range(gpus)],
        tensor_parallel=gpus,
        cost=cost,
    )
    emitter = Emitter(
        socket, lambda: wire.Hello(time_ns=time.monotonic_ns(), engine=facts, capabilities=["progress"])
    ).start()
    for first in range(0, waiting, AT_ONCE):
        for number in range(first, min(first + AT_ONCE, waiting)):
            emitter.put(started(WAITING_FROM + number, time.monotonic_ns()))
        time.sleep(0.2)
    for record in steady(batch, life_steps):
        emitter.put(record)


def steady(batch: int, life_steps: int) -> Iterator[wire.AnyRecord]:
    """Records, handed out when they are due."""
    period_ns = 1_000_000_000 // STEPS_PER_SECOND
    at_ns = time.monotonic_ns()
    age = {number: number * life_steps // batch for number in range(batch)}
    yield from (started(request, at_ns) for request in age)
    for step in range(10**9):
        time.sleep(max(at_ns + period_ns - time.monotonic_ns(), 0) / 1e9)
        yield wire.Step(
            step=step,
            schedule_start_ns=at_ns,
            schedule_end_ns=at_ns + 100_000,
            output_start_ns=at_ns + period_ns,
            output_end_ns=at_ns + period_ns,
            request=list(age),
            context=[500 + steps for steps in age.values()],
            waiting=0,
            running=batch,
        )
        at_ns += period_ns
        age = {request: steps + 1 for request, steps in age.items()}
        for request in [request for request, steps in age.items() if steps >= life_steps]:
            del age[request]
            yield wire.RequestEnd(
                request=request, time_ns=at_ns, reason="length", output_tokens=life_steps, final_step=step
            )
            fresh = request + batch
            age[fresh] = 0
            yield started(fresh, at_ns)


def started(request: int, time_ns: int) -> wire.RequestStart:
    return wire.RequestStart(
        request=request,
        request_id=f"chatcmpl-{request:032x}",
        external_id=f"chatcmpl-{request:032x}",
        time_ns=time_ns,
        prompt_tokens=500,
    )


# ------------------------------------------------------------------------------------------ the report


def text_of(report: dict[str, Any], ledger: bool = False) -> str:
    lines = [
        "# What the sidecar needs\n",
        f"`python benchmarks/sidecar_size.py{' --ledger' if ledger else ''}`, {report['machine']}\n",
        "| load | memory, MiB | most, MiB | CPU, cores | busiest second, cores | start, s "
        "| CPU of the start, s | requests ended | open | SIGTERM to end, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report["loads"].items():
        lines.append(
            f"| {name} | {row['rss_mib']:.0f} | {row['peak_rss_mib']:.0f} | {row['cpu_cores']:.3f} "
            f"| {row['cpu_busiest_second']:.2f} | {row['start_seconds']:.1f} "
            f"| {row['start_cpu_seconds']:.1f} | {row['finished']:,.0f} | {row['open']:,.0f} "
            f"| {row['end_seconds']:.2f} |"
        )
    if ledger:
        return "\n".join(lines) + "\n"
    if not report["limits"]:
        lines.append("\nCPU limits were not tried: no cgroups of version 1 can be made on this machine.")
        return "\n".join(lines) + "\n"
    lines += [
        "\n| load | CPU limit, cores | start, s | periods of 100 ms held back at the start "
        "| and while serving | SIGTERM to end, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["limits"]:
        lines.append(
            f"| {row['load']} | {row['limit']} | {row['start_seconds']:.1f} "
            f"| {row['start_periods_held_back']} | {row['periods_held_back']} of {row['periods']} "
            f"| {row['end_seconds']:.2f} |"
        )
    lines.append(
        "\nMemory and processor time are the process's own and do not depend on what else the machine does; "
        "the seconds do, see the load above."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--ledger", action="store_true")
    parser.add_argument("--engine", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        socket, *numbers = arguments.engine
        return engine_child(socket, *map(int, numbers))
    loads = LEDGER_LOADS if arguments.ledger else LOADS
    limits = LIMITS if can_limit() and not arguments.ledger else ()
    report: dict[str, Any] = {
        "machine": machine(
            "joulescope-inference", "prometheus-client", "uvicorn", "numpy", "nvidia-ml-py", "pyarrow"
        ),
        "loads": {name: measure(load, arguments.seconds) for name, load in loads.items()},
        "limits": [
            {"load": name, "limit": limit, **measure(LOADS[name], arguments.seconds, limit)}
            for name in ("small", "tp8")
            for limit in limits
        ],
    }
    save(
        "sidecar_size_ledger" if arguments.ledger else "sidecar_size",
        report,
        text_of(report, arguments.ledger),
    )
    return None


if __name__ == "__main__":
    main()

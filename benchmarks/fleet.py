"""What scrapes cost on the largest node that is planned for: size, latency, series, memory and CPU.

A real ``joulescope serve`` reads 16 GPUs (real pynvml on the stand-in driver library, 20 Hz) and accounts
for 8 engines of two GPUs each, which speak through the hook's emitter from a process of their own: 50 steps
a second of 64 requests, every request with one of 60 LoRA adapters and of 60 tenants, so that 10 of each
end in ``other``. Then it is left alone, scraped by one, and scraped by eight at the same instant, as
Prometheus does (OpenMetrics, gzip), each time after the snapshot has changed: no scrape finds a page ready
that another one paid for earlier.

    python benchmarks/fleet.py [--seconds 20]
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.export.budget import BUDGET, LARGEST
from joulescope.export.prometheus import Exposition
from joulescope.hook import wire
from joulescope.hook.emitter import Emitter
from joulescope.model import Snapshot
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar, wait_until

STEPS_PER_SECOND, BATCH, LIFE_STEPS = 50, 64, 128
NAMES = 60
"""Adapters and tenants in use: more than get series."""

WATTS = 400.0
PAUSE_SECONDS = 0.6
"""Between two scrapes: a little more than a snapshot lasts."""

SCRAPERS = 8
PAGES = 20
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
FORMATS = {
    "text": {},
    "text, gzip": {"Accept-Encoding": "gzip"},
    "OpenMetrics": {"Accept": OPENMETRICS},
    "OpenMetrics, gzip": {"Accept": OPENMETRICS, "Accept-Encoding": "gzip"},
}


def scrape(
    port: int, headers: dict[str, str], path: str = "/metrics", client: int = 1
) -> tuple[bytes, float]:
    """A page, and the milliseconds until its last byte. Each client has an address of its own, 127.0.0.N."""
    begin = time.perf_counter()
    source = (f"127.0.0.{client}", 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=source)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return body, (time.perf_counter() - begin) * 1e3


def value(page: str, series: str) -> float:
    """The value of one series of a page, or the sum if there are several."""
    found = re.findall(rf"^{series}(?:{{[^}}]*}})? (\S+)", page, re.MULTILINE)
    return sum(map(float, found))


def scraping(port: int, seconds: float, scrapers: int) -> list[float]:
    """Latencies, ms, of so many scrapers that ask at the same instant, again and again."""
    together = threading.Barrier(scrapers)

    def run(client: int) -> list[float]:
        taken, deadline = [], time.monotonic() + seconds
        for _ in range(max(int(seconds / PAUSE_SECONDS), 1)):
            together.wait(60.0)
            taken.append(scrape(port, FORMATS["OpenMetrics, gzip"], client=client)[1])
            if time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
        return taken

    with ThreadPoolExecutor(scrapers) as pool:
        return [each for taken in pool.map(run, range(1, scrapers + 1)) for each in taken]


def _only(current: list[Snapshot]) -> Snapshot:
    return current[0]


def page_cpu_ms(snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """Processor time of making a page of each format, here and alone: it does not wait for others.

    The first page of a process, and the median of those that follow, each of another snapshot.
    """
    told = {}
    for name, headers in FORMATS.items():
        current = [snapshot]
        exposition = Exposition(partial(_only, current))
        taken = []
        for _ in range(PAGES):
            current[0] = replace(snapshot)
            begin = time.thread_time()
            exposition.render(headers.get("Accept", ""), headers.get("Accept-Encoding", ""))
            taken.append(1e3 * (time.thread_time() - begin))
        told[name] = {"first": taken[0], "later": statistics.median(taken[1:])}
    return told


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def phase(sidecar: Sidecar, process: psutil.Process, act: Callable[[], list[float]]) -> dict[str, float]:
    """What the sidecar spent, and how late its polls were, while something was done to it."""

    def look() -> dict[str, float]:
        page = scrape(sidecar.port, {})[0].decode()
        names = ("metrics_pages", "metrics_page_seconds", "sampler_reads", "sampler_late_seconds")
        told = {name: value(page, f"joulescope_{name}_total") for name in names}
        cpu = process.cpu_times()
        return {**told, "cpu": cpu.user + cpu.system, "at": time.monotonic()}

    before = look()
    latencies = act()
    after = look()
    more = {name: after[name] - before[name] for name in before}
    told = {
        "cpu_cores": more["cpu"] / more["at"],
        "poll_late_ms": 1e3 * more["sampler_late_seconds"] / more["sampler_reads"],
        "lag_seconds": value(scrape(sidecar.port, {})[0].decode(), "joulescope_attribution_lag_seconds"),
    }
    if more["metrics_pages"] > 1:
        told["page_ms"] = 1e3 * more["metrics_page_seconds"] / more["metrics_pages"]
    if latencies:
        told |= {
            "scrapes": len(latencies),
            "scrape_ms_p50": statistics.median(latencies),
            "scrape_ms_p95": quantile(latencies, 0.95),
            "scrape_ms_max": max(latencies),
        }
    return told


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    uuids = [f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(LARGEST.gpus)]
    driver = FakeDriver(folder / "nvml", [FakeGpu(uuid=uuid, live=True, power_watts=WATTS) for uuid in uuids])
    sidecar = Sidecar(
        folder / "js.sock",
        folder,
        environment(build(folder), driver),
        own_files=False,
        arguments=("--tenant-from", "request_id"),
    )
    sidecar.start()
    engines = subprocess.Popen([sys.executable, __file__, "--engines", str(sidecar.socket), *uuids])
    try:
        assert sidecar.process is not None
        process = psutil.Process(sidecar.process.pid)
        wait_until(lambda: refused(sidecar) >= 2 * LARGEST.engines * 10, "all names to be seen", 120.0)
        pages = {name: scrape(sidecar.port, headers)[0] for name, headers in FORMATS.items()}
        snapshot_json = [scrape(sidecar.port, {}, "/api/snapshot") for _ in range(20)]
        report = {
            "alone": phase(sidecar, process, lambda: time.sleep(seconds) or []),
            "one": phase(sidecar, process, lambda: scraping(sidecar.port, seconds, 1)),
            "eight": phase(sidecar, process, lambda: scraping(sidecar.port, seconds, SCRAPERS)),
        }
        totals = sidecar.snapshot()
        text = pages["text"].decode()
        return {
            **report,
            "page_cpu_ms": page_cpu_ms(totals),
            "sizes_bytes": {name: len(page) for name, page in pages.items()},
            "series": sum(not line.startswith("#") for line in text.splitlines()),
            "own_series": sum(line.startswith("joulescope_") for line in text.splitlines()),
            "snapshot_json_bytes": len(snapshot_json[0][0]),
            "snapshot_json_ms_p50": statistics.median(ms for _, ms in snapshot_json),
            "rss_mib": process.memory_info().rss / 2**20,
            "steps": sum(engine.steps for engine in totals.engines),
            "finished": sum(sum(engine.requests_finished.values()) for engine in totals.engines),
            "residual_joules": max(abs(gpu.residual_joules) for gpu in totals.gpus),
            "other_joules": sum(sum(engine.adapters["other"].joules.values()) for engine in totals.engines),
        }
    finally:
        engines.terminate()
        engines.wait()
        sidecar.kill()


def refused(sidecar: Sidecar) -> float:
    page = sidecar.get("/metrics")
    return 0.0 if page is None else value(page.decode(), "joulescope_label_values_refused_total")


# ------------------------------------------------------------------------------------------ the engines


def engines_child(socket: str, uuids: list[str]) -> None:
    """All engines, each with a thread and an emitter of its own, until they are ended."""
    each = len(uuids) // LARGEST.engines
    threads = [
        threading.Thread(target=engine, args=(socket, number, uuids[number * each : (number + 1) * each]))
        for number in range(LARGEST.engines)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def engine(socket: str, number: int, uuids: list[str]) -> None:
    cost = wire.CostFacts(
        source="config", weight_bytes=16e9, kv_bytes_per_token=131072.0, flops_per_token=16e9
    )
    facts = wire.EngineFacts(
        model=f"org/model-{number}",
        instance_id=f"i{number}",
        gpus=uuids,
        tensor_parallel=len(uuids),
        cost=cost,
    )
    emitter = Emitter(
        socket, lambda: wire.Hello(time_ns=time.monotonic_ns(), engine=facts, capabilities=["progress"])
    ).start()
    for record in records():
        emitter.put(record)


def records() -> Iterator[wire.AnyRecord]:
    """A full batch from the start, of requests that live :data:`LIFE_STEPS`; handed out when they are due."""
    period_ns = 1_000_000_000 // STEPS_PER_SECOND
    handles = iter(range(10**9))
    age: dict[int, int] = {}
    at_ns = time.monotonic_ns()
    for number in range(10**9):
        while len(age) < BATCH:
            handle = next(handles)
            age[handle] = 0 if number else (handle * LIFE_STEPS) // BATCH
            yield started(handle, at_ns)
        time.sleep(max(at_ns + period_ns - time.monotonic_ns(), 0) / 1e9)
        new = [500 if not steps else 1 for steps in age.values()]
        yield wire.Step(
            step=number,
            schedule_start_ns=at_ns,
            schedule_end_ns=at_ns + 100_000,
            output_start_ns=at_ns + period_ns,
            output_end_ns=at_ns + period_ns,
            request=list(age),
            context=[500 + steps if steps else 0 for steps in age.values()],
            scheduled=new,
            waiting=0,
            running=BATCH,
            kv_usage_ratio=0.5,
        )
        at_ns += period_ns
        for handle in [handle for handle, steps in age.items() if steps + 1 >= LIFE_STEPS]:
            yield wire.RequestEnd(
                request=handle,
                time_ns=at_ns,
                reason="length",
                output_tokens=age.pop(handle),
                final_step=number,
            )
        age = {handle: steps + 1 for handle, steps in age.items()}


def started(handle: int, time_ns: int) -> wire.RequestStart:
    return wire.RequestStart(
        request=handle,
        request_id=f"chatcmpl-tenant-{handle % NAMES}~{handle}-0123abcd",
        external_id=f"chatcmpl-tenant-{handle % NAMES}~{handle}",
        time_ns=time_ns,
        prompt_tokens=500,
        lora=f"customer-adapter-{handle // 7 % NAMES}",
        trace_parent=f"00-{handle:032x}-{handle + 1:016x}-01",
    )


# ------------------------------------------------------------------------------------------- the report


def text_of(report: dict[str, Any]) -> str:
    sizes = report["sizes_bytes"]
    lines = [
        f"# Scrapes of {LARGEST.gpus} GPUs, {LARGEST.engines} engines, {LARGEST.adapters} adapters and "
        f"{LARGEST.tenants} tenants\n",
        f"`python benchmarks/fleet.py`, {report['machine']}\n",
        f"{LARGEST.engines} engines at {STEPS_PER_SECOND} steps/s of {BATCH} requests, {NAMES} adapters and "
        f"{NAMES} tenants in use on each; {report['steps']:,} steps and {report['finished']:,} finished "
        f"requests in all. Series: {report['own_series']:,} (budget {BUDGET:,}), with those of the process "
        f"{report['series']:,}. Largest residual {report['residual_joules']} J.\n",
        "| page | bytes | processor time to make it, ms | the first one |",
        "|---|---|---|---|",
        *(
            f"| {name} | {size:,} | {report['page_cpu_ms'][name]['later']:.0f} "
            f"| {report['page_cpu_ms'][name]['first']:.0f} |"
            for name, size in sizes.items()
        ),
        f"| /api/snapshot | {report['snapshot_json_bytes']:,} | | |",
        f"\nRSS {report['rss_mib']:.0f} MiB. `/api/snapshot` p50 {report['snapshot_json_ms_p50']:.0f} ms.\n",
        f"| scrapers, every {PAUSE_SECONDS} s | scrapes | p50, ms | p95, ms | max, ms | making a page, ms "
        "| CPU, cores | polls late by, ms | attribution lag, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("alone", "one", "eight"):
        row = report[name]
        lines.append(
            f"| {name} "
            + " ".join(
                f"| {row[key]:{form}}" if key in row else "|"
                for key, form in (
                    ("scrapes", ".0f"),
                    ("scrape_ms_p50", ".1f"),
                    ("scrape_ms_p95", ".1f"),
                    ("scrape_ms_max", ".1f"),
                    ("page_ms", ".1f"),
                    ("cpu_cores", ".3f"),
                    ("poll_late_ms", ".2f"),
                    ("lag_seconds", ".2f"),
                )
            )
            + " |"
        )
    lines.append(
        "\nEight scrapers ask at the same instant for a page that is not made yet; it is made once. Latency "
        "is until the last byte, by a client on the same machine; where the load above is beyond its cores, "
        "it is mostly waiting for one, and the processor times tell more."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--engines", nargs="+", metavar="SOCKET UUID", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engines:
        return engines_child(arguments.engines[0], arguments.engines[1:])
    with tempfile.TemporaryDirectory(prefix="joulescope-") as name:
        report = {
            "machine": machine("joulescope-inference", "prometheus-client", "uvicorn", "numpy"),
            **measure(Path(name), arguments.seconds),
        }
    save("fleet", report, text_of(report))
    return None


if __name__ == "__main__":
    main()

"""What open live pages cost the sidecar.

A sidecar on 8 GPUs (real pynvml on the stand-in driver library) with an engine of 256 requests at 50
steps/s, as in ``sidecar.py``; clients that ask as the page does, once a second each: snapshot, history since
the last point, open requests, every fifth time the finished ones and readiness. CPU of the sidecar's process
is taken with none, one and eight of them, in turns, and the bytes that they are sent.

    python benchmarks/live_page.py [--seconds 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from benchmarks.sidecar import BATCH, GPUS, STEPS_PER_SECOND
from joulescope.export.page.assets import Assets
from joulescope.export.page.history import History
from joulescope.export.snapshot_json import decode_snapshot
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar

PAGES = (0, 1, 8)
WARM_SECONDS = 5.0
ROUTES = (
    "api/snapshot",
    "api/history",
    "api/requests?open=16&finished=0",
    "api/requests?open=16&finished=256",
)


class Page(threading.Thread):
    """Asks over one connection as ``static/main.js`` does, and counts what it gets."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.stopping = threading.Event()
        self.received_bytes = 0
        self.turns = 0

    def run(self) -> None:
        since = 0.0
        while not self.stopping.wait(1.0):
            self.ask("api/snapshot")
            history = json.loads(self.ask(f"api/history?since={since}"))
            since = history["points"][-1]["t"] if history["points"] else since
            self.ask(f"api/requests?open=16&finished={256 if self.turns % 5 == 0 else 0}")
            if self.turns % 5 == 0:
                self.ask("-/ready")
            self.turns += 1
        self._connection.close()

    def ask(self, path: str) -> bytes:
        self._connection.request(
            "GET",
            f"/{path}",
        )
        body = self._connection.getresponse().read()
        self.received_bytes += len(body)
        return body


def cores(process: psutil.Process, seconds: float) -> float:
    before, begin = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, wall = process.cpu_times(), time.monotonic() - begin
    return float((after.user + after.system - before.user - before.system) / wall)


def measure(sidecar: Sidecar, pages: int, seconds: float) -> tuple[float, float]:
    """Cores that the sidecar's process took, and bytes a second that one page was sent."""
    assert sidecar.process is not None
    opened = [Page(sidecar.port) for _ in range(pages)]
    for page in opened:
        page.start()
        time.sleep(1.0 / max(pages, 1))  # not all in the same moment
    before = sum(page.received_bytes for page in opened)
    taken = cores(psutil.Process(sidecar.process.pid), seconds)
    received = sum(page.received_bytes for page in opened) - before
    for page in opened:
        page.stopping.set()
        page.join()
    return taken, received / seconds / pages if pages else 0.0


def answers(port: int) -> dict[str, dict[str, float]]:
    """Milliseconds and bytes of each kind of answer, the median of fifty."""
    page = Page(port)
    found = {}
    for route in ("", *ROUTES):
        times = []
        for _ in range(50):
            begin = time.perf_counter()
            body = page.ask(route)
            times.append((time.perf_counter() - begin) * 1e3)
        found[f"/{route}"] = {"ms": statistics.median(times), "bytes": len(body)}
    return found


def note_cost_us(sidecar: Sidecar) -> float:
    """What a point of the history costs the accounting thread, once in two seconds."""
    page = sidecar.get("/api/snapshot")
    assert page is not None
    snapshot = decode_snapshot(page)
    looks = [replace(snapshot, time_ns=snapshot.time_ns + number * 2 * 10**9) for number in range(200)]
    begin = time.perf_counter()
    history = History()
    for look in looks:
        history.note(look)
    return (time.perf_counter() - begin) / len(looks) * 1e6


def run(seconds: float, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gpus = [FakeGpu(uuid=f"GPU-{number}", live=True, power_watts=500.0) for number in range(GPUS)]
        driver = FakeDriver(folder / "nvml", gpus)
        sidecar = Sidecar(folder / "js.sock", folder, environment(build(folder), driver), own_files=False)
        sidecar.start()
        program = Path(__file__).with_name("sidecar.py")
        engine = subprocess.Popen(
            [sys.executable, program, "--part", "engine", "--socket", str(sidecar.socket)]
        )
        try:
            time.sleep(WARM_SECONDS)
            taken: dict[int, list[float]] = {pages: [] for pages in PAGES}
            received = 0.0
            for _ in range(rounds):
                for pages in PAGES:
                    used, rate = measure(sidecar, pages, seconds)
                    taken[pages].append(used)
                    received = rate if pages == 1 else received
            return {
                "cores": {str(pages): taken[pages] for pages in PAGES},
                "bytes_per_second": received,
                "answers": answers(sidecar.port),
                "note_us": note_cost_us(sidecar),
            }
        finally:
            engine.terminate()
            engine.wait()
            sidecar.kill()


def sizes() -> dict[str, int]:
    """Bytes of the page's files, plain and as sent."""
    assets = Assets.load()
    files = [assets.by_name[name] for name in (*assets.modules, "page.css")]
    return {
        "files": len(files),
        "plain": sum(len(each.plain) for each in files),
        "gzip": sum(len(each.zipped) for each in files),
    }


def text_of(report: dict[str, Any]) -> str:
    cpu = {pages: statistics.median(runs) * 100 for pages, runs in report["cores"].items()}
    rows = "\n".join(
        f"| `{route}` | {each['ms']:.2f} | {each['bytes']:,} |" for route, each in report["answers"].items()
    )
    runs = "; ".join(
        f"{pages}: {', '.join(f'{used * 100:.2f}' for used in taken)}"
        for pages, taken in report["cores"].items()
    )
    return f"""# What the live page costs

`python benchmarks/live_page.py`, {report["machine"]}

A sidecar with {STEPS_PER_SECOND} steps/s × {BATCH} requests and {GPUS} GPUs at 20 Hz.
Pages ask once a second.

| open pages | CPU of the sidecar, % of a core (median of {len(report["cores"]["0"])}) |
|---|---|
| none | {cpu["0"]:.2f} |
| 1 | {cpu["1"]:.2f} |
| 8 | {cpu["8"]:.2f} |

Each run, % of a core, by open pages: {runs}.
One page is sent {report["bytes_per_second"] / 1e3:.0f} kB a second.

| answer | ms, median of 50 | bytes, plain |
|---|---|---|
{rows}

A point of the history costs the accounting thread {report["note_us"]:.0f} µs, once in two seconds.
Opening the page loads {report["sizes"]["files"]} files once for each version:
{report["sizes"]["plain"] / 1e3:.0f} kB, {report["sizes"]["gzip"] / 1e3:.0f} kB as sent.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = {
        "machine": machine("joulescope-inference", "starlette", "uvicorn", "msgspec"),
        **run(options.seconds, options.rounds),
        "sizes": sizes(),
    }
    save("live_page", report, text_of(report))


if __name__ == "__main__":
    main()

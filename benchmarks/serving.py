"""What rude clients cost: the server's CPU, how late its neighbours' threads wake, how long health takes.

The real server, behind TLS and a password of cost 10, in a process of its own with a thread that wakes every
20 ms as the accounting would. Another process is rude to it meanwhile, from another address unless said;
this one asks for health, and scrapes with a password that the server knows.

    python benchmarks/serving.py [--seconds 10]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import bcrypt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.clock import SystemClock
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.export.web_config_rules import WebRules
from joulescope.model import Snapshot
from tests.export.certificates import HOST, PASSWORD, TLS, USER, make_place
from tests.export.samples import rich_snapshot

COST = 10
TICK_SECONDS = 0.02
PATIENCE_SECONDS = 30.0
RUDE = {
    "nobody": "nobody is rude",
    "guess": "16 clients guess passwords without pause",
    "shake": "4 clients shake hands without pause",
    "silent": "300 connections that say nothing, made anew when they are ended",
    "silent here": "the same from the address of those who are served",
    "pages": "64 clients with a password ask for 50 pages each at once, and read none",
}
ELSEWHERE, HERE = "127.0.0.2", "127.0.0.1"


class Child:
    """A process of this script in another role."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> str:
        """Closes its input, at which it ends, and returns what it said last."""
        return self._process.communicate(timeout=PATIENCE_SECONDS)[0]


class Snapshots:
    """Gives out a snapshot, another one each half second, as the sidecar does."""

    def __init__(self) -> None:
        self._made_at = 0.0
        self._snapshot = rich_snapshot()

    def __call__(self) -> Snapshot:
        now = time.monotonic()
        if now - self._made_at > 0.5:
            self._made_at = now
            self._snapshot = rich_snapshot()
        return self._snapshot


@contextmanager
def child(*arguments: str) -> Iterator[Child]:
    made = Child(*arguments)
    try:
        yield made
    finally:
        made._process.kill()
        made._process.wait()


def serve(folder: Path) -> None:
    """Role of the server: says its port, and at the end what it cost."""
    clock = SystemClock()
    snapshots = Snapshots()
    app = create_app(snapshots, lambda: (True, "ready"))
    server = HttpServer("127.0.0.1", 0, app, rules=WebRules(folder / "web.yml", clock), clock=clock)
    print(json.dumps(server.start()[1]), flush=True)
    late_seconds: list[float] = []
    stopping = threading.Event()

    def tick() -> None:
        due = time.monotonic()
        while not stopping.wait(max(due - time.monotonic(), 0.0)):
            late_seconds.append(time.monotonic() - due)
            due = max(due + TICK_SECONDS, time.monotonic())

    threading.Thread(target=tick, daemon=True).start()
    sys.stdin.readline()  # the attack begins
    late_seconds.clear()
    begun, cpu = time.monotonic(), time.process_time()
    sys.stdin.readline()  # it is over
    shared = (time.process_time() - cpu) / (time.monotonic() - begun)
    stopping.set()
    totals = server.totals()
    told = {
        "cpu": shared,
        "late": late_seconds,
        "codes": totals.responses,
        "refused": totals.refused_connections,
    }
    print(json.dumps(told), flush=True)


def attack(kind: str, port: int) -> None:
    """Role of the rude: goes on until it is killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    actions: dict[str, tuple[int, Callable[[int], None]]] = {
        "nobody": (0, lambda number: None),
        "guess": (16, lambda number: _guess(port, context, number)),
        "shake": (4, lambda number: _connection(port, context).close()),
        "silent": (300, lambda number: _silence(port, ELSEWHERE)),
        "silent here": (300, lambda number: _silence(port, HERE)),
        "pages": (64, lambda number: _no_reading(port, context)),
    }
    count, act = actions[kind]

    def again(number: int) -> None:
        while True:
            with suppress(OSError, http.client.HTTPException):
                act(number)

    for number in range(count):
        threading.Thread(target=again, args=(number,), daemon=True).start()
    print(json.dumps("at it"), flush=True)
    sys.stdin.readline()


def _connection(port: int, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=PATIENCE_SECONDS, context=context, source_address=(ELSEWHERE, 0)
    )
    connection.connect()
    return connection


def _guess(port: int, context: ssl.SSLContext, number: int) -> None:
    connection = _connection(port, context)
    for guess in range(1000):
        connection.request("GET", "/metrics", headers={"Authorization": _basic(f"{number}-{guess}")})
        connection.getresponse().read()


def _silence(port: int, source: str) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS, (source, 0)) as client:
        client.recv(1)


def _no_reading(port: int, context: ssl.SSLContext) -> None:
    connection = _connection(port, context)
    for _ in range(50):  # pipelined: the pages pile up
        connection.sock.sendall(
            f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {_basic()}\r\n\r\n".encode()
        )
    time.sleep(PATIENCE_SECONDS)


def _basic(password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()


def measure(kind: str, folder: Path, seconds: float) -> dict[str, Any]:
    """One kind of rudeness: what it costs the server, and what others feel of it."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    taken: dict[str, list[float]] = {"/-/healthy": [], "/metrics": []}
    failed = 0
    with child("--serve", str(folder)) as server:
        port = server.line()
        _ask(port, context, "/metrics")
        with child("--attack", kind, "--port", str(port)) as rude:
            rude.line()
            time.sleep(1.0)
            _say(server)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for path, times in taken.items():
                    begun = time.monotonic()
                    try:
                        _ask(port, context, path)
                        times.append(time.monotonic() - begun)
                    except (OSError, http.client.HTTPException):
                        failed += 1
                time.sleep(0.02)
        _say(server)
        told = server.line()
    return {
        "kind": kind,
        "what": RUDE[kind],
        "server_cpu_cores": told["cpu"],
        "late_seconds": _spread(told["late"]),
        "health_seconds": _spread(taken["/-/healthy"]),
        "scrape_seconds": _spread(taken["/metrics"]),
        "asked": sum(map(len, taken.values())) + failed,
        "failed": failed,
        "codes": told["codes"],
        "refused": told["refused"],
    }


def _ask(port: int, context: ssl.SSLContext, path: str) -> None:
    """A page on a connection of its own: the worst case, since a scraper keeps its."""
    connection = http.client.HTTPSConnection(HOST, port, timeout=PATIENCE_SECONDS, context=context)
    try:
        connection.request("GET", path, headers={"Authorization": _basic()} if path == "/metrics" else {})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
    finally:
        connection.close()


def _say(server: Child) -> None:
    assert server._process.stdin is not None
    server._process.stdin.write("\n")
    server._process.stdin.flush()


def _spread(values: list[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p99": None}
    return {"median": float(np.median(values)), "p99": float(np.quantile(values, 0.99))}


def text_of(report: dict[str, Any]) -> str:
    """The result as a page."""
    told = report["machine"]
    lines = [
        "# What rude clients cost",
        "",
        f"{told['cpu']}, {told['cores']} cores, Python {told['python']}, {told['date']}; load average before "
        f"{told['load_average'][0]}. `benchmarks/serving.py --seconds {report['seconds']:g}`.",
        "",
        "TLS 1.3, ECDSA P-256; passwords of bcrypt cost 10; client, attacker and server share the machine. "
        "Health and scrape: time of one page, each on a connection of its own, TLS handshake included. Late: "
        "of a thread of the server's process that wakes each 20 ms. Cores: of the server's process.",
        "",
        "| rudeness | server, cores | thread late, median / p99, ms | health, median / p99, ms "
        "| scrape, median / p99, ms | failed |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        spreads = (row["late_seconds"], row["health_seconds"], row["scrape_seconds"])
        cells = " | ".join(f"{_ms(each['median'])} / {_ms(each['p99'])}" for each in spreads)
        lines.append(
            f"| {row['what']} | {row['server_cpu_cores']:.2f} | {cells} | {row['failed']} of {row['asked']} |"
        )
    return "\n".join(lines) + "\n"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.1f}"


def main() -> None:
    """Measures each kind of rudeness, or plays a role in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--attack", choices=RUDE, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return
    if given.attack is not None:
        attack(given.attack, given.port)
        return
    report: dict[str, Any] = {
        "machine": machine("joulescope-inference", "uvicorn", "bcrypt"),
        "seconds": given.seconds,
    }
    with tempfile.TemporaryDirectory() as name:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(COST)).decode()
        make_place(Path(name), TLS + f"basic_auth_users:\n  {USER}: {hashed}\n")
        report["rows"] = [measure(kind, Path(name), given.seconds) for kind in RUDE]
    save("serving", report, text_of(report))


if __name__ == "__main__":
    main()

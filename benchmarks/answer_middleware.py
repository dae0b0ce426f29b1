"""What the middleware adds to an answer: microseconds for each request and each chunk of a stream.

An application that answers at once takes vLLM's place, so that nothing but the middleware takes time.
The sidecar is a process of its own, ``joulescope serve``, asked over its Unix socket. Cases take turns, so
that a busy moment of the machine meets all of them.

    python benchmarks/answer_middleware.py [--rounds 100] [--repeats 10]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.report import machine, save
from joulescope.answer import JoulescopeMiddleware
from joulescope.answer.asgi import App, Message, Receive, Scope, Send

CHUNKS = 500
DEADLINE_MS, PATIENT_MS = 20.0, 1000.0
TEXT_OF_PAGE = """\
# What the middleware adds to an answer

Made by `benchmarks/answer_middleware.py` on {date} ({cpu}, {cores} cores, load {load}, Python {python}).
Microseconds in the API server's process; an application that answers at once takes vLLM's place. Each line is
the quietest of several repeats, by its median. Where a sidecar answers, the deadline was lifted.

| what | middleware | p50 µs | p95 µs | p99 µs |
|---|---|--:|--:|--:|
{rows}

A chunk of a stream takes {chunk:.2f} µs more for who asked, {plain:.2f} µs more for who did not. While the
sidecar hangs, the first five answers wait for the deadline ({hangs:.0f} ms); then one after each pause.

Answers side by side, each with a question to the sidecar:

| at once | p50 µs | p95 µs | p99 µs | in time |
|--:|--:|--:|--:|--:|
{crowd}
"""

ASKING = (b"x-joulescope", b"estimate")
TEXT = json.dumps({"text": "x" * 2000})
JSON_BODY = (
    b'{"id":"cmpl-7f3a","object":"text_completion","choices":['
    + TEXT.encode()
    + b'],"usage":{"prompt_tokens"'
    b':900,"completion_tokens":400,"total_tokens":1300}}'
)
CHUNK = b'data: {"id":"cmpl-7f3a","object":"text_completion","created":5,"choices":[{"text":"a"}]}\n\n'


async def answer_json(scope: Scope, receive: Receive, send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"2100")],
        }
    )
    await send({"type": "http.response.body", "body": JSON_BODY})


async def answer_stream(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def to_nowhere(message: Message) -> None:
    """A client that takes everything at once."""


def scope_of(asks: bool) -> Scope:
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"authorization", b"Bearer x")]
    return {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "root_path": "",
        "headers": [*headers, *([ASKING] if asks else [])],
    }


@dataclass
class Case:
    """One way of answering, and how long it took each time."""

    name: str
    app: App
    asks: bool
    micros: list[float] = field(default_factory=list)

    async def once(self) -> None:
        scope = scope_of(self.asks)
        begin = time.perf_counter_ns()
        await self.app(scope, receive, to_nowhere)
        self.micros.append((time.perf_counter_ns() - begin) / 1000)


def with_middleware(app: App, socket: Path, deadline_ms: float = DEADLINE_MS) -> App:
    environ = {
        "JOULESCOPE_ANSWER_SOCKET": str(socket),
        "JOULESCOPE_ANSWER_DEADLINE_MS": f"{deadline_ms:g}",
    }
    return JoulescopeMiddleware(app, environ)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A sidecar that hangs: takes the question and says nothing."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readexactly(1 << 30)


async def take_turns(cases: list[Case], rounds: int) -> None:
    for _ in range(rounds):
        for case in cases:
            await case.once()


async def crowd(served: Path, at_once: int, rounds: int) -> dict[str, float]:
    """Requests side by side, as a busy server has them; and which part of them came within the deadline."""
    case = Case("", with_middleware(answer_json, served, PATIENT_MS), True)
    for _ in range(5):  # connections
        await asyncio.gather(*(case.once() for _ in range(at_once)))
    case.micros.clear()
    for _ in range(rounds):
        await asyncio.gather(*(case.once() for _ in range(at_once)))
    in_time = sum(micros < 1000 * DEADLINE_MS for micros in case.micros)
    return {**quantiles(case.micros), "in_time": in_time / len(case.micros)}


async def measure(folder: Path, served: Path, rounds: int) -> dict[str, Any]:
    (folder / "hung.sock").unlink(missing_ok=True)
    hung = await asyncio.start_unix_server(silent, folder / "hung.sock")
    report: dict[str, Any] = {}
    for kind, app, count in (("json", answer_json, rounds), ("stream", answer_stream, max(rounds // 2, 20))):
        cases = [
            Case("without", app, asks=True),
            Case("not asked", with_middleware(app, served), asks=False),
            Case("asked", with_middleware(app, served, PATIENT_MS), asks=True),
            Case("asked, no sidecar", with_middleware(app, folder / "nobody.sock"), asks=True),
            Case("asked, sidecar hangs", with_middleware(app, folder / "hung.sock"), asks=True),
        ]
        if kind == "stream":  # its one question costs what that of a body costs: what counts are the chunks
            cases = [case for case in cases if case.name in ("without", "not asked", "asked, no sidecar")]
        await take_turns(cases, 20)  # warm up: connections, and the breaker of those without a sidecar
        first = {case.name: case.micros[:5] for case in cases}
        for case in cases:
            case.micros.clear()
        await take_turns(cases, count)
        report[kind] = {case.name: quantiles(case.micros) for case in cases}
        report[f"{kind}_first_five"] = {name: quantiles(micros) for name, micros in first.items()}
    report["crowd"] = {str(at_once): await crowd(served, at_once, 50) for at_once in (1, 4, 16)}
    hung.close()
    return report


def quantiles(micros: list[float]) -> dict[str, float]:
    found = np.quantile(micros, (0.5, 0.95, 0.99))
    return {"p50": float(found[0]), "p95": float(found[1]), "p99": float(found[2]), "count": len(micros)}


def quietest(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each case the repeat with the lowest median: what else the machine does only ever adds."""
    first, *_ = reports
    return {
        kind: {name: min((each[kind][name] for each in reports), key=lambda q: q["p50"]) for name in cases}
        for kind, cases in first.items()
    }


def start_sidecar(folder: Path, stack: ExitStack) -> Path:
    """``joulescope serve`` without a GPU, with a socket for single requests."""
    path = folder / "answers.sock"
    command = [sys.executable, "-m", "joulescope.cli.main", "serve", "--sensor", "none"]
    command += ["--socket", str(folder / "js.sock"), "--answer-socket", str(path), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("the sidecar did not start")
        time.sleep(0.05)
    time.sleep(0.5)
    return path


def text_of(report: dict[str, Any]) -> str:
    where, rows = report["machine"], []
    for kind, per in (("json", "answer"), ("stream", f"stream of {CHUNKS} chunks")):
        for name, figures in report["cases"][kind].items():
            rows.append(
                f"| {per} | {name} | {figures['p50']:.0f} | {figures['p95']:.0f} | {figures['p99']:.0f} |"
            )
    cases, bare = report["cases"], report["cases"]["stream"]["without"]["p50"]
    # Without a sidecar nothing is waited for: what remains is the work on the chunks, and on one answer.
    own = cases["json"]["asked, no sidecar"]["p50"] - cases["json"]["without"]["p50"]
    chunk = (cases["stream"]["asked, no sidecar"]["p50"] - bare - own) / CHUNKS
    plain = (cases["stream"]["not asked"]["p50"] - bare) / CHUNKS
    crowd_rows = [
        f"| {at_once} | {figures['p50']:.0f} | {figures['p95']:.0f} | {figures['p99']:.0f} "
        f"| {100 * figures['in_time']:.1f} % |"
        for at_once, figures in cases["crowd"].items()
    ]
    hangs = cases["json_first_five"]["asked, sidecar hangs"]["p50"] / 1000
    return TEXT_OF_PAGE.format(
        rows="\n".join(rows),
        crowd="\n".join(crowd_rows),
        chunk=chunk,
        plain=plain,
        hangs=hangs,
        load=where["load_average"][0],
        **where,
    )


def main(run: Callable[[Awaitable[Any]], Any] = asyncio.run) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="print, write no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        served = start_sidecar(folder, stack)
        cases = quietest([run(measure(folder, served, arguments.rounds)) for _ in range(arguments.repeats)])
    report = {"machine": machine("uvicorn", "starlette"), "cases": cases}
    if arguments.dry:
        print(text_of(report))
    else:
        save("answer_middleware", report, text_of(report))


if __name__ == "__main__":
    main()

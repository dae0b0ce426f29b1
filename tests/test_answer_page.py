"""docs/answer.md: its commands run, its tables and examples name what there is, its figures are measured."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import uvicorn

from joulescope.answer import JoulescopeMiddleware
from joulescope.answer.asgi import App, Receive, Scope, Send
from joulescope.config.table import TABLE
from joulescope.export.requests_http import OUTCOMES
from joulescope.export.waiters import MAX_WAITERS
from joulescope.hook.wire import encode_frame
from tests import worlds
from tests.requirements import need_program
from tests.worlds import MS, SECOND

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "answer.md").read_text(encoding="utf-8")
ANSWER_ID = "cmpl-9f6c1c5e2b7d4d0d"
TOKEN = "s3cret"
PATIENCE_SECONDS = 30.0


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_is_run() -> None:
    """Two curls at the sidecar, one at a server with the middleware, the sidecar itself; vLLM's stands in a
    test of its own."""
    serve, vllm, ask, at_the_socket, at_the_port = commands()
    assert serve.startswith("joulescope serve")
    assert vllm.endswith("--middleware joulescope.answer.JoulescopeMiddleware")
    run = (ROOT / "tests" / "real" / "test_answer.py").read_text()
    assert '"--middleware"' in run
    assert '"joulescope.answer.JoulescopeMiddleware"' in run
    assert [command.split()[0] for command in (ask, at_the_socket, at_the_port)] == ["curl"] * 3


@contextmanager
def sidecar(folder: Path) -> Iterator[int]:
    """The page's own command, with other paths and a port; an engine has reported one request to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = commands()[0].replace("/run/joulescope", str(folder))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOULESCOPE_")}
    environ = {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOULESCOPE_SENSOR": "none",
        "JOULESCOPE_MAX_LAG_SECONDS": "1",  # without a sensor nothing else says that all is accounted
        "JOULESCOPE_LISTEN": f"127.0.0.1:{port}",
        "JOULESCOPE_REQUEST_API_TOKEN": "env:REQUESTS_TOKEN",
        "REQUESTS_TOKEN": TOKEN,
    }
    with subprocess.Popen(shlex.split(command), env=environ, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (folder / "answers.sock").exists():
                assert process.poll() is None, process.communicate()[1].decode()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
                engine.connect(str(folder / "joulescope.sock"))
                engine.sendall(_life())
                yield port
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()


def _life() -> bytes:
    now_ns = time.monotonic_ns()
    records = [
        worlds.hello(now_ns - SECOND),
        worlds.start(1, now_ns - SECOND, external_id=f"{ANSWER_ID}-0"),
        worlds.step(0, now_ns - SECOND, now_ns - 500 * MS, [1]),
        worlds.end(1, now_ns - 500 * MS, 0),
    ]
    return bytes(encode_frame(records, msgspec.msgpack.Encoder()))


def run(command: str, **environ: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return done.stdout


@pytest.mark.real
def test_the_sidecar_answers_as_the_page_says(tmp_path: Path) -> None:
    """Both curls get the account, with the fields of the page's table; without the token there is none."""
    need_program("curl")
    _, _, _, at_the_socket, at_the_port = commands()
    with sidecar(tmp_path) as port:
        found = json.loads(run(at_the_socket.replace("/run/joulescope", str(tmp_path))))
        there = at_the_port.replace("localhost:5685", f"127.0.0.1:{port}")
        assert json.loads(run(there, TOKEN=TOKEN)) == found
        assert "error" in json.loads(run(there, TOKEN="wrong"))
    told = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## The final figure")[2].partition("\n## ")[0], re.M)
    fields = {name for row in told for name in re.findall(r"`(\w+)`", row)}
    assert fields == set(found)
    assert (found["final"], found["requests"][0]["external_id"]) == (True, f"{ANSWER_ID}-0")


@contextmanager
def serving(app: App) -> Iterator[int]:
    """A plain uvicorn, as vLLM runs under one."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)


async def a_server(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as vLLM does."""
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    await send(head)
    text = f'{{"id":"{ANSWER_ID}","usage":{{"prompt_tokens":1,"completion_tokens":64}}}}'
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.mark.real
def test_a_client_sees_what_the_page_shows(tmp_path: Path) -> None:
    """The header of the page's curl asks, and the headers of its example are those that come back."""
    need_program("curl")
    environ = {
        "JOULESCOPE_ANSWER_SOCKET": str(tmp_path / "none"),
        "JOULESCOPE_ANSWER_URL": "https://joules.example",
    }
    with serving(JoulescopeMiddleware(a_server, environ)) as port:
        answer = run(commands()[2].replace("localhost:8000", f"127.0.0.1:{port}"))
    (example,) = re.findall(r"^```\n(x-joulescope.*?)```", PAGE, re.M | re.S)
    energy, *others = example.splitlines()
    assert re.fullmatch(r"x-joulescope-energy-joules: \d+\.\d{6}", energy)
    for line in others:
        assert line in answer.replace("\r", "")


def test_the_variables_are_those_of_the_package() -> None:
    """The table of the page and the docstring of the package tell the same."""
    rows = set(re.findall(r"^\| `(JOULESCOPE_\w+)`", PAGE, re.M))
    import joulescope.answer as package

    assert rows == set(re.findall(r"``(JOULESCOPE_[A-Z_]+?)(?:=1)?``:", package.__doc__ or ""))


def test_outcomes_and_bounds_are_those_of_the_code() -> None:
    """Each outcome that is counted is explained, each setting that is named exists."""
    table = PAGE.partition('{exporter="answer"}')[2]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.M)) == OUTCOMES
    assert f"At most {MAX_WAITERS} clients" in PAGE
    for name in re.findall(r"configuration\.md#(\w+)", PAGE):
        assert name in TABLE


def stated(mark: str) -> list[float]:
    """The percentages between two marks of the page; of how many requests they hold is not one."""
    (text,) = re.findall(rf"<!-- {mark} -->(.*?)<!-- /{mark} -->", PAGE, re.S)
    return [float(each) for each in re.findall(r"([\d.]+)\s%(?!\s(?:within|are))", text)]


def rounded(*ratios: float) -> list[float]:
    """As the page writes them: one digit below ten percent."""
    return [round(100 * each, 1 if each < 0.0995 else None) for each in ratios]


def test_the_stated_errors_are_those_of_the_benchmark() -> None:
    """In the page stand the figures of the result file, and in their order."""
    report = json.loads((ROOT / "benchmarks" / "results" / "answer_estimate.json").read_text())
    cases = {(each["world"], each["load"]): each for each in report["cases"] if each["rule"] == "estimate"}
    every, short = cases["all", ""], cases["all", ""]["short"]
    assert stated("estimate") == rounded(every["median"], every["p95"], short["median"], short["p95"])
    real = [cases["real vLLM", load] for load in ("light", "medium", "heavy")]
    assert stated("real") == rounded(*(each["median"] for each in real), *(each["p95"] for each in real))


def test_the_stated_cost_is_that_of_the_benchmark() -> None:
    """Medians of the result file: passing by, one question, four and sixteen at once, a chunk."""
    cases = json.loads((ROOT / "benchmarks" / "results" / "answer_middleware.json").read_text())["cases"]
    alone, stream = cases["json"], cases["stream"]
    own = alone["asked, no sidecar"]["p50"] - alone["without"]["p50"]
    chunk = (stream["asked, no sidecar"]["p50"] - stream["without"]["p50"] - own) / 500
    (text,) = re.findall(r"<!-- cost -->(.*?)<!-- /cost -->", PAGE, re.S)
    assert re.findall(r"([\d.]+) (?:µs|ms)", text.replace("\n", " ")) == [
        f"{alone['not asked']['p50'] - alone['without']['p50']:.0f}",
        f"{alone['asked']['p50'] / 1000:.1f}",
        f"{cases['crowd']['4']['p50'] / 1000:.1f}",
        f"{cases['crowd']['16']['p50'] / 1000:.1f}",
        "20",
        f"{chunk:.1f}",
    ]

"""README.md says nothing that is not run: each command of it is run here, or by a named file of CI."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_trace_format import PAGE as TRACE_PAGE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PATIENCE_SECONDS = 30.0

RUN_ELSEWHERE = {
    "make demo": (".ci/run", 'make -C "$OUT/clone" demo'),
    "make test": (".ci/run", "make test "),
    "make test-fast": ("Makefile", '$(PYTEST) -m "not real and not slow"'),
    "make lint": (".ci/run", "make lint"),
    "pip install --no-deps .": ("tests/real/vllm_env.py", '"--no-deps"'),
    "JOULESCOPE_SOCKET=/run/joulescope/joulescope.sock vllm serve Qwen/Qwen3-8B": (
        "tests/real/vllm_env.py",
        '"vllm.entrypoints.openai.api_server"',
    ),
    "pip install '.[sidecar]'": ("Makefile", "--editable '.[sidecar]'"),
    "pip install '.[sidecar,analysis]'": ("pyproject.toml", '"joulescope-inference[analysis,ledger-s3]"'),
    "joulescope diagnose http://localhost:5685 --last 10m --before 1h": (
        "tests/cli/test_diagnose_command.py",
        '"--last", "2m", "--before", "1h"',
    ),
    "joulescope plan http://localhost:5685 --goal itl=30ms --what-if precision=fp8": (
        "tests/cli/test_plan_command.py",
        '"--what-if"',
    ),
    "joulescope compare monday.jsonl tuesday.jsonl": ("tests/cli/test_compare_command.py", '"compare"'),
    "joulescope ledger tenants /var/lib/joulescope/ledger --by month": (
        "tests/cli/test_ledger_command.py",
        '"tenants"',
    ),
}
"""Commands too dear for a unit test: the file that runs them or their like, and the words that do."""

RUN_HERE = {
    "make help": "test_make_help_lists_what_the_readme_uses",
    "joulescope serve --socket /run/joulescope/joulescope.sock": "test_serve_answers_as_the_readme_says",
    "curl -s http://localhost:5685/metrics": "test_serve_answers_as_the_readme_says",
    "joulescope top --url http://localhost:5685": "test_serve_answers_as_the_readme_says",
    "joulescope doctor": "test_the_doctor_finds_nothing_wrong_here",
    "joulescope inject -f deploy/examples/deployment.yaml --image registry.example/joulescope:0.1.0": (
        "test_inject_prints_the_manifest_with_the_sidecar"
    ),
    "joulescope estimate --preset v2": "test_an_estimate_needs_nothing",
    "joulescope config show": "test_quick_commands_work",
    "joulescope config example": "test_quick_commands_work",
    "joulescope record run.jsonl.gz": "test_record_then_replay_then_parse",
    "joulescope replay run.jsonl.gz --requests requests.jsonl": "test_record_then_replay_then_parse",
    "joulescope parse run.jsonl.gz --type step": "test_record_then_replay_then_parse",
}
"""Commands that a test of this file runs as they stand, but for paths and ports."""


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """The README's commands find no GPU here, and may not touch the machine's own socket and port."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOULESCOPE_")}
    return {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOULESCOPE_SENSOR": "none",
        "JOULESCOPE_SOCKET": str(folder / "j.sock"),
        "JOULESCOPE_LISTEN": "127.0.0.1:0",
        **more,
    }


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )


def _wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def _running(command: str, folder: Path, **environ: str) -> Iterator[None]:
    """Runs a command that goes on until it is told to stop, and expects it to end well."""
    with subprocess.Popen(
        shlex.split(command), cwd=folder, env=_environment(folder, **environ), stderr=subprocess.PIPE
    ) as process:
        try:
            _wait_for(lambda: (folder / "j.sock").exists() or process.poll() is not None)
            yield
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 0, log.decode()
        finally:
            process.kill()


def test_every_command_is_run_somewhere() -> None:
    """No command of the README is missing from the two lists, and no list names one that is gone."""
    assert set(_commands()) == set(RUN_ELSEWHERE) | set(RUN_HERE)
    for name in RUN_HERE.values():
        assert callable(globals()[name])


@pytest.mark.parametrize(("path", "words"), RUN_ELSEWHERE.values(), ids=list(RUN_ELSEWHERE))
def test_what_is_run_elsewhere_is_still_run_there(path: str, words: str) -> None:
    """The file that is said to run a command holds the words that run it."""
    assert words in (ROOT / path).read_text()


def test_make_help_lists_what_the_readme_uses(tmp_path: Path) -> None:
    """`make help` needs nothing installed and names every target that the README uses."""
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", "help", f"VENV={tmp_path / 'none'}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    ).stdout
    for target in re.findall(r"^make (\S+)", "\n".join(_commands()), flags=re.MULTILINE):
        assert f"  make {target} " in shown
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["joulescope config show", "joulescope config example"])
def test_quick_commands_work(command: str, tmp_path: Path) -> None:
    """Commands that only print end with 0 and print something."""
    assert "sample_hz" in _run(command, tmp_path).stdout


def test_the_doctor_finds_nothing_wrong_here(tmp_path: Path) -> None:
    """It ends with 0 where no GPU is asked for and nothing else is amiss."""
    assert "no joules are measured, by choice" in _run("joulescope doctor", tmp_path).stdout


def test_an_estimate_needs_nothing(tmp_path: Path) -> None:
    """No file, no sidecar, no GPU."""
    assert "Wh" in _run("joulescope estimate --preset v2", tmp_path).stdout


def test_inject_prints_the_manifest_with_the_sidecar() -> None:
    """In a clone, where the README is read."""
    (inject,) = (each for each in _commands() if each.startswith("joulescope inject"))
    injected = _run(inject, ROOT).stdout
    assert "image: registry.example/joulescope:0.1.0" in injected
    assert "vllm serve Qwen/Qwen3-8B" in injected


@pytest.mark.real
def test_serve_answers_as_the_readme_says(tmp_path: Path) -> None:
    """The sidecar serves the pages that the README names, and ends with 0 on SIGTERM."""
    (serve,) = (each for each in _commands() if each.startswith("joulescope serve"))
    (top,) = (each for each in _commands() if each.startswith("joulescope top"))
    (curl,) = (each for each in _commands() if each.startswith("curl"))
    socket_path = tmp_path / "j.sock"
    port = _free_port()
    command = serve.replace("/run/joulescope/joulescope.sock", str(socket_path))
    assert command != serve
    base = curl.split()[-1].removesuffix("/metrics").replace("localhost:5685", f"127.0.0.1:{port}")
    with _running(command, tmp_path, JOULESCOPE_LISTEN=f"127.0.0.1:{port}"):
        _wait_for(lambda: _answers("127.0.0.1", port))  # the socket for engines is there some ms earlier
        for page in ("/metrics", "/-/healthy", "/api/snapshot", "/"):
            assert f"`{page}`" in README or page == "/"
            with urllib.request.urlopen(base + page, timeout=PATIENCE_SECONDS) as answer:
                assert answer.status == 200
        assert _run(f"{top.replace('localhost:5685', f'127.0.0.1:{port}')} --count 1", tmp_path).stdout


@pytest.mark.real
def test_record_then_replay_then_parse(tmp_path: Path) -> None:
    """The three commands work on each other's files; replay and parse on a real trace as well."""
    record, replay, parse = (
        each for each in _commands() if re.match("joulescope (record|replay|parse)", each)
    )
    with _running(record, tmp_path):
        pass
    _run(replay, tmp_path)
    assert _run(parse, tmp_path).stdout == ""
    (example,) = re.findall(r"^```jsonl\n(.*?)^```$", TRACE_PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "run.jsonl.gz").write_bytes(gzip.compress(example.encode()))
    assert "2 requests finished" in _run(replay, tmp_path).stdout
    requests = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert {json.loads(line)["request_id"] for line in requests} == {"chat-1", "chat-2"}
    assert _run(parse, tmp_path).stdout.count('"type":"step"') == 3


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

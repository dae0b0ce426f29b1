"""Records traces of real vLLM on the CPU: its own scheduler and its own durations, from the live path.

A server with a tiny model and the hook takes an open-loop load of mixed requests, arriving at random; the
sidecar's own ``record`` command writes the trace. Of the trace only the engine's records are kept, and of
these nothing that names the machine: see :func:`anonymous`. ``benchmarks/real_traces.py --record`` calls it.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from joulescope.hook import wire
from joulescope.ingest.trace import read_trace
from tests.real.load import FIRST_TOKEN, LAST_TOKEN, Ask, send
from tests.real.vllm_env import VllmServer, free_port, install_hook, make_model

LAYERS = 24
"""A step then takes 5 ms and more on one core, as it does on a GPU with a model of 8 billion weights."""

BLOCK_TOKENS = 32
STEP_TOKENS = 256
"""Longer prompts are computed in chunks."""

START_SECONDS, SETTLE_SECONDS, CLIENTS = 60.0, 2.0, 96


@dataclass(frozen=True)
class Kind:
    """A class of requests; lengths in tokens are drawn evenly between two bounds."""

    name: str
    weight: float
    prompt: tuple[int, int]
    output: tuple[int, int]
    prefix: int = 0
    """Tokens at the front that all requests of the class share."""
    hangs_up: bool = False
    """The client leaves after a few tokens."""


KINDS = (
    Kind("chat", 4.0, (20, 120), (60, 180)),
    Kind("document", 1.5, (500, 1100), (20, 80)),
    Kind("assistant", 2.0, (10, 60), (30, 120), prefix=320),
    Kind("story", 1.0, (8, 30), (250, 450)),
    Kind("label", 1.5, (150, 450), (1, 3)),
    Kind("hangup", 0.7, (20, 200), (400, 500), hangs_up=True),
)


@dataclass(frozen=True)
class Load:
    """One trace to record."""

    name: str
    rate_per_second: float
    """Mean arrivals."""
    seconds: float
    kv_blocks: int
    max_num_seqs: int
    seed: int


LOADS = (
    Load("light", 1.0, 120.0, kv_blocks=400, max_num_seqs=32, seed=1),
    Load("medium", 4.0, 90.0, kv_blocks=200, max_num_seqs=32, seed=2),
    Load("heavy", 7.0, 75.0, kv_blocks=120, max_num_seqs=24, seed=3),
)
"""From mostly one request a step to a queue and preemptions."""


def asks(load: Load) -> Iterator[tuple[float, Ask]]:
    """Requests and their arrivals, seconds from the start of the load."""
    rng = random.Random(load.seed)
    shared = {kind.name: _tokens(rng, kind.prefix) for kind in KINDS}
    at_seconds, number = 0.0, 0
    while True:
        at_seconds += rng.expovariate(load.rate_per_second)
        if at_seconds >= load.seconds:
            return
        kind = rng.choices(KINDS, [kind.weight for kind in KINDS])[0]
        yield (
            at_seconds,
            Ask(
                id=f"{kind.name}-{number}",
                prompt=shared[kind.name] + _tokens(rng, rng.randint(*kind.prompt)),
                max_tokens=rng.randint(*kind.output),
                abort_after=rng.randint(1, 20) if kind.hangs_up else None,
            ),
        )
        number += 1


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(count)]


def record(load: Load, target: Path) -> None:
    """Runs one load against a fresh server and leaves the trace in ``target`` (``.jsonl.gz``)."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw = folder / "raw.jsonl.gz"
        server = VllmServer(
            model=make_model(folder / "model", LAYERS),
            hook_path=install_hook(folder / "hook"),
            socket_path=folder / "js.sock",
            log_path=folder / "vllm.log",
            arguments=[
                *("--block-size", str(BLOCK_TOKENS), "--num-gpu-blocks-override", str(load.kv_blocks)),
                *("--max-num-seqs", str(load.max_num_seqs)),
                *("--max-num-batched-tokens", str(STEP_TOKENS)),
                "--enable-request-id-headers",
            ],
            environment={"VLLM_CPU_OMP_THREADS_BIND": "0"},
        )
        with _sidecar(raw, server.socket_path, folder / "sidecar.log"), server:
            _warm_up(server.port)
            _send_at_their_time(server.port, asks(load))
            time.sleep(SETTLE_SECONDS)
        _write(anonymous(read_trace(raw)), target)


def _warm_up(port: int) -> None:
    """The first steps compile and allocate."""
    rng = random.Random(0)
    for number in range(4):
        send(port, Ask(id=f"warmup-{number}", prompt=_tokens(rng, 300), max_tokens=20))


def _send_at_their_time(port: int, planned: Iterable[tuple[float, Ask]]) -> None:
    begin = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for at_seconds, ask in planned:
            time.sleep(max(begin + at_seconds - time.monotonic(), 0.0))
            pool.submit(send, port, ask)


class _sidecar:
    """``joulescope record`` while the block lasts; ends with SIGTERM, as in service."""

    def __init__(self, trace: Path, socket: Path, log: Path) -> None:
        command = [sys.executable, "-m", "joulescope.cli.main", "record", str(trace)]
        command += ["--socket", str(socket), "--listen", f"127.0.0.1:{free_port()}"]
        self._command, self._socket, self._log = command, socket, log

    def __enter__(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=dict(os.environ), start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sidecar did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(30) != 0:
            raise RuntimeError(f"the sidecar failed:\n{self._log.read_text()[-3000:]}")


def anonymous(records: Iterable[wire.AnyRecord]) -> Iterator[wire.AnyRecord]:
    """The engine's records without what names the machine, its files, its processes or its wall clock.

    Samples of the recording machine are left out: the GPU is to be a made-up one. Ids become the name that
    the load gave, which begins with the class of the request.
    """
    for record in records:
        if isinstance(record, (wire.Sample, wire.Gpu)):
            continue
        if isinstance(record, wire.TraceHeader):
            record.wall_ns, record.note = 0, "vLLM on a CPU, engine's records only"
        elif isinstance(record, wire.Hello):
            record.pid = record.ppid = record.wall_ns = 0
            if record.engine is not None:
                record.engine.model = record.engine.served_model
                record.engine.instance_id = "recorded"
            if record.worker is not None:
                record.worker.instance_id = "recorded"
        elif isinstance(record, wire.RequestStart):
            record.external_id = name_of(record.external_id)
            record.request_id, record.trace_parent, record.trace_state = record.external_id, "", ""
        yield record


def name_of(external_id: str) -> str:
    """``story-12`` out of the server's ``cmpl-story-12-0``."""
    found = re.fullmatch(r"cmpl-([a-z]+-\d+)-0", external_id)
    if found is None:
        raise ValueError(f"unexpected request id {external_id!r}")
    return found[1]


def _write(records: Iterable[wire.AnyRecord], target: Path) -> None:
    """Gzip without a time stamp or name, so that the same records give the same file."""
    lines = msgspec.json.Encoder().encode_lines(records)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(lines)

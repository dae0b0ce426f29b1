"""A sidecar in this process and engines in processes of their own, around one stand-in driver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.model import GpuTotals, Snapshot
from joulescope.sensors import Sensor

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0


def until(true: Callable[[], object], what: str) -> None:
    """Waits for something that other processes do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s in vain for {what}"
        threading.Event().wait(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Engine:
    """A process of :mod:`tests.inside.engine`."""

    process: subprocess.Popen[str]
    told: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    @property
    def sampler(self) -> int | None:
        """The sampler's process, as the hook knows it."""
        return int(self.told[-1]) if self.told and self.told[-1].isdigit() else None

    @property
    def samplers(self) -> list[int]:
        """All samplers so far."""
        return [int(line) for line in self.told if line.isdigit()]

    def wait_for_sampler(self) -> int:
        until(lambda: self.sampler is not None, "a sampler to be started")
        assert self.sampler is not None
        return self.sampler

    def end(self) -> None:
        """Closes its standard input, upon which it shuts down as vLLM does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)


@contextmanager
def engine(socket: Path, *gpus: str, environ: Mapping[str, str], instance: str = "i") -> Iterator[Engine]:
    """An engine that runs until the end of the block; a ``PYTHONPATH`` in ``environ`` comes first."""
    folders = [environ.get("PYTHONPATH", ""), str(ROOT)]
    variables = {**environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    command = [sys.executable, "-m", "tests.inside.engine", str(socket), instance, *gpus]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=variables
    )
    made = Engine(process)
    readers = [
        threading.Thread(target=_collect, args=(stream, lines), daemon=True)
        for stream, lines in ((process.stdout, made.told), (process.stderr, made.logged))
    ]
    for reader in readers:
        reader.start()
    try:
        yield made
    finally:
        if process.poll() is None:
            made.kill()
        for reader in readers:
            reader.join(PATIENCE_SECONDS)


def _collect(stream: Iterable[str], lines: list[str]) -> None:
    """Line by line, as they come."""
    lines.extend(map(str.strip, stream))


@contextmanager
def sidecar(
    folder: Path, *, open_sensor: Callable[[], Sensor] | None = None, **more: object
) -> Iterator[Daemon]:
    """A sidecar with all its threads, on a socket in ``folder``."""
    base: dict[str, object] = {
        "socket": str(folder / "js.sock"),
        "listen": "127.0.0.1:0",
        "sensor": "engine",
        "host": "off",
        "window_seconds": 0.2,
    }
    daemon = Daemon.build(Settings(**{**base, **more}), open_sensor=open_sensor, environ={})  # type: ignore[arg-type]
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


def gpu_of(snapshot: Snapshot, uuid: str) -> GpuTotals | None:
    return next((gpu for gpu in snapshot.gpus if gpu.info.gpu == uuid), None)


def measured(daemon: Daemon, uuid: str) -> float:
    """Joules of the GPU so far, as the sidecar shows them."""
    gpu = gpu_of(daemon.snapshot(), uuid)
    return 0.0 if gpu is None else gpu.measured_joules

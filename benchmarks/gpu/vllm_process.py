"""A vLLM server for the bench, with random weights of a model's shape and joulescope's hook in it.

Random weights cost the same joules as trained ones in a dense model; in a mixture of experts the routing
differs. The server finds the hook as it would an installed one: by an entry point in a ``.dist-info`` folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gpu.load import ServerFailure
from benchmarks.gpu.server import REPOSITORY, free_port, wait_until
from joulescope import __version__
from joulescope.clock import SystemClock

START_SECONDS = 420.0
ARGUMENTS = (
    "--load-format",
    "dummy",
    "--skip-tokenizer-init",
    "--max-model-len",
    "8192",
    "--max-num-seqs",
    "256",
)
VARIABLES = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}


def install_hook(folder: Path) -> str:
    """Makes vLLM find the hook in this checkout; returns what ``PYTHONPATH`` must begin with."""
    info = folder / f"joulescope_inference-{__version__}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: joulescope-inference\nVersion: {__version__}\n"
    )
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\njoulescope = joulescope.hook:register\n")
    return os.pathsep.join([str(folder), str(REPOSITORY)])


@contextmanager
def running_vllm(
    python: str, model: Path, socket_path: str, folder: Path, arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Starts the server, waits until it answers, and ends it; gives its URL. Its log is in ``folder``."""
    port, log = free_port(), folder / "vllm.log"
    path = os.pathsep.join([install_hook(folder / "hook"), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    environment = {**VARIABLES, **os.environ, "PYTHONPATH": path, "JOULESCOPE_SOCKET": socket_path}
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += [*ARGUMENTS, "--host", "127.0.0.1", "--port", str(port), *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        wait_until(lambda: _answers(process, port, log), "vLLM to answer", SystemClock(), START_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise ServerFailure(f"vLLM ended with {process.returncode}:\n{log.read_text()[-4000:]}")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False

"""How a sidecar ends, as real processes: in time, whole, and also as process 1 of a container."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from joulescope.cli.signals import EXIT_CUT_SHORT
from joulescope.ingest.trace import TraceReader
from joulescope.replay import Replay
from tests.fake_nvml import FakeDriver, FakeGpu, build, environment
from tests.real.sidecar import Sidecar, wait_until
from tests.real.vllm_env import free_port
from tests.requirements import need_new_pid_namespace

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
GPU = "GPU-0"
AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
PATIENCE_SECONDS = 20.0
"""For a process to end that a loaded machine may keep from its turn; its own limit is a second."""


@dataclass
class Stage:
    """A driver, a sidecar and an engine that keeps it busy."""

    folder: Path
    stack: ExitStack
    environ: dict[str, str] = field(default_factory=dict)

    def sidecar(self, *arguments: str, wrapper: tuple[str, ...] = (), wait: bool = True) -> Sidecar:
        driver = FakeDriver(self.folder / "nvml", [FakeGpu(uuid=GPU, live=True, power_watts=300.0)])
        environ = {**environment(build(self.folder), driver), **self.environ}
        sidecar = Sidecar(self.folder / "js.sock", self.folder, environ, arguments=arguments, wrapper=wrapper)
        self.stack.callback(sidecar.kill)
        return sidecar.start() if wait else sidecar

    def engine(self, batch: int = 64, life_steps: int = 16) -> None:
        """Steps 50 times a second, so that requests end all the time, until the test is over."""
        told = [str(self.folder / "js.sock"), "1", str(batch), str(life_steps)]
        script = str(ROOT / "benchmarks/sidecar_size.py")
        process = subprocess.Popen([sys.executable, script, "--engine", *told])
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def busy(sidecar: Sidecar) -> None:
    wait_until(lambda: len(sidecar.requests()) > 200, "requests that end")


def innermost(process: subprocess.Popen[bytes]) -> int:
    """The process that a wrapper has started, or it itself."""
    below = psutil.Process(process.pid).children()
    return below[0].pid if below else process.pid


def end(sidecar: Sidecar, *numbers: signal.Signals) -> int:
    """Sends the signals and returns the exit code: 0 says that all was flushed within its second."""
    assert sidecar.process is not None
    target = innermost(sidecar.process)
    for number in numbers or (signal.SIGTERM,):
        os.kill(target, number)
    return sidecar.process.wait(PATIENCE_SECONDS)


def assert_whole(sidecar: Sidecar) -> None:
    """The request log ends with a whole line, and has each request of the trace once, the open ones too."""
    assert sidecar.request_log.read_text().endswith("\n")
    logged = [line["request_id"] for line in sidecar.requests()]
    with TraceReader(sidecar.trace) as trace:
        replayed = [request.request_id for request in Replay(trace)]
    assert sorted(logged) == sorted(replayed)
    assert len(set(logged)) == len(logged) > 200


def test_under_load_everything_is_written_within_the_second(stage: Stage) -> None:
    """What ended and what was open: all of it is in the request log and in the recording."""
    sidecar = stage.sidecar()
    stage.engine()
    busy(sidecar)
    assert end(sidecar) == 0, sidecar.log.read_text()
    assert_whole(sidecar)
    assert sidecar.balance()["residual"] == 0


def test_a_second_signal_changes_nothing(stage: Stage) -> None:
    """SIGTERM twice, then what a terminal sends: one orderly end."""
    sidecar = stage.sidecar()
    stage.engine()
    busy(sidecar)
    assert end(sidecar, signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) == 0
    assert_whole(sidecar)


@pytest.fixture
def hangup() -> Iterator[None]:
    """As a terminal has it, although whoever runs the tests may ignore it, as ``nohup`` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
def test_a_closed_terminal_loses_nothing(stage: Stage) -> None:
    """SIGHUP flushes as SIGTERM does."""
    sidecar = stage.sidecar()
    stage.engine()
    busy(sidecar)
    assert end(sidecar, signal.SIGHUP) == 0
    assert_whole(sidecar)


def test_a_collector_that_never_answers_holds_nothing_up(stage: Stage) -> None:
    """It takes connections and says nothing: its spans are given up, the files are whole."""
    with socket.create_server(("127.0.0.1", 0)) as collector:
        stage.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.getsockname()[1]}"
        sidecar = stage.sidecar()
        stage.engine()
        busy(sidecar)
        assert end(sidecar) == 0, sidecar.log.read_text()
    assert_whole(sidecar)


def test_a_log_that_nobody_reads_holds_nothing_up(stage: Stage) -> None:
    """Standard error is a full pipe, where every line would wait for ever: it ends in its second all the
    same, says by its exit code that something was cut short, and both files are whole."""
    reader, writer = os.pipe()
    sidecar = stage.sidecar(
        "--log-level", "debug", wrapper=("sh", "-c", f'exec "$@" 2>/proc/{os.getpid()}/fd/{writer}', "sh")
    )
    stage.engine()
    busy(sidecar)
    fill = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    fill_up(fill)
    assert end(sidecar) == EXIT_CUT_SHORT
    assert_whole(sidecar)
    for descriptor in (reader, writer, fill):
        os.close(descriptor)


def test_a_request_log_that_takes_nothing_holds_nothing_up(stage: Stage) -> None:
    """It is a pipe whose reader does not read: what did not go is counted, the recording is whole."""
    sidecar = stage.sidecar(wait=False)
    os.mkfifo(sidecar.request_log)
    reader = os.open(sidecar.request_log, os.O_RDONLY | os.O_NONBLOCK)
    stage.stack.callback(os.close, reader)
    sidecar.start()
    stage.engine(batch=256)
    stuck = "lines wait in memory"
    wait_until(lambda: stuck in sidecar.log.read_text(), "the pipe to be full")
    assert end(sidecar) == 0, sidecar.log.read_text()
    with TraceReader(sidecar.trace) as trace:
        replayed = [request.request_id for request in Replay(trace)]
    lines = os.read(reader, 1 << 20).decode().split("\n")[:-1]
    assert [json.loads(line)["request_id"] for line in lines] == replayed[: len(lines)]
    assert 0 < len(lines) < len(replayed)


def fill_up(pipe: int) -> None:
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")


def test_during_the_start_a_signal_ends_it_at_once(stage: Stage) -> None:
    """Its settings are a pipe that nobody writes to, so that the start lasts."""
    sidecar = starting(stage)
    assert end(sidecar) == 0


def starting(stage: Stage, wrapper: tuple[str, ...] = ()) -> Sidecar:
    """A process that is reading its settings, and will be until it is ended."""
    settings = stage.folder / "settings.yaml"
    os.mkfifo(settings)
    sidecar = stage.sidecar(wait=False)
    sidecar.process = subprocess.Popen(
        [*wrapper, sys.executable, "-m", "joulescope.cli.main", "serve", "--config", str(settings)]
    )

    def is_reading() -> bool:
        try:
            stage.stack.callback(os.close, os.open(settings, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # ENXIO: nobody has opened it for reading
            return False
        return True

    wait_until(is_reading, "the sidecar to read its settings")
    return sidecar


class Waiting:
    """``serve --stay`` with a setting that cannot be used, in a file that can be mended."""

    def __init__(self, stage: Stage, wrapper: tuple[str, ...] = ()) -> None:
        self.stage = stage
        self.settings = stage.folder / "settings.yaml"
        self.settings.write_text("sample_hz: many\n")
        arguments = ("--stay", "--config", str(self.settings))
        self.sidecar = stage.sidecar(*arguments, wrapper=wrapper, wait=False)
        self.sidecar.own_files = True
        self.sidecar.port = free_port()

    def start(self) -> Sidecar:
        try:
            self.sidecar.start(until="/-/healthy")
        finally:
            assert self.sidecar.process is not None
        return self.sidecar

    def log(self) -> str:
        return self.sidecar.log.read_text()


def test_while_it_waits_a_signal_ends_it_at_once(stage: Stage) -> None:
    """And until then /-/healthy is answered, /-/ready says what is wrong, and the log has it once."""
    waiting = Waiting(stage)
    sidecar = waiting.start()
    assert sidecar.status("/-/ready") == 503
    assert end(sidecar) == 0
    assert waiting.log().count("sample_hz cannot be 'many'") == 1


def test_what_is_mended_is_found_without_a_restart(stage: Stage) -> None:
    """The file is mended while it waits: the same process then serves and accounts, and ends in order."""
    waiting = Waiting(stage)
    sidecar = waiting.start()
    assert sidecar.process is not None
    pid = innermost(sidecar.process)
    waiting.settings.write_text("sample_hz: 20\n")
    wait_until(lambda: sidecar.status("/-/ready") == 200, "the sidecar to find its mended settings")
    assert innermost(sidecar.process) == pid
    stage.engine()
    busy(sidecar)
    assert end(sidecar) == 0, waiting.log()
    assert_whole(sidecar)
    assert waiting.log().count("cannot start") == 1


def test_a_port_that_is_taken_is_waited_for(stage: Stage) -> None:
    """The very port of the pages: it says so, and starts when whoever has it goes."""
    sidecar = stage.sidecar("--stay", wait=False)
    with socket.create_server(("127.0.0.1", sidecar.port)):
        sidecar.launch()
        wait_until(lambda: f"port {sidecar.port} is in use" in sidecar.log.read_text(), "the complaint")
    wait_until(lambda: sidecar.status("/-/ready") == 200, "the sidecar to find the port free")
    assert end(sidecar) == 0


def test_a_signal_ends_it_at_once_after_a_start_that_failed(stage: Stage) -> None:
    """It had already taken over the signals, and nothing runs any more that could heed them."""
    sidecar = stage.sidecar("--stay", wait=False)
    with socket.create_server(("127.0.0.1", sidecar.port)):
        sidecar.launch()
        wait_until(lambda: "cannot start" in sidecar.log.read_text(), "the complaint")
        assert end(sidecar) == 0


# ------------------------------------------------------------------------------------- as process 1


def test_process_1_flushes(stage: Stage) -> None:
    """The kernel keeps signals without a handler from process 1: it has one."""
    need_new_pid_namespace()
    sidecar = stage.sidecar(wrapper=AS_PROCESS_1)
    stage.engine()
    busy(sidecar)
    assert sidecar.process is not None
    status = Path(f"/proc/{innermost(sidecar.process)}/status").read_text()
    assert "NSpid:\t" in status
    assert status.split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    assert end(sidecar) == 0, sidecar.log.read_text()
    assert_whole(sidecar)


def test_process_1_ends_during_the_start(stage: Stage) -> None:
    """Without a handler from the first moment the signal would be lost, and the pod would wait."""
    need_new_pid_namespace()
    assert end(starting(stage, AS_PROCESS_1)) == 0


def test_process_1_ends_while_it_waits(stage: Stage) -> None:
    """Between two tries too."""
    need_new_pid_namespace()
    assert end(Waiting(stage, AS_PROCESS_1).start()) == 0


def test_process_1_keeps_a_signal_that_comes_between_two_tries() -> None:
    """The new program has no handler for a moment: the signal waits for it."""
    need_new_pid_namespace()
    before = (
        "import os, signal, sys; from joulescope.cli.signals import hold_signals; hold_signals(); "
        "os.kill(1, signal.SIGTERM); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    after = "from joulescope.cli.signals import end_at_once_on_sigterm as end; end(); print('not ended')"
    done = subprocess.run(
        [*AS_PROCESS_1, sys.executable, "-c", before, after],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done


def test_process_1_leaves_no_dead_behind(stage: Stage) -> None:
    """What a `kubectl exec` leaves running becomes its child, and is gone when it ends."""
    need_new_pid_namespace()
    sidecar = stage.sidecar(wrapper=AS_PROCESS_1)
    assert sidecar.process is not None
    first = psutil.Process(innermost(sidecar.process))
    orphan = "import os, sys; os.fork() and sys.exit(); os.read(0, 1)"
    enter = ["nsenter", "-t", str(first.pid), "-p", sys.executable, "-c", orphan]
    with subprocess.Popen(enter, stdin=subprocess.PIPE) as visitor:
        wait_until(first.children, "the orphan to be adopted")
        assert visitor.stdin is not None
        visitor.stdin.close()
        wait_until(lambda: not first.children(), "the orphan to be gone", PATIENCE_SECONDS)
    assert end(sidecar) == 0

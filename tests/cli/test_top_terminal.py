"""``joulescope top`` and ``demo`` as a user has them: in a terminal, with keys, and a sidecar that comes and
goes."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from joulescope.clock import SystemClock
from joulescope.config import Settings
from joulescope.daemon.daemon import Daemon
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.model import Snapshot
from joulescope.sensors.simulated import SimulatedSensor
from joulescope.simulation.live import LiveSimulation
from tests.requirements import need_program
from tests.terminal.emulator import PATIENCE_SECONDS, Emulator
from tests.terminal.scenes import finished_requests, open_requests, snapshots

pytestmark = pytest.mark.real

JOULESCOPE = (sys.executable, "-m", "joulescope.cli.main")


def environ(**changes: str) -> dict[str, str]:
    """A terminal with colours and UTF-8; an empty value takes a variable away."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "NO_COLOR" and not name.startswith(("LC_", "LANG", "JOULESCOPE_", "PYTHONUTF8"))
    }
    chosen = {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", **changes}
    return {name: value for name, value in chosen.items() if value}


def top(url: str, *options: str, columns: int = 80, lines: int = 24, **changes: str) -> Emulator:
    command = [*JOULESCOPE, "top", "--url", url, "--interval-seconds", "0.2", *options]
    return Emulator(command, environ(**changes), columns=columns, lines=lines)


class Sidecar:
    """Pages of a sidecar whose figures stand still, or go on, and which can be stopped and started again."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server: HttpServer | None = None

    def start(self) -> None:
        app = create_app(
            self.snapshot,
            lambda: (True, "ready"),
            get_requests=lambda: (open_requests(), finished_requests()),
        )
        self._server = HttpServer("127.0.0.1", self.port, app)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(1.0)
        self._server = None

    def snapshot(self) -> Snapshot:
        _, after = snapshots()
        return after


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    sidecar = Sidecar()
    sidecar.start()
    yield sidecar
    sidecar.stop()


def test_keys_sort_filter_switch_and_quit(sidecar: Sidecar) -> None:
    """What a person does in a minute: look, sort, filter, see the other panes, read the help, quit."""
    with top(sidecar.url) as terminal:
        text = terminal.wait_for("dear")
        assert text.index("dear") < text.index("cheap")
        assert terminal.cursor_is_hidden
        assert {"green", "cyan"} <= terminal.colours()
        terminal.send("r")
        terminal.wait_for(lambda text: 0 < text.find("cheap") < text.find("dear"))
        terminal.send("/dea")
        terminal.wait_for(lambda text: "filter dea_" in text and "cheap" not in text)
        terminal.send("\x1b")
        terminal.wait_for(lambda text: "filter" not in text.splitlines()[-2] and "cheap" in text)
        terminal.send("2")
        terminal.wait_for("abort")
        terminal.send("\t")
        terminal.wait_for("engine▲")
        terminal.send("\x1b[Z\x1b[Z")
        terminal.wait_for("queued")
        terminal.send("?")
        terminal.wait_for("joulescope top: keys")
        terminal.send("x")
        terminal.wait_for("queued")
        terminal.send("q")
        assert terminal.wait_for_end() == 0


def test_the_terminal_is_given_back_as_it_was(sidecar: Sidecar) -> None:
    """After quitting, Ctrl-C and SIGTERM: settings, cursor and screen; the exit code says what ended it."""
    for number, code in ((None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with top(sidecar.url) as terminal:
            before = terminal.attributes()
            terminal.wait_for("dear")
            assert terminal.attributes() != before
            if number is None:
                terminal.send("q")
            elif number is signal.SIGINT:
                terminal.send("\x03")
            else:
                os.kill(terminal.pid, number)
            assert terminal.wait_for_end() == code
            assert terminal.attributes() == before
            assert terminal.received.endswith(b"\x1b[?7h\x1b[?25h\x1b[?1049l")
            assert b"Traceback" not in terminal.received


def test_an_error_within_gives_the_terminal_back(sidecar: Sidecar, tmp_path: Path) -> None:
    """Even a bug in drawing leaves the terminal usable, and its trace readable below."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\n"
        "from joulescope.terminal import loop\n"
        "from joulescope.cli.main import main\n"
        "def broken(*_):\n    raise RuntimeError('a bug in drawing')\n"
        "loop.frame = broken\n"
        f"sys.exit(main(['top', '--url', {sidecar.url!r}]))\n"
    )
    with Emulator([sys.executable, str(script)], environ()) as terminal:
        before = terminal.attributes()
        assert terminal.wait_for_end() == 1
        assert terminal.attributes() == before
        left, _, trace = bytes(terminal.received).partition(b"\x1b[?1049l")
        assert b"RuntimeError: a bug in drawing" in trace
        assert b"Traceback" not in left


def test_a_window_that_changes_its_size(sidecar: Sidecar) -> None:
    """From 80×24 to 120×40, to 40×10, and back: columns come and go, and no line is left over."""
    with top(sidecar.url) as terminal:
        terminal.wait_for("dear")
        assert "marginal" not in terminal.text
        terminal.resize(120, 40)
        terminal.wait_for(lambda text: "marginal" in text and "costliest of those" in text)
        terminal.wait_for(lambda text: text.splitlines()[-1].startswith("q quit"))  # drawn last
        terminal.resize(40, 10)
        terminal.wait_for(lambda text: "marginal" not in text and "q quit" in text.splitlines()[-1])
        terminal.resize(80, 24)
        terminal.wait_for(lambda text: "J/token" in text and "adapter" in text)
        terminal.wait_for(lambda text: text.count("q quit") == 1)


@pytest.mark.parametrize(
    ("changes", "ascii_only", "colours"),
    [
        ({"NO_COLOR": "1"}, False, False),
        ({"LC_ALL": "C"}, True, True),
        ({"LANG": "", "TERM": "xterm"}, True, True),
        ({"TERM": "vt100"}, True, False),
        ({"TERM": "screen-256color"}, False, True),
        ({"TERM": "tmux-256color", "LC_ALL": "C.UTF-8"}, False, True),
    ],
    ids=str,
)
def test_terminals_of_all_kinds(
    sidecar: Sidecar, changes: dict[str, str], ascii_only: bool, colours: bool
) -> None:
    """Without colours there are none, in a C locale and on old terminals only ASCII; all is there."""
    with top(sidecar.url, **changes) as terminal:
        text = terminal.wait_for("queued")
        assert bytes(terminal.received).isascii() == ascii_only
        assert bool(terminal.colours()) == colours
        assert "P=prefill" in text if ascii_only or not colours else "P=prefill" not in text
        terminal.send("q")
        assert terminal.wait_for_end() == 0


def test_within_tmux(sidecar: Sidecar, tmp_path: Path) -> None:
    """A real tmux draws it, hands on its keys, tells it of another size, and has its screen back after it."""
    tmux = [need_program("tmux"), "-f", "/dev/null", "-S", str(tmp_path / "tmux")]

    def run(*arguments: str) -> str:
        return subprocess.run(
            [*tmux, *arguments], env=environ(), capture_output=True, text=True, check=True
        ).stdout

    def wait_for(what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while what not in (shown := run("capture-pane", "-p")):
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)

    run("new-session", "-d", "-x", "80", "-y", "24", "sh")
    try:
        run(
            "send-keys",
            shlex.join([*JOULESCOPE, "top", "--url", sidecar.url]) + "; echo ended with $?",
            "Enter",
        )
        wait_for("queued")
        run("resize-window", "-x", "120", "-y", "40")
        wait_for("costliest of those")
        run("send-keys", "Tab")
        wait_for("abort")
        run("send-keys", "q")
        wait_for("ended with 0")
        assert "queued" not in run("capture-pane", "-p")
    finally:
        run("kill-server")


def test_a_dumb_terminal_and_a_pipe_get_lines(sidecar: Sidecar) -> None:
    """A line of text a reading, without control codes; ``--count`` ends it."""
    with top(sidecar.url, "--count", "2", TERM="dumb") as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b" not in terminal.received
        assert terminal.received.count(b"measured") == 2
    command = [*JOULESCOPE, "top", "--url", sidecar.url, "--count", "2", "--interval-seconds", "0.1"]
    done = subprocess.run(command, env=environ(), capture_output=True, text=True, timeout=30, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.isprintable() or "\x1b" not in done.stdout


def test_a_sidecar_that_goes_and_comes_back(sidecar: Sidecar) -> None:
    """It says how old the figures are and keeps them, keys work meanwhile, and it goes on by itself."""
    with top(sidecar.url) as terminal:
        terminal.wait_for("dear")
        sidecar.stop()
        text = terminal.wait_for("DATA IS")
        assert "next try in" in text
        assert "dear" in text
        terminal.wait_for(lambda text: terminal.is_dim(range(1, 23)))
        terminal.send("2")
        terminal.wait_for("abort")
        sidecar.start()
        text = terminal.wait_for(lambda text: "DATA IS" not in text)
        assert sidecar.url in text
        terminal.send("q")
        assert terminal.wait_for_end() == 0


def test_a_sidecar_that_is_not_there_yet(sidecar: Sidecar) -> None:
    """At the start the cause and the next try are shown, and figures as soon as there are any."""
    sidecar.stop()
    with top(sidecar.url) as terminal:
        terminal.wait_for("Connection refused")
        terminal.wait_for("next try in")
        sidecar.start()
        terminal.wait_for("dear")


def test_an_error_that_does_not_pass_ends_it(sidecar: Sidecar) -> None:
    """Another server at that address: the message on the ordinary screen, and exit code 1."""
    with top(f"{sidecar.url}/nowhere") as terminal:
        assert terminal.wait_for_end() == 1
        assert b"something else than a sidecar" in bytes(terminal.received).partition(b"\x1b[?1049l")[2]


def test_an_answer_that_hangs_does_not_hold_up_keys() -> None:
    """A listener that never answers: help opens at once, and quitting does not wait for it."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        terminal = stack.enter_context(top(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        terminal.wait_for("asking")
        terminal.send("?")
        terminal.wait_for("joulescope top: keys")
        terminal.send("x")
        terminal.wait_for("asking")  # that answer is still waited for
        terminal.send("q")
        assert terminal.wait_for_end() == 0


def test_pause_holds_the_figures(sidecar: Sidecar) -> None:
    """While paused the screen says so; it goes on with the newest."""
    with top(sidecar.url) as terminal:
        terminal.wait_for("dear")
        terminal.send("p")
        terminal.wait_for("PAUSED")
        terminal.send(" ")
        terminal.wait_for(lambda text: "PAUSED" not in text)


def test_what_does_not_change_is_not_sent(sidecar: Sidecar) -> None:
    """Figures that stand still cost hardly a byte, however often they are read."""
    with top(sidecar.url) as terminal:
        terminal.wait_for("dear")
        terminal.settle(1.0)
        whole = len(terminal.received)
        assert terminal.settle(3.0) < whole / 10


def test_ctrl_z_gives_the_terminal_back_and_takes_it_again(sidecar: Sidecar) -> None:
    """A shell's job control: suspended it leaves the screen, continued it draws all anew."""
    with top(sidecar.url) as terminal:
        before = terminal.attributes()
        terminal.wait_for("dear")
        terminal.send("\x1a")
        terminal.settle(1.0)
        assert terminal.received.endswith(b"\x1b[?1049l")
        assert terminal.attributes() == before
        _, status = os.waitpid(terminal.pid, os.WUNTRACED | os.WNOHANG)
        assert os.WIFSTOPPED(status)
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.settle(0.5)
        terminal.wait_for("dear")
        assert terminal.attributes() != before
        terminal.send("q")
        assert terminal.wait_for_end() == 0


def test_a_terminal_that_takes_nothing_can_still_be_ended(sidecar: Sidecar) -> None:
    """After Ctrl-S nothing is taken any more: SIGTERM ends it all the same."""
    with top(sidecar.url) as terminal:
        terminal.wait_for("dear")
        terminal.send("\x13")
        terminal.settle(1.0)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait_for_end() == 143
        assert terminal.attributes()[3] & termios.ICANON  # type: ignore[operator]


def test_a_real_sidecar_is_watched(tmp_path: Path) -> None:
    """A real daemon with a simulated engine: its requests with joules so far, power, and a sparkline."""
    clock = SystemClock()
    settings = Settings(
        socket=str(tmp_path / "j.sock"), listen="127.0.0.1:0", gpus="engine", sensor="none", host="off"
    )
    simulation = LiveSimulation(settings.socket, clock, seed=1, rate_per_second=16.0)
    daemon = Daemon.build(settings, open_sensor=lambda: SimulatedSensor(simulation.gpu, clock), clock=clock)
    daemon.start()
    simulation.start()
    try:
        with top("http://{}:{}".format(*daemon.address), columns=120, lines=40) as terminal:
            terminal.wait_for(lambda text: "decode" in text and "H100" in text and "chat-" in text)
            text = terminal.wait_for(lambda text: "costliest of those" in text and " W " in text)
            assert "█" in text
            terminal.send("q")
            assert terminal.wait_for_end() == 0
    finally:
        simulation.stop()
        daemon.close()


def test_the_demo_draws_the_same_view() -> None:
    """Keys work in the demo too; after quitting it prints the balance on the ordinary screen."""
    command = [*JOULESCOPE, "demo", "--listen", "127.0.0.1:0"]
    with Emulator(command, environ(), columns=100, lines=40) as terminal:
        terminal.wait_for("simulated H100, http://")
        terminal.wait_for("costliest of those")
        terminal.send("4")
        terminal.wait_for("GPU▲")
        terminal.send("q")
        assert terminal.wait_for_end() == 0
        end = bytes(terminal.received).partition(b"\x1b[?1049l")[2]
        assert b"residual" in end
        assert b"Joules per request against the simulation's truth" in end

"""``joulescope demo`` as a user runs it: in a process of its own, with real sockets."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.real


def start_demo(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "joulescope.cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def endless() -> Iterator[subprocess.Popen[str]]:
    """A demo without an end, on a free port."""
    process = start_demo("--listen", "127.0.0.1:0", "--rate", "30")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if (found := re.search(r"http://\S+/metrics", line)) is not None:
            return found.group()
    raise AssertionError("the demo never said where it serves")


def test_it_ends_by_itself_with_a_balance_that_closes() -> None:
    """After its seconds it prints the balance, residual 0, nothing unattributed, and the comparison."""
    process = start_demo("--listen", "127.0.0.1:0", "--seconds", "6", "--rate", "20")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == ""
    assert "\x1b" not in out
    assert re.search(r"^residual +0 J *$", out, re.MULTILINE)
    assert re.search(r"^measured +[1-9][\d ,.]* k?J +100\.0 %", out, re.MULTILINE)
    assert re.search(r"^ +unattributed +0\.0+ k?J", out, re.MULTILINE), out
    assert re.search(r"^all +[1-9]\d* ", out, re.MULTILINE), out


def test_ctrl_c_ends_it_with_the_balance(endless: subprocess.Popen[str]) -> None:
    """An interrupted demo serves until then, closes in order, and prints the balance all the same."""
    with urllib.request.urlopen(url_of(endless), timeout=10) as answer:
        assert b"joulescope_" in answer.read()
    endless.send_signal(signal.SIGINT)
    out, err = endless.communicate(timeout=15)
    assert endless.returncode == 0, err
    assert err == ""
    assert re.search(r"^residual +0 J *$", out, re.MULTILINE)


def test_a_taken_default_port_gives_way_to_a_free_one() -> None:
    """Where something else serves on the default port the demo takes another and says which."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 5685))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        process = start_demo("--seconds", "0.5")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    port = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", out)
    assert port is not None
    assert port.group(1) != "5685"


def test_a_port_that_was_asked_for_is_not_replaced() -> None:
    """Where the user named the port and it is taken, the demo says so and ends."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_demo("--seconds", "5", "--listen", f"127.0.0.1:{port}")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert str(port) in err
    assert "Traceback" not in err
    assert "residual" not in out

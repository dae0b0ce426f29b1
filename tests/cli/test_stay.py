"""``serve --stay``: what cannot start waits, says why, and tries again. No time passes here."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from joulescope.cli import main as main_module
from joulescope.cli import stay as stay_module
from joulescope.cli.main import main
from joulescope.cli.stay import VARIABLE, Place, Tries, WaitingPages, place_of_pages, stay, stays
from joulescope.errors import ConfigError, MissingExtra
from tests.real.vllm_env import free_port

SERVE = ["serve", "--stay"]


class Attempts:
    """Starts that fail as they are told to, and then one that ends well; and the waits between them."""

    def __init__(self, *failures: Exception | int) -> None:
        self.failures = list(failures)
        self.waits: list[float] = []
        self.environ: dict[str, str] = {"JOULESCOPE_LISTEN": f"127.0.0.1:{free_port()}"}
        self.while_waiting: Callable[[], object] = lambda: None

    def start(self) -> int:
        if not self.failures:
            return 0
        failure = self.failures.pop(0)
        if isinstance(failure, Exception):
            raise failure
        return failure

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.while_waiting()

    def run(self, *arguments: str) -> int:
        return stay(
            [*SERVE, *arguments], self.start, environ=self.environ, wait=self.wait, again=lambda: None
        )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.environ['JOULESCOPE_LISTEN']}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def test_pauses_grow_up_to_a_minute() -> None:
    """Each failure doubles the pause; a good start ends the trying, with its exit code."""
    attempts = Attempts(*[ConfigError("no")] * 9)
    assert attempts.run() == 0
    assert attempts.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_error_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The same reason has one line in the log however often it is found; another reason has its own."""
    Attempts(*[ConfigError("window is no window")] * 3, *[ConfigError("port 1 is in use")] * 2).run()
    log = capsys.readouterr().err
    assert log.count("cannot start") == 2
    assert log.count("window is no window") == log.count("port 1 is in use") == 1


def test_the_line_is_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """By flag or variable, like all other lines of the log."""
    Attempts(ConfigError("no")).run("--log-format=json")
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "error"
    assert "cannot start: no" in line["message"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ConfigError("socket path: mend it"), "socket path: mend it"),
        (click.UsageError("No such option: --bogus"), "No such option: --bogus"),
        (MissingExtra("pip install it"), "pip install it"),
        (ZeroDivisionError("a bug"), "internal error, please report: ZeroDivisionError('a bug')"),
        (7, "it ended with code 7"),
        (ConfigError("two\nlines\0"), "two lines"),
        (ConfigError("x" * 10_000), "x" * 2000),
    ],
)
def test_whatever_goes_wrong_is_told_on_the_ready_page(failure: Exception | int, reason: str) -> None:
    """Its own errors, a command line that makes no sense, missing packages, bugs: none ends the process."""
    attempts, told = Attempts(failure), list[tuple[int, str]]()
    attempts.while_waiting = lambda: told.extend(map(attempts.get, ["/-/ready", "/metrics", "/-/healthy?x"]))
    assert attempts.run() == 0
    assert told == [(503, f"not started: {reason}\n")] * 2 + [(200, "joulescope is healthy\n")]


def test_the_address_is_free_again_for_the_next_try() -> None:
    """The real pages get it, even while a client still holds a connection to those of the waiting."""
    attempts = Attempts(ConfigError("no"), ConfigError("no"))
    address = attempts.environ["JOULESCOPE_LISTEN"].split(":")
    idle: list[socket.socket] = []
    attempts.while_waiting = lambda: idle.append(socket.create_connection((address[0], int(address[1]))))
    assert attempts.run() == 0
    with socket.create_server((address[0], int(address[1]))):
        assert len(idle) == 2
    for connection in idle:
        connection.close()


def test_a_port_that_is_taken_is_no_reason_to_end() -> None:
    """It may be the very error; there are no pages then."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Place("127.0.0.1", taken.getsockname()[1], tells=True)
        assert WaitingPages.open(place, "in use") is None
        attempts = Attempts(ConfigError("in use"))
        attempts.environ["JOULESCOPE_LISTEN"] = f"127.0.0.1:{place.port}"
        assert attempts.run() == 0


def test_what_a_try_tells_the_next() -> None:
    """The next try is a new program: a variable has number and reason for it; rubbish there is nothing."""
    attempts = Attempts(ConfigError("no"))
    attempts.environ[VARIABLE] = json.dumps({"failed": 3, "said": "no"})
    attempts.run()
    assert attempts.waits == [8]
    assert Tries.read(attempts.environ) == Tries(4, "no")
    for rubbish in ("", "{", "[]", "7", '{"failed": "many"}'):
        assert Tries.read({VARIABLE: rubbish}) == Tries()


def test_who_stays() -> None:
    """Only the commands that run beside vLLM, and only when told to."""
    assert stays(["serve", "--stay"])
    assert stays(["serve", "--gpus", "all", "--stay"])
    assert not stays(["serve"])
    assert not stays(["replay", "--stay"])
    assert not stays(["--stay"])
    assert not stays([])


def test_without_the_flag_an_error_ends_it_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 for a bad setting, 2 for a bad flag, and nothing waits."""
    monkeypatch.setenv("JOULESCOPE_BOGUS", "1")
    assert main(["serve"]) == 2
    assert "JOULESCOPE_BOGUS" in capsys.readouterr().err
    assert main(["serve", "--no-such-flag"]) == 2


def test_the_command_line_is_wired(monkeypatch: pytest.MonkeyPatch) -> None:
    """``main`` hands ``serve --stay`` over with a start that raises what it finds, and help still ends it."""
    found: list[BaseException | int] = []

    def listen(arguments: list[str], start: Callable[[], int]) -> int:
        try:
            found.append(start())
        except (ConfigError, click.UsageError, MissingExtra) as problem:
            found.append(problem)
        return 0

    monkeypatch.setattr(stay_module, "stay", listen)
    monkeypatch.setenv("JOULESCOPE_BOGUS", "1")
    for extra in ([], ["--no-such-flag"], ["--help"]):
        assert main([*SERVE, *extra]) == 0
    monkeypatch.setattr(main_module, "EXTRA_PACKAGES", ("joulescope_has_no_such_package",))
    assert main(SERVE) == 0
    assert [type(each) for each in found] == [ConfigError, click.NoSuchOption, int, MissingExtra]


def test_where_the_pages_are_looked_for(tmp_path: Path) -> None:
    """Flag before variable before file before default, as for the settings, whatever else is wrong there."""
    file = tmp_path / "settings.yaml"
    file.write_text("listen: 127.0.0.3:3\nno_such_setting: 1\n")
    in_file = {"JOULESCOPE_CONFIG": str(file)}
    in_both = {**in_file, "JOULESCOPE_LISTEN": "127.0.0.2:2"}
    assert place_of_pages(["serve", "--listen", "[::1]:1"], in_both) == Place("::1", 1, tells=True)
    assert place_of_pages(["serve", "--listen=127.0.0.1:1"], in_both) == Place("127.0.0.1", 1, tells=True)
    assert place_of_pages(["serve"], in_both) == Place("127.0.0.2", 2, tells=True)
    assert place_of_pages(["serve"], in_file) == Place("127.0.0.3", 3, tells=True)
    assert place_of_pages(["serve"], {}) == Place("0.0.0.0", 5685, tells=True)
    assert place_of_pages(["serve", "--listen"], {"JOULESCOPE_LISTEN": "nonsense"}) is not None
    assert place_of_pages(["serve"], {"JOULESCOPE_LISTEN": "nonsense"}) is None


def test_behind_passwords_the_reason_is_not_told(tmp_path: Path) -> None:
    """Where the real pages ask for a password, or a file that cannot be read may say so."""
    file = tmp_path / "settings.yaml"
    file.write_text("web_config_file: /etc/web.yml\n")
    for arguments, environ in (
        (["serve", "--web-config-file", "/etc/web.yml"], {}),
        (["serve"], {"JOULESCOPE_WEB_CONFIG_FILE": "/etc/web.yml"}),
        (["serve", "--config", str(file)], {}),
        (["serve", "--config", str(tmp_path / "none.yaml")], {}),
    ):
        place = place_of_pages(arguments, environ)
        assert place is not None
        assert not place.tells
    attempts, told = Attempts(ConfigError("secret")), list[tuple[int, str]]()
    attempts.environ["JOULESCOPE_WEB_CONFIG_FILE"] = "/etc/web.yml"
    attempts.while_waiting = lambda: told.append(attempts.get("/-/ready"))
    attempts.run()
    assert told == [(503, "not started; the reason is in the log\n")]

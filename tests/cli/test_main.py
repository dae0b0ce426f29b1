"""The command line itself: what it says, where it says it, and with which code it ends."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

import joulescope.cli
from joulescope.cli.group import COMMANDS, group
from joulescope.cli.main import EXTRA_PACKAGES, INSTALL_LINE, main

PACKAGE = Path(joulescope.__file__).parent


def _run(
    *arguments: str, environ: Mapping[str, str] | None = None, isolated: bool = False
) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own; isolated, without any installed package."""
    interpreter = [sys.executable, "-S", "-E"] if isolated else [sys.executable]
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import joulescope.cli.main as m; "
    return subprocess.run(
        [*interpreter, "-c", code + "sys.exit(m.main())", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environ or {})},
    )


def test_without_the_extra_it_prints_the_line_to_install_it_and_nothing_else() -> None:
    """On a bare interpreter the command ends with 69 and the exact line that would help."""
    result = _run("config", "show", isolated=True)
    assert (result.returncode, result.stdout, result.stderr) == (69, "", INSTALL_LINE + "\n")
    assert INSTALL_LINE == "pip install 'joulescope-inference[sidecar]'"


def test_the_version_needs_no_extra() -> None:
    """--version answers on a bare interpreter too."""
    result = _run("--version", isolated=True)
    assert (result.returncode, result.stdout) == (0, f"joulescope {joulescope.__version__}\n")


def test_the_packages_looked_for_are_those_of_the_extra() -> None:
    """Every distribution of the extra `sidecar` is represented among the imports that are checked."""
    requirements = importlib.metadata.requires("joulescope-inference") or []
    wanted = {
        re.split(r"[<>=!~\[; ]", requirement)[0]
        for requirement in requirements
        if re.search(r"extra == .sidecar.", requirement)
    }
    assert wanted
    for distribution in wanted:
        files = importlib.metadata.files(distribution) or []
        assert {file.parts[0].removesuffix(".py") for file in files} & set(EXTRA_PACKAGES), distribution


def test_every_command_file_is_listed_and_every_listed_file_is_a_command() -> None:
    """A module is a command with a help page if the table lists it, and holds none if it does not."""
    modules = {module.name for module in pkgutil.iter_modules(joulescope.cli.__path__)}
    listed = group.list_commands(click.Context(group))
    assert set(listed) == modules & set(COMMANDS)
    for name in listed:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.help
    for name in modules - set(COMMANDS) - {"main"}:
        assert not hasattr(importlib.import_module(f"joulescope.cli.{name}"), "command")


def test_help_imports_no_command() -> None:
    """--help lists the commands without importing any of them."""
    code = (
        "import sys; from joulescope.cli.main import main; main(['--help']); "
        "print(sorted(m for m in sys.modules if m.startswith('joulescope.cli.')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "  parse " in result.stdout
    assert result.stdout.splitlines()[-1] == "['joulescope.cli.group', 'joulescope.cli.main']"


def test_questions_load_nothing_of_the_sidecars_servers() -> None:
    """Who reads minutes, a trace or a ledger does not wait until web servers and OTLP are imported."""
    code = (
        "import sys\n"
        "import joulescope.cli.compare, joulescope.cli.diagnose, joulescope.cli.estimate, "
        "joulescope.cli.ledger, joulescope.cli.plan, joulescope.cli.replay\n"
        "print({'joulescope.daemon.daemon', 'opentelemetry', 'starlette', 'uvicorn'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_an_error_on_purpose_is_one_line_on_stderr_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A ConfigError ends the command with 2 and one line, no traceback."""
    assert main(["config", "show", "--sample-hz", "fast"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "joulescope: flag --sample-hz: sample_hz cannot be 'fast': it is a number of polls a second\n"
    )


def test_a_wrong_command_line_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown commands and options are usage errors."""
    assert main(["nonsense"]) == 2
    assert main(["config", "show", "--nonsense"]) == 2
    assert "No such command 'nonsense'" in capsys.readouterr().err


def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help or the version is no failure; the bare command shows the help and ends with 2."""
    assert main(["--help"]) == 0
    assert main(["-h"]) == 0
    assert main(["--version"]) == 0
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """Output into a closed pipe ends quietly with the code that shells know for SIGPIPE."""
    trace = tmp_path / "long.jsonl"
    trace.write_text('{"type":"progress","time_ns":1}\n' * 100_000)
    with subprocess.Popen(
        [sys.executable, "-m", "joulescope.cli.main", "parse", str(trace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_output_that_finds_no_room_is_told_in_one_line(tmp_path: Path) -> None:
    """As behind > FILE on a full disk, at the first write or at the last flush."""
    trace = tmp_path / "trace.jsonl"
    for lines in (1, 100_000):
        trace.write_text('{"type":"progress","time_ns":1}\n' * lines)
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-m", "joulescope.cli.main", "parse", str(trace)]
            done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("joulescope: what was to be written found no room: ")
        assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_with_130() -> None:
    """SIGINT while a command waits for input ends it with 130 and no traceback."""
    # What a shell runs in the background begins with the signal ignored, and so would its children.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import joulescope.cli.main as m; sys.exit(m.main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "parse", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b'{"type":"progress","time_ns":1}\n' * 1_000)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) == 130


def test_shell_completion_is_offered() -> None:
    """The variable that click's completion uses gives a script to source."""
    result = _run(environ={"_JOULESCOPE_COMPLETE": "bash_source"})
    assert result.returncode == 0
    assert "_joulescope_completion" in result.stdout

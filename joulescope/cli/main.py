"""The command ``joulescope``: finds the command asked for, and turns errors into exit codes.

Until the extra's packages are known to be there this module needs the standard library only: the
same wheel stands beside vLLM without any of them.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Sequence

import joulescope
from joulescope.errors import JoulescopeError, MissingExtra

INSTALL_LINE = "pip install 'joulescope-inference[sidecar]'"
EXTRA_PACKAGES = (
    "bcrypt",
    "click",
    "msgspec",
    "numpy",
    "opentelemetry",
    "prometheus_client",
    "psutil",
    "pynvml",
    "requests",
    "rich",
    "ruamel",
    "starlette",
    "uvicorn",
    "yaml",
    "zstandard",
)
"""Import names of what the extra ``sidecar`` brings."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report a command ended by Ctrl-C."""

EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, as shells report a command whose reader has gone."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Of a disk that is full, most often that behind ``> FILE``."""

LASTING_COMMANDS = ("serve", "record", "relay")
"""Those that run until a signal ends them, and may be process 1 of a container."""

PROGRAM = "joulescope"
COMPLETION_VARIABLE = "_JOULESCOPE_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code. Entry point of the script ``joulescope``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and given[:1] and given[0] in LASTING_COMMANDS:
        from joulescope.cli.signals import end_at_once_on_sigterm

        end_at_once_on_sigterm()
    if given == ["--version"]:
        print(f"joulescope {joulescope.__version__}")
        return 0
    if given[:1] == ["doctor"] and _lacks_extra():
        from joulescope.doctor.__main__ import main as doctor

        return doctor(given[1:])
    try:
        if "--stay" in given:
            from joulescope.cli.stay import stay, stays

            if stays(given):
                return stay(given, lambda: _start(given))
        _require_extra()
        return _run(given)
    except MissingExtra as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    except JoulescopeError as problem:
        print(f"joulescope: {problem}", file=sys.stderr)
        return problem.exit_code
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] not in EXTRA_PACKAGES:
            raise
        print(INSTALL_LINE, file=sys.stderr)
        return MissingExtra.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as problem:
        if problem.errno not in NO_ROOM:
            raise
        _silence_stdout()
        print(f"joulescope: what was to be written found no room: {problem}", file=sys.stderr)
        return JoulescopeError.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _require_extra() -> None:
    if _lacks_extra():
        raise MissingExtra(INSTALL_LINE)


def _lacks_extra() -> bool:
    return any(importlib.util.find_spec(name) is None for name in EXTRA_PACKAGES)


def _start(arguments: list[str]) -> int:
    if _lacks_extra():
        raise MissingExtra(f"packages that it needs are not installed: {INSTALL_LINE}")
    return _invoke(arguments)


def _run(arguments: list[str]) -> int:
    import click

    completing = os.environ.get(COMPLETION_VARIABLE)
    if completing:
        from click.shell_completion import shell_complete

        from joulescope.cli.group import group

        return shell_complete(group, {}, PROGRAM, COMPLETION_VARIABLE, completing)
    try:
        return _invoke(arguments)
    except click.ClickException as problem:
        problem.show()
        return problem.exit_code


def _invoke(arguments: list[str]) -> int:
    """One command; a command line that makes no sense raises click's exception for that."""
    import click

    from joulescope.cli.group import group

    try:
        # Not group.main(): it ends the process itself on a closed pipe.
        with group.make_context(PROGRAM, arguments) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    return 0


def _silence_stdout() -> None:
    """Keeps the interpreter from complaining again when it flushes a closed pipe on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())

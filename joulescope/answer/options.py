"""What the environment asks of the middleware."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from joulescope.hook.environment import DEFAULT_SOCKET, is_disabled, named_socket

SOCKET_NAME = "answers.sock"
DEADLINE_MS = 20.0
MAX_DEADLINE_MS = 1000.0

_MODES = ("asked", "all", "off")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Options:
    """Which answers get a figure, and where it comes from."""

    mode: str = "asked"
    """``asked``: where the client asks; ``all``; ``off``."""
    socket_path: str = str(PurePosixPath(DEFAULT_SOCKET).with_name(SOCKET_NAME))
    deadline_seconds: float = DEADLINE_MS / 1000
    url: str = ""
    """Where clients reach the sidecar, without a slash at the end; empty if they do not."""
    tenant_header: bytes = b""
    """In lower case; empty where there are no tenants."""
    task_header: bytes = b""
    """Likewise, of task classes."""

    @classmethod
    def of(cls, environ: Mapping[str, str], complain: Callable[[str], None]) -> Options:
        """Reads the environment. What cannot be used is told to ``complain``, and then the default holds."""

        def text(name: str) -> str:
            return environ.get(f"JOULESCOPE_{name}", "").strip()

        beside = PurePosixPath(named_socket(environ) or DEFAULT_SOCKET).with_name(SOCKET_NAME)
        return cls(
            mode="off" if is_disabled(environ) else _mode(text("ANSWER"), complain),
            socket_path=text("ANSWER_SOCKET") or str(beside),
            deadline_seconds=_deadline_ms(text("ANSWER_DEADLINE_MS"), complain) / 1000,
            url=_url(text("ANSWER_URL"), complain),
            tenant_header=_header("TENANT_HEADER", text("TENANT_HEADER"), "x-tenant", complain),
            task_header=_header("TASK_HEADER", text("TASK_HEADER"), "x-task", complain),
        )


def _mode(text: str, complain: Callable[[str], None]) -> str:
    mode = text.lower() or "asked"
    if mode in _MODES:
        return mode
    complain(f"JOULESCOPE_ANSWER cannot be {text[:40]!r}: set it to {', '.join(_MODES)}; taken for off")
    return "off"


def _deadline_ms(text: str, complain: Callable[[str], None]) -> float:
    if not text:
        return DEADLINE_MS
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0.0 < value <= MAX_DEADLINE_MS:
        return value
    complain(
        f"JOULESCOPE_ANSWER_DEADLINE_MS cannot be {text[:40]!r}: it is a number of milliseconds, at most "
        f"{MAX_DEADLINE_MS:g}; taken for {DEADLINE_MS:g}"
    )
    return DEADLINE_MS


def _url(text: str, complain: Callable[[str], None]) -> str:
    if not text:
        return ""
    if re.fullmatch(r"https?://[!-~]+", text) and not set(text) & set('<>"'):
        return text.rstrip("/")
    complain("JOULESCOPE_ANSWER_URL begins with http:// or https:// and names a host; no link is given")
    return ""


def _header(variable: str, text: str, example: str, complain: Callable[[str], None]) -> bytes:
    if not text:
        return b""
    if _HEADER_NAME.fullmatch(text):
        return text.lower().encode("ascii")
    what = example.removeprefix("x-")
    complain(f"JOULESCOPE_{variable} is no name of a header, such as {example}; no {what} is told apart")
    return b""

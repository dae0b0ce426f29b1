"""``--stay``: a sidecar that cannot start says so, waits and tries again, instead of ending.

In Kubernetes a native sidecar that ends at once holds back every container after it
(``docs/decisions/0032-manners.md``). A slip in joulescope's settings must not keep vLLM from starting.

Each try is a new program in the same process (``exec``): it reads files and the environment anew, finds
packages that were missing, and has no leavings of the try before. What one try tells the next is in
:data:`VARIABLE`. This module needs the standard library only, since a missing extra is one of the reasons.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import AI_PASSIVE, SHUT_RDWR, SOCK_STREAM, getaddrinfo
from socketserver import TCPServer
from typing import Any

from joulescope.cli.logs import set_up_logging
from joulescope.cli.signals import hold_signals
from joulescope.errors import JoulescopeError

FLAG = "--stay"
COMMANDS = ("serve", "relay")
"""Those that take the flag."""

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 60.0
"""A mended file is noticed within this time."""

VARIABLE = "_JOULESCOPE_STAY"
MAX_REASON_CHARACTERS = 2000
CLIENT_TIMEOUT_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tries:
    """What a try knows of those before it."""

    failed: int = 0
    said: str = ""
    """The reason that the log has already."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Tries:
        """From the environment; none if there is nothing, or nothing of ours."""
        try:
            told = json.loads(environ.get(VARIABLE) or "{}")
            return cls(int(told.get("failed", 0)), str(told.get("said", "")))
        except (ValueError, TypeError, AttributeError):
            return cls()

    @property
    def pause_seconds(self) -> float:
        """How long to wait now: it doubles with each try, up to the longest."""
        return float(min(FIRST_PAUSE_SECONDS * 2 ** min(self.failed, 16), LAST_PAUSE_SECONDS))

    def after(self, reason: str) -> Tries:
        return Tries(self.failed + 1, reason)


def stays(arguments: Sequence[str]) -> bool:
    """Whether this command line asks for it."""
    return bool(arguments) and arguments[0] in COMMANDS and FLAG in arguments[1:]


def stay(
    arguments: Sequence[str],
    start: Callable[[], int],
    *,
    environ: MutableMapping[str, str] = os.environ,
    wait: Callable[[float], object] = time.sleep,
    again: Callable[[], object] | None = None,
) -> int:
    """Starts; where that fails, tells why, waits and starts again. Returns the exit code of a good end.

    ``start`` raises, or returns another code than 0, if it cannot. SIGTERM ends the process while it waits.

    Args:
        environ: carries what the next try has to know.
        wait: sleeps so many seconds.
        again: becomes a new program; where it returns, because it cannot, ``start`` is called once more.
    """
    while True:
        reason = _try(start)
        if not reason:
            return 0
        tries = Tries.read(environ)
        if reason != tries.said:
            _say(reason, arguments, environ)
        pages = WaitingPages.open(place_of_pages(arguments, environ), reason)
        wait(tries.pause_seconds)
        if pages is not None:
            pages.close()
        environ[VARIABLE] = json.dumps(asdict(tries.after(reason)))
        (again or start_anew)()


def _try(start: Callable[[], int]) -> str:
    """Why it did not start, in a sentence; empty if it did, and has ended well."""
    try:
        code = start()
    except JoulescopeError as problem:
        return _bounded(str(problem))
    except Exception as problem:
        message = getattr(problem, "format_message", None)  # click's, for a flag that does not exist
        return _bounded(
            str(message()) if callable(message) else f"internal error, please report: {problem!r}"
        )
    return "" if code == 0 else f"it ended with code {code}"


def _bounded(reason: str) -> str:
    return (
        " ".join(reason.replace("\0", "").split())[:MAX_REASON_CHARACTERS]
        or "for a reason that it did not tell"
    )


def _say(reason: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    style = _asked("--log-format", "JOULESCOPE_LOG_FORMAT", arguments, environ)
    set_up_logging("info", style)
    _logger.error(
        "cannot start: %s. Nothing is measured meanwhile, and vLLM is not touched; trying again with pauses "
        "of at most %d s",
        reason.rstrip("."),
        LAST_PAUSE_SECONDS,
    )


def start_anew() -> None:
    """Becomes this program anew. A signal that comes meanwhile waits until the new one can take it.

    Returns only if the system refuses.
    """
    hold_signals()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError as error:
        _logger.warning("cannot become a new program: %s; trying again in this one", error)


# ------------------------------------------------------------------------------- pages while it waits


def _asked(flag: str, variable: str, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """What a flag or else a variable says; empty if neither is there. No check: the settings may be what is
    wrong."""
    found = environ.get(variable, "")
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == flag:
            found = after
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


@dataclass(frozen=True)
class Place:
    """Where health can be told meanwhile. ``tells``: the reason too, since no password guards these pages."""

    host: str
    port: int
    tells: bool


def place_of_pages(arguments: Sequence[str], environ: Mapping[str, str]) -> Place | None:
    """As far as flags, environment and file say; ``None`` if the address is what cannot be used."""
    from joulescope.config.table import CONFIG_VARIABLE, TABLE

    names = ("listen", "web_config_file")
    told = {name: _asked(TABLE[name].flag, TABLE[name].variable, arguments, environ) for name in names}
    file = _asked("--config", CONFIG_VARIABLE, arguments, environ)
    entries = _entries(file) if file else {}
    try:
        in_file = "" if entries is None else entries.get("listen", "")
        listen = str(TABLE["listen"].kind.parse(told["listen"] or in_file or TABLE["listen"].default))
    except ValueError:
        return None
    host, _, port = listen.rpartition(":")
    guarded = entries is None or bool(told["web_config_file"] or entries.get("web_config_file"))
    return Place(host.strip("[]"), int(port), tells=not guarded)


def _entries(file: str) -> dict[str, str] | None:
    """What the file of settings says; ``None`` if it cannot be read, and may say anything."""
    try:
        from joulescope.config.file import read_entries

        return {key: text or "" for key, text, _ in read_entries(os.path.expanduser(file))}
    except (ImportError, JoulescopeError):
        return None


class _Page(BaseHTTPRequestHandler):
    """``/-/healthy`` is 200: the process is as it should be. Everything else is 503, with the reason."""

    server: WaitingPages
    timeout = CLIENT_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status, text = (200, "joulescope is healthy") if path == "/-/healthy" else (503, self.server.reason)
        body = f"{text}\n".encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "joulescope"

    def log_message(self, *args: Any) -> None:
        """Who asks is not logged, as by the real pages."""


class WaitingPages(HTTPServer):
    """Health and readiness of a sidecar that has not started. One client at a time."""

    timeout = 0.2
    """After which it looks whether it is closed, seconds."""

    def __init__(self, place: Place, reason: str) -> None:
        address = getaddrinfo(place.host or None, place.port, type=SOCK_STREAM, flags=AI_PASSIVE)[0]
        self.address_family = address[0]
        self.reason = f"not started: {reason}" if place.tells else "not started; the reason is in the log"
        self._closed = threading.Event()
        super().__init__((place.host, place.port), _Page)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks a name server who we are, which may take its time

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away or sent nonsense is no news."""

    @classmethod
    def open(cls, place: Place | None, reason: str) -> WaitingPages | None:
        """Serves in a thread; ``None`` if the address cannot be had, which may be the very reason."""
        if place is None:
            return None
        try:
            pages = cls(place, reason)
        except (OSError, OverflowError):
            return None
        threading.Thread(target=pages._serve, name="joulescope-waiting", daemon=True).start()
        return pages

    def _serve(self) -> None:
        with suppress(OSError, ValueError):  # of a socket that is closed by now
            while not self._closed.is_set():
                self.handle_request()

    def close(self) -> None:
        """Gives the address back, to the next try; a client that dawdles is not waited for."""
        self._closed.set()
        with suppress(OSError):
            self.socket.shutdown(SHUT_RDWR)  # the thread that waits on it would hold the address
        self.server_close()

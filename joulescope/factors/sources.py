"""Where a carbon intensity is found: in a file that somebody keeps up to date, or behind a URL."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from joulescope import __version__, urls, web
from joulescope.clock import Clock, WallAnchor
from joulescope.errors import FetchError
from joulescope.factors.intensity import read_intensity
from joulescope.units import NANOSECONDS_PER_SECOND

MAX_CLOCK_SKEW_NS = 60 * NANOSECONDS_PER_SECOND
"""A file may be so much from the future: the clocks of two machines that share a disk differ a little."""

MAX_TOKEN_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Found:
    """A carbon intensity and the instant since which it is known to be current."""

    grams_per_kwh: float
    time_ns: int


class Source(Protocol):
    """Finds the carbon intensity."""

    def find(self) -> Found:
        """The figure as it is published now.

        Raises:
            FetchError: if it cannot be had.
        """
        ...


class FileSource:
    """A file with a number or JSON. It is as old as its last change: a writer that died leaves it stale."""

    def __init__(self, path: str, field: str, clock: Clock, wall: WallAnchor) -> None:
        self._path, self._field, self._clock, self._wall = path, field, clock, wall

    def find(self) -> Found:
        body, changed_wall_ns = _read_file(self._path, web.MAX_BYTES)
        now_ns = self._clock.now_ns()
        age_ns = self._wall.wall_of(now_ns) - changed_wall_ns
        if age_ns < -MAX_CLOCK_SKEW_NS:
            raise FetchError(
                "future",
                f"{self._path}: it was changed {-age_ns / NANOSECONDS_PER_SECOND:.0f} s from now; set the "
                "clock of who writes it",
            )
        return Found(_named(self._path, body, self._field), now_ns - max(age_ns, 0))


class UrlSource:
    """An HTTP(S) URL that answers with a number or JSON. Its figure is as old as the answer."""

    def __init__(
        self,
        url: str,
        field: str,
        clock: Clock,
        *,
        header: str = "Authorization",
        token: Callable[[], str] | None = None,
        timeout_seconds: float = web.TIMEOUT_SECONDS,
    ) -> None:
        """``token`` is asked anew each time, so that a token that was replaced is used."""
        self._url, self._field, self._clock = url, field, clock
        self._header, self._token = header, token
        self._timeout_seconds = timeout_seconds

    def find(self) -> Found:
        headers = {
            "Accept": "application/json, text/plain;q=0.9",
            "User-Agent": f"joulescope/{__version__}",
        }
        if self._token is not None:
            headers[self._header] = self._token()
        asked_ns = self._clock.now_ns()
        body = web.get(self._url, self._clock, headers=headers, timeout_seconds=self._timeout_seconds)
        return Found(_named(urls.shown(self._url), body, self._field), asked_ns)


def token_of_file(path: str) -> Callable[[], str]:
    """Reads the token from a file, which may be replaced at any time."""

    def read() -> str:
        try:
            return clean_token(_read_file(path, MAX_TOKEN_BYTES)[0].decode("latin-1"))
        except ValueError as problem:
            raise FetchError("token", f"{path}: {problem}") from None
        except FetchError as error:
            raise FetchError("token", str(error)) from None

    return read


def clean_token(text: str) -> str:
    """A token as it may stand in a header, without the spaces and line ends around it.

    Raises:
        ValueError: if it is none; the message does not show it.
    """
    token = text.strip()
    if not token:
        raise ValueError("the token is empty")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token has characters that no header may have; it is one line of ASCII")
    return token


def _named(place: str, body: bytes, field: str) -> float:
    """The figure, or an error that says where it was looked for."""
    try:
        return read_intensity(body, field)
    except FetchError as error:
        raise FetchError(error.reason, f"{place}: {error}") from None


def _read_file(path: str, max_bytes: int) -> tuple[bytes, int]:
    """Content and wall time of the last change. A pipe or a device would hold the reader up: refused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FetchError("unreadable", f"{path}: it is no regular file")
            body = file.read(max_bytes + 1)
    except OSError as error:
        raise FetchError("unreadable", f"{path}: {error.strerror}") from None
    if len(body) > max_bytes:
        raise FetchError("too_large", f"{path}: it is longer than {max_bytes} bytes")
    return body, status.st_mtime_ns

"""Where the view gets its figures: the pages of a sidecar, over HTTP or HTTPS.

One connection is kept open: a handshake a second would cost the sidecar more than its answers. Messages never
hold a password.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from typing import Protocol

import msgspec

from joulescope import __version__
from joulescope.errors import JoulescopeError
from joulescope.export.requests_json import RequestsView, decode_requests
from joulescope.export.snapshot_json import decode_snapshot
from joulescope.model import Snapshot
from joulescope.terminal.target import Target

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 16 << 20
SNAPSHOT_PATH = "/api/snapshot"
REQUESTS_PATH = "/api/requests"
READY_PATH = "/-/ready"
_LONGEST_COMPLAINT = 500

_HINTS = {
    401: "it wants a user and a password: see --netrc, or put them into JOULESCOPE_TOP_URL",
    403: "this user, or this client certificate, may not read it",
    404: "something else than a sidecar, or one behind a path: name it with --url",
    503: "it makes too many pages at once",
}
_NOT_PASSING = frozenset({401, 403, 404})


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read at once."""

    snapshot: Snapshot
    requests: RequestsView | None
    """``None`` where the sidecar is of a version without that page."""
    version: str = __version__
    """The sidecar's."""
    complaint: str = ""
    """Why it cannot account for energy now, in its own words; empty where it can."""


class SourceError(JoulescopeError):
    """No figures can be had. ``passing``: trying again without changing anything may help."""

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing


class Source(Protocol):
    """Something that can be read again and again."""

    place: str
    """How the view's title names it."""

    def read(self) -> Reading:
        """The figures of now.

        Raises:
            SourceError: if there are none.
        """
        ...


class HttpSource:
    """A sidecar's pages. Used from one thread."""

    def __init__(self, target: Target, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.place = target.shown
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._connection: http.client.HTTPConnection | None = None

    def read(self) -> Reading:
        status, body = self._get(SNAPSHOT_PATH)
        if status != 200:
            raise self._refused(status)
        version = _version_of(body)
        try:
            snapshot = decode_snapshot(body)
            return Reading(snapshot, self._requests(), version, self._complaint())
        except ValueError as error:
            raise SourceError(self._foreign(version, error), passing=False) from error

    def close(self) -> None:
        """Closes the connection; the next reading opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _requests(self) -> RequestsView | None:
        status, body = self._get(REQUESTS_PATH)
        if status == 404:
            return None
        if status != 200:
            raise self._refused(status)
        return decode_requests(body)

    def _complaint(self) -> str:
        status, body = self._get(READY_PATH)
        return body.decode("utf-8", "replace").strip()[:_LONGEST_COMPLAINT] if status == 503 else ""

    def _get(self, path: str) -> tuple[int, bytes]:
        """A connection that was kept may have been closed meanwhile: a new one is tried then."""
        kept = self._connection is not None
        try:
            return self._ask(path)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not kept:
                raise self._unreachable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        try:
            return self._ask(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error

    def _ask(self, path: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._target.connection(self._timeout_seconds)
        self._connection.request("GET", self._target.path + path, headers=dict(self._target.headers))
        answer = self._connection.getresponse()
        body = answer.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            self.close()
            raise SourceError(
                f"{self.place}{path} is longer than {MAX_BYTES} bytes: no sidecar", passing=False
            )
        return answer.status, body

    def _refused(self, status: int) -> SourceError:
        hint = _HINTS.get(status, "")
        if status in (301, 302, 303, 307, 308):
            hint = "it sends on to another place: name that with --url"
        text = f"{self.place} answers with HTTP status {status}{hint and '; '}{hint}"
        return SourceError(text, passing=status not in _NOT_PASSING)

    def _unreachable(self, error: Exception) -> SourceError:
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"{self.place}: its certificate does not do: {error.verify_message}; name its authority's "
            return SourceError(f"{text}certificate with --ca-file", passing=False)
        if isinstance(error, ssl.SSLError):
            reason = f"TLS fails: {error.reason or error}; does it speak TLS, and want a --client-cert?"
        elif isinstance(error, TimeoutError):
            reason = f"no answer within {self._timeout_seconds:g} s"
        elif isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
            reason = f"it does not answer as HTTP does ({type(error).__name__})"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        advice = "start one with joulescope serve, or name another with --url"
        return SourceError(f"no sidecar answers at {self.place}: {reason}; {advice}")

    def _foreign(self, version: str, error: Exception) -> str:
        if not version:
            return f"{self.place}{SNAPSHOT_PATH} is no sidecar's: {error}"
        mend = "run the joulescope top of the sidecar's version"
        return f"{self.place} is joulescope {version} and this is {__version__}: {error}; {mend}"


class _Envelope(msgspec.Struct):
    joulescope_version: str = ""


def _version_of(body: bytes) -> str:
    """The sidecar's version, even where the rest of the answer cannot be read; empty where it says none."""
    try:
        return msgspec.json.decode(body, type=_Envelope).joulescope_version
    except ValueError:
        return ""

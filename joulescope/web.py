"""One bounded HTTP GET, for the few figures that the sidecar fetches from others.

An answer is small, comes in time and from where it was asked for, or it is an error. A redirect is followed
within the same scheme, host and port only, so that a token never reaches a host that the operator did not
name. Proxies are those of the usual variables (``https_proxy``, ``no_proxy``, …), unless the host is asked
directly.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import IO

from joulescope.clock import Clock
from joulescope.errors import FetchError
from joulescope.units import ns_from_seconds
from joulescope.urls import shown

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 1 << 20
MAX_RETRY_SECONDS = 3600.0
"""Longest ``Retry-After`` that is honoured."""

_CHUNK_BYTES = 1 << 14


def get(
    url: str,
    clock: Clock,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_bytes: int = MAX_BYTES,
    direct: bool = False,
) -> bytes:
    """Body of the answer.

    ``direct`` asks the host itself, whatever proxy is set: what is on this machine no proxy can reach.
    ``timeout_seconds`` bounds every single wait for the peer, and the whole time to within one such wait.

    Raises:
        FetchError: if there is no such answer; neither its message nor its reason holds a header, or the
            query of the URL, where a token may be.
    """
    deadline_ns = clock.now_ns() + ns_from_seconds(timeout_seconds)
    request = urllib.request.Request(url, headers=dict(headers or {}))
    place = shown(url)
    try:
        with _opener(direct).open(request, timeout=timeout_seconds) as answer:
            body = bytearray()
            while chunk := answer.read1(_CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes:
                    raise FetchError("too_large", f"{place}: the answer is longer than {max_bytes} bytes")
                if clock.now_ns() > deadline_ns:
                    raise _late(place, timeout_seconds)
            if answer.length:  # read1 takes a connection that broke for the end
                raise FetchError("unreachable", f"{place}: the answer broke off")
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(place, error) from None
    except TimeoutError:
        raise _late(place, timeout_seconds) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _late(place, timeout_seconds) from None
        raise FetchError("unreachable", f"{place}: {_cause(error.reason)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError("unreachable", f"{place}: {_cause(error)}") from None
    return bytes(body)


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what a token may be sent to."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if origin(newurl) != origin(req.full_url):
            fp.close()
            raise FetchError(
                "redirect",
                f"{shown(req.full_url)}: it sends on to {shown(newurl)}, another place; if you trust it, "
                "set that URL instead",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(direct: bool) -> urllib.request.OpenerDirector:
    no_proxy = [urllib.request.ProxyHandler({})] if direct else []
    return urllib.request.build_opener(_SameOrigin, *no_proxy)


def _late(place: str, timeout_seconds: float) -> FetchError:
    return FetchError("timeout", f"{place}: no whole answer within {timeout_seconds:g} s")


def _refused(place: str, error: urllib.error.HTTPError) -> FetchError:
    hints = {401: "; it wants a token", 403: "; the token may not do", 404: "; is the path right?"}
    after = error.headers.get("Retry-After", "") if error.headers else ""
    retry_seconds = min(float(after), MAX_RETRY_SECONDS) if after.isascii() and after.isdigit() else None
    if error.code in (301, 302, 303, 307, 308):
        return FetchError("redirect", f"{place}: it redirects without end ({error.code})", retry_seconds)
    return FetchError(
        "status", f"{place}: HTTP status {error.code}{hints.get(error.code, '')}", retry_seconds
    )


def _cause(error: object) -> str:
    """What went wrong, without echoing what the peer sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not do: {error.verify_message}"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return f"it does not answer as HTTP does ({type(error).__name__})"
    return getattr(error, "strerror", None) or str(error)

"""Stands before every page: who may ask, what may be asked, and the headers that go with each answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from joulescope.clock import Clock
from joulescope.errors import ConfigError
from joulescope.export.http_counts import HttpCounts
from joulescope.export.web_config import RateLimit
from joulescope.export.web_config_rules import Rules, WebRules
from joulescope.export.web_config_users import Passwords, Verdict, credentials_of

HEALTH_PATHS = ("/-/healthy", "/-/ready")
"""Pages for probes, which have no password: they need none, and then tell yes or no only."""

TRUSTED = "joulescope.trusted"
"""Key of the scope: whether whoever asks may know details."""

OWN_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every answer that has none of the name; a page with a policy of its own keeps it."""

MAX_HEAD_BYTES = 1 << 14
"""Longest path, query and headers together; those of Prometheus and browsers have a kilobyte or two."""

_METHODS = ("GET", "HEAD")


@dataclass
class Bucket:
    """Requests that may still pass, by :class:`RateLimit`."""

    limit: RateLimit
    filled_ns: int
    left: float

    def take(self, now_ns: int) -> bool:
        """Whether a request may pass."""
        gained = (now_ns - self.filled_ns) / 1e9 / self.limit.interval_seconds
        self.left = min(self.left + gained, self.limit.burst)
        self.filled_ns = now_ns
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Guard:
    """An ASGI application around another."""

    def __init__(
        self, app: ASGIApp, rules: WebRules, passwords: Passwords, counts: HttpCounts, clock: Clock
    ) -> None:
        self._app = app
        self._rules = rules
        self._passwords = passwords
        self._counts = counts
        self._clock = clock
        self._bucket: Bucket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or has the application answer."""
        if scope["type"] != "http":
            return
        rules, usable = self._rules.last, True
        try:
            rules = self._rules.current()
        except ConfigError:
            usable = False
        send = self._dressing(send, rules)
        refusal = await self._refusal(scope, rules, usable)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope, rules: Rules, usable: bool) -> Response | None:
        """The answer in place of the page, or nothing; leaves in the scope who is trusted."""
        if scope["method"] not in _METHODS:
            return _refused(405, "only GET and HEAD are answered", {"Allow": ", ".join(_METHODS)})
        if _head_bytes(scope) > MAX_HEAD_BYTES:
            return _refused(431, "the headers are too long", {"Connection": "close"})
        is_health = scope["path"] in HEALTH_PATHS
        scope[TRUSTED] = False
        if not usable:
            return None if is_health else _refused(500, "the web configuration cannot be used: see the log")
        if not is_health and not self._has_room(rules.config.rate_limit):
            return _refused(429, "too many requests", {"Retry-After": "1"})
        verdict = await self._verdict(scope, rules)
        scope[TRUSTED] = verdict is Verdict.RIGHT
        if is_health or verdict is Verdict.RIGHT:
            return None
        if verdict is Verdict.BUSY:
            return _refused(503, "too many passwords are being checked; try again", {"Retry-After": "1"})
        return _refused(401, "user and password, please", {"WWW-Authenticate": 'Basic realm="joulescope"'})

    async def _verdict(self, scope: Scope, rules: Rules) -> Verdict:
        users = rules.config.users
        if not users:
            return Verdict.RIGHT
        credentials = credentials_of(Headers(scope=scope).get("authorization", ""))
        if credentials is None:
            return Verdict.WRONG
        client = scope.get("client")
        return await self._passwords.check(users, credentials, client[0] if client else "")

    def _has_room(self, limit: RateLimit | None) -> bool:
        if limit is None:
            self._bucket = None
            return True
        now_ns = self._clock.now_ns()
        if self._bucket is None or self._bucket.limit != limit:
            self._bucket = Bucket(limit, now_ns, limit.burst)
        return self._bucket.take(now_ns)

    def _dressing(self, send: Send, rules: Rules) -> Callable[[Message], Awaitable[None]]:
        """``send``, with the headers of every answer; those of the configuration win over all others."""

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.answered(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in OWN_HEADERS.items():
                    headers.setdefault(name, value)
                for name, value in rules.config.headers.items():
                    headers[name] = value
            await send(message)

        return dressed


def _head_bytes(scope: Scope) -> int:
    """h11 bounds a head that comes in pieces; one that comes at once may be as long as a read."""
    return (
        len(scope["raw_path"])
        + len(scope["query_string"])
        + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    )


def _refused(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{why}\n", status, {"Cache-Control": "no-store", **(headers or {})})

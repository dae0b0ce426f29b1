"""The ASGI middleware that vLLM loads: decides which answers get a figure, and keeps away from the others."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping

from joulescope.answer.asgi import App, Receive, Scope, Send, value_of
from joulescope.answer.facts import Facts, instance_of
from joulescope.answer.marks import with_marks
from joulescope.answer.options import Options
from joulescope.answer.reply import Reply
from joulescope.answer.sidecar import Figure, Sidecar

_logger = logging.getLogger("vllm.joulescope")

ASKING = b"x-joulescope"
"""Header by which a client asks (``estimate``), or declines (``off``)."""

PATHS = frozenset(
    {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/score",
        "/v1/rerank",
        "/v2/rerank",
        "/v2/embed",
        "/score",
        "/rerank",
        "/pooling",
        "/classify",
        "/inference/v1/generate",
    }
)
"""What runs on the engine; all other paths are none of our business."""


class JoulescopeMiddleware:
    """``vllm serve --middleware joulescope.answer.JoulescopeMiddleware``.

    Whatever goes wrong in here is logged once, and the request goes its way untouched.
    """

    def __init__(
        self,
        app: App,
        environ: Mapping[str, str] = os.environ,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.app = app
        self._now_ns = now_ns
        self._complained = False
        self._options = Options(mode="off")
        try:
            self._options = Options.of(environ, lambda text: _logger.warning("joulescope: %s", text))
            self._sidecar = Sidecar(self._options.socket_path, self._options.deadline_seconds)
            _logger.info(
                "joulescope: joules in answers: %s, from %s", self._options.mode, self._options.socket_path
            )
        except Exception as error:
            self._options = Options(mode="off")
            self._complain(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope, send = self._joined(scope, send)
        except Exception as error:
            self._complain(error)
        await self.app(scope, receive, send)

    def _joined(self, scope: Scope, send: Send) -> tuple[Scope, Send]:
        """Scope and ``send`` as the application is to have them: the same, in most cases."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return scope, send
        if scope["path"].removeprefix(scope.get("root_path", "")) not in PATHS:
            return scope, send
        options = self._options
        if options.tenant_header or options.task_header:
            headers = with_marks(scope["headers"], options.tenant_header, options.task_header, _new_id)
            scope = {**scope, "headers": headers}
        wanted = self._form(value_of(scope["headers"], ASKING).strip().lower())
        if not wanted:
            return scope, send
        scope.setdefault("state", {})  # the application's view of it is then the same object
        reply = Reply(
            scope,
            send,
            lambda facts, came_ns: self._figure(scope, facts, came_ns),
            as_event=wanted == "event",
            url=self._options.url,
            complain=self._complain,
            now_ns=self._now_ns,
        )
        return scope, reply

    def _form(self, asked: bytes) -> str:
        """``event``, ``comment``, or empty where there is to be no figure."""
        if self._options.mode == "off" or asked == b"off":
            return ""
        if asked == b"estimate":
            return "event"
        return "comment" if self._options.mode == "all" else ""

    async def _figure(self, scope: Scope, facts: Facts, came_ns: int) -> Figure | None:
        return await self._sidecar.figure(facts.query(came_ns, self._now_ns(), instance_of(scope)))

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            _logger.warning("joulescope: an answer went out without joules (%r); please report it", error)


def _new_id() -> bytes:
    return uuid.uuid4().hex.encode("ascii")

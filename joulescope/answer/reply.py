"""One answer on its way out: a JSON body gets headers, a stream of events gets one more event."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from joulescope.answer.asgi import Header, Message, Scope, Send, value_of
from joulescope.answer.facts import Facts, facts_of, path_of
from joulescope.answer.sidecar import Figure

DONE = b"data: [DONE]"
MAX_FIRST_BYTES = 64 * 1024
"""A longer first chunk is not kept: the event then goes out as a comment."""

Ask = Callable[[Facts, int], Awaitable["Figure | None"]]
"""Gives the figure of an answer whose request came at that instant."""


class Reply:
    """Stands in the place of ``send`` for one request.

    The head of a JSON answer is held back until its body is there, which vLLM sends at once: only then can
    the figure stand in a header. Of a stream nothing is held back; before its end, ``data: [DONE]``, the
    figure is put in as an event of its own. What vLLM sends is passed on as it is, and in its order.

    Args:
        as_event: a chunk like the others, for a client that asked for it; otherwise a comment, which
            readers of event streams skip.
        complain: takes an error of this class, which costs the figure and nothing else.
    """

    def __init__(
        self,
        scope: Scope,
        send: Send,
        ask: Ask,
        *,
        as_event: bool,
        url: str = "",
        complain: Callable[[Exception], None],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._scope, self._send, self._ask, self._complain = scope, send, ask, complain
        self._as_event, self._url = as_event, url
        self._came_ns = now_ns()
        self._head: Message | None = None
        self._first = b""
        self._next: Callable[[Message], Awaitable[Sequence[Message]]] = self._begin

    async def __call__(self, message: Message) -> None:
        if self._next is _pass_on:
            await self._send(message)
            return
        try:
            out = await self._next(message)
        except Exception as error:
            out = self._as_it_is(message)
            self._complain(error)
        for each in out:
            await self._send(each)

    def _as_it_is(self, message: Message) -> Sequence[Message]:
        """From here on nothing is touched any more."""
        self._next = _pass_on
        head, self._head = self._head, None
        return (message,) if head is None else (head, message)

    async def _begin(self, message: Message) -> Sequence[Message]:
        headers = list(message.get("headers", ()))
        kind = value_of(headers, b"content-type").partition(b";")[0].strip().lower()
        encoded = value_of(headers, b"content-encoding") not in (b"", b"identity")
        if message["type"] == "http.response.start" and message["status"] == 200 and not encoded:
            if kind == b"application/json":
                self._head, self._next = message, self._with_headers
                return ()
            if kind == b"text/event-stream":
                self._next = self._with_event
                return (message,)
        return self._as_it_is(message)

    # ---------------------------------------------------------------------------------------- one body

    async def _with_headers(self, message: Message) -> Sequence[Message]:
        head = self._head
        if message["type"] != "http.response.body" or head is None:
            return self._as_it_is(message)
        facts = facts_of(self._scope, message.get("body", b""))
        if facts.request_id:
            figure = await self._ask(facts, self._came_ns)
            headers = [*head.get("headers", ()), *self._headers(facts.request_id, figure)]
            self._head = {**head, "headers": headers}
        return self._as_it_is(message)

    def _headers(self, request_id: str, figure: Figure | None) -> list[Header]:
        headers = [(b"x-joulescope-energy-final", b"true" if figure and figure.final else b"false")]
        if figure is not None:
            headers.append((b"x-joulescope-energy-joules", f"{figure.joules:.6f}".encode("ascii")))
        if request_id.isascii() and request_id.isprintable():
            headers.append((b"x-joulescope-request-id", request_id.encode("ascii")))
        if self._url:
            link = f'<{self._url}{path_of(request_id)}>; rel="describedby"'
            headers.append((b"link", link.encode("ascii")))
        return headers

    # ------------------------------------------------------------------------------------------ streams

    async def _with_event(self, message: Message) -> Sequence[Message]:
        if message["type"] != "http.response.body":
            return self._as_it_is(message)
        body: bytes = message.get("body", b"")
        if not self._first and 0 < len(body) <= MAX_FIRST_BYTES:
            self._first = body
        at = body.rfind(DONE)
        if at < 0 or (at > 0 and body[at - 1 : at] != b"\n"):
            return (message,)
        self._next = _pass_on
        facts = facts_of(self._scope, _data_of(self._first))
        if not facts.request_id:
            return (message,)
        event = self._event(facts.request_id, await self._ask(facts, self._came_ns))
        before = ({**message, "body": body[:at], "more_body": True},) if at else ()
        return (
            *before,
            {"type": "http.response.body", "body": event, "more_body": True},
            {**message, "body": body[at:]},
        )

    def _event(self, request_id: str, figure: Figure | None) -> bytes:
        told: dict[str, Any] = {
            "energy_joules": None if figure is None else round(figure.joules, 6),
            "final": bool(figure and figure.final),
            "request_id": request_id,
        }
        if self._url:
            told["url"] = f"{self._url}{path_of(request_id)}"
        chunk = self._chunk_like_the_first() if self._as_event else None
        if chunk is None:
            return f": joulescope {json.dumps(told)}\n\n".encode()
        return f"data: {json.dumps({**chunk, 'choices': [], 'joulescope': told})}\n\n".encode()

    def _chunk_like_the_first(self) -> dict[str, Any] | None:
        """What all chunks of an answer have in common; ``None`` for a stream of another kind."""
        try:
            first = json.loads(_data_of(self._first))
            return {name: first[name] for name in ("id", "object", "created", "model")}
        except (ValueError, KeyError, TypeError):
            return None


async def _pass_on(message: Message) -> Sequence[Message]:
    return (message,)


def _data_of(events: bytes) -> bytes:
    """What the first event holds; empty if it is not plain data."""
    first = events.partition(b"\n")[0]
    return first.removeprefix(b"data: ") if first.startswith(b"data: ") else b""

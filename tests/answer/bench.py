"""An ASGI application that plays back messages, and a sidecar's socket that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from joulescope.answer.asgi import Header, Message, Receive, Scope, Send

JSON_HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"99"), (b"content-type", b"application/json")],
}
STREAM_HEAD: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}
FIGURE = json.dumps({"id": "cmpl-1", "final": False, "estimated_joules": 12.5}).encode()


def scope_of(path: str = "/v1/completions", headers: Sequence[Header] = (), **more: Any) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "headers": list(headers),
        **more,
    }


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class App:
    """Sends the same messages to everybody, and keeps the scopes that it got."""

    def __init__(self, messages: Sequence[Message], then: Exception | None = None) -> None:
        self.messages, self.then = list(messages), then
        self.scopes: list[Scope] = []
        self.sends: list[Send] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.sends.append(send)
        for message in self.messages:
            await send(message)
        if self.then is not None:
            raise self.then


class Client:
    """What came out at the other end."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages[1:]]


async def nothing() -> Message:
    return {"type": "http.disconnect"}


class Peer:
    """A socket on which every question gets the bytes that ``answer`` gives; ``None`` leaves it open."""

    def __init__(self, answer: Callable[[str], bytes | None]) -> None:
        self.answer = answer
        self.questions: list[str] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                question = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.questions.append(question)
                told = self.answer(question)
                if told is None:
                    continue
                writer.write(told)
                await writer.drain()
                if b"connection: close" in told:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def answered(data: bytes = FIGURE, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(data)}\r\n{more}\r\n".encode() + data


@asynccontextmanager
async def peer(
    path: Path, answer: Callable[[str], bytes | None] = lambda question: answered()
) -> AsyncIterator[Peer]:
    made = Peer(answer)
    server = await asyncio.start_unix_server(made.serve, path)
    try:
        yield made
    finally:
        server.close()
        path.unlink(missing_ok=True)

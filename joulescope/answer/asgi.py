"""The types of ASGI, and headers as it has them: pairs of bytes, names in lower case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


def values_of(headers: Iterable[Header], name: bytes) -> list[bytes]:
    """All values of a header, in their order."""
    return [value for key, value in headers if key.lower() == name]


def value_of(headers: Iterable[Header], name: bytes) -> bytes:
    """The first value of a header, as servers take it; empty if there is none."""
    return next((value for key, value in headers if key.lower() == name), b"")

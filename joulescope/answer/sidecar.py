"""Asks the sidecar for figures: over its Unix socket, within a deadline, and not at all while it is gone."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_logger = logging.getLogger("vllm.joulescope")

MAX_AT_ONCE = 16
"""Questions under way; beyond it an answer goes out without a figure."""

MAX_IDLE = 8
"""Connections kept for the next question."""

MAX_ANSWER_BYTES = 64 * 1024
FAILURES_TO_OPEN = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0
_MAX_COUNT = 999_999_999

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Figure:
    """Joules of a request, as the sidecar has them."""

    joules: float
    final: bool


class Breaker:
    """Keeps from asking whoever failed several times in a row; one question now and then tries anew.

    Failures within ``moment_seconds`` of each other are one: questions that were asked side by side fail
    side by side.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, moment_seconds: float = 0.0) -> None:
        self._now = now
        self._moment_seconds = moment_seconds
        self._failures = 0
        self._failed_at = float("-inf")
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._until = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN

    def may_ask(self) -> bool:
        """Whether to ask now. While open, one question is let through after each pause."""
        if not self.is_open:
            return True
        if self._now() < self._until:
            return False
        self._until = self._now() + self._pause_seconds
        return True

    def succeeded(self) -> bool:
        """Notes an answer; whether it is the first after an outage."""
        was_open, self._failures, self._pause_seconds = self.is_open, 0, FIRST_PAUSE_SECONDS
        return was_open

    def failed(self) -> bool:
        """Notes a failure; whether an outage begins with it."""
        now, was_open = self._now(), self.is_open
        if now - self._failed_at < self._moment_seconds:
            return False
        self._failed_at = now
        self._failures += 1
        if self.is_open:
            self._until = now + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        return self.is_open and not was_open


class Sidecar:
    """The sidecar's socket for single requests. Used from one event loop at a time.

    ``counts`` has the outcomes of all questions, by the names of the metric
    ``joulescope_exported_requests_total`` with the exporter ``answer``; the sidecar hears of them with the
    next question.
    """

    def __init__(self, path: str, deadline_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._deadline_seconds = path, deadline_seconds
        self._breaker = Breaker(now, deadline_seconds)
        self._idle: list[Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way = 0
        self._name = uuid.uuid4().hex[:16]
        self.counts: Counter[str] = Counter()

    async def figure(self, target: str) -> Figure | None:
        """What ``GET target`` says; ``None`` if it says nothing in time. Raises nothing but cancellation."""
        if self._under_way >= MAX_AT_ONCE or not self._breaker.may_ask():
            self._count("skipped")
            return None
        self._under_way += 1
        try:
            status, body = await asyncio.wait_for(self._ask(target), self._deadline_seconds)
            if status >= 500:
                raise ConnectionError(f"status {status}")
            found = _figure(body) if status == 200 else None
        except asyncio.TimeoutError:
            self._failed("late", "it did not answer in time")
            return None
        except Exception as error:  # a guest survives whatever the other side does
            self._failed("unreachable", str(error) or type(error).__name__)
            return None
        finally:
            self._under_way -= 1
        if self._breaker.succeeded():
            _logger.info("joulescope: the sidecar at %s answers again", self._path)
        self._count("unknown" if found is None else "estimated")
        return found

    def _count(self, outcome: str) -> None:
        self.counts[outcome] = min(self.counts[outcome] + 1, _MAX_COUNT)

    def _failed(self, outcome: str, why: str) -> None:
        self._count(outcome)
        if self._breaker.failed():
            _logger.warning(
                "joulescope: answers go out without joules: the sidecar at %s: %s; it needs its setting "
                "answer_socket, and is tried again with growing pauses",
                self._path,
                why,
            )

    async def _ask(self, target: str) -> tuple[int, bytes]:
        """Over a connection that is there already, if one is and was not just closed, or a new one."""
        request = self._request(target)
        while (connection := self._take_idle()) is not None:
            try:
                return await self._exchange(connection, request)
            except (OSError, asyncio.IncompleteReadError):
                continue
        connection = await asyncio.open_unix_connection(self._path, limit=MAX_ANSWER_BYTES)
        return await self._exchange(connection, request)

    def _request(self, target: str) -> bytes:
        """With the counts until now: totals, so that it does not matter whether an earlier one arrived."""
        told = ",".join(f"{outcome}={count}" for outcome, count in self.counts.items())
        header = f"X-Joulescope-Answers: {self._name};{told}\r\n" if told else ""
        return f"GET {target} HTTP/1.1\r\nHost: joulescope\r\n{header}\r\n".encode("ascii")

    def _take_idle(self) -> Connection | None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._idle = loop, []
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return None

    async def _exchange(self, connection: Connection, request: bytes) -> tuple[int, bytes]:
        reader, writer = connection
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status, length, stays = _parse_head(head)
            body = await reader.readexactly(length)
        except BaseException:  # cancelled in the middle: what comes later would answer the next question
            writer.close()
            raise
        if stays and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            writer.close()
        return status, body


def _parse_head(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection stays open.

    Raises:
        ValueError: if this is no answer of the sidecar's.
    """
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", "-1"))
    if version != "HTTP/1.1" or not 0 <= length <= MAX_ANSWER_BYTES:
        raise ValueError("it does not answer as a sidecar does")
    return int(rest[:3]), length, headers.get("connection", "").lower() != "close"


def _figure(body: bytes) -> Figure | None:
    """What the body says; ``None`` if no figure is known.

    Raises:
        ValueError, KeyError, TypeError: if this is no answer of the sidecar's.
    """
    told: Any = json.loads(body)
    joules = told["estimated_joules"]
    if not isinstance(joules, (int, float)):
        return None
    if not math.isfinite(joules):  # Python's reader of JSON takes NaN, and a client's would break on it
        raise ValueError("it does not answer as a sidecar does")
    return Figure(float(joules), bool(told["final"]))

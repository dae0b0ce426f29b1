"""Clients of a real OpenAI server: mixed lengths, common prefixes, and some who hang up."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

FIRST_TOKEN, LAST_TOKEN = 10, 400
PREFIX_TOKENS = 160


@dataclass(frozen=True)
class Ask:
    """One request that a client makes."""

    id: str
    prompt: list[int]
    max_tokens: int
    abort_after: int | None = None
    """Hangs up after so many chunks of the stream."""
    ignore_eos: bool = True
    trace_parent: str = ""


@dataclass(frozen=True)
class Answer:
    """What the API said; ``usage`` is ``None`` for a client that hung up."""

    ask: Ask
    status: int
    usage: dict[str, Any] | None

    @property
    def cached_tokens(self) -> int:
        details = (self.usage or {}).get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens") or 0)


def mixed_asks(count: int, seed: int, name: str = "ask", abort_every: int = 14) -> list[Ask]:
    """Short and long prompts, a third of them with a common prefix, some aborted.

    On a busy machine the engine may be done before the server notices that a client hung up.
    """
    rng = random.Random(seed)
    prefix = _tokens(rng, PREFIX_TOKENS)
    asks = []
    for number in range(count):
        own = _tokens(rng, rng.choice([3, 20, 60, 200, 500]))
        aborted = number % abort_every == 5 % abort_every
        asks.append(
            Ask(
                id=f"{name}-{number}",
                prompt=prefix + own if number % 3 == 0 else own,
                max_tokens=1200 if aborted else rng.choice([1, 5, 30, 80, 200]),
                abort_after=rng.randint(1, 10) if aborted else None,
                ignore_eos=aborted or bool(number % 2),
                trace_parent=f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01",
            )
        )
    return asks


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(count)]


def send_all(port: int, asks: Sequence[Ask], clients: int) -> list[Answer]:
    """Sends all, so many at a time; a request that fails is an answer with its status, or 0."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda ask: send(port, ask), asks))


@contextmanager
def steady_load(port: int, name: str, clients: int) -> Iterator[list[Answer]]:
    """Sends requests for as long as the block lasts; the answers are complete after it."""
    answers: list[Answer] = []
    stop = threading.Event()

    def client(number: int) -> None:
        asks = cycle(mixed_asks(50, number, f"{name}-{number}", abort_every=51))
        for turn, ask in enumerate(asks):
            if stop.is_set():
                return
            answers.append(send(port, replace(ask, id=f"{ask.id}-{turn}")))

    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(client, number)
        try:
            yield answers
        finally:
            stop.set()


def send(port: int, ask: Ask) -> Answer:
    body = {
        "model": "tiny",
        "prompt": ask.prompt,
        "max_tokens": ask.max_tokens,
        "ignore_eos": ask.ignore_eos,
        "temperature": 1.0,
        "stream": ask.abort_after is not None,
    }
    headers = {"Content-Type": "application/json", "X-Request-Id": ask.id, "traceparent": ask.trace_parent}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if ask.abort_after is not None and response.status == 200:
            for _ in range(2 * ask.abort_after):  # a chunk is a line of data and an empty line
                response.readline()
            response.close()  # it holds the socket too
            return Answer(ask, response.status, None)
        content = response.read()
        usage = json.loads(content).get("usage") if response.status == 200 else None
        return Answer(ask, response.status, usage)
    except (OSError, http.client.HTTPException, json.JSONDecodeError):
        return Answer(ask, 0, None)
    finally:
        connection.close()

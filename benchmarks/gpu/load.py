"""Clients of a real OpenAI server: a closed loop in the background, and requests sent at given instants.

Prompts are lists of random token ids, different for every request, so that no prefix is found again. Answers
run to their full length. The clients' own clocks decide nothing: when a request came and what it did is
read from the trace.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.gpu.plan import BACKGROUND_ID, Background, Kind
from joulescope.clock import Clock, SystemClock
from joulescope.sampling.timer import sleep_until
from joulescope.units import ns_from_seconds, seconds_from_ns

FIRST_TOKEN, LAST_TOKEN = 10, 400
"""Any vocabulary has these. A block of the prefix cache, 16 of them, is never twice the same by chance."""

INJECTORS = 256
TIMEOUT_SECONDS = 120.0
_PAUSE_SECONDS = 0.2
_FAILURES_UNTIL_STOP = 50


class ServerFailure(Exception):
    """The server cannot be used; the message says what it answered."""


class Client:
    """One kept connection. Used from one thread at a time."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            str(parts.hostname), parts.port or 80, timeout=TIMEOUT_SECONDS
        )
        self._model = model

    def complete(self, request_id: str, prompt_tokens: int, output_tokens: int) -> None:
        """A completion of exactly these lengths.

        Raises:
            ServerFailure, OSError, http.client.HTTPException: if it was not answered.
        """
        rng = random.Random(request_id)
        body = {
            "model": self._model,
            "prompt": [rng.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(prompt_tokens)],
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        try:
            self._connection.request("POST", "/v1/completions", json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if answer.status != 200:
            raise ServerFailure(f"status {answer.status}: {text[:300]!r}")

    def close(self) -> None:
        self._connection.close()


def model_of(url: str) -> str:
    """The name of the model that the server serves.

    Raises:
        ServerFailure: if it does not say.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=10.0)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        return str(json.loads(answer.read())["data"][0]["id"])
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        raise ServerFailure(f"{url}/v1/models does not tell the model: {error!r}") from error
    finally:
        connection.close()


@dataclass
class Load:
    """All clients of one server."""

    url: str
    background: Background
    clock: Clock = field(default_factory=SystemClock)
    failures: Counter[str] = field(default_factory=Counter)
    """What went wrong, by message."""

    def __post_init__(self) -> None:
        self._model = model_of(self.url)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Starts the background."""
        for stream in range(self.background.streams):
            thread = threading.Thread(target=self._stream, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Ends the background once the answers under way are there."""
        self._stop.set()
        deadline_ns = self.clock.now_ns() + ns_from_seconds(timeout_seconds)
        for thread in self._threads:
            thread.join(max(seconds_from_ns(deadline_ns - self.clock.now_ns()), 0.0))

    def latency_seconds(self, kind: Kind, request_id: str) -> float:
        """From sending one request to the end of its answer."""
        client = Client(self.url, self._model)
        begin_ns = self.clock.now_ns()
        client.complete(request_id, kind.prompt_tokens, kind.output_tokens)
        client.close()
        return seconds_from_ns(self.clock.now_ns() - begin_ns)

    def inject(self, start_ns: int, injections: Iterable[tuple[float, str, Kind]]) -> None:
        """Sends each request at its instant, seconds after ``start_ns``; returns when all are answered."""
        with ThreadPoolExecutor(INJECTORS, thread_name_prefix="injector") as pool:
            for at_seconds, request_id, kind in injections:
                sleep_until(self.clock, start_ns + ns_from_seconds(at_seconds), self._stop.is_set)
                if self._stop.is_set():
                    return
                pool.submit(self._inject_one, request_id, kind)

    def _inject_one(self, request_id: str, kind: Kind) -> None:
        client = Client(self.url, self._model)
        self._try(client, request_id, kind.prompt_tokens, kind.output_tokens)
        client.close()

    def _stream(self, stream: int) -> None:
        client = Client(self.url, self._model)
        turn = 0
        while not self._stop.is_set():
            background = self.background
            tokens = background.output_tokens if turn else background.first_output_tokens(stream)
            name = f"{BACKGROUND_ID}{stream}-{turn}"
            if not self._try(client, name, background.prompt_tokens, tokens):
                self._stop.wait(_PAUSE_SECONDS)
            turn += 1
        client.close()

    def _try(self, client: Client, request_id: str, prompt_tokens: int, output_tokens: int) -> bool:
        try:
            client.complete(request_id, prompt_tokens, output_tokens)
        except (ServerFailure, OSError, http.client.HTTPException) as error:
            self.failures[str(error) or repr(error)] += 1
            if self.failures.total() >= _FAILURES_UNTIL_STOP:
                self._stop.set()
            return False
        return True

    def check(self) -> None:
        """Whether the server still answers.

        Raises:
            ServerFailure: if so many requests failed that nothing can be measured.
        """
        if self.failures.total() >= _FAILURES_UNTIL_STOP:
            raise ServerFailure(f"requests fail: {dict(self.failures.most_common(3))}")

"""Just enough of an OpenAI client for tests: completions, chats, streams that are cut off, counters."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What the API said about one request; token counts are those of its ``usage``."""

    id: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    finish_reasons: tuple[str, ...]


class Client:
    """Talks to one server at ``url``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)

    def complete(self, request_id: str, prompt: str, max_tokens: int, **more: Any) -> Answer:
        """A completion that always runs to ``max_tokens``, under a chosen ``X-Request-Id``."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **more}
        return _answer(self.post("/v1/completions", body, request_id))

    def chat(self, request_id: str, content: str, max_tokens: int, **more: Any) -> Answer:
        """A chat of one message."""
        messages = [{"role": "user", "content": content}]
        body = {"messages": messages, "max_tokens": max_tokens, "ignore_eos": True, **more}
        return _answer(self.post("/v1/chat/completions", body, request_id))

    def abort(self, request_id: str, prompt: str, after_chunks: int = 3) -> None:
        """Starts a long stream and hangs up after some chunks."""
        connection = self._connect()
        body = {"prompt": prompt, "max_tokens": 400, "ignore_eos": True, "stream": True}
        self._request(connection, "/v1/completions", body, request_id)
        response = connection.getresponse()
        for _ in range(2 * after_chunks):
            response.readline()
        response.close()
        connection.close()

    def post(
        self, path: str, body: dict[str, Any], request_id: str = "", headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Sends JSON, returns the answer's JSON; raises ``RuntimeError`` on any other status than 200."""
        connection = self._connect()
        self._request(connection, path, body, request_id, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {text[:500]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def counter(self, name: str) -> float:
        """The sum of a counter over its labels, from vLLM's own ``/metrics``."""
        connection = self._connect()
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, values))

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=120)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: dict[str, Any],
        request_id: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        sent = {"Content-Type": "application/json", **(headers or {})}
        if request_id:
            sent["X-Request-Id"] = request_id
        connection.request("POST", path, json.dumps({"model": "tiny", **body}), sent)


def _answer(data: dict[str, Any]) -> Answer:
    usage = data["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        id=data["id"],
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
        output_tokens=usage["completion_tokens"],
        finish_reasons=tuple(choice["finish_reason"] for choice in data["choices"]),
    )

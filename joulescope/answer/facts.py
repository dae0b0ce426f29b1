"""What an answer of vLLM's says of itself: its id, and how many tokens it took.

vLLM leaves both in the request's state, for middleware, before the last byte goes out
(``RequestResponseMetadata``); what is not there is looked for in the body.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from joulescope.answer.asgi import Scope

MAX_ID_CHARACTERS = 256
_USAGE_BYTES = 1024
_ID = re.compile(rb'\{\s*"id"\s*:\s*"([^"\\]{1,256})"')
_USAGE = b'"usage":{'


@dataclass(frozen=True)
class Facts:
    """Of one answer; ``None`` and empty where it is not told."""

    request_id: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None

    def query(self, since_ns: int, until_ns: int, instance: str) -> str:
        """Path and query of the question for its figure."""
        asked = {
            "brief": 1,
            "since_ns": since_ns,
            "until_ns": until_ns,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "instance": instance or None,
        }
        told = {name: value for name, value in asked.items() if value is not None}
        return f"{path_of(self.request_id)}?{urllib.parse.urlencode(told)}"


def path_of(request_id: str) -> str:
    """Where the sidecar serves a request."""
    return f"/v1/requests/{urllib.parse.quote(request_id, safe='')}"


def facts_of(scope: Scope, body: bytes) -> Facts:
    """What is known when ``body``, the whole of it or its last part, is about to go out."""
    metadata = scope.get("state", {}).get("request_metadata")
    request_id = getattr(metadata, "request_id", None) or _id_of(body)
    if not isinstance(request_id, str) or len(request_id) > MAX_ID_CHARACTERS:
        return Facts()
    usage = getattr(metadata, "final_usage_info", None)
    if usage is None:
        return _with_usage(request_id, _usage_of(body))
    details = getattr(usage, "prompt_tokens_details", None)
    return Facts(
        request_id,
        _count(getattr(usage, "prompt_tokens", None)),
        _count(getattr(details, "cached_tokens", None)),
        _count(getattr(usage, "completion_tokens", None)),
    )


def instance_of(scope: Scope) -> str:
    """``instance_id`` of this vLLM, which its engines tell the sidecar too; empty if it is not to be had."""
    state = getattr(scope.get("app"), "state", None)
    instance = getattr(getattr(state, "vllm_config", None), "instance_id", "")
    return instance if isinstance(instance, str) else ""


def _id_of(body: bytes) -> str:
    match = _ID.match(body)
    return match[1].decode("utf-8", "replace") if match else ""


def _usage_of(body: bytes) -> dict[str, Any]:
    """The last object ``usage``: one in a text that was generated has its quotes escaped."""
    at = body.rfind(_USAGE)
    if at < 0:
        return {}
    text = body[at + len(_USAGE) - 1 : at + _USAGE_BYTES].decode("utf-8", "replace")
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _with_usage(request_id: str, usage: dict[str, Any]) -> Facts:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    output = usage.get("completion_tokens", 0 if usage else None)
    return Facts(request_id, _count(usage.get("prompt_tokens")), _count(cached), _count(output))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 10**12 else None

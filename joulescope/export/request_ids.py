"""Ids of requests: what the API answered, what the engine calls them, and which belong together.

vLLM makes the id of an answer out of its kind and ``X-Request-Id`` (``cmpl-7f3a``), and gives each of its
prompts to the engine under a longer one: ``cmpl-7f3a-0``, ``embd-7f3a-2``, in a batch of chats
``chatcmpl-7f3a_1``.
Read from vLLM 0.32: ``entrypoints/openai``, ``entrypoints/pooling/base/serving.py``.
"""

from __future__ import annotations

import re

MAX_PARTS = 1024
"""Requests of one id that are looked for, and kept track of: parts of one answer, or a client's repeats."""

_DASHED = re.compile(r"((?:cmpl|embd|classify|score|pooling|transcribe|translate)-.+)-\d{1,4}", re.DOTALL)
_UNDERLINED = re.compile(r"((?:chatcmpl-|resp_).+)_\d{1,4}", re.DOTALL)


def answer_id(external_id: str) -> str:
    """The id of the answer that a request is part of; the id itself where it is no part."""
    match = _DASHED.fullmatch(external_id) or _UNDERLINED.fullmatch(external_id)
    return match[1] if match else external_id


def part_id(answer: str, number: int) -> str:
    """What the engine calls part ``number`` of an answer, if it has parts."""
    joint = "_" if answer.startswith(("chatcmpl-", "resp_")) else "-"
    return f"{answer}{joint}{number}"


def has_parts_first(answer: str) -> bool:
    """Whether an id as it stands is more likely that of an answer than of one of its parts.

    A client may choose ``a`` for one request and ``a-0`` for the next. ``cmpl-a-0`` is then the answer to the
    second as well as the only prompt of the first; vLLM always numbers prompts of completions, so that the
    client, who sees only answers, means the second. Chats are numbered in batches only.
    """
    return _DASHED.fullmatch(f"{answer}-0") is not None

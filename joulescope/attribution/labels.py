"""Which adapters, tenants and tasks get series of their own, and how those of a request are found."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulescope.label_model import NO_TENANT, TENANT_GROUP, LengthRule
from joulescope.model import RequestStarted

MAX_TENANT_CHARACTERS = 63
MAX_SEARCHED_CHARACTERS = 96
"""The pattern sees so much of an id and no more: clients choose how long it is."""

ROUTE = re.compile(
    r"(?:\d+_)?(chatcmpl|cmpl|embd|pooling|classify|score|rerank|generative-scoring|generate-tokens|decision"
    r"|transcribe|translate)-"
)
"""What vLLM puts before the X-Request-Id of a client: by route (0.32, ``entrypoints/``), and before that the
number of the answer, where several were asked for and ids are not randomized."""


@dataclass(frozen=True, slots=True)
class LabelRules:
    """The operator's choice of labels. Tenants are off unless ``tenant_from`` says where they come from."""

    adapters: tuple[str, ...] = ()
    """Always have a series."""
    tenants: tuple[str, ...] = ()
    """Always have a series."""
    most: int = 50
    """How many others get one, by engine and label."""
    tenant_from: str = "off"
    """``off``, ``request_id`` or ``lora``."""
    tenant_pattern: re.Pattern[str] | None = None
    """Its group ``tenant`` is one, where it matches at the beginning."""
    tasks: tuple[str, ...] = ()
    """Always have a series; so have those of ``task_lengths``."""
    most_tasks: int = 8
    """How many others get one, by engine."""
    task_from: tuple[str, ...] = ()
    """Of :data:`joulescope.label_model.TASK_SOURCES`, in the order in which they are asked; empty: off."""
    task_pattern: re.Pattern[str] | None = None
    """Its group ``task`` is one, where it matches at the beginning."""
    task_lengths: tuple[LengthRule, ...] = ()
    """Those of the source ``lengths``; empty where that is not asked."""

    def tenant_of(self, request: RequestStarted) -> str:
        """The tenant: what the pattern finds in the client's request id, or in the adapter's name.

        An adapter's name that the pattern does not match is the tenant as it is.
        """
        if self.tenant_from == "lora":
            return (self._found(request.lora) or request.lora)[:MAX_TENANT_CHARACTERS] or NO_TENANT
        return self._found(sent_id(request)) or NO_TENANT

    def _found(self, text: str) -> str:
        match = self.tenant_pattern and self.tenant_pattern.match(text[:MAX_SEARCHED_CHARACTERS])
        return (match.group(TENANT_GROUP) or "")[:MAX_TENANT_CHARACTERS] if match else ""


def sent_id(request: RequestStarted) -> str:
    """The id that a client or a gateway sent, without what vLLM puts before it."""
    told = request.external_id or request.request_id
    route = ROUTE.match(told)
    return told[route.end() :] if route else told

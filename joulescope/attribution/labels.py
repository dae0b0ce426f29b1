"""Which adapters and tenants get series of their own, and how a request's tenant is found."""

from __future__ import annotations

import re
from dataclasses import dataclass

from joulescope.label_model import NO_TENANT, TENANT_GROUP
from joulescope.model import RequestStarted

MAX_TENANT_CHARACTERS = 63
MAX_SEARCHED_CHARACTERS = 96
"""The pattern sees so much of an id and no more: clients choose how long it is."""

_ROUTE = re.compile(
    r"(?:\d+_)?(?:chatcmpl|cmpl|embd|pooling|classify|score|rerank|generative-scoring|generate-tokens|decision"
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

    def tenant_of(self, request: RequestStarted) -> str:
        """The tenant: what the pattern finds in the client's request id, or in the adapter's name.

        An adapter's name that the pattern does not match is the tenant as it is.
        """
        if self.tenant_from == "lora":
            return (self._found(request.lora) or request.lora)[:MAX_TENANT_CHARACTERS] or NO_TENANT
        sent = request.external_id or request.request_id
        route = _ROUTE.match(sent)
        return self._found(sent[route.end() :] if route else sent) or NO_TENANT

    def _found(self, text: str) -> str:
        match = self.tenant_pattern and self.tenant_pattern.match(text[:MAX_SEARCHED_CHARACTERS])
        return (match.group(TENANT_GROUP) or "")[:MAX_TENANT_CHARACTERS] if match else ""

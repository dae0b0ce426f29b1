"""Tenants in request ids: ``<tenant>~`` in front, by the word of a gateway and of nobody else.

vLLM's scheduler knows nothing of headers; the id of a request is what reaches it. The tenant therefore
travels in ``X-Request-Id``, of which vLLM makes the id, and the sidecar reads it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from joulescope.answer.asgi import Header, values_of

REQUEST_ID = b"x-request-id"
MARK = b"~"
MAX_ID_BYTES = 128

_TENANT = re.compile(rb"[A-Za-z0-9_.-]{1,63}")
_ID = re.compile(rb"[!-}]{1,%d}" % MAX_ID_BYTES)  # printable ASCII, without space and the mark


def with_tenant(
    headers: Iterable[Header], tenant_header: bytes, make_id: Callable[[], bytes]
) -> list[Header]:
    """The headers with one ``X-Request-Id``, whose tenant is the gateway's.

    The tenant is taken where its header stands once and is a plain name. Twice means that a client sent
    one too and the gateway did not replace it: then it is nobody's. An id of the client's is kept behind the
    tenant, with any mark of its own made harmless; one that vLLM would take from elsewhere (the field
    ``request_id`` of a body) never counts, since an id in the header goes before it.
    """
    given = list(headers)
    told = values_of(given, tenant_header)
    tenant = told[0].strip() if len(told) == 1 else b""
    prefix = tenant + MARK if _TENANT.fullmatch(tenant) else b""
    ids = values_of(given, REQUEST_ID)
    own = ids[0].strip().replace(MARK, b"-") if ids else b""
    kept = [header for header in given if header[0].lower() != REQUEST_ID]
    return [*kept, (REQUEST_ID, prefix + (own if _ID.fullmatch(own) else make_id()))]

"""Tenant and task in request ids: ``<tenant>~`` or ``<tenant>~<task>~`` in front, as headers name them.

vLLM's scheduler knows nothing of headers; the id of a request is what reaches it, on every vLLM and without
its tracing. Both therefore travel in ``X-Request-Id``, of which vLLM makes the id, and the sidecar reads them
there, at the instant when the request starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from joulescope.answer.asgi import Header, values_of

REQUEST_ID = b"x-request-id"
MARK = b"~"
MAX_ID_BYTES = 128
MAX_TASK_BYTES = 31
"""With a tenant, an id and what vLLM adds it stays below what the sidecar keeps of an id."""

_TENANT = re.compile(rb"[A-Za-z0-9_.-]{1,63}")
_TASK = re.compile(rb"[A-Za-z0-9_.-]{1,%d}" % MAX_TASK_BYTES)
_ID = re.compile(rb"[!-}]{1,%d}" % MAX_ID_BYTES)  # printable ASCII, without space and the mark


def with_marks(
    headers: Iterable[Header], tenant_header: bytes, task_header: bytes, make_id: Callable[[], bytes]
) -> list[Header]:
    """The headers with one ``X-Request-Id``, whose tenant and task are those of the two headers.

    A name is taken where its header stands once and is a plain name. Twice means that a client sent one too
    and the gateway did not replace it: then it is nobody's. An id of the client's is kept behind the names,
    with any mark of its own made harmless; one that vLLM would take from elsewhere (the field ``request_id``
    of a body) never counts, since an id in the header goes before it.

    Args:
        headers: of the request.
        tenant_header: in lower case, empty where tenants are not passed on; so with ``task_header``.
        task_header: of the task.
        make_id: makes an id for a request that has none that can be used.
    """
    given = list(headers)
    tenant, task = _told(given, tenant_header, _TENANT), _told(given, task_header, _TASK)
    ids = values_of(given, REQUEST_ID)
    own = ids[0].strip().replace(MARK, b"-") if ids else b""
    names = [tenant, task] if task else [tenant] if tenant else []
    kept = [header for header in given if header[0].lower() != REQUEST_ID]
    return [*kept, (REQUEST_ID, MARK.join([*names, own if _ID.fullmatch(own) else make_id()]))]


def _told(headers: Sequence[Header], name: bytes, plain: re.Pattern[bytes]) -> bytes:
    told = values_of(headers, name) if name else []
    value = told[0].strip() if len(told) == 1 else b""
    return value if plain.fullmatch(value) else b""

"""Whose request it is and what for: the headers' word, in a place that clients cannot write to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.answer.asgi import Header
from joulescope.answer.marks import MAX_ID_BYTES, with_marks

TENANT, TASK = b"x-tenant", b"x-task"


def ids(*headers: Header) -> list[bytes]:
    made = with_marks(headers, TENANT, b"", lambda: b"made")
    return [value for name, value in made if name == b"x-request-id"]


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ([(TENANT, b"acme"), (b"x-request-id", b"order-7")], b"acme~order-7"),
        ([(b"X-Tenant", b" acme "), (b"X-Request-Id", b"order-7")], b"acme~order-7"),
        ([(TENANT, b"acme")], b"acme~made"),
        ([(TENANT, b"acme"), (b"x-request-id", b"rival~order-7")], b"acme~rival-order-7"),
        ([(b"x-request-id", b"rival~order-7")], b"rival-order-7"),
        ([], b"made"),  # so that a request_id in the body does not count
        ([(TENANT, b"ac~me"), (b"x-request-id", b"a")], b"a"),
        ([(TENANT, b""), (b"x-request-id", b"a")], b"a"),
        ([(TENANT, b"a" * 64), (b"x-request-id", b"a")], b"a"),
        ([(TENANT, b"rival"), (TENANT, b"acme"), (b"x-request-id", b"a")], b"a"),
        ([(TENANT, b"rival,acme"), (b"x-request-id", b"a")], b"a"),
        ([(b"x-request-id", b"first"), (b"x-request-id", b"rival~second")], b"first"),
        ([(b"x-request-id", b"a b\r\nc")], b"made"),
        ([(b"x-request-id", b"x" * 500)], b"made"),
        ([(b"x-request-id", "ä".encode())], b"made"),
        ([(b"x-request-id", b"  ")], b"made"),
    ],
)
def test_the_tenant_is_the_gateways(headers: list[Header], request_id: bytes) -> None:
    """A plain name that stands once goes before the id; everything else makes no tenant."""
    assert ids(*headers) == [request_id]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TENANT, b"x-request-id", b"host"]), st.binary(max_size=30))))
def test_no_header_makes_a_tenant_of_its_own(headers: list[Header]) -> None:
    """Whatever clients send: there is one id, and a mark in it only behind a tenant that was told once."""
    (request_id,) = ids(*headers)
    told = [value.strip() for name, value in headers if name == TENANT]
    plain = len(told) == 1 and re.fullmatch(rb"[A-Za-z0-9_.-]{1,63}", told[0]) is not None
    assert request_id.count(b"~") == int(plain)
    if plain:
        assert request_id.startswith(told[0] + b"~")


def test_other_headers_stay_as_they_are() -> None:
    """Nothing but the id is touched, and the tenant's header still reaches vLLM."""
    headers = [(b"authorization", b"Bearer x"), (TENANT, b"acme"), (b"host", b"h")]
    assert with_marks(headers, TENANT, b"", lambda: b"made")[:3] == headers


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ([(TASK, b"rag"), (b"x-request-id", b"order-7")], b"~rag~order-7"),
        ([(TENANT, b"acme"), (TASK, b" rag "), (b"x-request-id", b"order-7")], b"acme~rag~order-7"),
        ([(TENANT, b"acme"), (b"x-request-id", b"~rag~order-7")], b"acme~-rag-order-7"),
        ([(TASK, b"rag"), (TASK, b"chat"), (b"x-request-id", b"a")], b"a"),
        ([(TASK, b"r~g"), (b"x-request-id", b"a")], b"a"),
        ([(TASK, b"a" * 32), (b"x-request-id", b"a")], b"a"),
        ([(TASK, b"a" * 31), (b"x-request-id", b"a")], b"~" + b"a" * 31 + b"~a"),
        ([(TASK, b"")], b"made"),
    ],
)
def test_the_task_stands_behind_the_tenant(headers: list[Header], request_id: bytes) -> None:
    """Its place is the second, with an empty first one where no tenant is told."""
    made = with_marks(headers, TENANT, TASK, lambda: b"made")
    assert [value for name, value in made if name == b"x-request-id"] == [request_id]


def test_an_id_with_all_its_marks_is_kept_whole() -> None:
    """The longest names, the longest id and what vLLM adds are within the 256 characters that are kept."""
    headers = [(TENANT, b"t" * 63), (TASK, b"k" * 31), (b"x-request-id", b"i" * MAX_ID_BYTES)]
    request_id = dict(with_marks(headers, TENANT, TASK, lambda: b"made"))[b"x-request-id"]
    assert len(b"generative-scoring-" + request_id + b"-0-0123abcd") <= 256


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TENANT, TASK, b"x-request-id"]), st.binary(max_size=40))))
def test_whatever_is_sent_an_id_has_no_marks_but_ours(headers: list[Header]) -> None:
    """No mark, one behind a tenant, or two behind a task: nothing else can come of any headers."""
    made = with_marks(headers, TENANT, TASK, lambda: b"made")
    (request_id,) = [value for name, value in made if name == b"x-request-id"]
    assert re.fullmatch(
        rb"(?:[A-Za-z0-9_.-]{1,63}~|[A-Za-z0-9_.-]{0,63}~[A-Za-z0-9_.-]{1,31}~)?[!-}]{1,128}", request_id
    )

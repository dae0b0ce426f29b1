"""Whose request it is: the gateway's word, in a place that clients cannot write to."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.answer.asgi import Header
from joulescope.answer.tenants import with_tenant

TENANT = b"x-tenant"


def ids(*headers: Header) -> list[bytes]:
    made = with_tenant(headers, TENANT, lambda: b"made")
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
    assert with_tenant(headers, TENANT, lambda: b"made")[:3] == headers

"""What of a URL may stand in a log."""

from __future__ import annotations

import pytest

from joulescope.urls import shown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("s3://bucket/ledger", "s3://bucket/ledger"),
        ("s3://bucket/team@home/ledger", "s3://bucket/team@home/ledger"),
        ("http://[::1]:9090/api", "http://[::1]:9090/api"),
        ("s3://key:secret@bucket/ledger", "s3://bucket/ledger"),
        ("s3://key:sec/ret@bucket/ledger", "s3://bucket/ledger"),
        ("s3://key:secret", "s3://"),
        ("https://store/ledger?sig=secret#secret", "https://store/ledger"),
        ("403, url='https://store/a?sig=secret' at 9:00", "403, url='https://store/a at 9:00"),
        ("http://a/x,http://me:secret@b/y;http://c?secret", "http://a/x,http://b/y;http://c"),
        ("/var/lib/a?b#c:d@e", "/var/lib/a?b#c:d@e"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(text: str, safe: str) -> None:
    """User names, passwords, queries and fragments go; a host, a port and a path stay."""
    assert shown(text) == safe

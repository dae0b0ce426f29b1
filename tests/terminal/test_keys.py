"""From bytes to keys, however a slow link cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.terminal.keys import KeyDecoder

TYPED = b"q\x1b[A\x1bOB\x1b[5~\t\r\x7f\xc3\xbc\x1b[Z/"
KEYS = ["q", "up", "down", "page-up", "tab", "enter", "backspace", "ü", "back-tab", "/"]


@pytest.mark.parametrize("size", range(1, len(TYPED) + 1))
def test_bytes_may_be_cut_anywhere(size: int) -> None:
    """The keys are the same for every size of the pieces."""
    decoder = KeyDecoder()
    keys = [key for begin in range(0, len(TYPED), size) for key in decoder.feed(TYPED[begin : begin + size])]
    assert keys == KEYS
    assert not decoder.pending


def test_an_escape_alone_waits() -> None:
    """It may be the begin of more; after a while it was the key."""
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.pending
    assert decoder.flush() == ["escape"]
    assert not decoder.pending
    assert decoder.feed(b"\x1b\x1b[A") == ["escape", "up"]


@pytest.mark.parametrize(
    "data", [b"\x1b[<0;10;20M", b"\x1b[?1;2c", b"\x1b[200~", b"\x1bx", b"\x1b[1;5A", b"\x00\x01"]
)
def test_what_is_no_key_here_is_swallowed(data: bytes) -> None:
    """A mouse, an answer of the terminal, a key with Alt: nothing of it acts as letters."""
    decoder = KeyDecoder()
    assert decoder.feed(data) == []
    assert decoder.feed(b"q") == ["q"]


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    """Keys are names or single printable letters, whatever comes."""
    decoder = KeyDecoder()
    for piece in pieces:
        for key in decoder.feed(piece):
            assert len(key) > 1 or key.isprintable()
    decoder.flush()
    assert not decoder.pending

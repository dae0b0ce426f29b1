"""The SDK's own encoder, against msgspec's decoder."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.sdk.msgpack import encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_encoded_decodes_to_the_same(value: object) -> None:
    """Whatever records may hold reaches the sidecar as it was, to the bit and the type."""
    decoded = msgspec.msgpack.decode(encode(value))
    assert decoded == value
    assert repr(decoded) == repr(value)


@given(VALUES)
def test_it_is_as_short_as_msgspecs(value: object) -> None:
    """Each value takes the shortest form there is: the bytes are those of a well-known encoder."""
    assert encode(value) == msgspec.msgpack.encode(value)


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_lengths_at_which_the_form_changes(length: int) -> None:
    """Strings, arrays and maps come through on both sides of each limit of their forms."""
    for value in ("x" * length, [7] * length, {str(key): None for key in range(length)}):
        assert encode(value) == msgspec.msgpack.encode(value)


def test_tuples_are_arrays() -> None:
    """The wire knows one kind of list."""
    assert msgspec.msgpack.decode(encode((1, (2, "a")))) == [1, [2, "a"]]


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    """An id that no UTF-8 can carry costs a character, not the frame."""
    assert msgspec.msgpack.decode(encode("a\ud800b")) == "a?b"


def test_not_a_number_stays_what_it_is() -> None:
    """A float keeps its eight bytes."""
    assert encode(float("nan"))[1:] == struct.pack(">d", float("nan"))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_integers_beyond_64_bits_are_refused(value: int) -> None:
    """What no reader could take is an error that shows the number."""
    with pytest.raises(OverflowError, match=str(value)):
        encode([value])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j])
def test_other_types_are_refused(value: object) -> None:
    """A value that no record holds is an error that names its type."""
    with pytest.raises(TypeError, match=type(value).__name__):
        encode({"key": value})

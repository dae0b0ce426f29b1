"""Frames: whatever bytes arrive, good records come out once, and the rest is counted."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulescope.errors import ProtocolError
from joulescope.hook.wire import LENGTH_BYTES, AnyRecord, Hello, Progress, RequestEnd, Step, encode_frame
from joulescope.ingest.frames import FrameDecoder
from tests.examples import examples

ENCODER = msgspec.msgpack.Encoder()


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


records = st.lists(
    st.one_of(
        st.builds(Progress, time_ns=st.integers(0, 2**60), dropped=st.integers(0, 9)),
        st.builds(
            RequestEnd,
            request=st.integers(0, 2**40),
            time_ns=st.integers(0, 2**62),
            reason=st.text(max_size=9),
        ),
        st.builds(
            Step,
            step=st.integers(0, 99),
            schedule_start_ns=st.integers(0, 99),
            schedule_end_ns=st.integers(0, 99),
            output_start_ns=st.integers(0, 99),
            output_end_ns=st.integers(0, 99),
            request=st.lists(st.integers(0, 2**31), max_size=4),
            context=st.lists(st.integers(0, 2**31), max_size=4),
        ),
    ),
    max_size=5,
)


@given(batches=st.lists(records, max_size=5), cuts=st.lists(st.integers(1, 40), min_size=1))
def test_records_survive_any_cutting_of_the_stream(batches: list[list[AnyRecord]], cuts: list[int]) -> None:
    """A stream cut at arbitrary places decodes to the very records that went in, in order."""
    stream = b"".join(encode_frame(batch, ENCODER) for batch in batches)
    decoder = FrameDecoder()
    out: list[AnyRecord] = []
    at, turn = 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        out += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert out == [record for batch in batches for record in batch]
    assert decoder.offset == len(stream)
    assert not decoder.rejected
    assert not decoder.pending_bytes


@settings(max_examples=examples(500))
@given(garbage=st.binary(max_size=300))
def test_garbage_never_raises_anything_but_a_protocol_error(garbage: bytes) -> None:
    """Whatever a peer writes, the decoder either counts it or says that the stream is not its protocol."""
    decoder = FrameDecoder(max_frame_bytes=1024)
    with contextlib.suppress(ProtocolError):
        decoder.feed(garbage)
        decoder.feed(garbage)


@settings(max_examples=examples(500))
@given(payload=st.binary(max_size=200), good=records)
def test_a_bad_frame_does_not_spoil_its_neighbours(payload: bytes, good: list[AnyRecord]) -> None:
    """Frames with nonsense inside are skipped; the frames before and after are read."""
    marker = Progress(time_ns=7)
    decoder = FrameDecoder()
    out = decoder.feed(encode_frame(good, ENCODER) + frame(payload) + encode_frame([marker], ENCODER))
    assert out[: len(good)] == good
    assert out[-1] == marker


def test_unknown_types_and_fields_are_skipped_and_told_apart() -> None:
    """A newer hook may send more: unknown fields are ignored, unknown types and bad records counted."""
    payload = ENCODER.encode(
        [
            {"type": "tomorrow", "x": 1},
            {"type": "progress", "time_ns": 5, "colour": "blue"},
            {"type": "progress", "time_ns": "late"},
            ["no", "record"],
        ]
    )
    decoder = FrameDecoder()
    assert decoder.feed(frame(payload)) == [Progress(time_ns=5)]
    assert decoder.rejected == {"unknown_type": 1, "malformed_record": 2}


def test_a_frame_that_is_no_array_is_counted() -> None:
    """One broken frame costs one count, not the connection."""
    decoder = FrameDecoder()
    assert decoder.feed(frame(b"\xc1") + frame(ENCODER.encode({"type": "hello"}))) == []
    assert decoder.rejected == {"malformed_frame": 2}


def test_an_oversized_length_ends_the_stream_with_its_place() -> None:
    """A length beyond the limit cannot be skipped; the error names the byte and the limit."""
    decoder = FrameDecoder(max_frame_bytes=100)
    first = encode_frame([Hello(time_ns=1)], ENCODER)
    with pytest.raises(ProtocolError, match=rf"byte {len(first)} announces 1195725856 bytes.*100"):
        decoder.feed(first + b"GET / HTTP/1.1\r\n")

"""A hook and a sidecar of different versions: each reads what the other writes, as far as it can know it."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from joulescope.hook import wire
from joulescope.ingest.frames import FrameDecoder
from joulescope.model import FinishedRequest
from joulescope.replay import Replay
from tests import worlds
from tests.versions import first_wire
from tests.worlds import GPU, MS, SECOND

ENCODER = msgspec.msgpack.Encoder()
OLD_TYPES = {each.__name__: each for each in typing.get_args(first_wire.AnyRecord)}
NEW_TYPES = {each.__name__: each for each in typing.get_args(wire.AnyRecord)}

LIFE: list[wire.AnyRecord] = [
    worlds.hello(capabilities=["progress"]),
    worlds.start(1, lora="adapter", trace_parent="00-1-1-01"),
    worlds.start(2),
    *(worlds.step(number, number * 20 * MS, (number + 1) * 20 * MS, [1, 2]) for number in range(100)),
    worlds.end(1, 2 * SECOND, 99),
    worlds.end(2, 2 * SECOND, 99, reason="stop"),
    wire.Progress(time_ns=3 * SECOND),
    wire.Bye(time_ns=3 * SECOND, reason="closed"),
]


def as_first_written(records: Sequence[wire.AnyRecord]) -> list[Any]:
    """The same in the words of the first hook: fields that it had, and no others."""
    return [
        msgspec.convert(
            {key: value for key, value in msgspec.to_builtins(record).items() if key != "type"},
            OLD_TYPES[type(record).__name__],
        )
        for record in records
    ]


def accounts(engine: Sequence[wire.AnyRecord]) -> list[FinishedRequest]:
    gpu = [wire.Gpu(gpu=GPU), *worlds.samples(3 * SECOND, 400.0)]
    return list(Replay(worlds.by_time(engine, gpu)))


def test_the_first_hook_is_accounted_by_todays_sidecar() -> None:
    """A whole session of it, as bytes: nothing is refused, and every joule is where it would be today."""
    payload = first_wire.encode_frame(as_first_written(LIFE), ENCODER)
    decoder = FrameDecoder()
    read = decoder.feed(payload)
    assert not decoder.rejected
    assert len(read) == len(LIFE)
    finished = accounts(read)
    assert finished == accounts(LIFE)
    assert [request.request_id for request in finished] == ["r1", "r2"]
    assert all((request.attributed_joules or 0) > 100 for request in finished)


def test_todays_hook_is_read_by_the_first_sidecar() -> None:
    """It skips the fields that it does not know and has the same in all that it knows."""
    payload = wire.encode_frame(LIFE, ENCODER)[wire.LENGTH_BYTES :]
    read = msgspec.msgpack.decode(payload, type=list[first_wire.AnyRecord])
    assert read == as_first_written(LIFE)


def test_records_of_a_new_kind_cost_the_first_sidecar_only_themselves() -> None:
    """Each record is decoded by itself; one of a kind that it does not know is refused, and only that."""
    strange = wire.GpuStatus(gpu=GPU, time_ns=1)
    raw = msgspec.msgpack.decode(ENCODER.encode([strange, *LIFE]), type=list[msgspec.Raw])
    with pytest.raises(msgspec.ValidationError, match="Invalid value 'gpu_status'"):
        msgspec.msgpack.decode(raw[0], type=first_wire.AnyRecord)
    assert [msgspec.msgpack.decode(each, type=first_wire.AnyRecord) for each in raw[1:]]


@pytest.mark.parametrize("name", sorted(OLD_TYPES))
def test_no_field_was_taken_away_or_changed(name: str) -> None:
    """Every field of the first wire is there, of the same type and with the same default; every field that
    came later has a default, so that the first hook's records are whole. The rule of docs/protocol.md."""
    old = {field.name: field for field in msgspec.structs.fields(OLD_TYPES[name])}
    new = {field.name: field for field in msgspec.structs.fields(NEW_TYPES[name])}
    assert set(old) <= set(new)
    for field in old:
        assert _plain(new[field].type) == _plain(old[field].type), field
        assert new[field].required == old[field].required, field
    assert not [field for field in set(new) - set(old) if new[field].required]
    assert wire.PROTOCOL == first_wire.PROTOCOL == 1


def _plain(kind: Any) -> str:
    return str(kind).replace("tests.versions.first_wire", "joulescope.hook.wire")

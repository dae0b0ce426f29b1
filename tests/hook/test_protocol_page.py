"""docs/protocol.md names every field that the hook sends, with its true type."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import msgspec
import pytest

from joulescope.daemon.wishes import ASK_AGAIN_NS
from joulescope.hook import emitter, link, translate, wire
from joulescope.link import records as links
from joulescope.link.peer import PING_NS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()

STRUCTS: dict[str, type[msgspec.Struct]] = {
    "hello": wire.Hello,
    "engine": wire.EngineFacts,
    "cost": wire.CostFacts,
    "worker": wire.WorkerFacts,
    "sampler": wire.SamplerFacts,
    "wanted": wire.Wanted,
    "request_start": wire.RequestStart,
    "step": wire.Step,
    "request_end": wire.RequestEnd,
    "overhead": wire.Overhead,
    "gap": wire.Gap,
    "progress": wire.Progress,
    "bye": wire.Bye,
    "link_hello": links.LinkHello,
    "link_ping": links.LinkPing,
    "link_pong": links.LinkPong,
    "link_welcome": links.LinkWelcome,
}


def described() -> dict[str, dict[str, tuple[str, str]]]:
    """For each section headed by a name in backticks: its fields with type and unit."""
    found = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        name = section[: section.index("\n")].strip("`")
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, flags=re.MULTILINE)
        assert len(rows) == section.count("\n| `"), f"a row of {name} is malformed"
        found[name] = {field: (kind, unit) for field, kind, unit in rows}
    return found


def type_name(hint: object) -> str:
    """How the page calls a Python type."""
    if isinstance(hint, types.UnionType):
        (inner,) = [each for each in typing.get_args(hint) if each is not types.NoneType]
        return f"{type_name(inner)} or null"
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return f"list of {type_name(arguments[0])}"
    if typing.get_origin(hint) is tuple:
        return {2: "pair", 3: "triple"}[len(arguments)]
    assert isinstance(hint, type)
    return "object" if issubclass(hint, msgspec.Struct) else hint.__name__


def test_sections() -> None:
    """Each record of the hook and each object in the hello has its section, and nothing else has."""
    assert described().keys() == STRUCTS.keys()


@pytest.mark.parametrize("name", STRUCTS)
def test_fields(name: str) -> None:
    """A section has the fields of its record, in their order and with their types."""
    expected = {
        field: type_name(hint)
        for field, hint in typing.get_type_hints(STRUCTS[name]).items()
        if field != "session"
    }
    assert {field: kind for field, (kind, _) in described()[name].items()} == expected


UNIT_OF_SUFFIX = {"_ns": "ns", "_bytes": "B", "_tokens": "tokens", "_ratio": "0..1"}


@pytest.mark.parametrize("name", STRUCTS)
def test_units(name: str) -> None:
    """The unit that a field's name promises is the one that the page states."""
    for field, (_, unit) in described()[name].items():
        suffix = next((each for each in UNIT_OF_SUFFIX if field.endswith(each)), None)
        if suffix is not None:
            assert unit in {UNIT_OF_SUFFIX[suffix], "ns since 1970"}, field


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("at most 256 records", emitter.RECORDS_PER_FRAME == 256),
        ("every 20 ms", emitter.POLL_SECONDS == 0.02),
        ("comes every 200 ms", emitter.HEARTBEAT_SECONDS == 0.2),
        ("(8192 items)", emitter.QUEUE_LIMIT == 8192),
        ("(4 MiB)", link.MAX_BUFFER_BYTES == 4 * 2**20),
        ("at most\n  16 MiB", wire.MAX_FRAME_BYTES == 16 * 2**20),
        ("at most 256 KiB", links.MAX_LINK_FRAME_BYTES == 256 * 2**10),
        ("`link_ping` four times a second", PING_NS == 250_000_000),
        ("at most 64 characters", links.MAX_NODE_CHARACTERS == 64),
        ("at most 64 KiB", link.MAX_HEARD_BYTES == 64 * 2**10),
        ("every ten seconds", ASK_AGAIN_NS == 10 * 10**9),
        ("length of 4 bytes", wire.LENGTH_BYTES == 4),
        ("less 1 ms", emitter.SETTLE_NS == 1_000_000),
        ("at most 256 characters", translate.MAX_ID_CHARACTERS == 256),
        ("at most 512 characters", translate.MAX_TRACE_STATE_CHARACTERS == 512),
    ],
)
def test_numbers(text: str, value: bool) -> None:
    """The limits on the page are those of the code."""
    assert text in PAGE
    assert value

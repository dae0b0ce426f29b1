"""docs/trace-format.md is complete and true: its tables, its example, and what it says comes out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner

from joulescope.cli.replay import command as replay
from joulescope.hook import wire
from joulescope.ingest.trace import TraceReader

PAGE = (Path(__file__).parents[1] / "docs" / "trace-format.md").read_text()

OBJECTS: dict[str, type[msgspec.Struct]] = {
    "engine": wire.EngineFacts,
    "cost": wire.CostFacts,
    "worker": wire.WorkerFacts,
    "sampler": wire.SamplerFacts,
}
RECORDS: dict[str, type[msgspec.Struct]] = {
    str(record.__struct_config__.tag): record for record in get_args(wire.AnyRecord)
}


def _tables() -> dict[str, dict[str, str]]:
    """For each section headed by a name in backticks: the field names and what ``required`` says."""
    found = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        name = section[: section.index("\n")].strip("`")
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|[^|]*\|[^|]*\|$", section, flags=re.MULTILINE)
        assert len(rows) == section.count("\n| `"), f"a row of {name} is malformed"
        found[name] = dict(rows)
    return found


def _block(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(block)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return msgspec.to_builtins(field.default)


def test_every_record_and_object_has_its_section() -> None:
    """The page describes all types that exist and none besides."""
    assert set(_tables()) == set(RECORDS) | set(OBJECTS)


@pytest.mark.parametrize(("name", "struct"), [*RECORDS.items(), *OBJECTS.items()])
def test_every_field_is_described_with_its_default(name: str, struct: type[msgspec.Struct]) -> None:
    """Each table has the fields of its record, says which are required, and names the true defaults."""
    table = _tables()[name]
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert set(table) == set(fields)
    for field_name, field in fields.items():
        said = table[field_name]
        if field.required:
            assert said == "yes", field_name
        elif said == "no, all `1`":
            assert _default(field) == [], field_name
        else:
            match = re.fullmatch(r"no, `(.*)`", said)
            assert match, field_name
            assert json.loads(match[1]) == _default(field), field_name


def test_the_example_uses_nothing_that_does_not_exist() -> None:
    """Each line of the example decodes strictly, with no unknown field."""
    for line in _block("jsonl").splitlines():
        record = json.loads(line)
        struct = RECORDS[record["type"]]
        assert set(record) - {"type"} <= {field.encode_name for field in msgspec.structs.fields(struct)}
        for name, facts in OBJECTS.items():
            inner = record.get(name) or (record.get("engine") or {}).get(name) or {}
            assert set(inner) <= {field.encode_name for field in msgspec.structs.fields(facts)}
        msgspec.json.decode(line, type=struct)


def test_the_example_replays_to_what_the_page_says(tmp_path: Path) -> None:
    """The trace written from the page is read without a complaint, and its balance is the one printed."""
    path, out = tmp_path / "example.jsonl", tmp_path / "requests.jsonl"
    path.write_text(_block("jsonl"))
    with TraceReader(path) as reader:
        assert len(list(reader)) == len(_block("jsonl").splitlines())
        assert not reader.rejected
    result = CliRunner().invoke(replay, [str(path), "--requests", str(out)], catch_exceptions=False)
    assert result.stdout == _block("text")
    requests = {line["request_id"]: line for line in map(json.loads, out.read_text().splitlines())}
    assert set(requests) == {"chat-1", "chat-2"}
    assert requests["chat-2"]["cached_tokens"] == 64
    assert [requests[name]["output_tokens"] for name in ("chat-1", "chat-2")] == [3, 2]
    assert all(line["complete"] for line in requests.values())


def test_the_order_of_sessions_is_free_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    """Engine records may all come before the samples, and blank lines change nothing."""
    lines = _block("jsonl").splitlines()
    path = tmp_path / "sorted.jsonl"
    engine = [line for line in lines if '"session"' in line]
    path.write_text("\n\n".join([lines[0], *engine, *(line for line in lines[1:] if line not in engine)]))
    result = CliRunner().invoke(replay, [str(path)], catch_exceptions=False)
    assert result.stdout == _block("text")

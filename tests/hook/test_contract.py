"""The table of names that the hook touches, and the two ways of looking them up."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from joulescope.hook import contract
from joulescope.hook.contract import CONTRACT, Touch, absent_at_run_time, missing_capabilities
from tools.compat import MEANING, Sources, table, unpack

SOURCE = """
import enum
from pig.base import Base as Parent
import msgspec
from dataclasses import dataclass


@dataclass
class Data:
    declared: int
    defaulted: int = 0


class Struct(msgspec.Struct):
    packed: int


class Thing(Parent):
    def __init__(self, first, second=None):
        self.set_in_init = first
        self.annotated: int = 1

    def start(self):
        self.set_later = 1

    def method(self, request, *, option=False):
        return request

    @property
    def computed(self):
        return 1
"""

BASE = """
class Base:
    def inherited(self, argument):
        self.set_in_base = 1
"""

PRESENT = [
    Touch("pig.thing:Data", "declared", "c"),
    Touch("pig.thing:Data", "defaulted", "c"),
    Touch("pig.thing:Struct", "packed", "c"),
    Touch("pig.thing:Thing", "set_in_init", "c"),
    Touch("pig.thing:Thing", "annotated", "c"),
    Touch("pig.thing:Thing", "set_later", "c"),
    Touch("pig.thing:Thing", "computed", "c"),
    Touch("pig.thing:Thing", "set_in_base", "c"),
    Touch("pig.thing:Thing", "method", "c", ("request",)),
    Touch("pig.thing:Thing", "__init__", "c", ("first",)),
    Touch("pig.thing:Thing", "inherited", "c", ("argument",)),
]
ABSENT = [
    Touch("pig.thing:Data", "other", "c"),
    Touch("pig.thing:Struct", "other", "c"),
    Touch("pig.thing:Thing", "other", "c"),
    Touch("pig.thing:Nothing", "other", "c"),
]
ABSENT_IN_SOURCES = [
    Touch("pig.thing:Thing", "method", "c", ("response",)),
    Touch("pig.thing:Thing", "__init__", "c", ("first", "third")),
    Touch("pig.nowhere:Thing", "method", "c", ()),
]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    package = tmp_path / "pig"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "thing.py").write_text(SOURCE)
    (package / "base.py").write_text(BASE)
    return tmp_path


@pytest.mark.parametrize("touch", PRESENT, ids=lambda touch: touch.name)
def test_present(touch: Touch, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is found, in the sources and in the running module alike."""
    assert not Sources(release).lacks(touch)
    load(release, monkeypatch)
    assert not absent_at_run_time(touch)


@pytest.mark.parametrize("touch", ABSENT, ids=lambda touch: f"{touch.owner}.{touch.name}")
def test_absent(touch: Touch, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is missed, in the sources and in the running module alike."""
    assert Sources(release).lacks(touch)
    load(release, monkeypatch)
    assert absent_at_run_time(touch)


@pytest.mark.parametrize("touch", ABSENT_IN_SOURCES, ids=lambda touch: f"{touch.owner}.{touch.name}")
def test_changed_signature(touch: Touch, release: Path) -> None:
    """A method that takes other arguments, or a module that is gone, counts as absent."""
    assert Sources(release).lacks(touch)


def load(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(release)
    for name in ("pig", "pig.base", "pig.thing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    __import__("pig.thing")


def test_module_that_is_not_loaded() -> None:
    """A process that has not loaded a module is not told that vLLM lacks its names."""
    assert not absent_at_run_time(Touch("guinea.pig:Thing", "method", "c"))


@pytest.mark.parametrize(
    ("absent", "lacking"),
    [
        (set(), {}),
        ({"a"}, {"needs_a": ["T.a"]}),
        ({"new"}, {}),
        ({"old"}, {}),
        ({"new", "old"}, {"either": ["T.new"]}),
    ],
)
def test_alternatives(
    absent: set[str], lacking: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capability is lost with any of its names, or when none of its alternatives is complete."""
    rows = (
        Touch("m:T", "a", "needs_a"),
        Touch("m:T", "new", "either", alternative="new"),
        Touch("m:T", "old", "either", alternative="old"),
    )
    monkeypatch.setattr(contract, "CONTRACT", rows)
    provided, found = missing_capabilities(lambda touch: touch.name in absent)
    assert found == lacking
    assert set(provided) == {"needs_a", "either"} - lacking.keys()


def test_decorated_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes set by a constructor that the hook has wrapped are still seen."""

    class Thing:
        def __init__(self) -> None:
            self.inside = 1

    original = Thing.__init__

    def wrapper(self: Thing) -> None:
        original(self)

    wrapper.__wrapped__ = original  # type: ignore[attr-defined]
    Thing.__init__ = wrapper  # type: ignore[method-assign]
    module = ModuleType("guinea_pig_module")
    module.Thing = Thing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "guinea_pig_module", module)
    assert not absent_at_run_time(Touch("guinea_pig_module:Thing", "inside", "c"))


def test_every_capability_is_explained() -> None:
    """The page of releases has words for each capability of the table, and for no other."""
    assert set(MEANING) == {touch.capability for touch in CONTRACT}


def test_table_names_what_is_absent() -> None:
    """A cell says yes, or which names are missing."""
    text = table({"1.0": {}, "2.0": {"ends": ["Scheduler._free_request"]}})
    (row,) = [line for line in text.splitlines() if line.startswith("| `ends`")]
    assert row.endswith("| yes | no: `Scheduler._free_request` |")


def test_unpack_takes_only_python(tmp_path: Path) -> None:
    """Of a wheel only the Python files of vLLM are kept."""
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("vllm/a.py", "vllm/b.so", "other/c.py"):
            archive.writestr(name, "")
    unpack(wheel, tmp_path / "out")
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")] == ["vllm/a.py"]

"""The plugin's entry point: when it acts, when it does not, and what it never does."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import joulescope.hook
from joulescope.hook.patching import PostImport, tolerant


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JOULESCOPE_SOCKET", raising=False)
    monkeypatch.delenv("JOULESCOPE_DISABLED", raising=False)
    monkeypatch.setattr(joulescope.hook, "DEFAULT_SOCKET", str(tmp_path / "default"))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))


def registered() -> int:
    return sum(isinstance(finder, PostImport) for finder in sys.meta_path)


def test_entry_point() -> None:
    """vLLM finds the hook under its plugin group."""
    (entry,) = entry_points(group="vllm.general_plugins", name="joulescope")
    assert entry.load() is joulescope.hook.register


def test_off_when_nobody_asked() -> None:
    """Without a named socket and without the default one nothing is left behind."""
    joulescope.hook.register()
    assert registered() == 0


def test_on_with_a_named_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named socket switches the hook on, whether or not it exists yet."""
    monkeypatch.setenv("JOULESCOPE_SOCKET", "/not/there/yet")
    joulescope.hook.register()
    assert registered() == 1


def test_on_with_the_default_socket() -> None:
    """The default socket switches the hook on if it exists."""
    Path(joulescope.hook.DEFAULT_SOCKET).touch()
    joulescope.hook.register()
    assert registered() == 1


@pytest.mark.parametrize("value", ["1", "true", " YES ", "on"])
def test_disabled(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """JOULESCOPE_DISABLED wins over a named socket."""
    monkeypatch.setenv("JOULESCOPE_SOCKET", "/not/there/yet")
    monkeypatch.setenv("JOULESCOPE_DISABLED", value)
    joulescope.hook.register()
    assert registered() == 0


def test_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """If the hook's own modules cannot be imported, vLLM starts all the same and the log has one line."""
    monkeypatch.setenv("JOULESCOPE_SOCKET", "/s")
    monkeypatch.setitem(sys.modules, "joulescope.hook.tap", None)
    joulescope.hook.register()
    assert len(caplog.records) == 1
    assert "idle" in caplog.text


def test_register_opens_nothing(tmp_path: Path) -> None:
    """In a fresh process, registering twice starts no thread, opens no file, imports no vLLM, and patches
    vLLM's modules once when they are imported."""
    for name in ("scheduler", "worker_base", "core"):
        (tmp_path / f"{name}.py").touch()
    package = tmp_path / "vllm" / "v1" / "core" / "sched"
    package.mkdir(parents=True)
    (package / "scheduler.py").write_text("class Scheduler:\n    def __init__(self): self.made = True\n")
    program = """
        import os, sys, threading
        def state(): return threading.active_count(), len(os.listdir("/proc/self/fd"))
        import joulescope.hook
        before = state()
        joulescope.hook.register()
        joulescope.hook.register()
        assert state() == before, state()
        assert not any(name.startswith("vllm") for name in sys.modules)
        from vllm.v1.core.sched.scheduler import Scheduler
        assert Scheduler.__init__.__wrapped__.__qualname__ == "Scheduler.__init__"
        assert not hasattr(Scheduler.__init__.__wrapped__, "__wrapped__")
        assert Scheduler().made
    """
    environment = {"JOULESCOPE_SOCKET": "/not/there/yet", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("joulescope: idle") == 1  # this vLLM lacks nearly everything


def test_hook_imports_only_what_vllm_has() -> None:
    """The hook's modules import the standard library, msgspec and themselves."""
    program = """
        import sys
        import msgspec
        before = set(sys.modules)
        import joulescope.hook.tap
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        names = {name for name in names if not name.startswith("__editable__")}
        print(*sorted(names - sys.stdlib_module_names - {"joulescope", "msgspec"}))
        print(*sorted(n for n in sys.modules if n.startswith("joulescope.") and ".hook" not in n))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == []


# ------------------------------------------------------------------------------- the import system


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "guinea_pig_package.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "guinea_pig_package", raising=False)
    return "guinea_pig_package"


def test_patch_after_import(package: str) -> None:
    """A module that is imported later is patched once, and looks untouched to the import system."""
    finder, seen = PostImport(), []
    finder.when_loaded(package, lambda module: seen.append(module.value))
    module = importlib.import_module(package)
    assert seen == [1]
    assert finder not in sys.meta_path
    assert "exec_module" not in vars(module.__spec__.loader)
    importlib.reload(module)
    assert seen == [1]


def test_patch_loaded_module(package: str) -> None:
    """A module that is loaded already is patched at once."""
    importlib.import_module(package)
    finder, seen = PostImport(), []
    finder.when_loaded(package, lambda module: seen.append(module.value))
    assert seen == [1]


def test_module_that_does_not_exist() -> None:
    """Waiting for a module that this version lacks does not disturb its import error."""
    finder = PostImport()
    finder.when_loaded("guinea_pig_that_is_not_there", lambda module: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guinea_pig_that_is_not_there")


def test_two_finders_stacked(package: str) -> None:
    """Two finders that wait for the same module both patch it and break nothing."""
    seen: list[str] = []
    PostImport().when_loaded(package, lambda module: seen.append("first"))
    PostImport().when_loaded(package, lambda module: seen.append("second"))
    importlib.import_module(package)
    assert sorted(seen) == ["first", "second"]


def test_failing_patch_does_not_break_the_import(package: str) -> None:
    """An exception in a patch is reported; the module is imported all the same."""

    def patch(module: object, argument: str) -> None:
        raise ZeroDivisionError(argument)

    complaints: list[Exception] = []
    finder = PostImport()
    finder.when_loaded(package, tolerant(patch, "on purpose", complain=complaints.append))
    assert importlib.import_module(package).value == 1
    assert [str(error) for error in complaints] == ["on purpose"]

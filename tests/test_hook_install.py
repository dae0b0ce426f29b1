"""The hook, copied to where vLLM's Python finds it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import joulescope
from joulescope.cli.hook import command
from joulescope.errors import ConfigError
from joulescope.hook_install import install

FINDS_THE_HOOK = """
import importlib.metadata, sys
import joulescope
assert joulescope.__file__.startswith(sys.argv[1]), joulescope.__file__
found = [point for point in importlib.metadata.distribution("joulescope-inference").entry_points
         if point.group == "vllm.general_plugins"]
(point,) = found
assert point.dist is None or point.dist.version == joulescope.__version__
point.load()()
"""


def _python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """A Python that knows the standard library and the folder, as vLLM's would without joulescope."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code, str(folder)],
        env={"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".joulescope")}


def test_python_finds_the_entry_point_of_the_copy_by_its_path_alone(tmp_path: Path) -> None:
    """Nothing else is installed there: the copy needs the standard library."""
    done = install(tmp_path / "hook")
    assert (done.version, done.replaced, done.changed) == (joulescope.__version__, (), True)
    said = _python(tmp_path / "hook", FINDS_THE_HOOK)
    assert said.returncode == 0, said.stderr


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    """An init container that is started again leaves the copy as it is."""
    install(tmp_path)
    before = os.stat(tmp_path / "joulescope").st_ino
    done = install(tmp_path)
    assert not done.changed
    assert os.stat(tmp_path / "joulescope").st_ino == before


def test_another_version_is_replaced_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up and down alike; of the old one nothing stays, least of all its metadata."""
    monkeypatch.setattr(joulescope, "__version__", "0.0.9")
    install(tmp_path)
    monkeypatch.undo()
    assert install(tmp_path).replaced == ("0.0.9",)
    assert _names(tmp_path) == {"joulescope", f"joulescope_inference-{joulescope.__version__}.dist-info"}
    assert _python(tmp_path, FINDS_THE_HOOK).returncode == 0


def test_a_reader_keeps_what_it_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened before another version came is read to its end."""
    monkeypatch.setattr(joulescope, "__version__", "0.0.9")
    install(tmp_path)
    monkeypatch.undo()
    with open(tmp_path / "joulescope" / "hook" / "tap.py") as open_file:
        install(tmp_path)
        assert open_file.read()


def test_a_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    """A disk that was full leaves short files."""
    install(tmp_path)
    (tmp_path / "joulescope" / "hook" / "wire.py").write_text("")
    assert install(tmp_path).changed
    assert _python(tmp_path, FINDS_THE_HOOK).returncode == 0


def test_what_a_killed_install_left_is_removed(tmp_path: Path) -> None:
    """Half a copy is never linked to, and does not stay."""
    draft = tmp_path / ".joulescope-draft-x"
    draft.mkdir()
    (draft / "joulescope").mkdir()
    (tmp_path / ".joulescope-link-77").symlink_to("nowhere")
    install(tmp_path)
    assert not draft.exists()
    assert not (tmp_path / ".joulescope-link-77").is_symlink()


def test_every_user_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    """vLLM runs as somebody else than the init container."""
    before = os.umask(0o077)
    try:
        install(tmp_path / "hook")
    finally:
        os.umask(before)
    for path in [tmp_path / "hook", *(tmp_path / "hook").rglob("*")]:
        wanted = 0o755 if path.is_dir() else 0o644
        assert path.is_symlink() or path.name == ".joulescope.lock" or path.stat().st_mode & 0o777 == wanted


def test_bytecode_is_not_copied(tmp_path: Path) -> None:
    """It would be that of another Python."""
    install(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".pyc" or path.name == "__pycache__"]


def test_two_at_once_leave_one_whole_copy(tmp_path: Path) -> None:
    """Both say that it is there."""
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(install(tmp_path).changed)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    assert _python(tmp_path, FINDS_THE_HOOK).returncode == 0


def test_an_install_that_does_not_end_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """One that was stopped in a folder that pods share would hold vLLM's start up in all of them."""
    install(tmp_path)
    with open(tmp_path / ".joulescope.lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another install into .* does not end"):
            install(tmp_path, patience_seconds=0.0)
    assert not install(tmp_path).changed


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """Nothing of anybody's is overwritten, or hidden from Python."""
    (tmp_path / "numpy").mkdir()
    with pytest.raises(ConfigError, match=r"holds something that is not the hook \(numpy\).*empty folder"):
        install(tmp_path)
    assert _names(tmp_path) == {"numpy"}


def test_a_mounted_volume_may_have_its_lost_and_found(tmp_path: Path) -> None:
    """File systems bring it along."""
    (tmp_path / "lost+found").mkdir()
    assert install(tmp_path).changed


def test_a_link_that_is_not_ours_stays(tmp_path: Path) -> None:
    """What is tolerated beside the copy is not tidied away with older ones."""
    (tmp_path / "..data").symlink_to("elsewhere")
    assert install(tmp_path).changed
    assert os.readlink(tmp_path / "..data") == "elsewhere"


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    """The message says what to do."""
    (tmp_path / "hook").write_text("")
    with pytest.raises(ConfigError, match="is not a folder: name another"):
        install(tmp_path / "hook")


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the new version, not the old one."""
    monkeypatch.setattr(joulescope, "__version__", "0.0.9")
    install(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "write_bytes", _no_space)
    with pytest.raises(ConfigError, match="No space left on device"):
        install(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "joulescope_inference-0.0.9.dist-info" / "entry_points.txt").is_file()
    assert (tmp_path / "joulescope" / "hook" / "tap.py").is_file()


def _no_space(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    """With the line that vLLM's environment needs."""
    runner = CliRunner()
    first = runner.invoke(command, ["install", str(tmp_path)], catch_exceptions=False)
    assert (
        first.output == f"joulescope {joulescope.__version__} is now in {tmp_path}: PYTHONPATH={tmp_path}\n"
    )
    second = runner.invoke(command, ["install", str(tmp_path)], catch_exceptions=False)
    assert "was already in" in second.output


def test_lenient_says_the_failure_and_succeeds(tmp_path: Path) -> None:
    """An init container that fails would keep vLLM from starting."""
    (tmp_path / "hook").write_text("")
    strict = CliRunner().invoke(command, ["install", str(tmp_path / "hook")])
    assert isinstance(strict.exception, ConfigError)
    lenient = CliRunner().invoke(command, ["install", "--lenient", str(tmp_path / "hook")])
    assert lenient.exit_code == 0
    assert "vLLM will run without the hook" in lenient.output


def test_lenient_is_so_with_defects_of_ours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong, vLLM starts."""
    monkeypatch.setattr(Path, "write_bytes", _no_memory)
    lenient = CliRunner().invoke(command, ["install", "--lenient", str(tmp_path)])
    assert lenient.exit_code == 0
    assert "vLLM will run without the hook" in lenient.output


def _no_memory(*_: object) -> int:
    raise MemoryError("none left")


def test_a_full_disk_is_not_filled_further_by_every_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before it was full is removed."""
    monkeypatch.setattr(Path, "write_bytes", _no_space)
    for _ in range(3):
        with pytest.raises(ConfigError, match="No space left"):
            install(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".joulescope.lock"]


def test_a_lock_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write the folder does not make us create files in another."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / ".joulescope.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot install the hook"):
        install(tmp_path / "hook")
    assert not (tmp_path / "elsewhere").exists()

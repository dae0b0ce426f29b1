"""Puts this package where a Python without it finds it by ``PYTHONPATH``: vLLM's, in its own image.

What is copied is the base install, package and metadata: pure Python without dependencies, the same for every
Python that vLLM runs in. vLLM looks for plugins among the entry points of what is on the path, and finds the
hook there.

In the folder a copy lies under a name of its own, and links lead to it::

    DIR/joulescope                             -> .joulescope-0.1.0-3f…/joulescope
    DIR/joulescope_inference-0.1.0.dist-info   -> .joulescope-0.1.0-3f…/joulescope_inference-0.1.0.dist-info

so that a process that looks there sees a whole copy at any time, the old one or the new. A folder that is a
mount point cannot be exchanged itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import joulescope
from joulescope.errors import ConfigError

DISTRIBUTION = "joulescope-inference"

_PREFIX = ".joulescope-"
_LOCK = ".joulescope.lock"
_LOCK_PAUSE_SECONDS = 0.05
_METADATA = ("METADATA", "entry_points.txt")
"""Of the metadata what Python looks at; the list of installed files would be another place's."""
_NOT_OURS_TO_MIND = frozenset({"lost+found", "..data"})
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755
"""Whoever vLLM runs as may read it, whatever the umask here."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What is in a folder now.

    ``version``: of the copy. ``replaced``: versions that were there before and are gone. ``changed``: whether
    anything was written.
    """

    folder: Path
    version: str
    replaced: tuple[str, ...]
    changed: bool


def install(folder: Path, patience_seconds: float = 20.0) -> Installed:
    """Makes sure that ``folder`` holds this version, and no other.

    Args:
        patience_seconds: how long to wait for another install into the same folder.

    Raises:
        ConfigError: if it cannot, and how to mend it. What was there before still works.
    """
    try:
        _make(folder)
        with _locked(folder, time.monotonic() + patience_seconds):
            return _install(folder, _contents())
    except FileExistsError as error:
        raise ConfigError(f"{folder} is not a folder: name another one to install into") from error
    except OSError as error:
        raise ConfigError(
            f"cannot install the hook into {folder}: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; it must be a folder that this user "
            f"(uid {os.getuid()}) may write, with a few MB free"
        ) from error


def _make(folder: Path) -> None:
    existed = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    if not existed:
        folder.chmod(_FOLDER_MODE)


@contextlib.contextmanager
def _locked(folder: Path, deadline_seconds: float) -> Iterator[None]:
    """One at a time; the lock ends with the process that holds it, which may be stopped and never end."""
    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
    try:
        while not _has_lock(descriptor):
            if time.monotonic() >= deadline_seconds:
                raise ConfigError(
                    f"another install into {folder} does not end: end it, or name another folder"
                )
            time.sleep(_LOCK_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _has_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _contents() -> Mapping[str, bytes]:
    """Every file of a copy, by its path in there."""
    package = Path(joulescope.__file__).parent
    found = {
        str(PurePosixPath("joulescope", *path.relative_to(package).parts)): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            "this joulescope was not installed by pip, so that it has no entry points for vLLM to find; "
            "install it, for instance with: pip install --no-deps ."
        ) from None
    for name in _METADATA:
        text = distribution.read_text(name)
        if text is None and name == "METADATA":  # what setuptools calls it in a source tree
            text = distribution.read_text("PKG-INFO")
        if text is None:
            raise ConfigError(f"the installed {DISTRIBUTION} has no {name}; install it again with pip")
        found[f"{_metadata_folder()}/{name}"] = text.encode()
    return found


def _metadata_folder() -> str:
    return f"{DISTRIBUTION.replace('-', '_')}-{joulescope.__version__}.dist-info"


def _install(folder: Path, contents: Mapping[str, bytes]) -> Installed:
    before = _present(folder)
    home = f"{_PREFIX}{joulescope.__version__}-{_digest(contents)}"
    whole = _is_whole(folder / home, contents)
    links = {name: f"{home}/{name}" for name in ("joulescope", _metadata_folder())}
    if whole and all(_target(folder / name) == target for name, target in links.items()) and before == {home}:
        return Installed(folder, joulescope.__version__, (), changed=False)
    if not whole:
        _write(folder, home, contents)
    for name, target in links.items():
        _link(folder / name, target)
    _tidy(folder, keep={home, *links})
    replaced = sorted(_version_of(each) for each in before - {home})
    return Installed(folder, joulescope.__version__, tuple(replaced), changed=True)


def _present(folder: Path) -> set[str]:
    """The copies that are there.

    Raises:
        ConfigError: if something else is, too: nothing of it is to be lost or hidden from Python.
    """
    strangers = []
    copies = set()
    for entry in folder.iterdir():
        if entry.name.startswith(_PREFIX) and not entry.is_symlink() and entry.is_dir():
            copies.add(entry.name)
        elif not (
            entry.name == _LOCK
            or entry.name in _NOT_OURS_TO_MIND
            or (_target(entry) or "").startswith(_PREFIX)
            or entry.name.startswith(_PREFIX)
        ):
            strangers.append(entry.name)
    if strangers:
        raise ConfigError(
            f"{folder} holds something that is not the hook ({', '.join(sorted(strangers)[:3])}): "
            "name an empty folder, or one that `joulescope hook install` made"
        )
    return copies


def _write(folder: Path, home: str, contents: Mapping[str, bytes]) -> None:
    """Makes the copy beside its place, so that under its name it is whole."""
    shutil.rmtree(folder / home, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}draft-", dir=folder))
    try:
        _fill(draft, contents)
        draft.rename(folder / home)
    except BaseException:  # a full disk: what was written of it would fill it further with every try
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _fill(draft: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(_FILE_MODE)
    for path in (draft, *draft.rglob("*")):
        if path.is_dir():
            path.chmod(_FOLDER_MODE)


def _is_whole(home: Path, contents: Mapping[str, bytes]) -> bool:
    """Whether a copy is there as it was written, and nothing more: a disk may have been full."""
    try:
        found = {
            str(PurePosixPath(*path.relative_to(home).parts)): path.read_bytes()
            for path in home.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    except OSError:
        return False
    return found == contents


def _digest(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(contents.items()):
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def _link(place: Path, target: str) -> None:
    """Lets ``place`` lead to ``target``, in one go."""
    if _target(place) == target:
        return
    draft = place.with_name(f"{_PREFIX}link-{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    os.replace(draft, place)


def _target(place: Path) -> str | None:
    return os.readlink(place) if place.is_symlink() else None


def _tidy(folder: Path, keep: set[str]) -> None:
    """Removes other versions, and what an install that was killed left behind; nothing of anybody else's."""
    for entry in folder.iterdir():
        if entry.name in keep or entry.name == _LOCK:
            continue
        ours = entry.name.startswith(_PREFIX)
        if entry.is_symlink():
            if ours or (_target(entry) or "").startswith(_PREFIX):
                entry.unlink(missing_ok=True)
        elif ours:
            shutil.rmtree(entry, ignore_errors=True)


def _version_of(home: str) -> str:
    return home.removeprefix(_PREFIX).rpartition("-")[0]

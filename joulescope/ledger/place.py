"""Where a ledger's Parquet files lie: a local folder, or anything that fsspec knows by a URL."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from joulescope.errors import LedgerError, MissingExtra
from joulescope.ledger.layout import PARQUET, day_of, stem_and_crc
from joulescope.urls import shown

_logger = logging.getLogger(__name__)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

_NO_DAY = "is no folder of a day: those are named as date=2026-01-31"
_NO_FOLDER = "is named as the folder of a day, and is a file or a link: links are not followed"


def is_url(root: str) -> bool:
    """Whether a root is a URL, and thus no local folder; ``file://`` is one of those."""
    return bool(_URL.match(root)) and not root.startswith("file://")


def local_root(root: str) -> Path:
    """A local root as a path."""
    return Path(root.removeprefix("file://"))


def require_packages() -> None:
    """Looks whether the packages of the extra are there, which the ledger imports when it needs them.

    Raises:
        MissingExtra: if one is not; the message has the line that installs it.
    """
    try:
        import fsspec  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"a ledger needs the package {error.name}: pip install 'joulescope-inference[sidecar,ledger]'"
        ) from error


def require_root(root: str, setting: str = "ledger") -> None:
    """Looks whether there can be a ledger to read, or its spool, which a setting names.

    Raises:
        LedgerError: if it is a folder that is not there.
        MissingExtra: see :func:`require_packages`.
    """
    require_packages()
    if not is_url(root) and not local_root(root).is_dir():
        raise LedgerError(
            f"{root}: there is no such folder; give the one that `{setting}` names in the settings"
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """A Parquet file of a ledger."""

    path: str
    """As the file system names it."""
    stem: str
    crc: int | None
    day: date
    size_bytes: int


class Place:
    """The Parquet files of a ledger, wherever they are. Errors of the store come out as :class:`OSError`."""

    def __init__(self, root: str) -> None:
        """Nothing is contacted yet.

        Raises:
            LedgerError: if there is no file system for such a URL, and what to install; if it holds
                credentials or options, which messages would show.
        """
        if is_url(root) and shown(root) != root:
            raise LedgerError(
                f"{shown(root)}: credentials and options do not belong into the URL of a ledger; the store's "
                "own variables hold them, such as AWS_ACCESS_KEY_ID, and fsspec's configuration file the rest"
            )
        self.root = root
        self.is_local = not is_url(root)
        self.system, self.base = _system(root)
        self.base = self.base.rstrip("/") or "/"

    def stored(
        self,
        table: str,
        begin: date | None = None,
        end: date | None = None,
        strange: Callable[[str, str], None] | None = None,
    ) -> Iterator[Stored]:
        """The files of a table by day and name; of the days from ``begin`` to ``end``, both contained.

        Args:
            strange: is told what else lies there, and why it is not read; of a folder of a day too that may
                not be read. ``None``: such a one is an error.

        Raises:
            OSError: if the store does not answer.
        """
        tell = strange or _ignore
        for folder in sorted(self._list(f"{self.base}/{table}"), key=_name):
            day = day_of(_base(folder))
            if day is None or folder["type"] != "directory":
                if not _hidden(folder):
                    tell(folder["name"], _NO_DAY if day is None else _NO_FOLDER)
                continue
            if (begin is not None and day < begin) or (end is not None and day > end):
                continue
            try:
                inside = self._list(folder["name"])
            except PermissionError as error:
                if strange is None:
                    raise
                strange(folder["name"], f"cannot be read: {error.strerror or error}")
                continue
            for entry in sorted(inside, key=_name):
                found = stem_and_crc(_base(entry))
                if found is not None and entry["type"] != "directory":
                    yield Stored(entry["name"], *found, day, int(entry.get("size") or 0))
                elif not _hidden(entry):
                    tell(entry["name"], f"is no file of a ledger: those end in {PARQUET}")

    def open(self, path: str) -> Any:
        """A file, to be read as bytes.

        Raises:
            OSError: if that is not possible.
        """
        if self.is_local:
            return open(path, "rb")
        try:
            return self.system.open(path, "rb")
        except OSError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OSError(shown(f"{type(error).__name__}: {error}")) from error

    def put(self, local: str, name: str) -> int:
        """Copies a local file here, and returns its size when it is here whole.

        Args:
            name: below the root, with slashes.

        Raises:
            OSError: if that is not possible, or did not come to its end.
        """
        path = f"{self.base}/{name}"
        size = os.path.getsize(local)
        try:
            self._put(local, path)
            self.system.invalidate_cache(path)
            found = self.system.info(path)["size"]
        except OSError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OSError(shown(f"{type(error).__name__}: {error}")) from error
        if found != size:
            raise OSError(f"{self.url(path)} has {found} bytes after {size} were sent")
        return size

    def _put(self, local: str, path: str) -> None:
        """Folders are made only where they must be: in a bucket that would take rights of its own."""
        try:
            self.system.put_file(local, path)
        except FileNotFoundError:
            self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.system.put_file(local, path)

    def remove(self, path: str) -> None:
        """Removes a file of the store; one that is gone already is no error.

        Raises:
            OSError: if that is not possible.
        """
        try:
            self.system.rm_file(path)
        except FileNotFoundError:
            pass
        except OSError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OSError(shown(f"{type(error).__name__}: {error}")) from error

    def url(self, path: str) -> str:
        """The path as others can open it: with the protocol, where it is not local."""
        return path if self.is_local else str(self.system.unstrip_protocol(path))

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            self.system.invalidate_cache(path)
            return [entry for entry in self.system.ls(path, detail=True) if entry["name"].rstrip("/") != path]
        except FileNotFoundError:
            return []
        except OSError:
            raise
        except Exception as error:
            raise OSError(shown(f"{type(error).__name__}: {error}")) from error


def _ignore(path: str, reason: str) -> None:
    pass


def _base(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"])


def _hidden(entry: dict[str, Any]) -> bool:
    return _base(entry).startswith((".", "_"))


def _system(root: str) -> tuple[Any, str]:
    import fsspec

    if not is_url(root):
        system = fsspec.filesystem("file")
        return system, str(local_root(root).absolute())
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise LedgerError(f"{root}: {error}") from None
    _hush(found[0])
    return found


def _hush(system: Any) -> None:
    """What fails is raised where it was asked for. A store that is gone also breaks tasks that a client such
    as aiohttp has in the background, and asyncio would log a traceback of each, at each try."""
    loop = getattr(system, "loop", None)
    if loop is not None:
        loop.set_exception_handler(_told)


def _told(loop: Any, context: Mapping[str, Any]) -> None:
    problem = shown(repr(context.get("exception")))
    _logger.debug("a client of the ledger's store: %s: %s", context["message"], problem)

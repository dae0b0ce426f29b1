"""A file system that breaks where a test says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from joulescope.ledger.files import Files


class BreakableFiles(Files):
    """The real one; each call may be made to fail, and the disk to be full after so many bytes."""

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}
        """By method, the ``errno`` that it fails with."""
        self.room_bytes: int | None = None
        self.calls = 0
        self.told: list[str] = []
        """The methods that were called, in order."""
        self.fails_at: int | None = None
        """The number of the call that fails, and all after it, as when a process is killed there."""

    def _begin(self, name: str) -> None:
        self.calls += 1
        self.told.append(name)
        if self.fails_at is not None and self.calls >= self.fails_at:
            raise Killed(name)
        if name in self.errors:
            raise OSError(self.errors[name], os.strerror(self.errors[name]))

    def make_one_folder(self, path: Path) -> None:
        self._begin("make_folder")
        super().make_one_folder(path)

    def create(self, path: Path) -> int:
        self._begin("create")
        return super().create(path)

    def write(self, file: int, data: bytes) -> int:
        self._begin("write")
        if self.room_bytes is None:
            return super().write(file, data)
        if self.room_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = super().write(file, data[: self.room_bytes])
        self.room_bytes -= done
        return done

    def sync(self, file: int) -> None:
        self._begin("sync")
        super().sync(file)

    def sync_folder(self, path: Path) -> None:
        self._begin("sync_folder")
        super().sync_folder(path)

    def rename(self, path: Path, to: Path) -> None:
        self._begin("rename")
        super().rename(path, to)

    def remove(self, path: Path) -> None:
        self._begin("remove")
        super().remove(path)

    def truncate(self, file: int, size: int) -> None:
        self._begin("truncate")
        super().truncate(file, size)


class Killed(BaseException):
    """The process ends here: nothing below catches it."""


def until_killed(do: Callable[[], None]) -> bool:
    """Whether it came to its end."""
    try:
        do()
    except Killed:
        return False
    return True

"""The few ways in which the ledger touches a local file system; tests put a failing one in its place."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from joulescope.ledger.layout import FILE_MODE, FOLDER_MODE


class Files:
    """A local file system. Every method raises :class:`OSError` where it fails."""

    def make_folder(self, path: Path) -> None:
        """The folder, with those above it; on return the names of those that are new are on the disk."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_folder(path.parent)
        self.make_one_folder(path)
        self.sync_folder(path.parent)

    def make_one_folder(self, path: Path) -> None:
        """A folder in one that is there; it may be there already."""
        path.mkdir(mode=FOLDER_MODE, exist_ok=True)

    def create(self, path: Path) -> int:
        """A new file, open for appending; it must not be there yet."""
        how = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(path, how, FILE_MODE)

    def write(self, file: int, data: bytes) -> int:
        """Appends; returns how many bytes found room."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Returns when what was written is on the disk."""
        os.fsync(file)

    def sync_folder(self, path: Path) -> None:
        """Returns when the names in a folder are on the disk."""
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def close(self, file: int) -> None:
        os.close(file)

    def rename(self, path: Path, to: Path) -> None:
        os.replace(path, to)

    def remove(self, path: Path) -> None:
        """Removes a file; one that is gone already is no error."""
        path.unlink(missing_ok=True)

    def lock(self, file: int, *, shared: bool = False) -> bool:
        """Whether nobody else holds the lock; it is held until the file is closed or the process ends."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self, file: int) -> bool:
        """Waits until nobody has the lock alone, and holds it with others until the file is closed. Whether
        the file system has locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        except OSError:
            return False
        return True

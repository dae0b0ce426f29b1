"""Who may read a local ledger while files of it are replaced: locks on its folder, which the kernel lets go
of when a process ends."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joulescope.errors import LedgerError
from joulescope.ledger.files import Files

PATIENCE_TRIES = 60
"""How often it is tried to have the folder alone, a pause between."""


class ReaderHold:
    """Keeps the files of a local ledger where they are, from now until it is closed or goes.

    Files that are replaced go only when nobody holds the ledger. Where the file system has no locks there is
    no such promise, and reading goes on.
    """

    def __init__(self, root: Path) -> None:
        self._close: Callable[[], object] = lambda: None
        try:
            file = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        self._close = weakref.finalize(self, os.close, file)
        Files().share(file)

    def close(self) -> None:
        self._close()


@contextmanager
def alone_at_work(root: Path) -> Iterator[None]:
    """Keeps a second compaction of the same folder away.

    Raises:
        LedgerError: if one is at work, or the file system has no locks.
    """
    with _opened(root) as file:
        if not _lock(file, root):
            raise LedgerError(f"{root}: another compaction is at work there; wait for its end")
        yield


@contextmanager
def without_readers(root: Path, pause: Callable[[], None]) -> Iterator[None]:
    """Waits until nobody reads the ledger, and lets nobody begin until the end of the block.

    Args:
        pause: waits a second or so.

    Raises:
        LedgerError: if somebody reads on and on.
    """
    with _opened(root) as file:
        for _ in range(PATIENCE_TRIES):
            if _lock(file, root):
                break
            pause()
        else:
            raise LedgerError(
                f"{root}: another process reads the ledger all the time, so that no file can be replaced; "
                "run the compaction again when it has closed it"
            )
        yield


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    try:
        file = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LedgerError(f"{root}: {error.strerror}") from error
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int, root: Path) -> bool:
    try:
        return Files().lock(file)
    except OSError as error:
        raise LedgerError(f"{root}: its file system has no locks: {error.strerror}") from error

"""A disk that keeps what it promised when the power goes, and of the rest what a test says."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Literal

from tests.ledger.broken import BreakableFiles

Rest = Literal["nothing", "names", "chance"]
"""What is on the disk beyond that for which somebody waited: nothing; every name, of files whose bytes are
not there; or of each folder and file either, by chance."""

_Listing = dict[str, int | None]
"""Of a folder: the number of each file, ``None`` of a folder."""


class PoweredFiles(BreakableFiles):
    """The real file system, with a book of what is surely on the disk: a file's bytes after its ``sync``,
    the names in a folder after its ``sync_folder``."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root
        self._numbers: dict[int, int] = {}
        """Of files, by inode: those are given again."""
        self._bytes: dict[int, bytes] = {}
        self._names: dict[Path, _Listing] = {}
        for path, _, files in os.walk(root):
            for name in files:
                self._remember(os.stat(Path(path, name)).st_ino, Path(path, name).read_bytes())
        for path, _, _ in os.walk(root):
            self._names[Path(path)] = self._listing(Path(path))

    def _remember(self, inode: int, data: bytes) -> None:
        self._numbers[inode] = len(self._bytes)
        self._bytes[self._numbers[inode]] = data

    def create(self, path: Path) -> int:
        file = super().create(path)
        self._remember(os.fstat(file).st_ino, b"")
        return file

    def sync(self, file: int) -> None:
        super().sync(file)
        self._bytes[self._numbers[os.fstat(file).st_ino]] = os.pread(file, os.fstat(file).st_size, 0)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._names[path] = self._listing(path)

    def _listing(self, path: Path) -> _Listing:
        return {
            entry.name: None if entry.is_dir() else self._numbers[entry.inode()] for entry in os.scandir(path)
        }

    def after_power_loss(self, to: Path, rest: Rest, chance: random.Random) -> Path:
        """What is there when the power is back, in another folder."""
        self._rebuild(self._root, to, rest, chance)
        return to

    def _rebuild(self, path: Path, to: Path, rest: Rest, chance: random.Random) -> None:
        to.mkdir()
        all_names = rest == "names" or (rest == "chance" and chance.random() < 0.5)
        listing = self._listing(path) if all_names and path.is_dir() else self._names.get(path, {})
        for name, number in listing.items():
            if number is None:
                self._rebuild(path / name, to / name, rest, chance)
                continue
            data = self._bytes[number]
            if rest == "chance" and (path / name).is_file():
                now = (path / name).read_bytes()
                if now.startswith(data):
                    data = now[: chance.randint(len(data), len(now))]
            (to / name).write_bytes(data)

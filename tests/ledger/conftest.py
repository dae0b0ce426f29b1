"""Folders for tests that write and sync a lot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a process that is killed loses nothing that a slow disk would
    keep."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="joulescope-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path, ignore_errors=True)

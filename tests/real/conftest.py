"""Parts that several files of tests share, since they are dear to make."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.podman import Podman


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """With the images; the folder is one that other users may cross, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="jspod"))
    folder.chmod(0o755)
    podman = Podman(folder)
    try:
        podman.build_images()
        yield podman
    finally:
        podman.close()
        shutil.rmtree(folder, ignore_errors=True)

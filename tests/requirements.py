"""What a test may need of the machine beyond Python: asked for by name, never assumed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import pytest


def need_program(name: str) -> str:
    """Path of a program; without it the test is skipped by name, and fails where ``CI=true``."""
    beside_python = os.path.dirname(sys.executable)  # programs that packages bring
    path = shutil.which(name) or shutil.which(
        name, path=f"{beside_python}:/usr/sbin:/usr/local/sbin:/usr/local/bin"
    )
    if path is not None:
        return path
    reason = f"needs the program {name!r}, which is not on PATH"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; CI must have it", pytrace=False)
    pytest.skip(reason)


def need_package(name: str) -> None:
    """Without the Python package the test is skipped by name, and fails where ``CI=true``."""
    if importlib.util.find_spec(name) is not None:
        return
    reason = f"needs the Python package {name!r}: pip install -e '.[test]'"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; CI must have it", pytrace=False)
    pytest.skip(reason)

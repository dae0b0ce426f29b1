"""What a test may need of the machine beyond Python: asked for by name, never assumed."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
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


def need_root() -> None:
    """Without root, who can be other users, the test is skipped by name, and fails where ``CI=true``."""
    need_program("setpriv")
    _need(os.geteuid() == 0, "needs to be root, to start processes of other users")


def need_new_pid_namespace() -> None:
    """Without the right to make pid namespaces the test is skipped by name, and fails where ``CI=true``."""
    need_program("nsenter")
    works = _works(need_program("unshare"), "--pid", "--fork", "--mount-proc", "true")
    _need(works, "needs to make pid namespaces with 'unshare --pid --fork --mount-proc': run as root")


def need_mounts() -> None:
    """Without the right to mount the test is skipped by name, and fails where ``CI=true``."""
    works = _works(need_program("unshare"), "--mount", "mount", "--bind", "/tmp", "/tmp")
    _need(works, "needs to mount folders in a namespace of its own: run as root")


def _need(there: bool, reason: str) -> None:
    if there:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}; CI must be able to", pytrace=False)
    pytest.skip(reason)


@functools.cache
def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

"""What the image is built of: the lock files belong to what is asked for."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import joulescope

ROOT = Path(__file__).parents[1]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "deploy" / "image").glob("*.lock")}


def _pinned(lock: str) -> dict[str, list[str]]:
    """Versions by package; several where Pythons differ."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, flags=re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


def _asked(name: str) -> list[Requirement]:
    if name == "build":
        lines = (ROOT / "deploy" / "image" / "build.in").read_text().splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith("#")]
    asked = list(map(Requirement, importlib.metadata.requires("joulescope-inference") or []))
    extras = {"sidecar", name}
    return [
        each
        for each in asked
        if each.marker is not None and any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


@pytest.mark.parametrize("name", ["sidecar", "ledger", "build"])
def test_the_lock_holds_what_is_asked_for(name: str) -> None:
    """`make lock` renews it when the extra changes."""
    pinned = _pinned(LOCKS[name])
    for requirement in _asked(name):
        versions = pinned.get(re.sub(r"[-_.]+", "-", requirement.name).lower(), [])
        assert versions, f"{requirement} is not in {name}.lock: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    """Without one pip would refuse to install any."""
    entries = re.split(r"\n(?=\S)", LOCKS[name].strip())
    assert entries
    assert all(entry.count("--hash=sha256:") >= 1 for entry in entries)


def test_the_image_says_the_version_of_the_package() -> None:
    """By its label, unless the build says another."""
    assert f"ARG VERSION={joulescope.__version__}\n" in (ROOT / "Dockerfile").read_text()


def test_both_stages_stand_on_one_base() -> None:
    """The environment is made for the very Python that runs it."""
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])

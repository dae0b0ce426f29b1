"""Where the doctor looks: the file system, the environment and the clock, all of them replaceable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from joulescope.clock import Clock, SystemClock


@dataclass(frozen=True)
class Place:
    """One process's view of one machine or container."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Clock = field(default_factory=SystemClock)

    def path(self, absolute: str) -> Path:
        """A path of the machine, below :attr:`root`."""
        return self.root / absolute.lstrip("/")

    def text(self, absolute: str) -> str:
        """What a file holds, stripped; empty if it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    @property
    def container(self) -> str:
        """``kubernetes``, ``container``, or empty on a bare machine."""
        if "KUBERNETES_SERVICE_HOST" in self.environ:
            return "kubernetes"
        marks = ("/.dockerenv", "/run/.containerenv")
        return "container" if any(self.path(mark).exists() for mark in marks) else ""

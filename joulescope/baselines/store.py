"""A folder of baselines: those that an operator pinned, and those that the sidecar learned."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from joulescope.attribution.baseline import PINNED, Baseline, Identity
from joulescope.baselines.file import read_baseline, write_baseline
from joulescope.errors import BaselineError

_logger = logging.getLogger(__name__)

SUFFIX = ".json"
MAX_FILES = 1000


class BaselineFolder:
    """Reads a folder and writes learned baselines to it. Slow disks hold up only whoever calls."""

    def __init__(self, path: Path, log: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._log = log or _logger.warning
        self._warned: set[str] = set()
        self._seen: dict[Path, tuple[int, int]] = {}
        self._kept: dict[Path, Baseline] = {}

    def look(self) -> tuple[Baseline, ...]:
        """What the folder holds now. Files that changed are read again; a bad one is said once.

        While the folder cannot be read, what it held before still holds: it was not taken away.
        """
        paths = self._files()
        if paths is None:
            return self._all()
        found = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
        for path in self._kept.keys() - found.keys():
            del self._kept[path]
        for path, stamp in found.items():
            if self._seen.get(path) != stamp:
                self._read(path)
        self._seen = {path: stamp for path, stamp in found.items() if path in self._kept}
        return self._all()

    def _all(self) -> tuple[Baseline, ...]:
        return tuple(self._kept[path] for path in sorted(self._kept))

    def keep(self, baseline: Baseline) -> bool:
        """Writes a learned baseline, in place of the one that was learned before of such an engine.

        Where that is not possible the log says so, once, and the baseline lives as long as the process.
        """
        path = self.path / f"learned-{_digest(baseline.identity)}{SUFFIX}"
        try:
            write_baseline(path, baseline)
        except BaselineError as error:
            self._warn(f"{error}; the baseline is kept in memory, and learned again after a restart")
            return False
        return True

    def _files(self) -> list[Path] | None:
        try:
            paths = sorted(path for path in self.path.iterdir() if _is_baseline(path))
        except OSError as error:
            self._warn(
                f"{self.path}: cannot be read: {error.strerror or error}; no baseline is taken from it "
                "but those that were read before"
            )
            return None
        if len(paths) > MAX_FILES:
            self._warn(f"{self.path}: {len(paths)} files, only the first {MAX_FILES} by name are read")
        return paths[:MAX_FILES]

    def _read(self, path: Path) -> None:
        try:
            self._kept[path] = read_baseline(path)
        except BaselineError as error:
            self._kept.pop(path, None)
            self._warn(f"{error}; the file is not used")

    def _warn(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < MAX_FILES:
            self._warned.add(text)
            self._log(text)


def choose(baselines: Iterable[Baseline], identity: Identity, version: str) -> Baseline | None:
    """What an engine is compared with: pinned before learned, its own version before others, newest first."""
    candidates = [baseline for baseline in baselines if baseline.identity == identity]
    return max(
        candidates,
        key=lambda each: (each.source == PINNED, each.version == version, each.created_wall_seconds),
        default=None,
    )


def _is_baseline(path: Path) -> bool:
    """Kubernetes mounts a ConfigMap's files beside folders whose names begin with two dots."""
    return path.suffix == SUFFIX and not path.name.startswith(".")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _digest(identity: Identity) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:12]

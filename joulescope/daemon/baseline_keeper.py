"""Keeps baselines in a folder, off the accounting thread: a slow disk must not hold up the ledger."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping

from joulescope.attribution.baseline import Baseline, Identity
from joulescope.attribution.efficiencies import Efficiencies
from joulescope.baselines.file import encode_baselines
from joulescope.baselines.store import BaselineFolder, choose
from joulescope.periodic import Periodic

_logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""How often the folder is looked at: a baseline that is pinned there holds this much later."""


class BaselineKeeper:
    """Between a folder and the comparison. :meth:`turn` is for the accounting thread, the rest for its own.

    Args:
        folder: ``None``: learned baselines live as long as the process.
    """

    def __init__(self, folder: BaselineFolder | None) -> None:
        self._folder = folder
        self._known: tuple[Baseline, ...] = () if folder is None else folder.look()
        self._is_new = False
        self._to_keep: deque[Baseline] = deque()
        self._writing = threading.Lock()
        self._periodic = Periodic("baselines", self.look)
        self._current: Mapping[str, Baseline] = {}

    def find(self, identity: Identity, version: str) -> Baseline | None:
        """The baseline that was kept for such an engine."""
        return choose(self._known, identity, version)

    def start(self) -> None:
        if self._folder is not None:
            self._periodic.start()

    def stop(self, timeout_seconds: float) -> None:
        """Keeps what was learned and not yet written, unless the disk holds up the thread that writes."""
        self._periodic.stop(timeout_seconds)
        if not self._write():
            _logger.warning("the folder of baselines does not answer: what was learned last may not be kept")

    def turn(self, efficiencies: Efficiencies | None) -> None:
        """Takes what was learned, and lets engines know of other baselines in the folder."""
        if efficiencies is None:
            return
        for baseline in efficiencies.drain_learned():
            _logger.info(
                "learned what the work of %s on %s costs: baseline %r",
                baseline.identity.model,
                baseline.identity.gpu_name or "its GPUs",
                baseline.name,
            )
            if self._folder is not None:
                self._to_keep.append(baseline)
        if self._is_new and not self._to_keep:
            self._is_new = False
            efficiencies.renew()
        self._current = efficiencies.current()

    def page(self) -> bytes:
        """What each engine is compared with now, as JSON: by engine, the text of a baseline's file."""
        return encode_baselines(self._current)

    def look(self) -> float:
        """Writes what was learned and reads what has changed; returns the pause until the next look."""
        if self._folder is not None:
            self._write()
            found = self._folder.look()
            if found != self._known:
                self._known, self._is_new = found, True
        return LOOK_SECONDS

    def _write(self) -> bool:
        """False if another thread is at it."""
        if not self._writing.acquire(blocking=False):
            return False
        try:
            while self._folder is not None and self._to_keep:
                self._folder.keep(self._to_keep[0])
                self._to_keep.popleft()
        finally:
            self._writing.release()
        return True

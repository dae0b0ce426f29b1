"""Which GPUs are measured: all, some, or those that engines name, for as long as they name them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from joulescope.ingest.sessions import Sessions
from joulescope.pipeline.gpu_sources import GpuSources
from joulescope.units import NANOSECONDS_PER_SECOND

NAMED_NS = 60 * NANOSECONDS_PER_SECOND
"""A GPU is still measured this long after its engine went, so that a restart is seen whole; not
longer, since the next user of the GPU may be a stranger."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which GPUs are measured: all, these, or (``None``) those that engines name."""

    all_gpus: bool = False
    uuids: Collection[str] | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether it is known without asking engines."""
        return self.all_gpus or self.uuids is not None


class Named:
    """Remembers which GPUs connected engines and workers name, and when they last did.

    Args:
        scope: what the operator wants measured.
        whole: the GPU that a UUID is, or is a MIG instance of.
        begin_anew: called with a GPU that was not named for too long and is named or read again: the counter
            went on meanwhile, perhaps for a stranger.
    """

    def __init__(
        self,
        scope: Scope,
        sessions: Sessions,
        sources: GpuSources,
        whole: Callable[[str], str],
        begin_anew: Callable[[str], None],
    ) -> None:
        self._scope, self._sessions, self._sources = scope, sessions, sources
        self._whole, self._begin_anew = whole, begin_anew
        self._named_ns: dict[str, int] = {}
        self._noted_ns = 0

    def note(self, now_ns: int) -> None:
        """Takes down who is named now. Also of a GPU that nobody reads meanwhile: a sampler ends with its
        engine."""
        if self._scope.is_fixed:
            return
        before_ns, self._noted_ns = self._noted_ns, max(now_ns, self._noted_ns)
        for gpu in self._sessions.engine_gpus():
            whole = self._whole(gpu)
            named_ns = self._named_ns.get(whole, before_ns)
            if named_ns < before_ns and now_ns - named_ns > NAMED_NS:
                self._begin_anew(whole)
            self._named_ns[whole] = self._noted_ns

    def forget(self, gpu: str) -> None:
        """What was remembered of this GPU holds no longer."""
        self._named_ns.pop(gpu, None)

    def is_in_scope(self, gpu: str, time_ns: int) -> bool:
        """With a GPU come all its instances: what one of them drew cannot be told without the others."""
        whole = self._sources.whole(gpu)
        if self._scope.uuids is not None:
            return whole in {self._sources.whole(uuid) for uuid in self._scope.uuids}
        if self._scope.all_gpus:
            return True
        named_ns = self._named_ns.get(whole)
        if named_ns is None:
            return False
        if time_ns - named_ns > NAMED_NS:
            self._begin_anew(whole)
            return False
        return True

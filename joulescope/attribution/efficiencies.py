"""The efficiency of every engine against its baseline: who is compared with what."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from joulescope.attribution.baseline import Baseline, Identity, identity_of, same_work, says_enough
from joulescope.attribution.division import EngineShare
from joulescope.attribution.efficiency import Efficiency
from joulescope.attribution.foresight import work_of
from joulescope.attribution.gpu import GpuState
from joulescope.model import BaselineTotals, EngineInfo, FinishedRequest, GpuInfo

LEARN_SECONDS = 1800.0
"""Busy time in which a baseline is learned by itself."""

Find = Callable[[Identity, str], Baseline | None]
"""The baseline that was kept for an engine of this identity and version of its software."""


class Efficiencies:
    """Compares what each engine's work costs with what it used to cost.

    Args:
        find: looks a kept baseline up; it is asked when an engine is met, and again after :meth:`renew`.
        learn_seconds: busy time, per GPU, in which a baseline is learned where none is kept; 0: none is.
        wall_seconds: tells the wall time of an instant.
    """

    def __init__(
        self,
        find: Find | None = None,
        *,
        learn_seconds: float = LEARN_SECONDS,
        wall_seconds: Callable[[int], float] = lambda time_ns: time_ns / 1e9,
    ) -> None:
        self._find = find or (lambda identity, version: None)
        self._learn_seconds = learn_seconds
        self._wall_seconds = wall_seconds
        self._engines: dict[str, Efficiency] = {}
        self._told: dict[str, tuple[EngineInfo, dict[str, str]]] = {}
        """By engine: what it said of itself, and the names of its GPUs by their ids."""
        self._learned: list[Baseline] = []
        self._kept_for: set[str] = set()
        """Engines whose baseline is, or was, kept somewhere."""

    def take(self, share: EngineShare, gpu: GpuState, time_ns: int, *, alone: bool) -> None:
        """What an engine's steps got of an interval that ended at ``time_ns``, before anybody is charged.

        ``alone``: what was measured is of this engine: no other had steps in it, and the joules are not a
        share of a GPU that is split.
        """
        efficiency = self._of(share.engine.info, gpu.info)
        if efficiency is None:
            return
        joules = float(share.request_uj.sum()) / 1e6
        if not share.is_clean:
            efficiency.passed(joules)
            return
        had = efficiency.baseline
        if had is None and not (alone and efficiency.learns):
            return
        work = work_of(share.segments, joules, gpu.idle.watts)
        efficiency.take(work, share.engine.model, time_ns)
        if had is None and efficiency.baseline is not None:
            self._learned.append(efficiency.baseline)

    def finished(self, requests: Iterable[FinishedRequest]) -> None:
        """Requests whose accounts are closed."""
        for request in requests:
            efficiency = self._engines.get(request.engine)
            if efficiency is not None:
                efficiency.finished(request)

    def drain_learned(self) -> list[Baseline]:
        """Baselines that were learned since the last call, to be kept."""
        learned, self._learned = self._learned, []
        return learned

    def renew(self) -> None:
        """Looks kept baselines up again: others may have been pinned, or taken away, to be learned anew."""
        for engine, efficiency in self._engines.items():
            kept = self._kept(efficiency.info, efficiency.identity)
            if kept != efficiency.baseline and (kept is not None or engine in self._kept_for):
                efficiency.compare_with(kept)
            if kept is None:
                self._kept_for.discard(engine)

    def totals(self, engine: str) -> BaselineTotals | None:
        """How an engine fares; ``None`` before anything is known of it."""
        efficiency = self._engines.get(engine)
        if efficiency is None:
            return None
        baseline = efficiency.baseline
        return BaselineTotals(
            learned_ratio=efficiency.learned_ratio,
            name="" if baseline is None else baseline.name,
            source="" if baseline is None else baseline.source,
            version="" if baseline is None else baseline.version,
            created_wall_seconds=None if baseline is None else baseline.created_wall_seconds,
            actual_joules=efficiency.actual,
            expected_joules=efficiency.expected,
            error_ratio=efficiency.error_ratio,
        )

    def current(self) -> dict[str, Baseline]:
        """What each engine is compared with now; those without a baseline are left out."""
        found = {engine: efficiency.baseline for engine, efficiency in self._engines.items()}
        return {engine: baseline for engine, baseline in found.items() if baseline is not None}

    def _of(self, info: EngineInfo, gpu: GpuInfo) -> Efficiency | None:
        told, names = self._told.get(info.engine, (None, {}))
        if told is info and names.get(gpu.gpu) == gpu.name:
            return self._engines[info.engine]
        names = {each: name for each, name in names.items() if not info.gpus or each in info.gpus}
        names[gpu.gpu] = gpu.name
        identity = identity_of(info, " + ".join(sorted(set(names.values()) - {""})))
        known = self._engines.get(info.engine)
        if known is None or known.identity != identity or not same_work(known.info.cost, info.cost):
            kept = self._kept(info, identity)
            if known is None:
                if kept is None and not (self._learn_seconds and says_enough(info.cost)):
                    return None
                self._engines[info.engine] = Efficiency(
                    info,
                    identity,
                    kept,
                    learn_seconds=self._learn_seconds,
                    wall_seconds=self._wall_seconds,
                )
            else:
                known.is_now(info, identity, kept)
        self._told[info.engine] = (info, names)
        return self._engines[info.engine]

    def _kept(self, info: EngineInfo, identity: Identity) -> Baseline | None:
        kept = self._find(identity, info.vllm_version) if says_enough(info.cost) else None
        if kept is None or not same_work(kept.cost, info.cost):
            return None
        self._kept_for.add(info.engine)
        return kept

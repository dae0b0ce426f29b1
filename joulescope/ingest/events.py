"""What ingest tells the rest: the protocol that attribution satisfies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from joulescope.model import EngineInfo, RequestEnded, RequestStarted, StepDone


class EngineEvents(Protocol):
    """Listens to what engines do. Instants are CLOCK_MONOTONIC nanoseconds."""

    def engine_up(self, info: EngineInfo, time_ns: int) -> None:
        """An engine said hello; steps before ``time_ns`` are not known."""

    def engine_gpus(self, engine: str, gpus: Sequence[str]) -> None:
        """The engine's workers drive these GPUs (all that are known so far)."""

    def engine_down(self, engine: str, time_ns: int, reason: str) -> None:
        """The engine is gone; its open requests will never end by themselves."""

    def worker_up(self, gpu: str, time_ns: int) -> None:
        """A worker took the GPU, perhaps before its engine said hello: it is starting up."""

    def worker_down(self, gpu: str, time_ns: int) -> None:
        """That worker is gone."""

    def request_started(self, request: RequestStarted) -> None: ...

    def step_done(self, step: StepDone) -> None: ...

    def request_ended(self, end: RequestEnded) -> None: ...

    def overhead(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None:
        """The engine kept its GPUs busy with work that no request asked for."""

    def gap(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None:
        """Records were lost: what ran in between is not known."""

    def progress(self, engine: str, time_ns: int, pending_since_ns: int | None, dropped: int) -> None:
        """All steps that ended before ``time_ns`` were told."""


class Unheard:
    """Listens to nothing: for who needs the sessions, and not what engines do."""

    def engine_up(self, info: EngineInfo, time_ns: int) -> None: ...
    def engine_gpus(self, engine: str, gpus: Sequence[str]) -> None: ...
    def engine_down(self, engine: str, time_ns: int, reason: str) -> None: ...
    def worker_up(self, gpu: str, time_ns: int) -> None: ...
    def worker_down(self, gpu: str, time_ns: int) -> None: ...
    def request_started(self, request: RequestStarted) -> None: ...
    def step_done(self, step: StepDone) -> None: ...
    def request_ended(self, end: RequestEnded) -> None: ...
    def overhead(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None: ...
    def gap(self, engine: str, start_ns: int, end_ns: int, reason: str) -> None: ...
    def progress(self, engine: str, time_ns: int, pending_since_ns: int | None, dropped: int) -> None: ...

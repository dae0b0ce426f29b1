"""An SDK engine whose clock and turns the test has in hand, and the far end of its socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joulescope.clock import ManualClock
from joulescope.hook import wire
from joulescope.hook.wire import AnyRecord
from joulescope.sdk import Engine
from tests.hook.listener import PatientListener

GPU = "GPU-5b1d3c5e-0000-4000-8000-000000000001"
MS = 1_000_000
SECOND = 1_000_000_000


@dataclass
class Bench:
    """No thread runs: :meth:`turn` takes a turn of sending and reads what it brought."""

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=lambda: ManualClock(5 * SECOND))

    def __post_init__(self) -> None:
        self.sidecar: PatientListener | None = None
        options: dict[str, Any] = {"gpus": [GPU], "unit": "image", "work_unit": "patch", **self.options}
        self.engine = Engine(
            "painter", socket=self.path, thread=False, environ={}, now_ns=self.clock.now_ns, **options
        )

    def listen(self) -> PatientListener:
        """A sidecar comes up."""
        self.sidecar = PatientListener(self.path)
        return self.sidecar

    def vanish(self) -> None:
        """The sidecar is killed."""
        assert self.sidecar is not None
        self.sidecar.close()
        self.sidecar = None

    def turn(self, after_seconds: float = 2.0) -> list[AnyRecord]:
        """One turn, after a while; by default long enough for the next attempt to connect."""
        self.clock.advance(after_seconds)
        self.engine.poll()
        if self.sidecar is None:
            return []
        try:
            return self.sidecar.read()
        except BlockingIOError:  # the engine has not connected again yet
            return []


def of(records: list[AnyRecord], kind: type) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def kinds(records: list[AnyRecord]) -> list[str]:
    """Types of the records but for progress."""
    return [
        str(type(record).__struct_config__.tag) for record in records if not isinstance(record, wire.Progress)
    ]

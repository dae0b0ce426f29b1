"""What an engine tells of its steps while they are counted, to whoever sums them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from joulescope.attribution.engine import Engine
    from joulescope.attribution.steps import StepBlock


class StepWatch(Protocol):
    """Is told by engines what happens to them."""

    def started(self, engine: Engine, time_ns: int) -> None:
        """A request came."""
        ...

    def counted(self, engine: Engine, block: StepBlock) -> None:
        """Steps were counted that all end in one minute."""
        ...

    def lost(self, engine: Engine, start_ns: int, end_ns: int) -> None:
        """What the engine did in this stretch is not known whole."""
        ...

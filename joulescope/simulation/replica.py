"""The GPUs of one engine: they do its steps, and the ledger learns who caused the joules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from joulescope.simulation.book import GpuBook
from joulescope.simulation.group import law_of
from joulescope.simulation.parts import World
from joulescope.simulation.physics import FEATURES, Cost, Law, features_of, flops_of, sums_of
from joulescope.simulation.scheduler import Batch
from joulescope.simulation.shapley import shares_of
from joulescope.simulation.truth import StepEnergy, StepWork, TrueLedger, charges_of
from joulescope.units import ns_from_seconds

_DUMMY = np.array([1.0 if name in ("requests", "tokens") else 0.0 for name in FEATURES])
"""An empty step computes one token that nobody asked for."""


class Replica:
    """One copy of a model on its GPUs.

    Args:
        world: what steps cost.
        books: those of the GPUs, in rank order.
        change_ns: when the world's change of settings comes, if it has one.
        ledger: learns who truly caused the joules; without one steps are several times faster.
        session: number of the engine's session in the trace, for the ledger.
    """

    def __init__(
        self,
        world: World,
        books: Sequence[GpuBook],
        *,
        change_ns: int | None = None,
        ledger: TrueLedger | None = None,
        session: int = 1,
    ) -> None:
        if len(books) != world.parallel.ranks:
            raise ValueError(f"an engine of this world has {world.parallel.ranks} GPUs, got {len(books)}")
        self.world = world
        self._session = session
        self.books = tuple(books)
        self._ledger = ledger
        self._law = law_of(world)
        self._later: tuple[int, Law] | None = None
        if world.change is not None and change_ns is not None:
            self._later = (change_ns, law_of(world, world.change.hardware))
        self._latest: list[str] = []
        self._stages = [
            self.books[at : at + world.parallel.tensor] for at in range(0, len(books), world.parallel.tensor)
        ]

    def become(self, world: World) -> None:
        """From the next step on the work costs what it costs in another world on as many GPUs."""
        self.world, self._law, self._later = world, law_of(world), None
        for book in self.books:
            book.gpu.hardware = world.hardware

    def begin(self, time_ns: int) -> None:
        """From now on requests are running."""
        for book in self.books:
            book.begin(self, time_ns)

    def run(self, batch: Batch, number: int, ready_ns: int) -> int:
        """Does a step that may begin at ``ready_ns``; the instant at which it is done."""
        columns = (batch.context, batch.scheduled, batch.heads)
        ready_ns = max(ready_ns, *(book.gpu.busy_until_ns for book in self._stages[0]))
        law = self._law_at(ready_ns)
        cost = law.cost(sums_of(*columns))
        self._latest = [request.plan.request_id for request in batch.requests]
        gap_joules = 0.0
        for rank, (book, start_ns, end_ns) in enumerate(self._plan(cost, ready_ns)):
            gap, joules = book.claim(self, start_ns), float(cost.joules[rank])
            _append(book, start_ns, end_ns, joules)
            book.step(end_ns, joules)
            gap_joules += gap
            if self._ledger is not None:
                self._ledger.note(
                    StepEnergy(self._session, number, book.gpu.uuid, start_ns, end_ns, joules, gap)
                )
        if self._ledger is not None:
            features = features_of(*(np.array(column, dtype=np.int64) for column in columns))
            work = StepWork(
                scheduled=features[1],
                sampled=np.array(batch.samples, dtype=np.float64),
                recomputed=np.array(batch.recomputed, dtype=np.float64),
                flops=flops_of(self.world.model, features),
            )
            shares = shares_of(law, features, number)
            self._ledger.charge(self._latest, charges_of(shares, work, gap_joules))
        return end_ns

    def run_dummy(self, ready_ns: int) -> int:
        """Does a step that no request asked for; the instant at which it is done."""
        cost = self._law_at(ready_ns).cost(_DUMMY)
        for rank, (book, start_ns, end_ns) in enumerate(self._plan(cost, ready_ns)):
            joules = float(cost.joules[rank])
            book.overhead(start_ns, end_ns, joules)
            _append(book, start_ns, end_ns, joules)
        return end_ns

    def end(self, time_ns: int) -> None:
        """No request is running any more; those of the last step pay for the time since it ended."""
        joules = sum(book.end(self, time_ns) for book in self.books)
        if self._ledger is not None and joules and self._latest:
            self._ledger.charge_gap(self._latest, joules)

    def _law_at(self, time_ns: int) -> Law:
        law = self._law
        if self._later is not None and time_ns >= self._later[0]:
            law = self._later[1]
        if self.world.hardware.thermal is None:
            return law
        gpus = [book.gpu for book in self.books]
        return law.warmed([gpu.leak_watts_at(max(time_ns, gpu.busy_until_ns)) for gpu in gpus])

    def _plan(self, cost: Cost, ready_ns: int) -> list[tuple[GpuBook, int, int]]:
        """When each GPU begins and ends its part: one stage after the other, when its GPUs are free."""
        plan = []
        for stage, books in enumerate(self._stages):
            start_ns = max(ready_ns, *(book.gpu.busy_until_ns for book in books))
            seconds = float(cost.seconds[stage * self.world.parallel.tensor])
            ready_ns = start_ns + ns_from_seconds(seconds)
            plan += [(book, start_ns, ready_ns) for book in books]
        return plan


def _append(book: GpuBook, start_ns: int, end_ns: int, joules: float) -> None:
    # Rounding to whole nanoseconds must not lose energy.
    book.gpu.append(start_ns, end_ns, joules * 1e9 / (end_ns - start_ns))

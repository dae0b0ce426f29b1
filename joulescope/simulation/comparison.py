"""How near an account comes to the simulation's truth, and how near a simpler rule would have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from joulescope.model import FinishedRequest
from joulescope.simulation.truth import TrueLedger


@dataclass(slots=True)
class Comparison:
    """Requests of one class, or of all: joules by three rules, and the errors of two of them."""

    name: str
    requests: int = 0
    true_joules: float = 0.0
    attributed_joules: float = 0.0
    by_tokens_joules: float = 0.0
    _attributed_error: float = 0.0
    _by_tokens_error: float = 0.0

    def add(self, true_joules: float, attributed_joules: float, by_tokens_joules: float) -> None:
        self.requests += 1
        self.true_joules += true_joules
        self.attributed_joules += attributed_joules
        self.by_tokens_joules += by_tokens_joules
        self._attributed_error += abs(attributed_joules - true_joules) / true_joules
        self._by_tokens_error += abs(by_tokens_joules - true_joules) / true_joules

    @property
    def attributed_error(self) -> float:
        """Mean over the requests of |attributed − true| / true."""
        return self._attributed_error / self.requests if self.requests else 0.0

    @property
    def by_tokens_error(self) -> float:
        """The same for a split of each step in proportion to the tokens that it computed."""
        return self._by_tokens_error / self.requests if self.requests else 0.0


def compare(finished: Iterable[FinishedRequest], ledger: TrueLedger) -> list[Comparison]:
    """One comparison for each class of requests, by name, and one named ``all`` at the end.

    Left out are requests that were not measured all their life, that never ran, or that were preempted: what
    is computed again is the system's overhead by default, and the token split knows no such thing.
    """
    classes: dict[str, Comparison] = {}
    everything = Comparison("all")
    for request in finished:
        account = ledger.get(request.request_id)
        joules = request.attributed_joules
        if account is None or joules is None or not request.complete or account.joules <= 0:
            continue
        if request.preemptions:
            continue
        kind = (request.external_id or request.request_id).partition("-")[0]
        for comparison in (classes.setdefault(kind, Comparison(kind)), everything):
            comparison.add(account.joules, joules, account.token_share_joules)
    return [*(classes[name] for name in sorted(classes)), everything]

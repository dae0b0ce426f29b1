"""How near an account comes to the simulation's truth, and how near a simpler rule would have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from joulescope.model import FINISH_REASONS, FinishedRequest
from joulescope.simulation.truth import TrueLedger

RULES = ("attributed", "by_tokens", "by_output")
"""What joulescope attributed; each step divided by tokens computed; each step divided by tokens out."""


@dataclass(slots=True)
class Comparison:
    """Requests of one class, or of all: the truth, and how far from it each rule was."""

    name: str
    requests: int = 0
    true_joules: float = 0.0
    attributed_joules: float = 0.0
    _errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(RULES, 0.0))

    def add(self, true_joules: float, figures: dict[str, float]) -> None:
        """One more request: its true joules and its joules by each of :data:`RULES`."""
        self.requests += 1
        self.true_joules += true_joules
        self.attributed_joules += figures["attributed"]
        for rule, joules in figures.items():
            self._errors[rule] += abs(joules - true_joules) / true_joules

    def error(self, rule: str) -> float:
        """Mean over the requests of |figure − true| / true."""
        return self._errors[rule] / self.requests if self.requests else 0.0


def compare(finished: Iterable[FinishedRequest], ledger: TrueLedger) -> list[Comparison]:
    """One comparison for each class of requests, by name, and one named ``all`` at the end.

    Left out are requests that were not measured all their life, that the end of the run cut off, that
    never ran, or that were preempted: what is computed again is the system's overhead by default, and
    the naive rules know no such thing.
    """
    classes: dict[str, Comparison] = {}
    everything = Comparison("all")
    for request in finished:
        account = ledger.get(request.request_id)
        joules = request.attributed_joules
        if account is None or joules is None or account.joules <= 0 or not _is_whole(request):
            continue
        figures = dict(zip(RULES, (joules, account.by_tokens_joules, account.by_output_joules), strict=True))
        kind = (request.external_id or request.request_id).partition("-")[0]
        classes.setdefault(kind, Comparison(kind)).add(account.joules, figures)
        everything.add(account.joules, figures)
    return [*(classes[name] for name in sorted(classes)), everything]


def _is_whole(request: FinishedRequest) -> bool:
    return request.complete and not request.preemptions and request.finish_reason in FINISH_REASONS

"""How near an account comes to the simulation's truth, and how near a simpler rule would have come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from joulescope.model import FINISH_REASONS, FinishedRequest
from joulescope.simulation.truth import SIMPLE_RULES, TrueAccount, TrueLedger

RULES = ("attributed", "marginal", *SIMPLE_RULES)
"""What joulescope attributed, against the true share; its marginal figure, against the true marginal joules;
and each step's true joules divided by a simpler rule, against the true share."""


@dataclass(slots=True)
class Comparison:
    """Requests of one class, or of all: the truth, and how far from it each rule was."""

    name: str
    requests: int = 0
    true_joules: float = 0.0
    attributed_joules: float = 0.0
    errors: dict[str, list[float]] = field(default_factory=lambda: {rule: [] for rule in RULES})
    """By rule and request: |figure − true| / true."""

    def add(self, account: TrueAccount, attributed_joules: float, marginal_joules: float | None) -> None:
        """One more request: its true account, and what joulescope says of it."""
        self.requests += 1
        self.true_joules += account.joules
        self.attributed_joules += attributed_joules
        self._note("attributed", attributed_joules, account.joules)
        if marginal_joules is not None and account.marginal_joules > 0:
            self._note("marginal", marginal_joules, account.marginal_joules)
        for rule in SIMPLE_RULES:
            self._note(rule, getattr(account, f"{rule}_joules"), account.joules)

    def _note(self, rule: str, joules: float, true_joules: float) -> None:
        self.errors[rule].append(abs(joules - true_joules) / true_joules)

    def error(self, rule: str) -> float:
        """Mean over the requests of |figure − true| / true."""
        errors = self.errors[rule]
        return sum(errors) / len(errors) if errors else 0.0

    def error_quantile(self, rule: str, level: float) -> float:
        """The error that this part (0..1) of the requests does not exceed."""
        errors = self.errors[rule]
        return float(np.quantile(errors, level)) if errors else 0.0


def compare(finished: Iterable[FinishedRequest], ledger: TrueLedger) -> list[Comparison]:
    """One comparison for each class of requests, by name, and one named ``all`` at the end.

    Left out are requests that were not measured all their life, that the end of the run cut off, that
    never ran, or that were preempted: what is computed again is the system's overhead by default, and
    the simpler rules know no such thing.
    """
    classes: dict[str, Comparison] = {}
    everything = Comparison("all")
    for request in finished:
        account = ledger.get(request.request_id)
        joules = request.attributed_joules
        if account is None or joules is None or account.joules <= 0 or not _is_whole(request):
            continue
        kind = (request.external_id or request.request_id).partition("-")[0]
        for each in (classes.setdefault(kind, Comparison(kind)), everything):
            each.add(account, joules, request.marginal_joules)
    return [*(classes[name] for name in sorted(classes)), everything]


def _is_whole(request: FinishedRequest) -> bool:
    return request.complete and not request.preemptions and request.finish_reason in FINISH_REASONS

"""Counters of one engine label, which outlive the engine's restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.breakdown import Breakdown
from joulescope.attribution.histogram import REQUEST_BOUNDS, TOKEN_BOUNDS, Histogram
from joulescope.attribution.labels import LabelRules
from joulescope.attribution.requests import RequestTable
from joulescope.attribution.tasks import TaskBook, Undecided
from joulescope.label_model import BASE_ADAPTER, NO_TENANT
from joulescope.model import (
    AVOIDED_REASONS,
    PHASES,
    TOKEN,
    WASTED_REASONS,
    EngineInfo,
    EngineTotals,
    FinishedRequest,
    RequestEnded,
    RequestStarted,
)
from joulescope.units import joules_from_uj

_SAMPLED = set("13579bdf")
"""Last digits of the flags of a traceparent whose lowest bit, "sampled", is set."""


@dataclass
class EngineTally:
    """What one engine label has used and done. Joules are whole microjoules."""

    info: EngineInfo
    attributed_uj: Counter[tuple[str, str]] = field(default_factory=Counter)
    marginal_uj: float = 0.0
    avoided_uj: Counter[str] = field(default_factory=Counter)
    wasted_uj: Counter[str] = field(default_factory=Counter)
    finished_uj: int = 0
    """Handed out with finished requests; with the open ones it makes up what is attributed."""
    tokens: Counter[str] = field(default_factory=Counter)
    drafted: int = 0
    accepted: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    requests_started: int = 0
    requests_finished: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    preemptions: int = 0
    records_dropped: int = 0
    gaps: int = 0
    wall_offset_ns: int = 0
    """Wall time less monotonic time, for the exemplars."""
    rules: LabelRules = field(default_factory=LabelRules)

    def __post_init__(self) -> None:
        self._told_gpus: dict[str, None] = {}
        rules = self.rules
        self.adapters = Breakdown("adapter", BASE_ADAPTER, rules.adapters, rules.most)
        self.tenants = Breakdown("tenant", NO_TENANT, rules.tenants, rules.most)
        self.tasks = TaskBook(rules)
        self.breakdowns_in_use: list[Breakdown] = []
        """Those of whose label any request had a value."""
        self.joules_per_request = Histogram(REQUEST_BOUNDS)
        # An image or a second of sound costs what a request of tokens does, not what a token does.
        self.joules_per_output_token = Histogram(TOKEN_BOUNDS if self.info.unit == TOKEN else REQUEST_BOUNDS)

    def counts(self) -> tuple[tuple[str, int], ...]:
        """What is counted by step, beside the tokens by kind."""
        return (
            ("drafted", self.drafted),
            ("accepted", self.accepted),
            ("preemptions", self.preemptions),
        )

    def open(self, table: RequestTable, request: RequestStarted) -> None:
        """Gives a request a slot, and the codes of its adapter, its tenant and its task."""
        if self.rules.tenant_from != "off":
            request = replace(request, tenant=self.rules.tenant_of(request))
        slot = table.open(request)
        for breakdown, name in ((self.adapters, request.lora), (self.tenants, request.tenant)):
            code = breakdown.code(name)
            if code:
                getattr(table, breakdown.column)[slot] = code
                self._use(breakdown)
        if self.rules.task_from and self.tasks.open(table, slot):
            self._use(self.tasks.figures)

    def _use(self, breakdown: Breakdown) -> None:
        if breakdown not in self.breakdowns_in_use:
            self.breakdowns_in_use.append(breakdown)

    def generated(self, table: RequestTable, tokens: NDArray[np.int64]) -> None:
        """Counts tokens that came out, by slot."""
        self.tokens["generated"] += int(tokens.sum())
        for breakdown in self.breakdowns_in_use:
            breakdown.generated(getattr(table, breakdown.column), tokens)
        if self.rules.task_lengths and self.tasks.reconsider(table):
            self._use(self.tasks.figures)

    def ending(self, table: RequestTable, ends: Sequence[RequestEnded]) -> None:
        """To be told before these requests are taken out: what their output decides is decided now."""
        if self.rules.task_lengths and self.tasks.decide_ends(table, ends):
            self._use(self.tasks.figures)

    def finished(self, request: FinishedRequest) -> None:
        """Counts a finished request; its joules go into the histograms if they are known and whole."""
        self.requests_finished[request.finish_reason] += 1
        self.adapters.finished(request.lora)
        self.tenants.finished(request.tenant)
        if self.rules.task_from:
            self.tasks.finished(request)
        joules = request.attributed_joules
        if joules is None:
            return
        self.finished_uj += round(joules * 1e6)
        if request.finish_reason == "abort":
            self.wasted_uj["abort"] += round(joules * 1e6)
        if not request.complete:
            return
        labels = exemplar_labels(request.trace_parent)
        wall_seconds = (request.end_ns + self.wall_offset_ns) / 1e9
        self.joules_per_request.observe(joules, labels, wall_seconds)
        if request.output_tokens > 0:
            self.joules_per_output_token.observe(joules / request.output_tokens, labels, wall_seconds)

    def totals(
        self, up: bool, open_requests: int, gauges: Gauges, undecided: Undecided | None = None
    ) -> EngineTotals:
        """The tally as exporters see it. ``undecided``: of open requests whose task is not known yet."""
        # A GPU that was once told is told for good: a counter that vanishes looks like a restart.
        self._told_gpus.update(dict.fromkeys((*self.info.gpus, *(gpu for gpu, _ in self.attributed_uj))))
        return EngineTotals(
            info=self.info,
            up=up,
            attributed_joules={
                (gpu, phase): joules_from_uj(self.attributed_uj[gpu, phase])
                for gpu in self._told_gpus
                for phase in PHASES
            },
            marginal_joules=self.marginal_uj / 1e6,
            wasted_joules={reason: joules_from_uj(self.wasted_uj[reason]) for reason in WASTED_REASONS},
            tokens=dict(self.tokens),
            requests_started=self.requests_started,
            requests_finished=dict(self.requests_finished),
            requests_open=open_requests,
            steps=self.steps,
            preemptions=self.preemptions,
            running=gauges.running,
            waiting=gauges.waiting,
            kv_usage_ratio=gauges.kv_usage_ratio,
            records_dropped=self.records_dropped,
            gaps=self.gaps,
            joules_per_request=self.joules_per_request.state(),
            joules_per_output_token=self.joules_per_output_token.state(),
            avoided_joules={reason: joules_from_uj(self.avoided_uj[reason]) for reason in AVOIDED_REASONS},
            batch_tokens=gauges.batch_tokens,
            next_token_joules=gauges.next_token_joules,
            **self._by_label(undecided or Undecided()),
        )

    def _by_label(self, undecided: Undecided) -> dict[str, Any]:
        attributed_uj = {
            phase: sum(uj for (_, of), uj in self.attributed_uj.items() if of == phase) for phase in PHASES
        }
        told: dict[str, Any] = {"adapters": self.adapters.totals(attributed_uj, self.tokens["generated"])}
        refused = {"lora": self.adapters.refused}
        if self.rules.tenant_from != "off":
            told["tenants"] = self.tenants.totals(attributed_uj, self.tokens["generated"])
            refused["tenant"] = self.tenants.refused
        if self.rules.task_from:
            told["tasks"] = self.tasks.totals(attributed_uj, self.tokens["generated"], undecided)
            if self.rules.task_lengths:
                told["undecided_joules"] = {phase: joules_from_uj(undecided.uj[phase]) for phase in PHASES}
            refused["task"] = self.tasks.figures.refused
        return {**told, "refused_labels": refused}


@dataclass(frozen=True, slots=True)
class Gauges:
    """What an engine's latest step said of its queues, or what silence says."""

    running: int | None = None
    waiting: int | None = None
    kv_usage_ratio: float | None = None
    batch_tokens: int | None = None
    next_token_joules: float | None = None


def exemplar_labels(trace_parent: str) -> Mapping[str, str]:
    """Trace and span id of a W3C ``traceparent`` (``00-<32 hex>-<16 hex>-<2 hex>``), or nothing.

    Nothing either where the caller did not sample the trace: an exemplar leads to something that was kept.
    """
    parts = trace_parent.split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or len(parts[2]) != 16 or parts[3][-1:] not in _SAMPLED:
        return {}
    return {"trace_id": parts[1], "span_id": parts[2]}

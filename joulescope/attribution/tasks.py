"""Of which task class a request is, and what each class used: the engine's own figures once more.

Most sources are read when a request comes. A rule on the length of its output is decided as soon as no
further output can change it, at its end at the latest; until then its joules are of no class, and then they
go to their class whole. So the counter of a class holds what its own requests used and nothing else, and
never falls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from joulescope.attribution.breakdown import Breakdown
from joulescope.attribution.histogram import REQUEST_BOUNDS, Histogram
from joulescope.attribution.labels import MAX_SEARCHED_CHARACTERS, ROUTE, LabelRules, sent_id
from joulescope.label_model import NO_TASK, OTHER, TASK_GROUP, LengthRule, clean
from joulescope.model import FinishedRequest, RequestEnded, RequestStarted, TaskTotals

if TYPE_CHECKING:
    from joulescope.attribution.requests import RequestTable

MAX_TASK_CHARACTERS = 63

_AT_THE_END = 2**62
"""No output is that long: what only the end can say is due then."""

_MARK = "~"
_PLAIN = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_TASK_CHARACTERS}}}")

ROUTES = {
    "chatcmpl": "chat",
    "cmpl": "completion",
    "embd": "embedding",
    "generate-tokens": "generate",
    "transcribe": "transcription",
    "translate": "translation",
}
"""Names of routes by what vLLM puts before ids; the others are called as that is."""

_RESPONSES = "resp_"
"""The Responses API uses no X-Request-Id: the whole id is its own."""


def _by_header(request: RequestStarted, rules: LabelRules) -> str:
    """The middleware writes ``<tenant>~<task>~`` before the id, and leaves no other mark in it."""
    parts = sent_id(request).split(_MARK, 2)
    return parts[1] if len(parts) == 3 and _PLAIN.fullmatch(parts[1]) else ""


def _by_route(request: RequestStarted, rules: LabelRules) -> str:
    told = request.external_id or request.request_id
    route = ROUTE.match(told)
    if route is None:
        return "responses" if told.startswith(_RESPONSES) else ""
    return ROUTES.get(route[1], route[1])


def _by_adapter(request: RequestStarted, rules: LabelRules) -> str:
    return request.lora


def _by_id(request: RequestStarted, rules: LabelRules) -> str:
    match = rules.task_pattern and rules.task_pattern.match(sent_id(request)[:MAX_SEARCHED_CHARACTERS])
    return match.group(TASK_GROUP) or "" if match else ""


_SOURCES = {"header": _by_header, "route": _by_route, "lora": _by_adapter, "request_id": _by_id}
LENGTHS = "lengths"


def told_task(request: RequestStarted, rules: LabelRules, sources: Iterable[str]) -> str:
    """What the first of these sources says that says anything; empty if none does."""
    said = (_SOURCES[source](request, rules) for source in sources)
    return clean(next(filter(None, said), ""))[:MAX_TASK_CHARACTERS]


def task_by_lengths(
    rules: Sequence[LengthRule], request: RequestStarted, prompt_tokens: int, generated: int, ended: bool
) -> str | None:
    """The class of the first rule that holds, empty if none does; ``None`` while its output may decide."""
    most = generated if ended else 0 if request.kind == "pooling" else request.max_tokens
    for rule in rules:
        holds = rule.holds(prompt_tokens, request.max_tokens, generated, most)
        if holds:
            return rule.name
        if holds is None:
            return None
    return ""


@dataclass
class Undecided:
    """What open requests used whose class is not decided yet."""

    uj: Counter[str] = field(default_factory=Counter)
    """Attributed, by phase."""
    tokens: int = 0
    """Generated."""

    def add(self, table: RequestTable) -> None:
        """Takes in those of one table."""
        slots = np.flatnonzero(table.task_due)
        prefill_uj = int(table.prefill_uj[slots].sum())
        self.uj["prefill"] += prefill_uj
        self.uj["decode"] += int(table.attributed_uj[slots].sum()) - prefill_uj
        self.tokens += int(table.generated_tokens[slots].sum())


class TaskBook:
    """Task classes of one engine label. ``figures`` are charged as those of adapters and tenants are.

    A class is told apart where it is listed, has a rule on lengths, or comes early enough to find room; the
    others are one class, ``other``, in every export: whoever names classes, there are never more of them.
    """

    def __init__(self, rules: LabelRules) -> None:
        self._rules = rules
        by_lengths = dict.fromkeys(rule.name for rule in rules.task_lengths)
        self.figures = Breakdown("task", NO_TASK, (*rules.tasks, *by_lengths), rules.most_tasks)
        self._histograms: dict[str, Histogram] = {}
        at = rules.task_from.index(LENGTHS) if rules.task_lengths else len(rules.task_from)
        self._first, self._then = rules.task_from[:at], rules.task_from[at + 1 :]
        edges = {edge for rule in rules.task_lengths for edge in (rule.output[0], (rule.output[1] or 0) + 1)}
        self._edges = sorted(edges)
        """Lengths of output at which some rule may begin or cease to hold."""

    def open(self, table: RequestTable, slot: int) -> bool:
        """Finds the class of a request that has just got its slot; whether it is to be charged by class."""
        request = table.started[slot]
        assert request is not None
        name = told_task(request, self._rules, self._first)
        if name or not self._rules.task_lengths:
            return self._settle(table, slot, name)
        otherwise = told_task(request, self._rules, self._then)
        if request.resumed and not request.prompt_tokens:  # its start was lost: no length of it is known
            return self._settle(table, slot, otherwise)
        table.started[slot] = replace(request, task=otherwise)
        return self._consider(table, slot)

    def reconsider(self, table: RequestTable) -> bool:
        """Decides those of which enough came out; whether any is to be charged by class."""
        due = np.flatnonzero((table.task_due > 0) & (table.generated_tokens >= table.task_due))
        charged = [self._consider(table, slot) for slot in due.tolist()]
        return any(charged)

    def decide_ends(self, table: RequestTable, ends: Iterable[RequestEnded]) -> bool:
        """Decides all of these that are not decided; whether any is to be charged by class."""
        charged = [self._consider(table, slot, end) for slot, end in _still_open(table, ends)]
        return any(charged)

    def _consider(self, table: RequestTable, slot: int, end: RequestEnded | None = None) -> bool:
        request = table.started[slot]
        assert request is not None
        prompt, generated = int(table.prompt_tokens[slot]), int(table.generated_tokens[slot])
        if end is not None and end.output_tokens is not None:
            generated = end.output_tokens
        name = task_by_lengths(self._rules.task_lengths, request, prompt, generated, end is not None)
        if name is None:
            later = (edge for edge in self._edges if edge > generated)
            table.task_due[slot] = next(later, _AT_THE_END)
            return False
        return self._settle(table, slot, name or request.task)

    def _settle(self, table: RequestTable, slot: int, name: str) -> bool:
        """The class of a request is known, and all that it used so far is of that class."""
        request = table.started[slot]
        assert request is not None
        code = self.figures.code(name)
        label = (NO_TASK, OTHER, name)[min(code, 2)]
        table.started[slot] = replace(request, task=label)
        table.task[slot], table.task_due[slot] = code, 0
        prefill_uj, attributed_uj = int(table.prefill_uj[slot]), int(table.attributed_uj[slot])
        generated = int(table.generated_tokens[slot])
        if code and (attributed_uj or generated):
            self.figures.joined(code, prefill_uj, attributed_uj - prefill_uj, generated)
        return code > 0

    def finished(self, request: FinishedRequest) -> None:
        """Counts a finished request; its joules if they are known and whole."""
        self.figures.finished(request.task)
        if request.attributed_joules is not None and request.complete:
            histogram = self._histograms.setdefault(request.task, Histogram(REQUEST_BOUNDS))
            histogram.observe(request.attributed_joules, {}, 0.0)

    def totals(
        self, attributed_uj: Mapping[str, int], generated_tokens: int, undecided: Undecided
    ) -> dict[str, TaskTotals]:
        """By class. What the whole engine used is given, and what of it no class has yet."""
        decided_uj = {phase: uj - undecided.uj[phase] for phase, uj in attributed_uj.items()}
        told = self.figures.totals(decided_uj, generated_tokens - undecided.tokens)
        none = Histogram(REQUEST_BOUNDS)
        return {
            name: TaskTotals(
                each.joules,
                each.generated_tokens,
                each.requests_finished,
                self._histograms.get(name, none).state(),
            )
            for name, each in told.items()
        }


def _still_open(table: RequestTable, ends: Iterable[RequestEnded]) -> Iterator[tuple[int, RequestEnded]]:
    for end in ends:
        slot = table.slot_of[end.request]
        if table.task_due[slot]:
            yield slot, end

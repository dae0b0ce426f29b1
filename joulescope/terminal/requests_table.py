"""The columns of requests, those that run and those that have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from joulescope.export.requests_json import RequestsView
from joulescope.model import TOKEN, FinishedRequest, OpenRequest
from joulescope.terminal.glyphs import DASH, clean, count, duration, figure, joules, small
from joulescope.terminal.history import History
from joulescope.terminal.tables import Column, shown

_LONGEST_UNIT = 8
"""Characters of a unit that a column has room for."""

_STATE_STYLES = {
    "prefill": "cyan",
    "decode": "green",
    "waiting": "yellow",
    "ended": "dim",
    "abort": "red",
    "error": "red",
    "lost": "red",
}


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request with what is derived of it."""

    request: OpenRequest | FinishedRequest
    state: str
    """The phase of one that runs; why the other ended."""
    age_seconds: float
    """Since it began; of one that has ended, since then."""
    watts: float | None = None
    took_seconds: float | None = None

    @property
    def name(self) -> str:
        return clean(self.request.external_id or self.request.request_id)

    @property
    def joules_per_output(self) -> float | None:
        """Attributed joules per token, or other unit, that came out."""
        joules = self.request.attributed_joules
        return (
            None if joules is None or not self.request.output_tokens else joules / self.request.output_tokens
        )

    @property
    def wasted_joules(self) -> float | None:
        return self.request.wasted_joules if isinstance(self.request, FinishedRequest) else None


def running_rows(view: RequestsView | None, history: History) -> list[RequestRow]:
    """Requests that run, with what they draw."""
    if view is None:
        return []
    return [
        RequestRow(
            request=each,
            state=each.phase,
            age_seconds=(view.time_ns - each.start_ns) / 1e9,
            watts=history.watts_of(each, view.time_ns),
        )
        for each in view.open
    ]


def ended_rows(view: RequestsView | None) -> list[RequestRow]:
    """Requests that have ended of late."""
    if view is None:
        return []
    return [
        RequestRow(
            request=each,
            state=each.finish_reason,
            age_seconds=(view.time_ns - each.end_ns) / 1e9,
            took_seconds=(each.end_ns - each.start_ns) / 1e9,
        )
        for each in view.finished
    ]


def one_unit(units: Iterable[str]) -> str:
    """The unit that all count their output in; ``output`` where they differ or it is long, else ``token``."""
    different = set(units) or {TOKEN}
    unit = clean(different.pop())
    return "output" if different or len(unit) > _LONGEST_UNIT else unit


_Column = Column[RequestRow]

_REQUEST = _Column(
    "request",
    "request",
    lambda row: row.name,
    16,
    left=True,
    grows=26,
    value=lambda row: row.name,
    ascending=True,
    middle=True,
)
_ENGINE: _Column = shown(
    "engine", "engine", lambda row: row.request.engine, clean, 8, rank=3, left=True, grows=14, ascending=True
)
_STATE: _Column = shown(
    "phase",
    "phase",
    lambda row: row.state,
    clean,
    7,
    left=True,
    ascending=True,
    style=lambda row: _STATE_STYLES.get(row.state, ""),
)
_AGE: _Column = shown("age", "age", lambda row: row.age_seconds, duration, 5)
_TOOK: _Column = shown("took", "took", lambda row: row.took_seconds, duration, 5, rank=5)
_PROMPT: _Column = shown("prompt", "prompt", lambda row: row.request.prompt_tokens, count, 6, rank=4)
_CACHED: _Column = shown("cached", "cached", lambda row: row.request.cached_tokens, count, 6, rank=7)
_TOKENS: _Column = shown("tokens", "output", lambda row: row.request.output_tokens, count, 6, rank=1)
_JOULES: _Column = shown("joules", "J", lambda row: row.request.attributed_joules, joules, 7)
_WATTS = _Column("watts", "W", lambda row: figure(row.watts, 1), 5, rank=2, value=lambda row: row.watts)
_PER_OUTPUT: _Column = shown("per_output", "J/{unit}", lambda row: row.joules_per_output, small, 8, rank=2)
_PREFILL: _Column = shown("prefill", "prefill", lambda row: row.request.prefill_joules, joules, 8, rank=8)
_MARGINAL: _Column = shown("marginal", "marginal", lambda row: row.request.marginal_joules, joules, 8, rank=8)
_WASTED: _Column = shown("wasted", "wasted", lambda row: row.wasted_joules, joules, 8, rank=9)
_PREEMPTED: _Column = shown(
    "preempted",
    "pre",
    lambda row: row.request.preemptions,
    str,
    3,
    rank=3,
    style=lambda row: "yellow" if row.request.preemptions else "",
)


def _label(key: str, read: Callable[[RequestRow], str], width: int, grows: int) -> _Column:
    """A column of one of a request's labels."""
    return _Column(
        key,
        key,
        lambda row: clean(read(row)) or DASH,
        width,
        rank=2,
        left=True,
        grows=grows,
        value=read,
        ascending=True,
    )


_ADAPTER = _label("adapter", lambda row: row.request.lora, 7, 12)
_TASK = _label("task", lambda row: row.request.task, 6, 10)

RUNNING_COLUMNS = (
    _REQUEST,
    _ENGINE,
    _STATE,
    _AGE,
    _PROMPT,
    _CACHED,
    _TOKENS,
    _JOULES,
    _WATTS,
    _PER_OUTPUT,
    _PREFILL,
    _MARGINAL,
    _PREEMPTED,
    _ADAPTER,
    _TASK,
)

ENDED_COLUMNS = (
    _REQUEST,
    _ENGINE,
    replace(_STATE, heading="end"),
    replace(_AGE, heading="ago", ascending=True),
    _TOOK,
    _PROMPT,
    _CACHED,
    _TOKENS,
    _JOULES,
    _PER_OUTPUT,
    _MARGINAL,
    _WASTED,
    _PREEMPTED,
    _ADAPTER,
    _TASK,
)


def needed(columns: Sequence[Column[RequestRow]], rows: Sequence[RequestRow]) -> list[Column[RequestRow]]:
    """Without adapter and task where no request has one, and without the engine where all have the same."""
    useless = set()
    if not any(row.request.lora for row in rows):
        useless.add("adapter")
    if not any(row.request.task for row in rows):
        useless.add("task")
    if len({row.request.engine for row in rows}) < 2:
        useless.add("engine")
    return [column for column in columns if column.name not in useless]

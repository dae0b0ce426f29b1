"""The columns of requests, those that run and those that have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from joulescope.export.requests_json import RequestsView
from joulescope.model import TOKEN, FinishedRequest, OpenRequest
from joulescope.terminal.glyphs import DASH, clean, count, duration, figure, joules, small
from joulescope.terminal.history import History
from joulescope.terminal.tables import Column

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


_REQUEST = Column[RequestRow](
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
_ENGINE = Column[RequestRow](
    "engine",
    "engine",
    lambda row: clean(row.request.engine),
    8,
    rank=3,
    left=True,
    grows=14,
    value=lambda row: row.request.engine,
    ascending=True,
)
_STATE = Column[RequestRow](
    "phase",
    "phase",
    lambda row: clean(row.state),
    7,
    left=True,
    value=lambda row: row.state,
    ascending=True,
    style=lambda row: _STATE_STYLES.get(row.state, ""),
)
_AGE = Column[RequestRow](
    "age", "age", lambda row: duration(row.age_seconds), 5, value=lambda row: row.age_seconds
)
_TOOK = Column[RequestRow](
    "took", "took", lambda row: duration(row.took_seconds), 5, rank=5, value=lambda row: row.took_seconds
)
_PROMPT = Column[RequestRow](
    "prompt",
    "prompt",
    lambda row: count(row.request.prompt_tokens),
    6,
    rank=4,
    value=lambda row: row.request.prompt_tokens,
)
_CACHED = Column[RequestRow](
    "cached",
    "cached",
    lambda row: count(row.request.cached_tokens),
    6,
    rank=7,
    value=lambda row: row.request.cached_tokens,
)
_TOKENS = Column[RequestRow](
    "tokens",
    "output",
    lambda row: count(row.request.output_tokens),
    6,
    rank=1,
    value=lambda row: row.request.output_tokens,
)
_JOULES = Column[RequestRow](
    "joules",
    "J",
    lambda row: joules(row.request.attributed_joules),
    7,
    value=lambda row: row.request.attributed_joules,
)
_WATTS = Column[RequestRow](
    "watts", "W", lambda row: figure(row.watts, 1), 5, rank=2, value=lambda row: row.watts
)
_PER_OUTPUT = Column[RequestRow](
    "per_output",
    "J/{unit}",
    lambda row: small(row.joules_per_output),
    8,
    rank=2,
    value=lambda row: row.joules_per_output,
)
_PREFILL = Column[RequestRow](
    "prefill",
    "prefill",
    lambda row: joules(row.request.prefill_joules),
    8,
    rank=8,
    value=lambda row: row.request.prefill_joules,
)
_MARGINAL = Column[RequestRow](
    "marginal",
    "marginal",
    lambda row: joules(row.request.marginal_joules),
    8,
    rank=8,
    value=lambda row: row.request.marginal_joules,
)
_WASTED = Column[RequestRow](
    "wasted", "wasted", lambda row: joules(row.wasted_joules), 8, rank=9, value=lambda row: row.wasted_joules
)
_PREEMPTED = Column[RequestRow](
    "preempted",
    "pre",
    lambda row: str(row.request.preemptions),
    3,
    rank=3,
    value=lambda row: row.request.preemptions,
    style=lambda row: "yellow" if row.request.preemptions else "",
)
_ADAPTER = Column[RequestRow](
    "adapter",
    "adapter",
    lambda row: clean(row.request.lora) or DASH,
    7,
    rank=2,
    left=True,
    grows=12,
    value=lambda row: row.request.lora,
    ascending=True,
)

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
)


def needed(columns: Sequence[Column[RequestRow]], rows: Sequence[RequestRow]) -> list[Column[RequestRow]]:
    """Without the adapter where no request has one, and without the engine where all have the same."""
    useless = set()
    if not any(row.request.lora for row in rows):
        useless.add("adapter")
    if len({row.request.engine for row in rows}) < 2:
        useless.add("engine")
    return [column for column in columns if column.name not in useless]

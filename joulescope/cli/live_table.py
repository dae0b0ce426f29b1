"""What a person sees in the terminal: who runs, where the joules go, what requests cost.

Everything is drawn from one snapshot, so the figures agree with each other and with ``/metrics``. Texts
that clients choose (request ids) are shown without control characters and never read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from joulescope.cli.balance import Balance, balance_table, joules_text
from joulescope.model import TOKEN, EngineTotals, FinishedRequest, GpuTotals, Snapshot

_RECENT, _COSTLY = 6, 3
_BALANCE_LINES, _TITLE_LINES = 8, 3

_LONGEST_UNIT = 8
"""Characters of a unit that a column has room for."""

_METERS_AGREE = 0.05
"""Counter and integrated power may differ by this much without a word: as much as cards differ in gain."""


def render(
    snapshot: Snapshot,
    previous: Snapshot | None,
    finished: Sequence[FinishedRequest],
    *,
    max_lines: int | None = None,
) -> RenderableType:
    """The whole table; ``previous`` is an earlier snapshot, from which rates are taken.

    ``finished`` holds recently finished requests, oldest first. ``max_lines`` is the terminal's height:
    what does not fit is left out from the end.
    """
    headers = _headers(snapshot, previous)
    parts: list[RenderableType] = [*headers, Text(), balance_table(snapshot)]
    left = (max_lines or 10_000) - len(headers) - _BALANCE_LINES - 2
    latest = list(reversed(finished[-min(_RECENT, max(left - _TITLE_LINES, 0)) :])) if left > 3 else []
    if latest:
        parts += [Text(), RequestsTable("Latest requests", latest)]
        left -= len(latest) + _TITLE_LINES
        if left >= _COSTLY + _TITLE_LINES:
            costly = sorted(finished, key=lambda each: each.attributed_joules or 0.0, reverse=True)
            parts += [Text(), RequestsTable("Costliest of late", costly[:_COSTLY])]
    return Group(*parts)


def plain_line(snapshot: Snapshot, previous: Snapshot | None) -> str:
    """One line for logs and pipes: no colours, no cursor movement."""
    balance = Balance.of(snapshot)
    requests = balance.prefill_joules + balance.decode_joules
    per_token = joules_per_output_token(snapshot, previous)
    fields = {
        "power": _watts_text(snapshot.gpus),
        "running": _count(engine.running for engine in snapshot.engines),
        "waiting": _count(engine.waiting for engine in snapshot.engines),
        "finished": str(sum(sum(engine.requests_finished.values()) for engine in snapshot.engines)),
        f"J/{_unit_of(snapshot)}": "-" if per_token is None else f"{per_token:.3f}",
        "measured": joules_text(balance.measured_joules),
        "requests": joules_text(requests),
        "idle": joules_text(balance.idle_joules),
        "overhead": joules_text(balance.overhead_joules),
        "unattributed": joules_text(balance.unattributed_joules),
    }
    return "  ".join(f"{name} {text}" for name, text in fields.items())


def joules_per_output_token(snapshot: Snapshot, previous: Snapshot | None) -> float | None:
    """Attributed joules per generated token, or other unit of output, since ``previous``; ``None`` if there
    is nothing to divide."""
    joules = _attributed_joules(snapshot) - (_attributed_joules(previous) if previous else 0.0)
    tokens = _generated(snapshot) - (_generated(previous) if previous else 0)
    return joules / tokens if tokens > 0 and joules > 0 else None


def one_unit(units: Iterable[str]) -> str:
    """The unit that all count their output in; ``output`` where they differ or it is long, else ``token``."""
    different = set(units) or {TOKEN}
    unit = clean(different.pop())
    return "output" if different or len(unit) > _LONGEST_UNIT else unit


def _unit_of(snapshot: Snapshot) -> str:
    return one_unit(engine.info.unit for engine in snapshot.engines)


def clean(text: str) -> str:
    """Text from outside without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _headers(snapshot: Snapshot, previous: Snapshot | None) -> list[RenderableType]:
    lines = [_engine_line(engine) for engine in snapshot.engines]
    if not lines:
        lines = [Text("waiting for an engine to connect", style="yellow")]
    lines += [_gpu_line(gpu) for gpu in snapshot.gpus]
    per_token = joules_per_output_token(snapshot, previous)
    rates = Text("now      ", style="bold")
    rates.append("-" if per_token is None else f"{per_token:.3f}", style="bold green")
    unit = _unit_of(snapshot)
    rates.append(f" J/output {unit}" if unit == TOKEN else f" J/{unit}")
    if previous is not None and (seconds := (snapshot.time_ns - previous.time_ns) / 1e9) > 0:
        tokens = (_generated(snapshot) - _generated(previous)) / seconds
        steps = sum(engine.steps for engine in snapshot.engines)
        steps -= sum(engine.steps for engine in previous.engines)
        outputs = "tokens" if unit == TOKEN else "outputs"
        rates.append(f"   {tokens:,.0f} {outputs}/s   {steps / seconds:.0f} steps/s".replace(",", " "))
    return [*lines, rates]


def _engine_line(engine: EngineTotals) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("engine   ", style="bold")
    line.append(clean(engine.info.engine), style="cyan")
    if not engine.up:
        return line.append("   disconnected", style="red")
    line.append(f"   batch {_or_dash(engine.running)}   waiting {_or_dash(engine.waiting)}")
    if engine.kv_usage_ratio is not None:
        line.append(f"   KV {engine.kv_usage_ratio:.0%}".replace("%", " %"))
    return line


def _gpu_line(gpu: GpuTotals) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("GPU      ", style="bold")
    line.append(clean(gpu.info.name or gpu.info.gpu), style="cyan")
    reading = gpu.reading if gpu.up else None
    if gpu.info.parent:
        status = None if reading is None else reading.status
        return _instance(line, None if status is None else status.sm_active_ratio)
    watts = None if reading is None else reading.power_watts
    if watts is None:
        return line.append("   no reading", style="red")
    line.append(f"   {watts:.0f} W", style="bold")
    if gpu.info.power_limit_watts:
        line.append(f" of {gpu.info.power_limit_watts:.0f} W")
    if gpu.info.energy_source == "power":
        line.append("   integrated power", style="yellow")
    ratio = None if gpu.comparison is None else gpu.comparison.ratio
    if ratio is not None and abs(ratio - 1) > _METERS_AGREE:
        line.append(f"   counter/power {ratio:.2f}", style="red")
    return line


def _instance(line: Text, active_ratio: float | None) -> Text:
    """A MIG instance has no power of its own to show."""
    if active_ratio is None:
        line.append("   activity not known", style="red")
    else:
        line.append(f"   {active_ratio:.0%} active".replace("%", " %"), style="bold")
    return line.append("   split of its GPU, an estimate", style="yellow")


@dataclass(frozen=True, slots=True)
class RequestsTable:
    """Finished requests, a line each; a narrow terminal gets fewer columns, not broken ones."""

    title: str
    requests: Sequence[FinishedRequest]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = [column for column in _COLUMNS if options.max_width >= column.from_width]
        table = Table(
            box=None, padding=(0, 2, 0, 0), title=self.title, title_justify="left", title_style="bold"
        )
        table.add_column("request", no_wrap=True, overflow="ellipsis", max_width=20, header_style="")
        unit = one_unit(each.unit for each in self.requests)
        for column in shown:
            heading = column.heading.format(unit=unit)
            table.add_column(heading, justify="right", no_wrap=True, header_style="bright_black")
        table.add_column("end", no_wrap=True, overflow="ellipsis", header_style="bright_black")
        for each in self.requests:
            name, reason = clean(each.external_id or each.request_id), clean(each.finish_reason)
            reason_style = "red" if reason in ("abort", "error") else ""
            table.add_row(Text(name), *(column.text(each) for column in shown), Text(reason, reason_style))
        yield table


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    from_width: int
    """Terminals narrower than this go without."""
    text: Callable[[FinishedRequest], str]


def _joules_per_output_token(request: FinishedRequest) -> float | None:
    if request.attributed_joules is None or not request.output_tokens:
        return None
    return request.attributed_joules / request.output_tokens


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_COLUMNS = (
    _Column("prompt", 60, lambda each: str(each.prompt_tokens)),
    _Column("cached", 70, lambda each: str(each.cached_tokens)),
    _Column("output", 50, lambda each: str(each.output_tokens)),
    _Column("J", 0, lambda each: _figure(each.attributed_joules, 2)),
    _Column("J/{unit}", 60, lambda each: _figure(_joules_per_output_token(each), 3)),
    _Column("marginal", 76, lambda each: _figure(each.marginal_joules, 2)),
)


def _attributed_joules(snapshot: Snapshot) -> float:
    return sum(gpu.attributed_joules for gpu in snapshot.gpus)


def _generated(snapshot: Snapshot) -> int:
    return sum(engine.tokens.get("generated", 0) for engine in snapshot.engines)


def _watts_text(gpus: Iterable[GpuTotals]) -> str:
    known = [gpu.reading.power_watts for gpu in gpus if gpu.up and gpu.reading is not None]
    watts = [each for each in known if each is not None]
    return f"{sum(watts):.0f} W" if watts else "-"


def _count(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(sum(known)) if known else "-"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
